package serving_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/matrix/federation"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
)

type object = roomstest.Object

// world is b.test, which is asked, and two that ask: a.test, which is in bob's
// room, and c.test, which is not.
type world struct {
	t       *testing.T
	a, b, c *federationtest.Server
	bob     *roomstest.User
}

func newWorld(t *testing.T) *world {
	t.Helper()
	fw := federationtest.New(t, "a.test", "b.test", "c.test")
	w := &world{t: t, a: fw.Server("a.test"), b: fw.Server("b.test"), c: fw.Server("c.test")}
	w.bob = w.b.User("bob")
	return w
}

// ask has one server ask b.test.
func (w *world) ask(from *federationtest.Server, method, uri string, body any) (object, *federation.Error) {
	w.t.Helper()
	call := federation.Call{Origin: from.Domain, Destination: "b.test", Method: method, URI: "/_matrix/federation/v1/" + uri, Insist: true}
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		call.Body = raw
	}
	raw, err := from.Client.Do(w.t.Context(), call)
	if refused, ok := errors.AsType[*federation.Error](err); ok {
		return nil, refused
	}
	if err != nil {
		w.t.Fatalf("%s: %v", uri, err)
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		w.t.Fatal(err)
	}
	return o, nil
}

func (w *world) get(from *federationtest.Server, format string, args ...any) object {
	w.t.Helper()
	o, err := w.ask(from, "GET", path(format, args...), nil)
	if err != nil {
		w.t.Fatalf("%s asks %s: %v", from.Domain, path(format, args...), err)
	}
	return o
}

// refuses checks that a server is refused.
func (w *world) refuses(from *federationtest.Server, status int, code, uri string) {
	w.t.Helper()
	o, err := w.ask(from, "GET", uri, nil)
	if err == nil || err.Status != status || err.Errcode != code {
		w.t.Errorf("%s asks %s: %v, %v", from.Domain, uri, o, err)
	}
}

func path(format string, args ...any) string {
	for i, a := range args {
		args[i] = url.PathEscape(fmt.Sprint(a))
	}
	return fmt.Sprintf(format, args...)
}

// pdus reads the events of an answer, which must be what they say.
func (w *world) pdus(version, signer string, key *wire.SigningKey, list any) (out []*wire.PDU) {
	w.t.Helper()
	v, err := wire.VersionOf(version)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range list.([]any) {
		raw, err := json.Marshal(e)
		if err != nil {
			w.t.Fatal(err)
		}
		pdu, err := wire.Parse(v, raw)
		if err != nil {
			w.t.Fatal(err)
		}
		if strings.HasSuffix(pdu.Sender, ":"+signer) {
			if err := pdu.Verify(signer, key.ID(), key.Public()); err != nil {
				w.t.Errorf("%s of %s: %v", pdu.Type, pdu.Sender, err)
			}
		}
		out = append(out, pdu)
	}
	return out
}

func (w *world) own(o object, key string) []*wire.PDU {
	w.t.Helper()
	return w.pdus("12", "b.test", w.b.Key, o[key])
}

func ids(list []*wire.PDU) (out []string) {
	for _, e := range list {
		out = append(out, e.EventID)
	}
	return out
}

func texts(list any) (out []string) {
	for _, x := range list.([]any) {
		out = append(out, x.(string))
	}
	slices.Sort(out)
	return out
}

func whole(e *wire.PDU) bool { return string(e.Content) != "{}" }

// join has alice of a.test join a room at b.test.
func (w *world) join(room string) *roomstest.User {
	w.t.Helper()
	alice := w.a.User("alice")
	alice.Do("POST", "/v3/join/"+url.PathEscape(room)+"?via=b.test", object{})
	federationtest.Eventually(w.t, "alice in the room", func() bool { return w.b.Standing(room, alice.ID) == core.Joined })
	return alice
}

// all are the questions that one may ask of a room and an event in it.
func all(room, event string) []string {
	return []string{
		path("event/%s", event), path("state/%s?event_id=%s", room, event), path("state_ids/%s?event_id=%s", room, event),
		path("event_auth/%s/%s", room, event), path("backfill/%s?v=%s&limit=5", room, event),
		path("timestamp_to_event/%s?ts=0&dir=f", room),
	}
}

