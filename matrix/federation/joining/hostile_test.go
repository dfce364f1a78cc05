package joining_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/matrix/federation"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
	"parley/store/storetest"
)

// stranger is a server of which only what it asks is of interest.
type stranger struct {
	*resident
	client *federation.Client
}

func newStranger(t testing.TB, w *federationtest.World, domain string) *stranger {
	t.Helper()
	r := newResident(t, w, domain, "12", 0)
	return &stranger{r, newStrangerClient(t, w, r)}
}

// ask asks a.test, and returns the answer or its error.
func (s *stranger) ask(method, uri string, body any) (object, *federation.Error) {
	s.t.Helper()
	call := federation.Call{Origin: s.domain, Destination: "a.test", Method: method, URI: uri}
	switch b := body.(type) {
	case nil:
	case []byte:
		call.Body = b
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		call.Body = raw
	}
	raw, err := s.client.Do(s.t.Context(), call)
	if e, ok := errors.AsType[*federation.Error](err); ok {
		return nil, e
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		s.t.Fatal(err)
	}
	if list, ok := out.([]any); ok { // of the first version of an endpoint
		if len(list) != 2 || list[0] != 200.0 {
			s.t.Errorf("%s", raw)
		}
		out = list[1]
	}
	return out.(map[string]any), nil
}

func uri(query url.Values, segments ...string) string {
	return federation.URI(query, append([]string{"_matrix", "federation"}, segments...)...)
}

var anyVersion = url.Values{"ver": wire.Versions()}

// draft asks for a template and makes it the stranger's event, changed.
func (s *stranger) draft(kind, room, user string, change func(*wire.Proto)) *wire.PDU {
	s.t.Helper()
	got, e := s.ask("GET", uri(anyVersion, "v1", "make_"+kind, room, user), nil)
	if e != nil {
		s.t.Fatal(e)
	}
	v, err := wire.VersionOf(got.Text("room_version"))
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := json.Marshal(got.Get("event", "content"))
	if err != nil {
		s.t.Fatal(err)
	}
	key := got.Text("event", "state_key")
	depth, _ := got.Get("event", "depth").(float64)
	p := wire.Proto{
		RoomID: got.Text("event", "room_id"), Type: got.Text("event", "type"), StateKey: &key, Sender: got.Text("event", "sender"),
		Content: content, Depth: int64(depth), Time: time.Now().UnixMilli(),
		PrevEvents: texts(got.Get("event", "prev_events")), AuthEvents: texts(got.Get("event", "auth_events")),
	}
	if change != nil {
		change(&p)
	}
	pdu, err := wire.Build(v, p)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := pdu.Sign(wire.Signer{Server: s.domain, Key: s.key})
	if err != nil {
		s.t.Fatal(err)
	}
	if pdu, err = wire.Parse(v, signed); err != nil {
		s.t.Fatal(err)
	}
	return pdu
}

func texts(v any) (out []string) {
	list, _ := v.([]any)
	for _, e := range list {
		out = append(out, e.(string))
	}
	return out
}

func answers(t testing.TB, what string, e *federation.Error, status int, code string) {
	t.Helper()
	if e == nil || e.Status != status || e.Errcode != code {
		t.Errorf("%s: %+v, want %d %s", what, e, status, code)
	}
}

// TestAskedForTemplates is who gets one.
//
// spec: MX 1.19 SS §10
func TestAskedForTemplates(t *testing.T) {
	w := federationtest.New(t, "a.test")
	alice := w.Server("a.test").User("alice")
	s := newStranger(t, w, "s.test")
	room := alice.Create(public)
	sam := s.user("sam")
	for _, c := range []struct {
		kind, room, user string
		ver              []string
		status           int
		code             string
	}{
		{"join", room, "@eve:b.test", []string{"12"}, 403, "M_FORBIDDEN"},
		{"join", room, alice.ID, []string{"12"}, 403, "M_FORBIDDEN"},
		{"join", room, "sam", []string{"12"}, 400, "M_INVALID_PARAM"},
		{"join", room, sam, nil, 400, "M_INCOMPATIBLE_ROOM_VERSION"},
		{"join", room, sam, []string{"1", "11"}, 400, "M_INCOMPATIBLE_ROOM_VERSION"},
		{"join", "!no:a.test", sam, []string{"12"}, 404, "M_NOT_FOUND"},
		{"join", "no", sam, []string{"12"}, 400, "M_INVALID_PARAM"},
		{"knock", room, sam, []string{"12"}, 403, "M_FORBIDDEN"},
		{"leave", room, sam, nil, 403, "M_FORBIDDEN"},
	} {
		_, e := s.ask("GET", uri(url.Values{"ver": c.ver}, "v1", "make_"+c.kind, c.room, c.user), nil)
		answers(t, c.kind+" "+c.room+" "+c.user, e, c.status, c.code)
		if c.code == "M_INCOMPATIBLE_ROOM_VERSION" && !strings.Contains(string(e.Body), `"room_version":"12"`) {
			t.Errorf("%s", e.Body)
		}
	}
	got, e := s.ask("GET", uri(anyVersion, "v1", "make_join", room, sam), nil)
	if e != nil || got.Text("event", "sender") != sam || got.Text("event", "content", "membership") != "join" {
		t.Errorf("%v %v", got, e)
	}
}

