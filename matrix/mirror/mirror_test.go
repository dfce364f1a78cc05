package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/mirror"
	"parley/matrix/translate"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// world is a hub with a mirror.
type world struct {
	t   testing.TB
	ctx context.Context
	h   *hub.Hub
	m   *mirror.Mirror
}

// carrier is a network that takes everything and delivers nothing, so that
// people on it can be invited.
type carrier struct{ hub.Carrier }

func (carrier) Network() core.Network { return core.XMPP }
func (carrier) Capabilities(core.Address) core.Capabilities {
	return core.Capabilities{}
}
func (carrier) Deliver(_ context.Context, _ string, p []hub.Delivery) []hub.Result {
	return make([]hub.Result, len(p))
}
func (carrier) Whisper(hub.Whisper) {}

func newWorld(t testing.TB, version string) *world {
	t.Helper()
	return worldOn(t, storetest.Open(t, storetest.SQLite(t), store.Options{}), version)
}

func worldOn(t testing.TB, db *store.DB, version string) *world {
	t.Helper()
	h := hubtest.On(t, db, func(c *hub.Config) { c.RoomVersion = version })
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := mirror.New(context.Background(), db, mirror.Config{
		Domains: []string{hubtest.Domain}, Keys: map[string]*wire.SigningKey{hubtest.Domain: key},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.AddMirror(m)
	h.AddCarrier(carrier{})
	return &world{t, context.Background(), h, m}
}

func (w *world) read(f func(v hub.View) error) {
	w.t.Helper()
	if err := w.h.Read(w.ctx, f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(o hub.Opening) core.Conversation {
	w.t.Helper()
	if o.Shape == "" {
		o.Shape = core.Group
	}
	c, err := w.h.Open(w.ctx, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// send submits what a Matrix client of from sends.
func (w *world) send(conv core.ConvID, from core.Address, eventType string, stateKey *string, content string) core.Event {
	w.t.Helper()
	e, err := w.trySend(conv, from, eventType, stateKey, content)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

func (w *world) trySend(conv core.ConvID, from core.Address, eventType string, stateKey *string, content string) (core.Event, error) {
	w.t.Helper()
	d := hub.Draft{Conv: conv, Sender: from}
	err := w.h.Read(w.ctx, func(v hub.View) error {
		r, err := w.m.Resolver(v, conv)
		if err != nil {
			return err
		}
		sender, _ := r.UserID(from)
		e := translate.Event{Type: eventType, StateKey: stateKey, Sender: sender, Content: []byte(content)}
		if d.Content, _, err = translate.In(r, e); err != nil {
			return err
		}
		d.Native, err = translate.Native(e)
		return err
	})
	if err != nil {
		return core.Event{}, err
	}
	d.Aliases = []core.Alias{mirror.TxnAlias(from, "DEV", "/send/"+eventType, content, []byte(content))}
	return w.h.Submit(w.ctx, d)
}

// show is how viewer's device DEV sees events.
func (w *world) show(viewer core.Address, ids ...core.EventID) []map[string]any {
	w.t.Helper()
	var out []map[string]any
	w.read(func(v hub.View) error {
		list, err := w.m.ByCore(v, ids...)
		if err != nil {
			return err
		}
		raw, err := w.m.Client(v, mirror.Viewer{User: viewer, Device: "DEV"}, list)
		if err != nil {
			return err
		}
		for _, r := range raw {
			var m map[string]any
			if err := json.Unmarshal(r, &m); err != nil {
				return err
			}
			if _, err := wire.Strict(r); err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	return out
}

// at walks into decoded JSON; nil where there is nothing.
func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

func (w *world) eventID(id core.EventID) string {
	w.t.Helper()
	var s string
	w.read(func(v hub.View) (err error) {
		s, err = w.m.EventID(v, id)
		return err
	})
	return s
}

func TestRoomsAreMatrixRooms(t *testing.T) {
	for _, version := range []string{"12", "11", "10", "6"} {
		w := newWorld(t, version)
		alice := hubtest.Account(t, w.h, "alice")
		c := w.open(hub.Opening{Creator: alice, Address: core.LocalAddress("garden", hubtest.Domain), Public: true})
		w.read(func(v hub.View) error {
			state, err := w.m.State(v, c.ID)
			if err != nil {
				return err
			}
			if len(state) < 5 || state[0].Type != wire.TypeCreate {
				t.Fatalf("version %s: state %v", version, state)
			}
			room := c.Native[core.Matrix]
			if version == "12" && room != "!"+state[0].EventID[1:] || version != "12" && !strings.HasSuffix(room, ":"+hubtest.Domain) {
				t.Errorf("version %s: room ID %s, creation %s", version, room, state[0].EventID)
			}
			id, err := v.ConversationNative(core.Matrix, room)
			if err != nil || id != c.ID {
				t.Errorf("room %s is conversation %s, %v", room, id, err)
			}
			prev := ""
			for _, e := range state {
				if e.RoomID != room || !e.CheckHash() {
					t.Errorf("version %s: event in room %q: %s", version, e.RoomID, e.JSON)
				}
				if again, err := wire.Parse(e.Version, e.JSON); err != nil || again.EventID != e.EventID {
					t.Errorf("version %s: %s parses as %v, %v", version, e.JSON, again, err)
				}
				if prev != "" && (len(e.PrevEvents) != 1 || e.PrevEvents[0] != prev) {
					t.Errorf("event after %s follows %v", prev, e.PrevEvents)
				}
				prev = e.EventID
			}
			return nil
		})
	}
}

// What is read is the same on both databases.
func TestOnBothDatabases(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := worldOn(t, db, "12")
		t.Run("client format", func(t *testing.T) { testClientFormat(t, w) })
		t.Run("state", func(t *testing.T) { testStateAt(t, w) })
		t.Run("foreign senders", func(t *testing.T) { testForeignSenders(t, w) })
	})
}

func testClientFormat(t *testing.T, w *world) {
	alice, bob := hubtest.Account(t, w.h, "alice"), hubtest.Account(t, w.h, "bob")
	c := w.open(hub.Opening{Creator: alice, Address: core.LocalAddress("garden", hubtest.Domain), Public: true})
	key := ""
	w.send(c.ID, alice, "m.room.name", &key, `{"name":"One"}`)
	name := w.send(c.ID, alice, "m.room.name", &key, `{"name":"Two"}`)
	hello := w.send(c.ID, alice, "m.room.message", nil, `{"msgtype":"m.text","body":"hello","org.example.mine":1}`)
	if _, err := w.h.Join(w.ctx, hub.JoinRequest{Conv: c.ID, Who: bob}); err != nil {
		t.Fatal(err)
	}
	id := w.eventID(hello.ID)
	edit := w.send(c.ID, alice, "m.room.message", nil, `{"msgtype":"m.text","body":"* hi","m.new_content":{"msgtype":"m.text","body":"hi"},
		"m.relates_to":{"rel_type":"m.replace","event_id":"`+id+`"}}`)
	inThread := w.send(c.ID, bob, "m.room.message", nil, `{"msgtype":"m.text","body":"t","m.relates_to":{"rel_type":"m.thread","event_id":"`+id+`"}}`)
	w.send(c.ID, bob, "org.example.vote", nil, `{"m.relates_to":{"rel_type":"m.reference","event_id":"`+id+`"}}`)

	e := w.show(alice, hello.ID)[0]
	if at(e, "content", "org.example.mine") != 1.0 {
		t.Errorf("keys of the client's own are gone: %v", e)
	}
	if at(e, "unsigned", "transaction_id") == nil || at(e, "unsigned", "membership") != "join" {
		t.Errorf("unsigned of the sender: %v", e)
	}
	if got := at(e, "unsigned", "m.relations", "m.replace", "event_id"); got != w.eventID(edit.ID) {
		t.Errorf("m.replace: %v", got)
	}
	if at(e, "unsigned", "m.relations", "m.thread", "count") != 1.0 ||
		at(e, "unsigned", "m.relations", "m.thread", "latest_event", "event_id") != w.eventID(inThread.ID) {
		t.Errorf("m.thread: %v", e)
	}
	if refs, _ := at(e, "unsigned", "m.relations", "m.reference", "chunk").([]any); len(refs) != 1 {
		t.Errorf("m.reference: %v", e)
	}
	b := w.show(bob, hello.ID)[0]
	if at(b, "unsigned", "transaction_id") != nil || at(b, "unsigned", "membership") != "leave" {
		t.Errorf("unsigned of another, who came later: %v", b)
	}
	n := w.show(bob, name.ID)[0]
	if at(n, "unsigned", "prev_content", "name") != "One" || at(n, "state_key") != "" {
		t.Errorf("state: %v", n)
	}

	redaction, err := w.h.Submit(w.ctx, hub.Draft{Conv: c.ID, Sender: alice, Content: core.Retract{Target: hello.ID, Reason: "no"}})
	if err != nil {
		t.Fatal(err)
	}
	views := w.show(alice, hello.ID, redaction.ID)
	if len(at(views[0], "content").(map[string]any)) != 0 || at(views[0], "unsigned", "redacted_because", "redacts") != id {
		t.Errorf("redacted: %v", views[0])
	}
	if at(views[0], "unsigned", "m.relations", "m.replace") != nil {
		t.Errorf("a redacted event with an edit: %v", views[0])
	}
	if at(views[1], "redacts") != id || at(views[1], "content", "redacts") != id {
		t.Errorf("redaction: %v", views[1])
	}
	if list := w.relations(mirror.RelationQuery{Target: id, RelType: "m.thread", Limit: 5}); len(list) != 1 || list[0].ID != inThread.ID {
		t.Errorf("relations: %v", list)
	}
}

func (w *world) relations(q mirror.RelationQuery) []mirror.Event {
	var out []mirror.Event
	w.read(func(v hub.View) (err error) {
		out, err = w.m.Relations(v, q)
		return err
	})
	return out
}

func testStateAt(t *testing.T, w *world) {
	alice := hubtest.Account(t, w.h, "anna")
	c := w.open(hub.Opening{Creator: alice})
	key := ""
	var events []core.Event
	for _, name := range []string{"a", "b", "c"} {
		events = append(events, w.send(c.ID, alice, "m.room.name", &key, `{"name":"`+name+`"}`))
	}
	w.read(func(v hub.View) error {
		for i, e := range events {
			got, err := w.m.StateEventAt(v, c.ID, "m.room.name", "", e.Position)
			if err != nil || got.ID != e.ID {
				t.Errorf("name at %d is %v, %v", i, got, err)
			}
			state, err := w.m.StateAt(v, c.ID, e.Position)
			if err != nil || state[len(state)-1].ID != e.ID {
				t.Errorf("state at %d: %v, %v", i, state, err)
			}
		}
		if got, err := w.m.StateEvent(v, c.ID, "m.room.name", ""); err != nil || got.ID != events[2].ID {
			t.Errorf("name now is %v, %v", got, err)
		}
		if _, err := w.m.StateEvent(v, c.ID, "m.room.topic", ""); !errors.Is(err, hub.ErrNone) {
			t.Errorf("topic: %v", err)
		}
		changed, err := w.m.StateChanged(v, c.ID, events[0].Position, events[2].Position)
		if err != nil || len(changed) != 1 || changed[0].ID != events[2].ID {
			t.Errorf("changed: %v, %v", changed, err)
		}
		return nil
	})
}

// People of other networks appear in rooms by a spelling of ours; one that is
// too long is a hash, which reads back.
func testForeignSenders(t *testing.T, w *world) {
	alice := hubtest.Account(t, w.h, "ada")
	long := core.Address{Network: core.XMPP, Name: strings.Repeat("x", 300), Domain: "a.net"}
	for _, carol := range []core.Address{{Network: core.XMPP, Name: "carol", Domain: "a.net"}, long} {
		c := w.open(hub.Opening{Creator: alice, Public: true, Address: core.LocalAddress("r"+carol.Name[:2], hubtest.Domain)})
		if _, err := w.h.Join(w.ctx, hub.JoinRequest{Conv: c.ID, Who: carol, Nick: "Carol"}); err != nil {
			t.Fatal(err)
		}
		e, err := w.h.Submit(w.ctx, hub.Draft{Conv: c.ID, Sender: carol, Content: core.Message{Body: core.TextBody("hi")}})
		if err != nil {
			t.Fatal(err)
		}
		got := w.show(alice, e.ID)[0]
		sender, _ := got["sender"].(string)
		if !strings.HasPrefix(sender, "@_xmpp_") || at(got, "content", "body") != "hi" {
			t.Errorf("event %v", got)
		}
		w.read(func(v hub.View) error {
			a, err := w.m.Names(v).Address(sender)
			if err != nil || a != carol {
				t.Errorf("%s reads back as %v, %v", sender, a, err)
			}
			return nil
		})
	}
}

// What Matrix asks beyond the hub's rules is asked too.
func TestPermitted(t *testing.T) {
	w := newWorld(t, "12")
	alice, bob := hubtest.Account(t, w.h, "alice"), hubtest.Account(t, w.h, "bob")
	c := w.open(hub.Opening{Creator: alice, Public: true, Address: core.LocalAddress("garden", hubtest.Domain)})
	if _, err := w.h.Join(w.ctx, hub.JoinRequest{Conv: c.ID, Who: bob}); err != nil {
		t.Fatal(err)
	}
	key := ""
	w.send(c.ID, alice, "m.room.power_levels", &key, `{"state_default":0,"events":{"m.sticker":60}}`)
	_, err := w.trySend(c.ID, bob, "m.sticker", nil, `{"body":"x","url":"mxc://b.net/x","info":{}}`)
	if hub.CodeOf(err) != hub.Forbidden {
		t.Errorf("sticker: %v", err)
	}
	w.send(c.ID, alice, "m.sticker", nil, `{"body":"x","url":"mxc://b.net/x","info":{}}`)
	other := "@alice:" + hubtest.Domain
	_, err = w.h.Submit(w.ctx, hub.Draft{Conv: c.ID, Sender: bob, Content: core.Extension{Type: "org.x", StateKey: &other}})
	if hub.CodeOf(err) != hub.Forbidden {
		t.Errorf("state of another: %v", err)
	}
	own := "@bob:" + hubtest.Domain
	w.send(c.ID, bob, "org.x", &own, `{}`)
}
