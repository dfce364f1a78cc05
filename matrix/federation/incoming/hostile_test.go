package incoming_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/core"
	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/incoming"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
)

// evil is a server whose events are made by hand, in a room of a.test.
type evil struct {
	t    testing.TB
	w    *lossy
	a, m *federationtest.Server
	// alice is of a.test; mal, of m.test, is in the room.
	alice, mal *roomstest.User
	room       string
	version    *wire.Version
}

func newEvil(t testing.TB) *evil {
	t.Helper()
	few := func(s *federationtest.Server) {
		if s.World.TuneIncoming == nil {
			s.World.TuneIncoming = func(c *incoming.Config) { c.Tries = 3 }
		}
	}
	w := newWorld(t, []federationtest.Part{few}, "a.test", "m.test")
	e := &evil{t: t, w: w, a: w.Server("a.test"), m: w.Server("m.test")}
	e.alice, e.mal = e.a.User("alice"), e.m.User("mal")
	e.room = e.alice.Create(object{"preset": "public_chat"})
	join(e.mal, e.room, "a.test")
	w.Same(e.room, "a.test", "m.test")
	e.alice.SetState(e.room, "m.room.power_levels", "", object{"users": object{e.mal.ID: 50}, "state_default": 50})
	w.Same(e.room, "a.test", "m.test")
	var err error
	if e.version, err = wire.VersionOf("12"); err != nil {
		t.Fatal(err)
	}
	return e
}

// proto is a message of mal after the room's end, for change to make worse.
func (e *evil) proto(text string) wire.Proto {
	e.t.Helper()
	return wire.Proto{
		RoomID: e.room, Type: "m.room.message", Sender: e.mal.ID, Content: []byte(`{"body":"` + text + `","msgtype":"m.text"}`),
		PrevEvents: ends(e.a, e.room), AuthEvents: e.auth(), Depth: 100, Time: time.Now().UnixMilli(),
	}
}

// auth is what an event of mal's cites.
func (e *evil) auth() []string {
	s := e.a.State(e.room)
	return []string{s["m.room.power_levels|"], s["m.room.member|"+e.mal.ID]}
}

func (e *evil) sign(p wire.Proto) (id string, raw json.RawMessage) {
	e.t.Helper()
	pdu, err := wire.Build(e.version, p)
	if err != nil {
		e.t.Fatal(err)
	}
	raw, err = pdu.Sign(wire.Signer{Server: "m.test", Key: e.m.Key})
	if err != nil {
		e.t.Fatal(err)
	}
	return pdu.EventID, raw
}

// send has a.test take events.
func (e *evil) send(raws ...json.RawMessage) map[string]error {
	e.t.Helper()
	return e.a.Incoming.Receive(e.t.Context(), "m.test", raws)
}

// asked are the requests of a.test since the last time that begin in some way.
func (e *evil) asked(part string) (n int) {
	for _, c := range e.w.Calls() {
		if strings.Contains(c, part) {
			n++
		}
	}
	return n
}

// well fails the test unless the room goes on.
func (e *evil) well() {
	e.t.Helper()
	hears(e.t, e.mal, e.room, e.alice.Say(e.room, "as if nothing had happened"))
	hears(e.t, e.alice, e.room, e.mal.Say(e.room, "what should have?"))
}

func fake(i int) string { return fmt.Sprintf("$%042dA", i) }

