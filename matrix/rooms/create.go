package rooms

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/translate"
	"parley/matrix/wire"
)

// createRequest is the body of /createRoom.
//
// spec: MX 1.19 CS §8.2
type createRequest struct {
	Visibility string            `json:"visibility"`
	Alias      string            `json:"room_alias_name"`
	Name       string            `json:"name"`
	Topic      string            `json:"topic"`
	Invite     []string          `json:"invite"`
	Invite3PID []json.RawMessage `json:"invite_3pid"`
	Version    string            `json:"room_version"`
	Creation   object            `json:"creation_content"`
	Initial    []stateRequest    `json:"initial_state"`
	Preset     string            `json:"preset"`
	IsDirect   bool              `json:"is_direct"`
	Levels     object            `json:"power_level_content_override"`
}

type stateRequest struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// maxInvites is how many may be invited at the creation.
const maxInvites = 100

// presets are what the presets set, as join rule and guest access.
var presets = map[string]struct{ join, guests string }{
	"private_chat": {"invite", "can_join"},
	trustedPreset:  {"invite", "can_join"},
	"public_chat":  {"public", "forbidden"},
}

const trustedPreset = "trusted_private_chat"

// create makes a room.
//
// spec: MX 1.19 CS §8.2
func (s *Rooms) create(r *client.Request) (any, error) {
	var body createRequest
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if err := s.checkCreate(&body); err != nil {
		return nil, err
	}
	var o hub.Opening
	err := s.hub.Read(r.Context(), func(v hub.View) (err error) {
		p, err := s.plan(v, r, &body)
		if err != nil {
			return err
		}
		o, err = p.opening()
		return err
	})
	if err != nil {
		return nil, err
	}
	o.From = r.Device
	c, err := s.hub.Open(r.Context(), o)
	if hub.CodeOf(err) == hub.Conflict {
		return nil, errInUse()
	}
	if err != nil {
		return nil, err
	}
	return object{"room_id": c.Native[core.Matrix]}, nil
}

func errInUse() error {
	return client.Errorf(http.StatusBadRequest, client.RoomInUse, "That alias is taken already.")
}

// checkCreate holds a request to its form and fills in the defaults.
func (s *Rooms) checkCreate(b *createRequest) error {
	switch b.Visibility {
	case "":
		b.Visibility = "private"
	case "public", "private":
	default:
		return badParam("There is no visibility %.40q.", b.Visibility)
	}
	if b.Preset == "" {
		b.Preset = b.Visibility + "_chat"
	}
	if _, ok := presets[b.Preset]; !ok {
		return badParam("There is no preset %.40q.", b.Preset)
	}
	if b.Version == "" {
		b.Version = s.config.Version
	}
	if !slices.Contains(wire.Made(), b.Version) {
		return client.Errorf(http.StatusBadRequest, client.UnsupportedVersion, "This server makes no rooms of version %.40q.", b.Version)
	}
	if len(b.Invite3PID) > 0 {
		return forbidden("This server has no identity server and cannot invite by e-mail address or telephone number.")
	}
	if len(b.Invite) > maxInvites {
		return badParam("At most %d people can be invited at the creation.", maxInvites)
	}
	if len(b.Initial) > maxFilterList {
		return badParam("That is too much initial state.")
	}
	return nil
}

// plan is a room to be made: what the opening says and, in order, the state
// events that follow the creation.
type plan struct {
	creator  core.Address
	userID   string
	version  *wire.Version
	resolver translate.Resolver
	creation object
	events   []translate.Event
	o        hub.Opening
}

// newPlan begins a plan.
func (s *Rooms) newPlan(v hub.View, who core.Address, version string) (*plan, error) {
	ver, err := wire.VersionOf(version)
	if err != nil {
		return nil, client.Errorf(http.StatusBadRequest, client.UnsupportedVersion, "%v.", err)
	}
	p := &plan{creator: who, userID: s.userID(v, who), version: ver, creation: object{}}
	p.o = hub.Opening{Creator: who, Shape: core.Group, Version: version}
	p.resolver = translate.Resolver{
		Names: s.mirror.Names(v), Version: ver,
		CoreID:  func(string) (core.EventID, bool) { return "", false },
		EventID: func(core.EventID) (string, bool) { return "", false },
		Conv: func(roomID string) (core.ConvID, bool) {
			id, err := v.ConversationNative(core.Matrix, roomID)
			return id, err == nil
		},
		RoomID: func(id core.ConvID) (string, bool) {
			roomID, err := roomIDOf(v, id)
			return roomID, err == nil && roomID != ""
		},
	}
	return p, nil
}