// TestAskedToTake is what is taken, and what not.
//
// spec: MX 1.19 SS §10
// spec: MX 1.19 SS §13
func TestAskedToTake(t *testing.T) {
	w := federationtest.New(t, "a.test")
	a := w.Server("a.test")
	alice := a.User("alice")
	s := newStranger(t, w, "s.test")
	room, other := alice.Create(public), alice.Create(public)
	sam := s.user("sam")
	send := func(kind, version, room, id string, body any) (object, *federation.Error) {
		t.Helper()
		return s.ask("PUT", uri(nil, version, "send_"+kind, room, id), body)
	}
	good := s.draft("join", room, sam, nil)
	for name, change := range map[string]func(*wire.Proto){
		"another membership": func(p *wire.Proto) { p.Content = []byte(`{"membership":"leave"}`) },
		"another type":       func(p *wire.Proto) { p.Type = "m.room.topic" },
		"another's":          func(p *wire.Proto) { p.Sender = "@eve:b.test" },
		"about another":      func(p *wire.Proto) { k := s.user("eve"); p.StateKey = &k },
		"another room":       func(p *wire.Proto) { p.RoomID = other },
		"no state":           func(p *wire.Proto) { p.StateKey = nil },
		"after what is not known": func(p *wire.Proto) {
			p.PrevEvents = []string{"$" + strings.Repeat("x", 43)}
		},
		"citing what is not known": func(p *wire.Proto) { p.AuthEvents = []string{"$" + strings.Repeat("x", 43)} },
	} {
		pdu := s.draft("join", room, sam, change)
		_, e := send("join", "v2", room, pdu.EventID, pdu.JSON)
		answers(t, name, e, 400, "M_INVALID_PARAM")
	}
	forged := s.draft("join", room, sam, nil)
	forged.JSON = []byte(strings.Replace(string(forged.JSON), `"membership":"join"`, `"displayname":"X","membership":"join"`, 1))
	_, e := send("join", "v2", room, forged.EventID, forged.JSON)
	answers(t, "a wrong hash", e, 400, "M_INVALID_PARAM")
	bare, err := wire.Build(good.Version, good.Proto)
	if err != nil {
		t.Fatal(err)
	}
	_, e = send("join", "v2", room, bare.EventID, bare.JSON)
	answers(t, "not signed", e, 400, "M_INVALID_PARAM")
	_, e = send("join", "v2", room, forged.EventID[:43]+"x", good.JSON)
	answers(t, "another ID", e, 400, "M_INVALID_PARAM")
	_, e = send("join", "v2", room, good.EventID, []byte(`{"type":7}`))
	answers(t, "no event", e, 400, "M_BAD_JSON")
	if c := conversation(t, a.Hub, a.Conv(room)); c.Authority != "here" {
		t.Error("a room was shared with somebody who was not let in")
	}
	// What cites other events than it must is judged by the room.
	pdu := s.draft("join", room, sam, func(p *wire.Proto) { p.AuthEvents = p.AuthEvents[:1] })
	_, e = send("join", "v2", room, pdu.EventID, pdu.JSON)
	answers(t, "citing too little", e, 403, "M_FORBIDDEN")

	// In both forms, and again.
	for _, version := range []string{"v1", "v2", "v2"} {
		got, e := send("join", version, room, good.EventID, good.JSON)
		if e != nil || len(got.List("state")) < 5 || got.Get("members_omitted") != false || len(got.List("auth_chain")) == 0 {
			t.Errorf("%s: %v %v", version, got, e)
		}
		for _, m := range got.List("state") {
			if m["state_key"] == sam {
				t.Error("the state is that after the join")
			}
		}
	}
	stands(t, a, room, sam, "join")
	for _, version := range []string{"v1", "v2"} {
		leave := s.draft("leave", room, sam, nil)
		if _, e := send("leave", version, room, leave.EventID, leave.JSON); e != nil {
			t.Errorf("%s: %v", version, e)
		}
		stands(t, a, room, sam, "leave")
		again := s.draft("join", room, sam, nil)
		if _, e := send("join", version, room, again.EventID, again.JSON); e != nil {
			t.Errorf("%s: %v", version, e)
		}
	}
	alice.Do("POST", roomstest.Room(room, "/ban"), object{"user_id": sam})
	_, e = send("join", "v2", room, good.EventID, good.JSON)
	if e != nil { // it was taken before: that is so for ever
		t.Error(e)
	}
	stands(t, a, room, sam, "ban")
}

