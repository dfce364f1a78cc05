package translate

import (
	"encoding/base64"
	"fmt"

	"parley/core"
	"parley/matrix/wire"
)

// out is one translation to Matrix.
type out struct {
	Resolver
	losses []core.Loss
}

func (t *out) lose(f core.Feature, as, detail string) {
	t.losses = append(t.losses, core.Loss{Feature: f, Fallback: as, Detail: detail})
}

// Out writes a kept content as a Matrix event; its Sender is left empty. Every
// kept content has a form in Matrix, if only a fallback, but for a change of
// aspect [core.AspectCorrected], which is no event there. An error is ours:
// what the content refers to was never minted, or it is too large.
func Out(r Resolver, c core.Content) (Event, []core.Loss, error) {
	t := &out{Resolver: r}
	e, err := t.dispatch(c)
	if err != nil {
		return Event{}, nil, fmt.Errorf("write %s as Matrix event: %w", core.KindOf(c), err)
	}
	return e, t.losses, nil
}

func (t *out) dispatch(c core.Content) (Event, error) {
	switch c := c.(type) {
	case core.Message:
		return t.message(c.Body)
	case core.Edit:
		return t.edit(c)
	case core.Reaction:
		return t.reaction(c)
	case core.Retract:
		return t.retract(c)
	case core.Membership:
		return t.member(c), nil
	case core.Change:
		return t.change(c)
	case core.Extension:
		return t.extension(c)
	}
	return Event{}, fmt.Errorf("a %s is no event", core.KindOf(c))
}

// target is the event ID of what a content is about.
func (t *out) target(id core.EventID) (string, error) {
	if id, ok := t.EventID(id); ok {
		return id, nil
	}
	return "", fmt.Errorf("event %s has no event ID", id)
}

func (t *out) reaction(c core.Reaction) (Event, error) {
	id, err := t.target(c.Target)
	if err != nil {
		return Event{}, err
	}
	var w writer
	w.obj("m.relates_to", func(w *writer) {
		w.str("rel_type", "m.annotation")
		w.str("event_id", id)
		w.str("key", c.Key)
	})
	return Event{Type: typeReaction, Content: w.json()}, nil
}

func (t *out) retract(c core.Retract) (Event, error) {
	id, err := t.target(c.Target)
	if err != nil {
		return Event{}, err
	}
	var w writer
	w.opt("reason", c.Reason)
	if t.Version == nil || t.Version.RedactsInContent {
		w.str("redacts", id)
	}
	return Event{Type: typeRedaction, Content: w.json(), Redacts: id}, nil
}

func (t *out) userID(a core.Address) string {
	id, _ := t.UserID(a)
	return id
}

func stateEvent(eventType, key string, w writer) Event {
	return Event{Type: eventType, StateKey: &key, Content: w.json()}
}

// member shows the nick of one who has no name.
func (t *out) member(c core.Membership) Event {
	var w writer
	w.str("membership", string(c.Standing))
	name := c.Name
	if name == "" {
		name = c.Nick
	}
	w.opt("displayname", name)
	w.opt("reason", c.Reason)
	w.yes("is_direct", c.Direct)
	if c.Avatar != nil {
		if uri, ok := t.URI(*c.Avatar); ok {
			w.str("avatar_url", uri)
		} else {
			t.lose(core.FeatureAvatar, "", "it is not stored here")
		}
	}
	if !c.Via.IsZero() && c.Standing == core.Joined {
		w.str("join_authorised_via_users_server", t.userID(c.Via))
	}
	return stateEvent(typeMember, t.userID(c.Target), w)
}

func (t *out) change(c core.Change) (Event, error) {
	eventType, ok := types[string(c.Aspect)]
	if !ok {
		return Event{}, fmt.Errorf("a change of aspect %q is no event", c.Aspect)
	}
	var w writer
	switch c.Aspect {
	case core.AspectCreated:
		t.create(&w, c.Creation)
	case core.AspectName:
		w.str("name", c.Text)
	case core.AspectTopic:
		topic(&w, c.Text)
	case core.AspectAvatar:
		t.avatar(&w, c.Avatar)
	case core.AspectLevels:
		t.levels(&w, c.Levels)
	case core.AspectJoinRule:
		w.str("join_rule", string(c.JoinRule))
		if c.JoinRule == core.JoinRestricted || c.JoinRule == core.JoinKnockRestricted {
			w.list("allow", len(c.Allow), func(i int, w *writer) {
				w.str("type", "m.room_membership")
				w.str("room_id", c.Allow[i])
			})
		}
	case core.AspectVisibility:
		w.str("history_visibility", string(c.Visibility))
	case core.AspectAddresses:
		t.addresses(&w, c)
	case core.AspectEncryption:
		if c.Encryption != nil {
			w.str("algorithm", c.Encryption.Scheme)
		}
	case core.AspectMovedTo:
		t.tombstone(&w, c.MovedTo)
	}
	return stateEvent(eventType, "", w), nil
}