// set adds a state event.
func (p *plan) set(typ, key string, content []byte) {
	p.events = append(p.events, translate.Event{Type: typ, StateKey: &key, Sender: p.userID, Content: content})
}

// setObject is set with a content of ours.
func (p *plan) setObject(typ string, content object) error {
	b, err := json.Marshal(content)
	p.set(typ, "", b)
	return err
}

// opening translates the plan. It must be called in the snapshot of
// [Rooms.newPlan].
func (p *plan) opening() (hub.Opening, error) {
	o := p.o
	raw, err := json.Marshal(p.creation)
	if err != nil {
		return o, err
	}
	if o.Native, err = translate.Native(translate.Event{Type: wire.TypeCreate, Content: raw}); err != nil {
		return o, client.Errorf(http.StatusBadRequest, client.BadJSON, "creation_content: %v", err)
	}
	o.Type, _ = p.creation["type"].(string)
	var events []hub.Draft
	for _, e := range p.events {
		d, err := draft(p.resolver, e)
		if err != nil {
			return o, err
		}
		events = append(events, d)
	}
	o.Initial = append(events, o.Initial...)
	return o, nil
}

// plan works out what a request asks for, in the order that the specification
// gives.
//
// spec: MX 1.19 CS §8.2
func (s *Rooms) plan(v hub.View, r *client.Request, b *createRequest) (*plan, error) {
	p, err := s.newPlan(v, r.Account, b.Version)
	if err != nil {
		return nil, err
	}
	invited, err := s.invitees(v, b.Invite)
	if err != nil {
		return nil, err
	}
	if err := p.create(b, invited); err != nil {
		return nil, err
	}
	if err := s.named(v, p, b.Alias, r.Account.Domain); err != nil {
		return nil, err
	}
	p.o.Public = b.Visibility == "public"
	if b.IsDirect && len(invited) == 1 && invited[0] != r.Account && p.o.Address.IsZero() &&
		!p.o.Public && b.Preset != "public_chat" && p.creation["type"] == nil {
		p.o.Shape, p.o.Peer = core.Direct, invited[0]
	}
	if err := p.levels(b); err != nil {
		return nil, err
	}
	if err := p.preset(b); err != nil {
		return nil, err
	}
	for _, e := range b.Initial {
		named := e.StateKey == "" && (e.Type == "m.room.name" && b.Name != "" || e.Type == "m.room.topic" && b.Topic != "")
		if !named && (e.Type != wire.TypePowerLevels || e.StateKey != "") {
			p.set(e.Type, e.StateKey, e.Content)
		}
	}
	if b.Name != "" {
		if err := p.setObject("m.room.name", object{"name": b.Name}); err != nil {
			return nil, err
		}
	}
	if b.Topic != "" {
		if err := p.setObject("m.room.topic", topicContent(b.Topic)); err != nil {
			return nil, err
		}
	}
	for _, a := range invited {
		p.o.Initial = append(p.o.Initial, hub.Draft{Content: core.Membership{Target: a, Standing: core.Invited, Direct: b.IsDirect}})
	}
	return p, nil
}

// topicContent has the topic as plain text in both of its forms.
//
// spec: MX 1.19 CS §10.2.1
func topicContent(topic string) object {
	return object{"topic": topic, "m.topic": object{"m.text": []object{{"body": topic}}}}
}