// TestForm: what is no event is refused, and nobody is asked about it.
func TestForm(t *testing.T) {
	e := newEvil(t)
	_, good := e.sign(e.proto("good"))
	with := func(key, value string) json.RawMessage {
		o, err := wire.ParseObject(good)
		if err != nil {
			t.Fatal(err)
		}
		return o.With(key, []byte(value)).JSON()
	}
	var thousand []string
	for i := range 1000 {
		thousand = append(thousand, fake(i))
	}
	many, _ := json.Marshal(thousand)
	e.w.Calls()
	for name, raw := range map[string]json.RawMessage{
		"a thousand prev_events": with("prev_events", string(many)),
		"21 prev_events":         with("prev_events", string(must(json.Marshal(thousand[:21])))),
		"11 auth_events":         with("auth_events", string(must(json.Marshal(thousand[:11])))),
		"too large":              with("content", `{"body":"`+strings.Repeat("x", 70_000)+`"}`),
		"no content":             with("content", `[]`),
		"a float":                with("depth", `1.5`),
		"no depth":               with("depth", `"1"`),
		"no JSON":                json.RawMessage(`{`),
		"no object":              json.RawMessage(`[]`),
		"no room":                with("room_id", `1`),
		"another room":           with("room_id", `"!other:a.test"`),
		"deep":                   with("content", strings.Repeat(`{"a":`, 2000)+`1`+strings.Repeat(`}`, 2000)),
	} {
		if out := e.send(raw); len(out) != 0 {
			t.Errorf("%s: %v", name, out)
		}
	}
	if n := e.asked("m.test"); n != 0 {
		t.Errorf("m.test is asked %d times", n)
	}
	if n := count(e.a, "incoming_waiting"); n != 0 {
		t.Errorf("%d wait", n)
	}
	e.well()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestAuthentic: bad signatures, wrong hashes, moments to come, replays.
//
// spec: MX 1.19 SS §5.1
func TestAuthentic(t *testing.T) {
	e := newEvil(t)
	id, raw := e.sign(e.proto("forged"))
	forged := json.RawMessage(strings.Replace(string(raw), `"ed25519:`, `"ed25519:x`, 1))
	if out := e.send(forged); out[id] == nil || verdict(e.a, id) != "" {
		t.Errorf("signed with a key that is none: %v, %s", out, verdict(e.a, id))
	}
	p := e.proto("of alice")
	p.Sender = e.alice.ID
	id, raw = e.sign(p)
	if out := e.send(raw); out[id] == nil || verdict(e.a, id) != "" {
		t.Errorf("in alice's name: %v, %s", out, verdict(e.a, id))
	}
	p = e.proto("to come")
	p.Time = time.Now().Add(30 * 24 * time.Hour).UnixMilli()
	id, raw = e.sign(p)
	if out := e.send(raw); out[id] == nil || verdict(e.a, id) != "" {
		t.Errorf("of next month: %v, %s", out, verdict(e.a, id))
	}
	id, raw = e.sign(e.proto("the original"))
	changed := json.RawMessage(strings.Replace(string(raw), "the original", "another", 1))
	if out := e.send(changed); len(out) != 1 || out[id] != nil {
		t.Errorf("with a wrong hash: %v", out)
	}
	if got, ok := e.a.Event(id); !ok || string(got.Content) != `{}` {
		t.Errorf("with a wrong hash: %s", got.Content)
	}
	id, raw = e.sign(e.proto("again and again"))
	for range 3 {
		if out := e.send(raw, raw); len(out) != 1 || out[id] != nil {
			t.Errorf("a replay: %v", out)
		}
	}
	if got := said(e.a, e.room); !slices.Equal(got, []string{"again and again"}) {
		t.Errorf("%q", got)
	}
	e.well()
}

// TestDeep: an event that says to be as deep as can be does not keep the room
// from going on.
func TestDeep(t *testing.T) {
	e := newEvil(t)
	p := e.proto("deep")
	p.Depth = 1<<53 - 1
	id, raw := e.sign(p)
	if out := e.send(raw); out[id] != nil || verdict(e.a, id) != "accepted" {
		t.Errorf("%v, %s", out, verdict(e.a, id))
	}
	e.well()
}

// TestUnreachable: an event whose sender's key cannot be got is kept until it
// can.
func TestUnreachable(t *testing.T) {
	e := newEvil(t)
	var silence federationtest.Silence
	e.a.Restart(func() { e.w.TuneIncoming = around(&silence) })
	e.alice = e.a.On(e.alice)
	silence.On.Store(true)
	id, raw := e.sign(e.proto("patience"))
	if out := e.send(raw); out[id] != nil {
		t.Errorf("%v", out)
	}
	if n := count(e.a, "incoming_waiting WHERE checked = 0"); n != 1 || verdict(e.a, id) != "" {
		t.Errorf("%d wait, %s", n, verdict(e.a, id))
	}
	silence.On.Store(false)
	hears(t, e.alice, e.room, id)
	if n := count(e.a, "incoming_waiting"); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// around has a silence stand before what checks signatures.
func around(s *federationtest.Silence) func(*incoming.Config) {
	return func(c *incoming.Config) { s.Verifier, c.Keys = c.Keys, s }
}

// TestDenied: a server that the room's ACL keeps out is not heard.
//
// spec: MX 1.19 SS §26
func TestDenied(t *testing.T) {
	e := newEvil(t)
	e.alice.SetState(e.room, "m.room.server_acl", "", object{"allow": []string{"*"}, "deny": []string{"m.test"}})
	id, raw := e.sign(e.proto("let me in"))
	if out := e.send(raw); out[id] == nil || verdict(e.a, id) != "" {
		t.Errorf("%v, %s", out, verdict(e.a, id))
	}
	// What others tell of its people is judged by the rules alone.
	if out := e.a.Incoming.Receive(t.Context(), "other.test", []json.RawMessage{raw}); out[id] != nil {
		t.Errorf("%v", out)
	}
}

// TestEndless: a past without end, or without beginning, is asked for within
// bounds, and given up.
func TestEndless(t *testing.T) {
	t.Run("previous", func(t *testing.T) {
		e := newEvil(t)
		var made atomic.Int64
		older := func() json.RawMessage {
			p := e.proto(fmt.Sprint("number ", made.Add(1)))
			p.PrevEvents = []string{fake(int(made.Load()))}
			_, raw := e.sign(p)
			return raw
		}
		e.w.hook("/get_missing_events/", func(r *http.Request, _ federationtest.Next) (*http.Response, error) {
			var list []json.RawMessage
			for range 1000 {
				list = append(list, older())
			}
			return federationtest.Answer(http.StatusOK, must(json.Marshal(object{"events": list}))), nil
		})
		e.endless(older())
	})
	t.Run("chain", func(t *testing.T) { // each is the one before that which was told last
		e := newEvil(t)
		var chain []json.RawMessage
		prev := fake(0)
		for i := range 3000 {
			p := e.proto(fmt.Sprint("number ", i))
			p.PrevEvents = []string{prev}
			id, raw := e.sign(p)
			chain, prev = append(chain, raw), id
		}
		next := len(chain) - 1
		e.w.hook("/get_missing_events/", func(r *http.Request, _ federationtest.Next) (*http.Response, error) {
			from := max(next-20, 0)
			list := chain[from:next]
			next = from
			return federationtest.Answer(http.StatusOK, must(json.Marshal(object{"events": list}))), nil
		})
		e.endless(chain[len(chain)-1])
		if n := count(e.a, "shared_events"); n > 1500 {
			t.Errorf("%d events were kept", n)
		}
	})
	t.Run("cited", func(t *testing.T) {
		e := newEvil(t)
		var made atomic.Int64
		e.w.hook("/event/", func(r *http.Request, _ federationtest.Next) (*http.Response, error) {
			p := e.proto("cause")
			p.AuthEvents = []string{fake(int(made.Add(1)))}
			_, raw := e.sign(p)
			return federationtest.Answer(http.StatusOK, must(json.Marshal(object{"pdus": []json.RawMessage{raw}}))), nil
		})
		e.w.hook("/event_auth/", func(r *http.Request, _ federationtest.Next) (*http.Response, error) {
			var list []json.RawMessage
			for range 2000 {
				p := e.proto("cause")
				key := fmt.Sprint(made.Add(1))
				p.Type, p.StateKey, p.AuthEvents = "org.example.cause", &key, []string{fake(int(made.Load()))}
				_, raw := e.sign(p)
				list = append(list, raw)
			}
			return federationtest.Answer(http.StatusOK, must(json.Marshal(object{"auth_chain": list}))), nil
		})
		p := e.proto("effect")
		p.AuthEvents = []string{fake(1 << 20)}
		_, raw := e.sign(p)
		e.endless(raw)
	})
	t.Run("state", func(t *testing.T) {
		e := newEvil(t)
		e.w.hook("/get_missing_events/", notFound)
		e.w.hook("/state_ids/", func(r *http.Request, _ federationtest.Next) (*http.Response, error) {
			var ids []string
			for i := range 30_000 {
				ids = append(ids, fake(i))
			}
			return federationtest.Answer(http.StatusOK, must(json.Marshal(object{"pdu_ids": ids, "auth_chain_ids": []string{}}))), nil
		})
		e.w.hook("/state/", func(r *http.Request, _ federationtest.Next) (*http.Response, error) {
			return federationtest.Answer(http.StatusOK, []byte(`{"pdus":[],"auth_chain":[]}`)), nil
		})
		p := e.proto("nowhere")
		p.PrevEvents = []string{fake(1)}
		_, raw := e.sign(p)
		e.endless(raw)
	})
}

// endless sends an event of which the past leads nowhere, and waits until a.test
// has given it up.
func (e *evil) endless(raw json.RawMessage) {
	e.t.Helper()
	e.w.Calls()
	for id, err := range e.send(raw) {
		if err != nil {
			e.t.Errorf("%s: %v", id, err)
		}
	}
	federationtest.Eventually(e.t, "it is given up", func() bool { return count(e.a, "incoming_waiting") == 0 })
	if n := e.asked("m.test"); n > 3*200 {
		e.t.Errorf("m.test is asked %d times", n)
	} else {
		e.t.Logf("m.test is asked %d times, in 3 tries", n)
	}
	for part := range e.w.hooks {
		e.w.hook(part, nil)
	}
	e.well()
}

// TestFlood: events that wait do not pile up without end, for a room or from a
// server.
func TestFlood(t *testing.T) {
	e := newEvil(t)
	e.w.hook("/get_missing_events/", notFound)
	e.w.hook("/state_ids/", notFound)
	e.w.TuneIncoming = func(c *incoming.Config) { c.FirstRetry, c.MaxRetry = time.Hour, time.Hour }
	e.a.Restart()
	e.alice = e.a.On(e.alice)
	refused := 0
	for batch := range 14 {
		var raws []json.RawMessage
		for i := range 50 {
			p := e.proto(fmt.Sprint("number ", batch, i))
			p.PrevEvents = []string{fake(50*batch + i)}
			_, raw := e.sign(p)
			raws = append(raws, raw)
		}
		for _, err := range e.send(raws...) {
			if err != nil {
				refused++
			}
		}
	}
	if refused != 200 {
		t.Errorf("%d are refused, of 700", refused)
	}
	if n := count(e.a, "incoming_waiting"); n != 500 {
		t.Errorf("%d wait", n)
	}
	federationtest.Eventually(t, "all were tried, or put off", func() bool { return count(e.a, "incoming_waiting WHERE next = 0") == 0 })
	if n := e.asked("m.test"); n > 1000 {
		t.Errorf("m.test is asked %d times", n)
	}
	e.w.hook("/get_missing_events/", nil)
	e.w.hook("/state_ids/", nil)
	e.well()
}

// TestForks: a room that is flooded with branches goes on, and grows together.
func TestForks(t *testing.T) {
	e := newEvil(t)
	base, auth := ends(e.a, e.room), e.auth()
	key := ""
	for batch := range 5 {
		var raws []json.RawMessage
		for i := range 40 {
			p := wire.Proto{
				RoomID: e.room, Type: "m.room.topic", StateKey: &key, Sender: e.mal.ID,
				Content: fmt.Appendf(nil, `{"topic":"number %d"}`, 40*batch+i), PrevEvents: base, AuthEvents: auth,
				Depth: 100, Time: time.Now().UnixMilli(),
			}
			_, raw := e.sign(p)
			raws = append(raws, raw)
		}
		for id, err := range e.send(raws...) {
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	if n := len(ends(e.a, e.room)); n != 200 {
		t.Errorf("%d ends", n)
	}
	for i := range 11 {
		e.alice.Say(e.room, fmt.Sprint("number ", i))
	}
	if n := len(ends(e.a, e.room)); n != 1 {
		t.Errorf("%d ends after eleven messages", n)
	}
	e.well()
	e.w.cores(e.room, "a.test", "m.test")
}

// TestRevoked: one who was invited, and whose server is in no room with the
// inviter, hears that the invitation is taken back, by who gave it and by nobody
// else.
func TestRevoked(t *testing.T) {
	w := newWorld(t, nil, "a.test", "b.test", "m.test")
	a, b, m := w.Server("a.test"), w.Server("b.test"), w.Server("m.test")
	alice, bob, mal := a.User("alice"), b.User("bob"), m.User("mal")
	room := alice.Create(object{"preset": "private_chat"})
	alice.Do("POST", roomstest.Room(room, "/invite"), object{"user_id": mal.ID})
	federationtest.Eventually(t, "mal is invited", func() bool { return m.Standing(room, mal.ID) == core.Invited })
	join(mal, room, "a.test")
	alice.Do("POST", roomstest.Room(room, "/invite"), object{"user_id": bob.ID})
	federationtest.Eventually(t, "bob is invited", func() bool { return b.Standing(room, bob.ID) == core.Invited })
	version, err := wire.VersionOf("12")
	if err != nil {
		t.Fatal(err)
	}
	pdu, err := wire.Build(version, wire.Proto{
		RoomID: room, Type: wire.TypeMember, StateKey: &bob.ID, Sender: mal.ID, Content: []byte(`{"membership":"leave"}`),
		PrevEvents: []string{fake(1)}, Depth: 10, Time: time.Now().UnixMilli(),
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pdu.Sign(wire.Signer{Server: "m.test", Key: m.Key})
	if err != nil {
		t.Fatal(err)
	}
	if out := b.Incoming.Receive(t.Context(), "m.test", []json.RawMessage{raw}); out[pdu.EventID] == nil {
		t.Error("a stranger takes the invitation back")
	}
	if got := b.Standing(room, bob.ID); got != core.Invited {
		t.Errorf("bob is %s", got)
	}
	alice.Do("POST", roomstest.Room(room, "/kick"), object{"user_id": bob.ID})
	federationtest.Eventually(t, "bob is no longer invited", func() bool { return b.Standing(room, bob.ID) == core.Left })
}