// TestAskedToInvite is which invitations are signed.
//
// spec: MX 1.19 SS §12
func TestAskedToInvite(t *testing.T) {
	w := federationtest.New(t, "a.test")
	a := w.Server("a.test")
	alice := a.User("alice")
	s := newStranger(t, w, "s.test")
	owner := s.user("owner")
	draft := func(change func(*wire.Proto)) *wire.PDU {
		t.Helper()
		pdu := s.build(wire.TypeMember, alice.ID, owner, object{"membership": "invite"})
		if change == nil {
			return pdu
		}
		p := pdu.Proto
		change(&p)
		changed, err := wire.Build(s.version, p)
		if err != nil {
			t.Fatal(err)
		}
		return s.sign(changed)
	}
	type body = object
	put := func(pdu *wire.PDU, change func(body)) (object, *federation.Error) {
		t.Helper()
		b := body{"room_version": "12", "event": json.RawMessage(pdu.JSON), "invite_room_state": list(s.state)}
		if change != nil {
			change(b)
		}
		return s.ask("PUT", uri(nil, "v2", "invite", s.room, pdu.EventID), b)
	}
	for name, change := range map[string]func(*wire.Proto){
		"another membership": func(p *wire.Proto) { p.Content = []byte(`{"membership":"join"}`) },
		"another type":       func(p *wire.Proto) { p.Type = "m.room.topic" },
		"another sender":     func(p *wire.Proto) { p.Sender = "@eve:b.test" },
		"another server":     func(p *wire.Proto) { k := "@bob:b.test"; p.StateKey = &k },
		"another room":       func(p *wire.Proto) { p.RoomID = "!" + strings.Repeat("y", 43) },
		"no state":           func(p *wire.Proto) { p.StateKey = nil },
		"a third party's":    func(p *wire.Proto) { p.Content = []byte(`{"membership":"invite","third_party_invite":{}}`) },
	} {
		_, e := put(draft(change), nil)
		answers(t, name, e, 400, "M_INVALID_PARAM")
	}
	spoilt := s.build("m.room.name", "", owner, object{"name": "x"})
	spoilt.JSON = []byte(strings.Replace(string(spoilt.JSON), `"signatures":{"s.test"`, `"signatures":{"t.test"`, 1))
	alien := newResident(t, w, "t.test", "12", 0)
	many := []any{}
	for range 51 {
		many = append(many, json.RawMessage(s.state[0].JSON))
	}
	for name, state := range map[string]any{
		"no state": []any{}, "no create event": list(s.state[1:]), "too much": many,
		"stripped": append(list(s.state), object{"type": "m.room.name", "state_key": "", "sender": owner, "content": object{}}),
		"alien":    append(list(s.state), json.RawMessage(alien.state[0].JSON)),
		"unsigned": append(list(s.state), json.RawMessage(spoilt.JSON)),
	} {
		_, e := put(draft(nil), func(b body) { b["invite_room_state"] = state })
		answers(t, name, e, 400, "M_INVALID_PARAM")
	}
	_, e := put(draft(nil), func(b body) { b["room_version"] = "13" })
	answers(t, "an unknown version", e, 400, "M_INCOMPATIBLE_ROOM_VERSION")
	_, e = put(draft(nil), func(b body) { b["event"] = []int{} })
	answers(t, "no event", e, 400, "M_BAD_JSON")
	_, e = s.ask("PUT", uri(nil, "v1", "invite", s.room, s.last.EventID), object{})
	answers(t, "the old way", e, 400, "M_INCOMPATIBLE_ROOM_VERSION")
	if st := a.Standing(s.room, alice.ID); st != "none" {
		t.Errorf("alice is %s", st)
	}

	pdu := draft(nil)
	got, e := put(pdu, nil)
	if e != nil {
		t.Fatal(e)
	}
	raw, err := json.Marshal(got["event"])
	if err != nil {
		t.Fatal(err)
	}
	signed, err := wire.Parse(s.version, raw)
	if err != nil || signed.EventID != pdu.EventID || signed.Verify("a.test", a.Key.ID(), a.Key.Public()) != nil ||
		signed.Verify("s.test", s.key.ID(), s.key.Public()) != nil {
		t.Errorf("%v: %s", err, raw)
	}
	stands(t, a, s.room, alice.ID, "invite")
	if _, e := put(pdu, nil); e != nil { // its answer was lost
		t.Error(e)
	}
	// Older rooms: less is asked for, and what is of no use is left out.
	old := newResident(t, w, "old.test", "10", 0)
	s.resident, s.client = old, newStrangerClient(t, w, old)
	pdu = s.build(wire.TypeMember, alice.ID, s.user("owner"), object{"membership": "invite"})
	if _, e := put(pdu, func(b body) {
		b["room_version"] = "10"
		b["invite_room_state"] = []any{
			object{"type": "m.room.name", "state_key": "", "sender": s.user("owner"), "content": object{"name": "Attic"}},
			7, "x", object{"type": "m.room.topic", "state_key": "", "content": object{"topic": "t"}, "room_id": "!other:a.test"},
		}
	}); e != nil {
		t.Fatal(e)
	}
	shown := alice.Sync("", "").List("rooms", "invite", s.room, "invite_state", "events")
	if find(shown, "m.room.name").Text("content", "name") != "Attic" || find(shown, "m.room.topic") != nil {
		t.Errorf("%v", shown)
	}
}

