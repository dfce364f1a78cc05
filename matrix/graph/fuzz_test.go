package graph

import (
	"testing"

	"parley/matrix/wire"
)

// Whatever the content of an event, it is judged without a panic, and twice
// alike.
func FuzzAllowed(f *testing.F) {
	for _, s := range [][3]string{
		{wire.TypeMember, bob, `{"membership":"join","join_authorised_via_users_server":1}`},
		{wire.TypeMember, mal, `{"membership":"invite","third_party_invite":{"signed":{"mxid":"@mal:m.example","token":"t","signatures":{"a":{"ed25519:1":""}}}}}`},
		{wire.TypePowerLevels, "", `{"users":{"@bob:b.example":"1"},"events":[]}`},
		{wire.TypeJoinRules, "", `{"join_rule":{}}`},
		{wire.TypeCreate, "", `{"additional_creators":[1],"room_version":[]}`},
		{wire.TypeThirdParty, "t", `{"public_keys":[{"public_key":1},2]}`},
	} {
		f.Add(s[0], s[1], bob, []byte(s[2]))
	}
	var worlds []*world
	var tips []*Event
	for _, v := range wire.Versions() {
		w := newWorld(f, v)
		tips = append(tips, w.room(bobModerates))
		worlds = append(worlds, w)
	}
	f.Fuzz(func(t *testing.T, eventType, key, sender string, content []byte) {
		canon, err := wire.Strict(content)
		if err != nil {
			return
		}
		for i, w := range worlds {
			before := w.after[tips[i].ID]
			p := wire.Proto{
				RoomID: w.create.Room, Type: eventType, StateKey: &key, Sender: sender, Content: canon,
				PrevEvents: []string{tips[i].ID}, Depth: 99, Time: 99,
			}
			if w.v.HashedRoomID && eventType == wire.TypeCreate {
				p.RoomID = ""
			}
			auth := Needs(before, w.v, eventType, &key, sender, canon)
			for _, a := range auth {
				p.AuthEvents = append(p.AuthEvents, a.ID)
			}
			pdu, err := wire.Build(w.v, p)
			if err != nil {
				return
			}
			e, err := Link(pdu, w.create, auth)
			if err != nil {
				t.Fatal(err)
			}
			one, _ := Check(e, before, before)
			two, _ := Check(e, before, before)
			if one != two {
				t.Fatalf("%v, then %v", one, two)
			}
			After(before, e, one).Get(eventType, key)
			Resolve(w.v, before, before.With(e))
		}
	})
}
