package client

import (
	"encoding/json"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
)

// RuleKind is the kind of a push rule. Kinds are asked in the order of
// [RuleKinds].
//
// spec: MX 1.19 CS §10.15.1
type RuleKind string

// The kinds.
const (
	Override  RuleKind = "override"
	Content   RuleKind = "content"
	RoomRule  RuleKind = "room"
	Sender    RuleKind = "sender"
	Underride RuleKind = "underride"
)

// RuleKinds are the kinds, the most important first.
var RuleKinds = []RuleKind{Override, Content, RoomRule, Sender, Underride}

// Rule is one push rule.
type Rule struct {
	ID      string `json:"rule_id"`
	Default bool   `json:"default"`
	Enabled bool   `json:"enabled"`
	// Conditions are those of override and underride rules; Pattern is that of
	// content rules.
	Conditions []Condition `json:"conditions,omitzero"`
	Pattern    string      `json:"pattern,omitempty"`
	Actions    []Action    `json:"actions"`
}

// Condition is one condition of a rule.
type Condition struct {
	Kind    string          `json:"kind"`
	Key     string          `json:"key,omitempty"`
	Pattern *string         `json:"pattern,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	Is      string          `json:"is,omitempty"`
}

// Action is what a rule does: "notify", or to set a tweak.
type Action struct {
	Name  string
	Tweak string
	Value json.RawMessage
}

type tweak struct {
	Set   string          `json:"set_tweak"`
	Value json.RawMessage `json:"value,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (a Action) MarshalJSON() ([]byte, error) {
	if a.Tweak != "" {
		return json.Marshal(tweak{a.Tweak, a.Value})
	}
	return json.Marshal(a.Name)
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *Action) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &a.Name)
	}
	var t tweak
	err := json.Unmarshal(b, &t)
	a.Tweak, a.Value = t.Set, t.Value
	return err
}

// Ruleset is all push rules of an account, the most important of each kind
// first.
type Ruleset struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// Of returns the rules of a kind, nil for what is no kind.
func (s *Ruleset) Of(k RuleKind) *[]Rule {
	switch k {
	case Override:
		return &s.Override
	case Content:
		return &s.Content
	case RoomRule:
		return &s.Room
	case Sender:
		return &s.Sender
	case Underride:
		return &s.Underride
	}
	return nil
}

var notify = Action{Name: "notify"}

func set(name, value string) Action {
	a := Action{Tweak: name}
	if value != "" {
		a.Value, _ = json.Marshal(value) // of a string: cannot fail
	}
	return a
}

func matches(key, pattern string) Condition {
	return Condition{Kind: "event_match", Key: key, Pattern: &pattern}
}

func isDefault(id string, actions []Action, conditions ...Condition) Rule {
	if actions == nil {
		actions = []Action{}
	}
	if conditions == nil {
		conditions = []Condition{}
	}
	return Rule{ID: id, Default: true, Enabled: id != ".m.rule.master", Conditions: conditions, Actions: actions}
}

// defaultRules are the rules that every account begins with.
//
// spec: MX 1.19 CS §10.15.2
func defaultRules(userID string) Ruleset {
	quoted, _ := json.Marshal(userID) // of a string: cannot fail
	loud := []Action{notify, set("sound", "default")}
	two := Condition{Kind: "room_member_count", Is: "2"}
	return Ruleset{
		Override: []Rule{
			isDefault(".m.rule.master", nil),
			isDefault(".m.rule.suppress_notices", nil, matches("content.msgtype", "m.notice")),
			isDefault(".m.rule.invite_for_me", loud, matches("type", "m.room.member"),
				matches("content.membership", "invite"), matches("state_key", userID)),
			isDefault(".m.rule.member_event", nil, matches("type", "m.room.member")),
			isDefault(".m.rule.is_user_mention", append(slices.Clone(loud), set("highlight", "")),
				Condition{Kind: "event_property_contains", Key: `content.m\.mentions.user_ids`, Value: quoted}),
			isDefault(".m.rule.is_room_mention", []Action{notify, set("highlight", "")},
				Condition{Kind: "event_property_is", Key: `content.m\.mentions.room`, Value: json.RawMessage("true")},
				Condition{Kind: "sender_notification_permission", Key: "room"}),
			isDefault(".m.rule.tombstone", []Action{notify, set("highlight", "")},
				matches("type", "m.room.tombstone"), matches("state_key", "")),
			isDefault(".m.rule.reaction", nil, matches("type", "m.reaction")),
			isDefault(".m.rule.room.server_acl", nil, matches("type", "m.room.server_acl"), matches("state_key", "")),
			isDefault(".m.rule.suppress_edits", nil,
				Condition{Kind: "event_property_is", Key: `content.m\.relates_to.rel_type`, Value: json.RawMessage(`"m.replace"`)}),
		},
		Content: []Rule{}, Room: []Rule{}, Sender: []Rule{},
		Underride: []Rule{
			isDefault(".m.rule.call", []Action{notify, set("sound", "ring")}, matches("type", "m.call.invite")),
			isDefault(".m.rule.encrypted_room_one_to_one", loud, two, matches("type", "m.room.encrypted")),
			isDefault(".m.rule.room_one_to_one", loud, two, matches("type", "m.room.message")),
			isDefault(".m.rule.message", []Action{notify}, matches("type", "m.room.message")),
			isDefault(".m.rule.encrypted", []Action{notify}, matches("type", "m.room.encrypted")),
		},
	}
}

// PushRules are an account's push rules.
func (a *API) PushRules(v hub.View, account core.Address) (*Ruleset, error) {
	stored, err := datum(v, account, "", typePushRules)
	if err != nil {
		return nil, err
	}
	s := defaultRules(a.UserID(account))
	var old struct {
		Global Ruleset `json:"global"`
	}
	if stored == nil {
		return &s, nil
	}
	if err := json.Unmarshal(stored, &old); err != nil {
		return nil, err
	}
	for _, k := range RuleKinds {
		merge(s.Of(k), *old.Global.Of(k))
	}
	return &s, nil
}

// merge puts what the account keeps into the default rules of one kind: its
// own rules between the master rule and all others, and of the default ones
// whether they are enabled and what they do.
func merge(rules *[]Rule, kept []Rule) {
	var own []Rule
	for _, k := range kept {
		if !strings.HasPrefix(k.ID, ".") {
			own = append(own, k)
			continue
		}
		if i := indexRule(*rules, k.ID); i >= 0 {
			(*rules)[i].Enabled, (*rules)[i].Actions = k.Enabled, k.Actions
		}
	}
	*rules = slices.Insert(*rules, firstOwn(*rules), own...)
}

// firstOwn is where an account's own rules begin.
func firstOwn(rules []Rule) int {
	if len(rules) > 0 && rules[0].ID == ".m.rule.master" {
		return 1
	}
	return 0
}

func indexRule(rules []Rule, id string) int {
	return slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
}