func (t *out) create(w *writer, c *core.Creation) {
	if c == nil {
		return
	}
	w.str("room_version", c.Version)
	w.opt("type", c.Type)
	v, err := wire.VersionOf(c.Version)
	if err != nil || len(c.Creators) == 0 {
		return
	}
	if v.CreatorKey {
		w.str("creator", t.userID(c.Creators[0]))
	}
	if v.HashedRoomID && len(c.Creators) > 1 {
		var ids []string
		for _, a := range c.Creators[1:] {
			ids = append(ids, t.userID(a))
		}
		w.strs("additional_creators", ids)
	}
}

func topic(w *writer, text string) {
	w.str("topic", text)
	if text != "" {
		w.obj("m.topic", func(w *writer) {
			w.list("m.text", 1, func(_ int, w *writer) { w.str("body", text) })
		})
	}
}

func (t *out) avatar(w *writer, f *core.File) {
	if f == nil {
		return
	}
	uri, ok := t.URI(*f)
	if !ok {
		t.lose(core.FeatureAvatar, "", "it is not stored here")
		return
	}
	w.str("url", uri)
	w.obj("info", func(w *writer) { t.info(w, *f) })
}

// levels writes all levels, also those that are the specification's default.
//
// spec: MX 1.19 CS §8.4
func (t *out) levels(w *writer, l *core.Levels) {
	if l == nil {
		return
	}
	events, users := map[string]int64{}, map[string]int64{}
	for action, n := range l.Actions {
		events[EventType(action)] = n
	}
	for a, n := range l.Users {
		users[t.userID(a)] = n
	}
	for key, n := range map[string]int64{
		"ban": l.Ban, "kick": l.Kick, "invite": l.Invite, "redact": l.Redact,
		"events_default": l.Message, "state_default": l.State, "users_default": l.Default,
	} {
		w.int(key, n)
	}
	w.ints("events", events)
	w.ints("users", users)
	w.ints("notifications", map[string]int64{"room": l.Notify})
}

func (t *out) addresses(w *writer, c core.Change) {
	alias := func(a core.Address) string {
		if a.IsZero() {
			return ""
		}
		s := t.Alias(a)
		if s == "" {
			t.lose(core.FeatureName, "", a.Bare()+" is too long for an alias")
		}
		return s
	}
	w.opt("alias", alias(c.Main))
	var others []string
	for _, a := range c.Others {
		if s := alias(a); s != "" {
			others = append(others, s)
		}
	}
	if len(others) > 0 {
		w.strs("alt_aliases", others)
	}
}

func (t *out) tombstone(w *writer, m *core.Move) {
	if m == nil {
		return
	}
	room := m.Native
	if room == "" && t.RoomID != nil {
		room, _ = t.RoomID(m.Conv)
	}
	body := m.Reason
	if room == "" && !m.Address.IsZero() {
		t.lose(core.FeatureName, "text", "it went on where Matrix has no room")
		if body != "" {
			body += " "
		}
		body += "→ " + m.Address.Bare()
	}
	w.str("body", body)
	w.str("replacement_room", room)
}

// dataKey holds the payload of an extension that is no JSON object.
const dataKey = "parley.data"

func (t *out) extension(c core.Extension) (Event, error) {
	e := Event{Type: c.Type, StateKey: c.StateKey}
	if canon, err := wire.Canonical(c.Data); err == nil && canon[0] == '{' {
		e.Content = canon
		return e, nil
	}
	var w writer
	if len(c.Data) > 0 {
		w.str(dataKey, base64.StdEncoding.EncodeToString(c.Data))
	}
	e.Content = w.json()
	return e, nil
}

// unwrapData undoes what [Out] does to a payload that is no JSON object.
func unwrapData(o wire.Object) ([]byte, bool) {
	if len(o) != 1 {
		return nil, false
	}
	s, ok := o.String(dataKey)
	if !ok {
		return nil, false
	}
	data, err := base64.StdEncoding.DecodeString(s)
	return data, err == nil
}

// OutNative is [Out] for an event whose native form is Matrix's: that form,
// with the keys that the core decides as the core has them. Levels are always
// the core's, so that what the hub judges by is what the event says.
func OutNative(r Resolver, c core.Content, n *core.Native) (Event, []core.Loss, error) {
	ours, losses, err := Out(r, c)
	if err != nil || n == nil || n.Network != core.Matrix || ours.Type == typeLevels {
		return ours, losses, err
	}
	native, err := parseContent(n.Data)
	if err != nil {
		return Event{}, nil, err
	}
	o, err := wire.ParseObject(ours.Content)
	if err != nil {
		return Event{}, nil, err
	}
	content := native.o
	for _, key := range decided[ours.Type] {
		content = content.Without(key)
		if v := o.Get(key); v != nil {
			content = content.With(key, v)
		}
	}
	ours.Content = content.JSON()
	if n.Type == typeSticker && ours.Type == typeMessage {
		ours.Type = typeSticker
	}
	return ours, nil, nil
}

// decided are the keys that a native form cannot overrule.
var decided = map[string][]string{
	typeMember:     {"membership", "join_authorised_via_users_server", "is_direct", "third_party_invite"},
	typeCreate:     {"room_version", "additional_creators", "creator", "type"},
	typeJoinRules:  {"join_rule"},
	typeVisibility: {"history_visibility"},
	typeRedaction:  {"redacts"},
}
