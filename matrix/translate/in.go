package translate

import (
	"fmt"
	"strings"

	"parley/core"
	"parley/matrix/wire"
)

// in is one translation to the core.
type in struct {
	Resolver
	e      Event
	c      *content
	losses []core.Loss
}

func (t *in) lose(f core.Feature, as, detail string) {
	t.losses = append(t.losses, core.Loss{Feature: f, Fallback: as, Detail: detail})
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrContent, fmt.Sprintf(format, args...))
}

// timeline and state are the event types that mean something to the core, and
// how they are read.
var timeline = map[string]func(*in) (core.Content, error){
	typeMessage:   (*in).message,
	typeEncrypted: (*in).encrypted,
	typeSticker:   (*in).sticker,
	typeReaction:  (*in).reaction,
	typeRedaction: (*in).redaction,
}

var state = map[string]func(*in) (core.Content, error){
	typeCreate:     (*in).create,
	typeName:       (*in).name,
	typeTopic:      (*in).topic,
	typeAvatar:     (*in).avatar,
	typeLevels:     (*in).levels,
	typeJoinRules:  (*in).joinRules,
	typeVisibility: (*in).visibility,
	typeAddresses:  (*in).addresses,
	typeEncryption: (*in).encryption,
	typeTombstone:  (*in).tombstone,
}

// In reads what a client sends. The error is for the client and wraps
// [ErrContent]; it may wrap [wire.ErrTooLarge] and [wire.ErrJSON] too.
func In(r Resolver, e Event) (core.Content, []core.Loss, error) {
	if e.Type == "" || len(e.Type) > wire.MaxField || e.StateKey != nil && len(*e.StateKey) > wire.MaxField {
		return nil, nil, bad("an event type has 1 to 255 bytes, a state key at most 255")
	}
	c, err := parseContent(e.Content)
	if err != nil {
		return nil, nil, err
	}
	t := &in{Resolver: r, e: e, c: c}
	out, err := t.dispatch()
	if err == nil {
		err = *c.err
	}
	if err != nil {
		return nil, nil, err
	}
	return out, t.losses, nil
}

func (t *in) dispatch() (core.Content, error) {
	e := t.e
	isTimeline, isState := timeline[e.Type], state[e.Type]
	switch {
	case e.Type == typeThirdParty:
		return nil, bad("invitations by e-mail address or telephone number are not offered here")
	case Reserved(e.Type):
		return nil, bad("the event type %q has a meaning of its own here; name it after a domain of yours", e.Type)
	case e.Type == typeMember:
		if e.StateKey == nil {
			return nil, bad("m.room.member needs a state key")
		}
		return t.member(*e.StateKey)
	case isTimeline != nil:
		if e.StateKey != nil {
			return nil, bad("%s cannot be a state event", e.Type)
		}
		return isTimeline(t)
	case isState != nil:
		if e.StateKey == nil || *e.StateKey != "" {
			return nil, bad("%s needs an empty state key", e.Type)
		}
		return isState(t)
	}
	return t.extension()
}

// extension is every type that means nothing to the core.
func (t *in) extension() (core.Content, error) {
	if k := t.e.StateKey; k != nil && strings.HasPrefix(*k, "@") && *k != t.e.Sender {
		return nil, bad("a state key that is a user ID must be the sender's")
	}
	x := core.Extension{Type: t.e.Type, StateKey: t.e.StateKey, Data: t.c.o.JSON()}
	if data, ok := unwrapData(t.c.o); ok {
		x.Data = data
	}
	rel := t.c.quiet().obj("m.relates_to")
	if id := rel.str("event_id"); id != "" {
		x.Target, _ = t.CoreID(id)
	}
	return x, nil
}

