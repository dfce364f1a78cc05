package pep

import (
	"slices"
	"strconv"

	"parley/xmpp/translate"
)

// Who may read a node, besides its owners, publishers and members.
//
// spec: XEP-0060 §4.5
const (
	Open      = "open"      // everybody
	Presence  = "presence"  // who sees the account's presence
	Roster    = "roster"    // those of them who are in one of some groups
	Authorize = "authorize" // whose subscription an owner has approved
	Whitelist = "whitelist" // nobody else
)

// Who may publish besides owners and publishers.
//
// spec: XEP-0060 §16.4.4
const (
	ByPublishers  = "publishers"
	BySubscribers = "subscribers"
	ByAll         = "open"
)

// Config is how a node is configured. What is zero in the rows of before is what was done then.
//
// spec: XEP-0060 §16.4.4
type Config struct {
	Access      string   `json:"access"`
	MaxItems    int      `json:"max_items"`
	SendLast    string   `json:"send_last"` // never, on_sub or on_sub_and_presence
	Title       string   `json:"title,omitempty"`
	Description string   `json:"description,omitempty"`
	Type        string   `json:"type,omitempty"`    // the namespace of payloads
	Groups      []string `json:"groups,omitempty"`  // of the roster, for [Roster]
	Publish     string   `json:"publish,omitempty"` // "" is [ByPublishers]
	Silent      bool     `json:"silent,omitempty"`  // no notifications of retractions
	SilentEnd   bool     `json:"silent_end,omitempty"`
	TellConfig  bool     `json:"tell_config,omitempty"`
	TellSubs    bool     `json:"tell_subs,omitempty"` // owners hear of subscriptions
	Transient   bool     `json:"transient,omitempty"` // items are told and not kept
	Bare        bool     `json:"bare,omitempty"`      // notifications have no payloads
	Chat        bool     `json:"chat,omitempty"`      // notifications are of type normal and not headline
	MaxPayload  int      `json:"max_payload,omitempty"`
}

// Default is the configuration of a new node.
//
// spec: XEP-0163 §5
func Default() Config {
	return Config{Access: Presence, MaxItems: 1, SendLast: "on_sub_and_presence"}
}

// Field is one field of the form in which a configuration stands.
type Field struct {
	Name, Type string
	Values     []string
	Options    []string
}

// setting ties a field of the form to the configuration.
type setting struct {
	name, typ string
	options   []string
	get       func(*Config) []string
	set       func(*Config, []string) error
}

const prefix = "pubsub#"

var settings = []setting{
	{"title", "text-single", nil, func(c *Config) []string { return []string{c.Title} }, text(func(c *Config) *string { return &c.Title })},
	{"description", "text-single", nil, func(c *Config) []string { return []string{c.Description} },
		text(func(c *Config) *string { return &c.Description })},
	{"type", "text-single", nil, func(c *Config) []string { return []string{c.Type} }, text(func(c *Config) *string { return &c.Type })},
	{"access_model", "list-single", []string{Authorize, Open, Presence, Roster, Whitelist},
		func(c *Config) []string { return []string{c.Access} }, setAccess},
	{"roster_groups_allowed", "list-multi", nil, func(c *Config) []string { return c.Groups }, setGroups},
	{"publish_model", "list-single", []string{ByPublishers, BySubscribers, ByAll}, func(c *Config) []string { return []string{c.PublishModel()} },
		choice(func(c *Config, v string) { c.Publish = v }, ByPublishers, BySubscribers, ByAll)},
	{"max_items", "text-single", nil, func(c *Config) []string { return []string{maxItems(c.MaxItems)} }, setMaxItems},
	{"max_payload_size", "text-single", nil, func(c *Config) []string { return []string{strconv.Itoa(c.payload())} }, setMaxPayload},
	{"persist_items", "boolean", nil, yes(func(c *Config) bool { return !c.Transient }), flag(func(c *Config, on bool) { c.Transient = !on })},
	{"deliver_payloads", "boolean", nil, yes(func(c *Config) bool { return !c.Bare }), flag(func(c *Config, on bool) { c.Bare = !on })},
	{"deliver_notifications", "boolean", nil, yes(func(*Config) bool { return true }), only(true, "deliver_notifications")},
	{"send_last_published_item", "list-single", []string{"never", "on_sub", "on_sub_and_presence"},
		func(c *Config) []string { return []string{c.SendLast} },
		choice(func(c *Config, v string) { c.SendLast = v }, "never", "on_sub", "on_sub_and_presence")},
	{"notify_retract", "boolean", nil, yes(func(c *Config) bool { return !c.Silent }), flag(func(c *Config, on bool) { c.Silent = !on })},
	{"notify_delete", "boolean", nil, yes(func(c *Config) bool { return !c.SilentEnd }), flag(func(c *Config, on bool) { c.SilentEnd = !on })},
	{"notify_config", "boolean", nil, yes(func(c *Config) bool { return c.TellConfig }), flag(func(c *Config, on bool) { c.TellConfig = on })},
	{"notify_sub", "boolean", nil, yes(func(c *Config) bool { return c.TellSubs }), flag(func(c *Config, on bool) { c.TellSubs = on })},
	{"notification_type", "list-single", []string{"normal", "headline"}, func(c *Config) []string { return []string{c.MessageType()} },
		choice(func(c *Config, v string) { c.Chat = v == "normal" }, "normal", "headline")},
	{"presence_based_delivery", "boolean", nil, yes(func(*Config) bool { return true }), nil},
	{"subscribe", "boolean", nil, yes(func(*Config) bool { return true }), only(true, "subscribe")},
}