func (s *Rooms) invitees(v hub.View, ids []string) ([]core.Address, error) {
	var out []core.Address
	for _, id := range ids {
		a, err := s.address(v, id)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// create works out the create event. In the trusted preset those invited are
// creators too, where the version has further creators.
func (p *plan) create(b *createRequest, invited []core.Address) error {
	maps.Copy(p.creation, b.Creation)
	delete(p.creation, "creator")
	delete(p.creation, "room_version")
	if !p.version.HashedRoomID {
		delete(p.creation, "additional_creators")
		return nil
	}
	more, err := creatorsOf(p.creation["additional_creators"], p.resolver.Names)
	if err != nil {
		return err
	}
	if b.Preset == trustedPreset {
		more = append(more, invited...)
	}
	delete(p.creation, "additional_creators")
	p.addCreators(more)
	return nil
}

// addCreators notes further creators, each once.
func (p *plan) addCreators(more []core.Address) {
	var ids []string
	for _, a := range more {
		if a == p.creator || slices.Contains(p.o.Creators, a) {
			continue
		}
		p.o.Creators = append(p.o.Creators, a)
		id, _ := p.resolver.UserID(a)
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		p.creation["additional_creators"] = ids
	}
}

// creatorsOf reads a list of user IDs from JSON.
func creatorsOf(list any, names translate.Names) ([]core.Address, error) {
	if list == nil {
		return nil, nil
	}
	items, ok := list.([]any)
	if !ok || len(items) > maxInvites {
		return nil, badParam("additional_creators is not a list of user IDs.")
	}
	var out []core.Address
	for _, item := range items {
		id, _ := item.(string)
		a, err := names.Address(id)
		if err != nil {
			return nil, badParam("%.300q in additional_creators is not a valid user ID.", id)
		}
		out = append(out, a)
	}
	return out, nil
}

// named gives the room the address that its alias spells.
func (s *Rooms) named(v hub.View, p *plan, localpart, domain string) error {
	if localpart == "" {
		return nil
	}
	a, err := s.aliasHere(v, "#"+localpart+":"+domain)
	if err != nil {
		return err
	}
	if _, err := v.ConversationAt(a); err == nil {
		return errInUse()
	} else if !errors.Is(err, hub.ErrNone) {
		return err
	}
	p.o.Address = a
	return nil
}

// levels works out the power levels: the default ones, or those in the initial
// state, with the override on top.
func (p *plan) levels(b *createRequest) error {
	content := p.defaultLevels(b)
	for _, e := range b.Initial {
		if e.Type == wire.TypePowerLevels && e.StateKey == "" {
			content = object{}
			if err := client.DecodeJSON(e.Content, &content); err != nil {
				return err
			}
		}
	}
	maps.Copy(content, b.Levels)
	return p.setObject(wire.TypePowerLevels, content)
}

// defaultLevels are the power levels of a new room. Creators of a version in
// which they stand above every level are not listed.
//
// spec: MX 1.19 CS §8.4
func (p *plan) defaultLevels(b *createRequest) object {
	users, tombstone, invite := object{}, 150, 0
	if b.Preset == "public_chat" {
		invite = 50
	}
	if !p.version.HashedRoomID {
		tombstone = 100
		users[p.userID] = 100
		if b.Preset == trustedPreset {
			for _, id := range b.Invite {
				users[id] = 100
			}
		}
	}
	return object{
		"users": users, "users_default": 0, "events_default": 0, "state_default": 50,
		"ban": 50, "kick": 50, "redact": 50, "invite": invite,
		"notifications": object{"room": 50},
		"events": object{
			"m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50,
			wire.TypePowerLevels: 100, wire.TypeVisibility: 100, "m.room.encryption": 100,
			"m.room.server_acl": 100, "m.room.tombstone": tombstone,
		},
	}
}

// preset sets what the preset says and the initial state does not.
func (p *plan) preset(b *createRequest) error {
	has := func(typ string) bool {
		return slices.ContainsFunc(b.Initial, func(e stateRequest) bool { return e.Type == typ && e.StateKey == "" })
	}
	set := presets[b.Preset]
	for _, e := range []struct{ typ, key, value string }{
		{wire.TypeJoinRules, "join_rule", set.join},
		{wire.TypeVisibility, "history_visibility", "shared"},
		{"m.room.guest_access", "guest_access", set.guests},
	} {
		if has(e.typ) {
			continue
		}
		if err := p.setObject(e.typ, object{e.key: e.value}); err != nil {
			return err
		}
	}
	return nil
}

// aliasHere reads an alias that is to lead to a room of this server.
func (s *Rooms) aliasHere(v hub.View, alias string) (core.Address, error) {
	a, err := s.mirror.Names(v).RoomAddress(strings.ToLower(alias))
	if err != nil {
		return a, badParam("%.300q is not a valid room alias: its name may have a-z, 0-9, '.', '_' and '-'.", alias)
	}
	if !a.IsLocal() {
		return a, badParam("The alias %.300q is not one of this server's.", alias)
	}
	return a, nil
}