// member reads a membership. Who let a joiner in is for the server to say and
// not for her, so join_authorised_via_users_server is not read.
//
// spec: MX 1.19 CS §7.5
func (t *in) member(key string) (core.Content, error) {
	target, err := t.Address(key)
	if err != nil {
		return nil, errUser("state_key", err)
	}
	c := t.c
	m := core.Membership{
		Target: target, Standing: core.Standing(c.need("membership")), Reason: c.str("reason"),
		Name: c.str("displayname"), Direct: c.bool("is_direct"),
	}
	switch m.Standing {
	case core.Joined, core.Invited, core.Knocked, core.Left, core.Banned:
	default:
		return nil, bad("membership %.40q is unknown", m.Standing)
	}
	if c.has("third_party_invite") {
		return nil, bad("third_party_invite is not offered here")
	}
	if uri := c.str("avatar_url"); uri != "" {
		f, err := t.File(uri)
		if err != nil {
			t.lose(core.FeatureAvatar, "", "avatar_url is no mxc URI")
		} else {
			m.Avatar = &f
		}
	}
	return m, nil
}

// reaction reads an annotation.
//
// spec: MX 1.19 CS §10.40.1
func (t *in) reaction() (core.Content, error) {
	rel := t.c.obj("m.relates_to")
	if rel.need("rel_type") != "m.annotation" {
		return nil, bad("a reaction needs the rel_type m.annotation")
	}
	r := core.Reaction{Key: rel.need("key")}
	if *t.c.err == nil && r.Key == "" {
		return nil, bad("a reaction needs a key")
	}
	id, ok := t.CoreID(rel.need("event_id"))
	if !ok {
		return nil, bad("the event that this is a reaction to is unknown")
	}
	r.Target = id
	return r, nil
}

// redaction reads m.room.redaction. The event is where the room version has
// it, or where the endpoint put it.
//
// spec: MX 1.19 CS §7.9.1
func (t *in) redaction() (core.Content, error) {
	id := t.e.Redacts
	if in := t.c.str("redacts"); id == "" {
		id = in
	} else if in != "" && in != id {
		return nil, bad("two different events to redact")
	}
	target, ok := t.CoreID(id)
	if !ok {
		return nil, bad("the event to redact is unknown")
	}
	return core.Retract{Target: target, Reason: t.c.str("reason")}, nil
}

// create reads the content of a creation; who creates the room says its shape
// besides.
//
// spec: MX 1.19 CS §7.5
func (t *in) create() (core.Content, error) {
	version, err := wire.VersionOf(t.c.need("room_version"))
	if err != nil {
		return nil, bad("%v", err)
	}
	sender, err := t.Address(t.e.Sender)
	if err != nil {
		return nil, errUser("sender", err)
	}
	c := core.Creation{
		Shape: core.Group, Creators: []core.Address{sender}, Supreme: version.HashedRoomID,
		Version: version.ID, Type: t.c.str("type"),
	}
	for _, id := range t.c.strs("additional_creators") {
		if !version.HashedRoomID {
			break
		}
		a, err := t.Address(id)
		if err != nil {
			return nil, errUser("additional_creators", err)
		}
		c.Creators = append(c.Creators, a)
	}
	return core.Change{Aspect: core.AspectCreated, Creation: &c}, nil
}

func (t *in) name() (core.Content, error) {
	return core.Change{Aspect: core.AspectName, Text: t.c.str("name")}, nil
}

// topic reads the plain topic, or else that of the rich one.
//
// spec: MX 1.19 CS §10.2.1
func (t *in) topic() (core.Content, error) {
	text := t.c.str("topic")
	for _, rep := range t.c.quiet().obj("m.topic").list("m.text") {
		if o, err := wire.ParseObject(rep); err == nil && text == "" {
			if mime, ok := o.String("mimetype"); !ok || mime == core.TypePlain {
				text, _ = o.String("body")
			}
		}
	}
	return core.Change{Aspect: core.AspectTopic, Text: text}, nil
}

func (t *in) avatar() (core.Content, error) {
	c := core.Change{Aspect: core.AspectAvatar}
	uri := t.c.str("url")
	if uri == "" {
		return c, nil
	}
	f, err := t.File(uri)
	if err != nil {
		return nil, bad("url is no mxc URI")
	}
	t.info(&f, t.c.obj("info").quiet())
	c.Avatar = &f
	return c, nil
}