// PublishModel says who may publish.
func (c *Config) PublishModel() string {
	if c.Publish == "" {
		return ByPublishers
	}
	return c.Publish
}

// MessageType is that of notifications.
func (c *Config) MessageType() string {
	if c.Chat {
		return "normal"
	}
	return "headline"
}

func (c *Config) payload() int {
	if c.MaxPayload == 0 {
		return MaxPayload
	}
	return c.MaxPayload
}

func maxItems(n int) string {
	if n >= MaxItems {
		return "max"
	}
	return strconv.Itoa(n)
}

// Fields are those of the form.
func (c *Config) Fields() []Field {
	out := make([]Field, 0, len(settings))
	for _, s := range settings {
		out = append(out, Field{Name: prefix + s.name, Type: s.typ, Values: s.get(c), Options: s.options})
	}
	return out
}

// With is the configuration with what a form asks for. What a form names that there is not is an error only if strict.
func (c Config) With(form map[string][]string, strict bool) (Config, error) {
	known := 0
	c.Groups = slices.Clone(c.Groups)
	for _, s := range settings {
		values, given := form[prefix+s.name]
		if !given {
			continue
		}
		known++
		if s.set == nil || len(values) == 0 && s.typ != "list-multi" && s.typ != "text-single" {
			continue
		}
		if err := s.set(&c, values); err != nil {
			return c, err
		}
	}
	if _, typed := form["FORM_TYPE"]; typed {
		known++
	}
	if strict && known < len(form) {
		return c, Fail(translate.ConflictError, "precondition-not-met")
	}
	return c, nil
}

// Meets says whether a node is configured as a publisher takes for granted. A node that keeps more items than that will do.
//
// spec: XEP-0060 §7.1.5
func (c Config) Meets(form map[string][]string) error {
	want, err := c.With(form, true)
	if err != nil {
		return err
	}
	want.MaxItems = max(want.MaxItems, 1)
	for _, s := range settings {
		if s.name != "max_items" && !slices.Equal(s.get(&want), s.get(&c)) {
			return Fail(translate.ConflictError, "precondition-not-met")
		}
	}
	if want.MaxItems > c.MaxItems {
		return Fail(translate.ConflictError, "precondition-not-met")
	}
	return nil
}

func notAcceptable(why string) error { return translate.Fail(translate.NotAcceptable, why) }

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

func text(at func(*Config) *string) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		if len(first(v)) > MaxNodeName {
			return notAcceptable("a title or description has at most 1023 bytes")
		}
		*at(c) = first(v)
		return nil
	}
}

func yes(f func(*Config) bool) func(*Config) []string {
	return func(c *Config) []string {
		if f(c) {
			return []string{"1"}
		}
		return []string{"0"}
	}
}

func boolean(v []string) (on, ok bool) {
	switch first(v) {
	case "1", "true":
		return true, true
	case "0", "false":
		return false, true
	}
	return false, false
}

func flag(f func(*Config, bool)) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		on, ok := boolean(v)
		if !ok {
			return notAcceptable("a boolean is 1, true, 0 or false")
		}
		f(c, on)
		return nil
	}
}

// only takes no other value than that which every node has.
func only(value bool, name string) func(*Config, []string) error {
	return func(_ *Config, v []string) error {
		if on, ok := boolean(v); !ok || on != value {
			return notAcceptable(prefix + name + " cannot be changed")
		}
		return nil
	}
}

func choice(f func(*Config, string), options ...string) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		if !slices.Contains(options, first(v)) {
			return notAcceptable("there is no such option as " + strconv.Quote(first(v)))
		}
		f(c, first(v))
		return nil
	}
}

func setAccess(c *Config, v []string) error {
	if !slices.Contains([]string{Authorize, Open, Presence, Roster, Whitelist}, first(v)) {
		return Fail(translate.NotAcceptable, "unsupported-access-model")
	}
	c.Access = first(v)
	return nil
}

func setGroups(c *Config, v []string) error {
	if len(v) > 100 {
		return notAcceptable("at most 100 groups")
	}
	c.Groups = slices.Clone(v)
	return nil
}

func setMaxItems(c *Config, v []string) error {
	n, err := strconv.Atoi(first(v))
	if first(v) == "max" {
		n, err = MaxItems, nil
	}
	if err != nil || n < 1 {
		return notAcceptable("max_items is a number from 1, or max")
	}
	c.MaxItems = min(n, MaxItems)
	return nil
}

func setMaxPayload(c *Config, v []string) error {
	n, err := strconv.Atoi(first(v))
	if err != nil || n < 1 {
		return notAcceptable("max_payload_size is a number of bytes")
	}
	c.MaxPayload = min(n, MaxPayload)
	return nil
}
