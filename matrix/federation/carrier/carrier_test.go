package carrier_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/carrier"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
	"parley/store/storetest"
)

type object = roomstest.Object

// aside is what is not an event.
type aside struct {
	mu       sync.Mutex
	whispers []hub.Whisper
	receipts []hub.Delivery
}

func (a *aside) Whisper(w hub.Whisper) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.whispers = append(a.whispers, w)
}

func (a *aside) Receipt(_ context.Context, d hub.Delivery) hub.Result {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.receipts = append(a.receipts, d)
	return hub.Result{Outcome: hub.Accepted}
}

func (a *aside) count() (whispers, receipts int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.whispers), len(a.receipts)
}

// of is the carrier of a server, with something aside.
func of(s *federationtest.Server, e carrier.Ephemeral) *carrier.Carrier {
	return &carrier.Carrier{Hub: s.Hub, Mirror: s.Mirror, Rooms: s.Shared, Client: s.Client, Ephemeral: e, Log: storetest.Log(s.T)}
}

// delivery is the parcel of an invitation.
func delivery(t testing.TB, s *federationtest.Server, room, user string) hub.Delivery {
	t.Helper()
	d := hub.Delivery{Parcel: hub.Parcel{Conv: s.Conv(room)}}
	err := s.Hub.Read(t.Context(), func(v hub.View) (err error) {
		a, err := s.Mirror.Names(v).Address(user)
		if err != nil {
			return err
		}
		if d.State, err = v.State(d.Conv); err != nil {
			return err
		}
		d.To = []core.Address{a}
		d.Content, err = v.Event(d.State.Members[a].Event)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestInvitation is what goes out: a whole event, signed, and whole events of the
// room's state.
//
// spec: MX 1.19 SS §12
func TestInvitation(t *testing.T) {
	w := federationtest.New(t, "a.test")
	alice := w.Server("a.test").User("alice")
	for _, version := range wire.Made() {
		v, err := wire.VersionOf(version)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan map[string]json.RawMessage, 1)
		w.Impostor("b.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			var body map[string]json.RawMessage
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			got <- body
			_, _ = rw.Write([]byte(`{"event":{}}`))
		}))
		room := alice.Create(object{"preset": "private_chat", "name": "Study", "topic": "books", "room_version": version, "invite": []string{"@bob:b.test"}})
		body := <-got
		if string(body["room_version"]) != `"`+version+`"` {
			t.Errorf("%s", body["room_version"])
		}
		event, err := wire.Parse(v, body["event"])
		if err != nil || event.RoomID != room || *event.StateKey != "@bob:b.test" || !event.CheckHash() {
			t.Fatalf("%v: %s", err, body["event"])
		}
		var state []json.RawMessage
		if err := json.Unmarshal(body["invite_room_state"], &state); err != nil {
			t.Fatal(err)
		}
		types := map[string]bool{}
		for _, raw := range state {
			pdu, err := wire.Parse(v, raw)
			if err != nil || pdu.RoomID != room || !pdu.CheckHash() {
				t.Errorf("%v: %s", err, raw)
				continue
			}
			types[pdu.Type] = true
			if err := w.Server("a.test").Keys.VerifyPDU(t.Context(), pdu); err != nil {
				t.Errorf("%s: %v", pdu.Type, err)
			}
		}
		for _, typ := range []string{wire.TypeCreate, wire.TypeJoinRules, wire.TypeMember, "m.room.name", "m.room.topic"} {
			if !types[typ] {
				t.Errorf("version %s: no %s is told", version, typ)
			}
		}
	}
}