// A server in a room is told all of it, with our signatures, and another nothing.
func TestServing(t *testing.T) {
	w := newWorld(t)
	room := w.bob.Create(object{"preset": "public_chat"})
	var said []string
	for i := range 5 {
		said = append(said, w.bob.Say(room, fmt.Sprint(i)))
	}
	topic := w.bob.SetState(room, "m.room.topic", "", object{"topic": "roses"})
	// The room is this server's alone: there is nobody to tell.
	for _, q := range all(room, said[0]) {
		w.refuses(w.a, 403, "M_FORBIDDEN", q)
	}
	w.join(room)
	last := w.bob.Say(room, "welcome")
	for _, q := range append(all(room, said[0]), all(room, topic)...) {
		w.refuses(w.c, 403, "M_FORBIDDEN", q)
	}

	got := w.get(w.a, "event/%s", said[2])
	if list := w.own(got, "pdus"); len(list) != 1 || list[0].EventID != said[2] || got.Text("origin") != "b.test" || got.Get("origin_server_ts") == nil {
		t.Errorf("the event: %v", got)
	}
	state := w.get(w.a, "state/%s?event_id=%s", room, topic)
	pdus, chain := w.own(state, "pdus"), w.own(state, "auth_chain")
	if slices.Contains(ids(pdus), topic) || len(pdus) < 5 || len(chain) < 3 {
		t.Errorf("before the topic: %d pieces that cite %d events", len(pdus), len(chain))
	}
	byID := w.get(w.a, "state_ids/%s?event_id=%s", room, topic)
	if have := texts(byID["pdu_ids"]); !slices.Equal(have, slices.Sorted(slices.Values(ids(pdus)))) {
		t.Errorf("by ID: %q", have)
	}
	if have := texts(byID["auth_chain_ids"]); !slices.Equal(have, slices.Sorted(slices.Values(ids(chain)))) {
		t.Errorf("the chain by ID: %q", have)
	}
	if have := texts(w.get(w.a, "state_ids/%s?event_id=%s", room, last)["pdu_ids"]); !slices.Contains(have, topic) {
		t.Errorf("after the topic: %q", have)
	}
	auth := w.own(w.get(w.a, "event_auth/%s/%s", room, said[0]), "auth_chain")
	for _, e := range auth {
		for _, id := range e.AuthEvents {
			if !slices.Contains(ids(auth), id) {
				t.Errorf("the chain lacks %s", id)
			}
		}
	}
	if len(auth) < 3 {
		t.Errorf("the chain is %q", ids(auth))
	}

	back := w.own(w.get(w.a, "backfill/%s?v=%s&limit=4", room, topic), "pdus")
	if want := []string{topic, said[4], said[3], said[2]}; !slices.Equal(ids(back), want) || !whole(back[3]) {
		t.Errorf("backwards: %q, want %q", ids(back), want)
	}
	missing, err := w.ask(w.a, "POST", path("get_missing_events/%s", room), object{
		"limit": 10, "min_depth": 0, "earliest_events": []string{said[1]}, "latest_events": []string{topic},
	})
	if err != nil {
		t.Fatal(err)
	}
	if have := ids(w.own(missing, "events")); !slices.Equal(have, []string{said[2], said[3], said[4]}) {
		t.Errorf("between: %q", have)
	}
	first := w.get(w.a, "timestamp_to_event/%s?ts=0&dir=f", room)
	if e, ok := w.b.Event(first.Text("event_id")); !ok || e.Type != wire.TypeCreate || first.Get("origin_server_ts") != float64(e.Time) {
		t.Errorf("the first event: %v", first)
	}
	newest := w.get(w.a, "timestamp_to_event/%s?ts=%s&dir=b", room, fmt.Sprint(1<<45))
	if newest.Text("event_id") != last {
		t.Errorf("the newest: %v, want %s", newest, last)
	}
	w.refuses(w.a, 404, "M_NOT_FOUND", path("timestamp_to_event/%s?ts=0&dir=b", room))
}
