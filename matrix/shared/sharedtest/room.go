// Package sharedtest makes rooms of servers that are not there: their events,
// built by hand and in any order, for the tests of what is done with such.
package sharedtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/matrix/shared"
	"parley/matrix/wire"
)

// Room is a room as its own servers know it.
type Room struct {
	T       testing.TB
	Version *wire.Version
	ID      string
	// State is what is in force after Ends, Log all events of this branch in
	// order.
	State map[wire.StateKey]*wire.PDU
	Ends  []string
	Log   []*wire.PDU
	Depth int64

	keys map[string]*wire.SigningKey
	now  *int64
}

// New makes a public room whose creator and others are joined.
func New(t testing.TB, version, creator string, members ...string) *Room {
	t.Helper()
	v, err := wire.VersionOf(version)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(-time.Hour).UnixMilli()
	r := &Room{T: t, Version: v, State: map[wire.StateKey]*wire.PDU{}, keys: map[string]*wire.SigningKey{}, now: &now}
	if !v.HashedRoomID {
		r.ID = fmt.Sprintf("!room%d:%s", now, serverOf(creator))
	}
	if creation := fmt.Sprintf(`{"creator":%q,"room_version":%q}`, creator, version); v.CreatorKey {
		r.Set(creator, wire.TypeCreate, "", creation)
	} else {
		r.Set(creator, wire.TypeCreate, "", fmt.Sprintf(`{"room_version":%q}`, version))
	}
	r.Member(creator, creator, "join")
	users := fmt.Sprintf(`"users":{%q:100},`, creator)
	if v.HashedRoomID {
		users = ""
	}
	r.Set(creator, wire.TypePowerLevels, "", `{`+users+`"events_default":0,"invite":0,"state_default":50,"users_default":0}`)
	r.Set(creator, wire.TypeJoinRules, "", `{"join_rule":"public"}`)
	for _, m := range members {
		r.Member(m, m, "join")
	}
	return r
}

func serverOf(userID string) string {
	_, server, _ := strings.Cut(userID, ":")
	return server
}

// Member makes a membership event.
func (r *Room) Member(sender, target, membership string) *wire.PDU {
	r.T.Helper()
	return r.Set(sender, wire.TypeMember, target, fmt.Sprintf(`{"membership":%q}`, membership))
}

// Set makes a state event.
func (r *Room) Set(sender, eventType, key, content string) *wire.PDU {
	r.T.Helper()
	return r.Make(sender, eventType, &key, content)
}

// Say makes a message.
func (r *Room) Say(sender, text string) *wire.PDU {
	r.T.Helper()
	return r.Make(sender, "m.room.message", nil, fmt.Sprintf(`{"body":%q,"msgtype":"m.text"}`, text))
}

// Make makes an event after the ends, signed by its sender's server, and takes it
// into the room. Whether the rules allow it is not asked.
func (r *Room) Make(sender, eventType string, key *string, content string) *wire.PDU {
	r.T.Helper()
	pdu := r.Build(sender, eventType, key, content)
	r.Take(pdu)
	return pdu
}

// Build is Make for an event that does not become part of the room.
func (r *Room) Build(sender, eventType string, key *string, content string) *wire.PDU {
	r.T.Helper()
	canon, err := wire.Strict([]byte(content))
	if err != nil {
		r.T.Fatal(err)
	}
	*r.now += 1000
	p := wire.Proto{
		RoomID: r.ID, Type: eventType, StateKey: key, Sender: sender, Content: canon, PrevEvents: slices.Clone(r.Ends),
		Depth: r.Depth + 1, Time: *r.now,
	}
	for _, k := range wire.AuthTypes(r.Version, eventType, key, sender, canon) {
		if e := r.State[k]; e != nil {
			p.AuthEvents = append(p.AuthEvents, e.EventID)
		}
	}
	pdu, err := wire.Build(r.Version, p)
	if err != nil {
		r.T.Fatal(err)
	}
	raw, err := pdu.Sign(wire.Signer{Server: serverOf(sender), Key: r.key(serverOf(sender))})
	if err != nil {
		r.T.Fatal(err)
	}
	if pdu, err = wire.Parse(r.Version, raw); err != nil {
		r.T.Fatal(err)
	}
	return pdu
}

// key is a server's.
func (r *Room) key(server string) *wire.SigningKey {
	if r.keys[server] == nil {
		_, key, err := wire.NewSigningKey()
		if err != nil {
			r.T.Fatal(err)
		}
		r.keys[server] = key
	}
	return r.keys[server]
}

// Take takes an event into the room, as the one that follows all others.
func (r *Room) Take(pdu *wire.PDU) {
	if r.ID == "" {
		r.ID = pdu.RoomID
	}
	if pdu.StateKey != nil {
		r.State[wire.StateKey{Type: pdu.Type, Key: *pdu.StateKey}] = pdu
	}
	r.Ends, r.Depth, r.Log = []string{pdu.EventID}, pdu.Depth, append(r.Log, pdu)
}

// Fork is another branch from here on.
func (r *Room) Fork() *Room {
	f := *r
	f.State, f.Ends, f.Log = maps.Clone(r.State), slices.Clone(r.Ends), slices.Clone(r.Log)
	return &f
}

// Entry is what a server in the room tells one that lets somebody in. without are
// members of whom it does not tell, and by them the server that will.
func (r *Room) Entry(who string, without ...string) shared.Entry {
	r.T.Helper()
	e := shared.Entry{RoomID: r.ID, Version: r.Version}
	for _, pdu := range r.Log { // in which what an event cites comes before it
		if pdu.StateKey == nil || pdu.Type == wire.TypeMember && slices.Contains(without, *pdu.StateKey) {
			continue
		}
		e.Auth = append(e.Auth, shared.Incoming{PDU: pdu})
		if r.State[wire.StateKey{Type: pdu.Type, Key: *pdu.StateKey}] == pdu {
			e.State = append(e.State, shared.Incoming{PDU: pdu})
		}
	}
	if len(without) > 0 {
		e.Partial = serverOf(r.Log[0].Sender)
	}
	e.Join = shared.Incoming{PDU: r.Member(who, who, "join")}
	return e
}