// TestOutcomes is what the inviter's side makes of answers.
func TestOutcomes(t *testing.T) {
	w := federationtest.New(t, "a.test")
	a := w.Server("a.test")
	alice := a.User("alice")
	room := alice.Create(object{"preset": "private_chat", "invite": []string{"@bob:b.test"}})
	a.Hub.Stop() // the outbox must not come between
	c := of(a, nil)
	for _, test := range []struct {
		status int
		body   string
		want   hub.Outcome
		says   string
	}{
		{200, `{"event":{}}`, hub.Accepted, ""},
		{403, `{"errcode":"M_FORBIDDEN","error":"bob wants\nnone"}`, hub.Failed, "cannot be invited: bob wants none"},
		{403, `{"errcode":"M_FORBIDDEN"}`, hub.Failed, "bob@b.test cannot be invited"},
		{400, `{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","error":"x","room_version":"12"}`, hub.Failed, "does not know rooms of this version"},
		{404, `{"errcode":"M_UNRECOGNIZED","error":"x"}`, hub.Failed, "takes no invitations"},
		{429, `{"errcode":"M_LIMIT_EXCEEDED","error":"slow"}`, hub.Retry, "has trouble: slow"},
		{500, `oops`, hub.Retry, "has trouble"},
		{401, `{"errcode":"M_UNAUTHORIZED","error":"keys"}`, hub.Retry, "has trouble: keys"},
		{0, ``, hub.Retry, "cannot be reached"},
	} {
		w.Watch(func(_ string, r *http.Request, _ federationtest.Next) (*http.Response, error) {
			if test.status == 0 {
				return nil, federationtest.ErrCut
			}
			return federationtest.Answer(test.status, []byte(test.body)), nil
		})
		a.Client.Heard("b.test")
		got := c.Deliver(t.Context(), "b.test", []hub.Delivery{delivery(t, a, room, "@bob:b.test")})
		if len(got) != 1 || got[0].Outcome != test.want || !strings.Contains(got[0].Reason, test.says) || strings.Contains(got[0].Reason, "\n") {
			t.Errorf("%d %s: %+v", test.status, test.body, got)
		}
	}
	// One that was taken back is not sent, and what is behind one that has to wait
	// waits.
	w.Calls()
	old := delivery(t, a, room, "@bob:b.test")
	alice.Do("POST", roomstest.Room(room, "/kick"), object{"user_id": "@bob:b.test"})
	now := delivery(t, a, room, "@bob:b.test")
	old.State = now.State
	if got := c.Deliver(t.Context(), "b.test", []hub.Delivery{old}); len(got) != 1 || got[0].Outcome != hub.Accepted || len(w.Calls()) != 0 {
		t.Errorf("%+v", got)
	}
	alice.Do("POST", roomstest.Room(room, "/invite"), object{"user_id": "@bob:b.test"})
	d := delivery(t, a, room, "@bob:b.test")
	if got := c.Deliver(t.Context(), "b.test", []hub.Delivery{d, d, d}); len(got) != 1 || got[0].Outcome != hub.Retry {
		t.Errorf("%+v", got)
	}
}

// TestAside: what is no event goes another way.
func TestAside(t *testing.T) {
	w := federationtest.New(t, "a.test")
	a := w.Server("a.test")
	e := &aside{}
	c := of(a, e)
	c.Whisper(hub.Whisper{})
	receipt := hub.Delivery{Parcel: hub.Parcel{Receipt: &core.Receipt{}}}
	if got := c.Deliver(t.Context(), "b.test", []hub.Delivery{receipt}); len(got) != 1 || got[0].Outcome != hub.Accepted {
		t.Errorf("%+v", got)
	}
	if whispers, receipts := e.count(); whispers != 1 || receipts != 1 || len(w.Calls()) != 0 {
		t.Errorf("%d, %d", whispers, receipts)
	}
	if c.Network() != core.Matrix || c.Capabilities(core.Address{}).Grade(core.FeatureExtension) != core.Whole {
		t.Error("Matrix does not carry Matrix")
	}
	none := of(a, nil)
	none.Whisper(hub.Whisper{})
	if got := none.Deliver(t.Context(), "b.test", []hub.Delivery{receipt}); len(got) != 1 || got[0].Outcome != hub.Accepted {
		t.Errorf("%+v", got)
	}
}
