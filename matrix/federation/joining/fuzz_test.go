package joining

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"parley/core"
	"parley/matrix/wire"
)

// lenient takes every signature for good.
type lenient struct{}

func (lenient) VerifyPDUs(_ context.Context, pdus []*wire.PDU) []error {
	return make([]error, len(pdus))
}

// FuzzAnswers gives what other servers may answer to what reads it: nothing that
// is not ours is to be signed, and what is kept is in order.
func FuzzAnswers(f *testing.F) {
	v, err := wire.VersionOf("11")
	if err != nil {
		f.Fatal(err)
	}
	const room, user, server = "!r:a.test", "@bob:b.test", "a.test"
	create, err := wire.Build(v, wire.Proto{RoomID: room, Type: wire.TypeCreate, StateKey: new(string), Sender: "@alice:a.test", Content: []byte(`{"room_version":"11"}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"type":"m.room.member","room_id":"!r:a.test","sender":"@bob:b.test","state_key":"@bob:b.test","content":{"membership":"join"},"depth":1,"prev_events":["` + create.EventID + `"],"auth_events":[]}`))
	f.Add([]byte(`{"state":[` + string(create.JSON) + `],"auth_chain":[` + string(create.JSON) + `],"members_omitted":true,"servers_in_room":["a.test"]}`))
	f.Add([]byte(`{"state":[],"auth_chain":null}`))
	j := &Joining{cfg: Config{Keys: lenient{}, Log: slog.New(slog.DiscardHandler), Domains: []string{"b.test"}, MaxEvents: 100}}
	a := &asking{kind: join, roomID: room, userID: user, member: core.Membership{Standing: core.Joined}}
	join, err := wire.Build(v, wire.Proto{RoomID: room, Type: wire.TypeMember, StateKey: &a.userID, Sender: user, Content: []byte(`{"membership":"join"}`), PrevEvents: []string{create.EventID}, AuthEvents: []string{create.EventID}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if tpl, err := readTemplate(v, server, a, raw); err == nil {
			if len(tpl.prev) == 0 || len(tpl.prev) > maxPrev || len(tpl.auth) > maxAuth || tpl.depth < 0 || tpl.via != "" && serverOf(tpl.via) != server {
				t.Errorf("%+v", tpl)
			}
		}
		found, err := j.readWelcome(t.Context(), bytes.NewReader(raw), a, v, join)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, pdu := range found.all {
			if pdu.RoomID != room || pdu.StateKey == nil || seen[pdu.EventID] {
				t.Errorf("%s", pdu.JSON)
			}
			for _, id := range pdu.AuthEvents {
				if !seen[id] {
					t.Errorf("%s comes before %s", pdu.EventID, id)
				}
			}
			seen[pdu.EventID] = true
		}
		for id := range found.state {
			if !seen[id] {
				t.Errorf("%s is state and not there", id)
			}
		}
	})
}