// levels reads permissions. Where a level is absent, the specification's
// default stands for it.
//
// spec: MX 1.19 CS §8.4
func (t *in) levels() (core.Content, error) {
	c := t.c
	l := core.Levels{
		Ban: c.int("ban", 50), Kick: c.int("kick", 50), Invite: c.int("invite", 0), Redact: c.int("redact", 50),
		Message: c.int("events_default", 0), State: c.int("state_default", 50), Default: c.int("users_default", 0),
		Notify: 50, Actions: map[string]int64{}, Users: map[core.Address]int64{},
	}
	for eventType, n := range c.ints("events") {
		if Reserved(eventType) {
			return nil, bad("events.%s has a meaning of its own here", eventType)
		}
		l.Actions[ActionOf(eventType)] = n
	}
	for id, n := range c.ints("users") {
		a, err := t.Address(id)
		if err != nil {
			return nil, errUser("users", err)
		}
		l.Users[a] = n
	}
	for what, n := range c.ints("notifications") {
		if what == "room" {
			l.Notify = n
		} else {
			t.lose(core.FeatureLevels, "", "notifications."+what)
		}
	}
	return core.Change{Aspect: core.AspectLevels, Levels: &l}, nil
}

// joinRules reads who may join.
//
// spec: MX 1.19 CS §7.5
func (t *in) joinRules() (core.Content, error) {
	rule := core.JoinRule(t.c.need("join_rule"))
	v := t.Version
	allowed := map[core.JoinRule]bool{
		core.JoinPublic: true, core.JoinInvite: true,
		core.JoinKnock:           v == nil || v.Knock,
		core.JoinRestricted:      v == nil || v.Restricted,
		core.JoinKnockRestricted: v == nil || v.KnockRestricted,
	}
	if !allowed[rule] {
		return nil, bad("join_rule %.40q is unknown in this room version", rule)
	}
	c := core.Change{Aspect: core.AspectJoinRule, JoinRule: rule}
	for _, v := range t.c.list("allow") {
		o, err := wire.ParseObject(v)
		if err != nil {
			return nil, bad("allow is not a list of objects")
		}
		kind, _ := o.String("type")
		room, ok := o.String("room_id")
		if kind != "m.room_membership" || !ok {
			t.lose(core.FeatureMembership, "", "allow: "+kind)
			continue
		}
		c.Allow = append(c.Allow, room)
	}
	return c, nil
}

// visibility reads who may read the history.
//
// spec: MX 1.19 CS §10.14.1
func (t *in) visibility() (core.Content, error) {
	v := core.Visibility(t.c.need("history_visibility"))
	switch v {
	case core.VisibleWorld, core.VisibleShared, core.VisibleInvited, core.VisibleJoined:
		return core.Change{Aspect: core.AspectVisibility, Visibility: v}, nil
	}
	return nil, bad("history_visibility %.40q is unknown", v)
}

func (t *in) addresses() (core.Content, error) {
	c := core.Change{Aspect: core.AspectAddresses}
	var err error
	if alias := t.c.str("alias"); alias != "" {
		if c.Main, err = t.RoomAddress(alias); err != nil {
			return nil, bad("alias: %v", err)
		}
	}
	for _, alias := range t.c.strs("alt_aliases") {
		a, err := t.RoomAddress(alias)
		if err != nil {
			return nil, bad("alt_aliases: %v", err)
		}
		c.Others = append(c.Others, a)
	}
	return c, nil
}

func (t *in) encryption() (core.Content, error) {
	scheme := t.c.need("algorithm")
	return core.Change{Aspect: core.AspectEncryption, Encryption: &core.Encryption{Scheme: scheme}}, nil
}

// tombstone reads where a room went on.
//
// spec: MX 1.19 CS §10.34.1
func (t *in) tombstone() (core.Content, error) {
	m := core.Move{Native: t.c.need("replacement_room"), Reason: t.c.str("body")}
	if t.Conv != nil {
		m.Conv, _ = t.Conv(m.Native)
	}
	return core.Change{Aspect: core.AspectMovedTo, MovedTo: &m}, nil
}