func newStrangerClient(t testing.TB, w *federationtest.World, r *resident) *federation.Client {
	t.Helper()
	return federation.NewClient(federation.ClientConfig{
		Transport: w, Keys: map[string]*wire.SigningKey{r.domain: r.key}, Timeout: time.Minute, MaxAnswer: 1 << 20, Log: storetest.Log(t),
	})
}

// TestEarly: who follows an invitation before its server knows that it was taken
// is let in a moment later.
func TestEarly(t *testing.T) {
	w, alice, bob := two(t)
	room := alice.Create(object{"preset": "private_chat"})
	invite(alice, room, bob.ID)
	stands(t, w.Server("b.test"), room, bob.ID, "invite")
	var early atomic.Int32
	w.Watch(func(_ string, req *http.Request, next federationtest.Next) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/make_join/") && early.Add(1) <= 2 {
			return federationtest.Answer(403, []byte(`{"errcode":"M_FORBIDDEN","error":"you are not invited"}`)), nil
		}
		return next(req)
	})
	mustEnter(bob, room)
	if early.Load() != 3 {
		t.Errorf("%d attempts", early.Load())
	}
}

// TestThree: who enters by one server is known to the others, as she calls
// herself.
//
// spec: MX 1.19 SS §10
func TestThree(t *testing.T) {
	w := federationtest.New(t, "a.test", "b.test", "c.test")
	alice, bob, carol := w.Server("a.test").User("alice"), w.Server("b.test").User("bob"), w.Server("c.test").User("carol")
	carol.Do("PUT", "/v3/profile/"+carol.ID+"/displayname", object{"displayname": "Carol C."})
	room := alice.Create(public)
	mustEnter(bob, room, "a.test")
	mustEnter(carol, room, "gone.test", "b.test")
	stands(t, w.Server("a.test"), room, carol.ID, "join")
	w.Same(room, "a.test", "b.test", "c.test")
	if got := alice.Do("GET", roomstest.Room(room, "/state/m.room.member/%s", carol.ID), nil); got.Text("displayname") != "Carol C." {
		t.Errorf("%s", got.Raw)
	}
	for _, u := range []*roomstest.User{alice, bob, carol} {
		said := u.Say(room, "it is "+u.ID)
		for _, other := range []*roomstest.User{alice, bob, carol} {
			hears(t, other, room, said)
		}
	}
	// One who was invited to b declines there, and a hears of it.
	private := alice.Create(object{"preset": "private_chat"})
	invite(alice, private, bob.ID)
	stands(t, w.Server("b.test"), private, bob.ID, "invite")
	mustEnter(bob, private)
	invite(bob, private, carol.ID)
	stands(t, w.Server("c.test"), private, carol.ID, "invite")
	stands(t, w.Server("a.test"), private, carol.ID, "invite")
	carol.Do("POST", roomstest.Room(private, "/leave"), object{})
	stands(t, w.Server("a.test"), private, carol.ID, "leave")
	w.Same(private, "a.test", "b.test")
}
