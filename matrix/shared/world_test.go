package shared_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/mirror"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
	"parley/store/storetest"
)

// server is one server of a test. It talks to no other by itself.
type server struct {
	t      testing.TB
	ctx    context.Context
	domain string
	key    *wire.SigningKey
	h      *hub.Hub
	m      *mirror.Mirror
	r      *shared.Rooms
	out    *outbox
}

// outbox keeps what is owed, in order.
type outbox struct {
	owed  []string
	peers map[core.ConvID][]string
}

func (o *outbox) Owe(_ hub.Tx, _ core.ConvID, id string, _ core.Feed) error {
	o.owed = append(o.owed, id)
	return nil
}

func (o *outbox) OweTo(_ hub.Tx, id string, _ ...string) error {
	o.owed = append(o.owed, id)
	return nil
}

func (o *outbox) Peers(_ hub.Tx, conv core.ConvID, joined, parted []string, _ core.Feed) error {
	o.peers[conv] = slices.DeleteFunc(append(o.peers[conv], joined...), func(s string) bool { return slices.Contains(parted, s) })
	return nil
}

// carrier takes what is for one network.
type carrier struct{ network core.Network }

func (c carrier) Network() core.Network                     { return c.network }
func (carrier) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (carrier) Deliver(_ context.Context, _ string, p []hub.Delivery) []hub.Result {
	return make([]hub.Result, len(p))
}
func (carrier) Whisper(hub.Whisper) {}

func newServer(t testing.TB, domain string) *server {
	t.Helper()
	db := storetest.Open(t, storetest.SQLite(t), store.Options{})
	st, err := hubstore.New(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, ctx: t.Context(), domain: domain, out: &outbox{peers: map[core.ConvID][]string{}}}
	s.h = hub.New(hub.Config{Domains: []string{domain}, Registration: "open", Strangers: core.Deliver}, st, storetest.Log(t), nil)
	t.Cleanup(s.h.Stop)
	if _, s.key, err = wire.NewSigningKey(); err != nil {
		t.Fatal(err)
	}
	if s.m, err = mirror.New(t.Context(), db, mirror.Config{Domains: []string{domain}, Keys: map[string]*wire.SigningKey{domain: s.key}}); err != nil {
		t.Fatal(err)
	}
	s.h.AddMirror(s.m)
	s.h.AddCarrier(carrier{core.Matrix})
	if err := shared.Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	s.r = shared.New(shared.Config{Hub: s.h, Mirror: s.m, Outbox: s.out, Domains: []string{domain}, Log: storetest.Log(t)})
	return s
}

func (s *server) account(name string) core.Address {
	s.t.Helper()
	a := core.LocalAddress(name, s.domain)
	if err := s.h.CreateAccount(s.ctx, a, "correct horse battery"); err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *server) read(f func(v hub.View) error) {
	s.t.Helper()
	if err := s.h.Read(s.ctx, f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) submit(conv core.ConvID, who core.Address, c core.Content) core.Event {
	s.t.Helper()
	e, err := s.h.Submit(s.ctx, hub.Draft{Conv: conv, Sender: who, Content: c})
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *server) turn(f func(*shared.Turn) error) {
	s.t.Helper()
	if err := s.r.Turn(s.ctx, f); err != nil {
		s.t.Fatal(err)
	}
}

// pdu finds an event that clients of s see.
func (s *server) pdu(id string) (pdu *wire.PDU) {
	s.t.Helper()
	s.read(func(v hub.View) error {
		events, err := s.m.ByEventID(v, id)
		if err == nil && len(events) != 1 {
			err = fmt.Errorf("there is no event %s", id)
		}
		if err == nil {
			pdu = events[0].PDU
		}
		return err
	})
	return pdu
}

func eventID(e core.Event) string {
	a, _ := e.Alias(core.Matrix, "event")
	return a.Key
}

// joinOf makes the event by which who enters a room of resident, citing its state
// as the rules ask.
func joinOf(t testing.TB, resident *server, conv core.ConvID, who string) (join *wire.PDU, state []mirror.Event) {
	t.Helper()
	var c core.Conversation
	var ends []mirror.Event
	resident.read(func(v hub.View) (err error) {
		if c, err = v.Conversation(conv); err != nil {
			return err
		}
		if state, err = resident.m.State(v, conv); err != nil {
			return err
		}
		page, err := v.Page(hub.Query{Conv: conv, Latest: true, Limit: 1})
		if err == nil {
			ends, err = resident.m.ByCore(v, page[0].ID)
		}
		return err
	})
	version := state[0].Version
	p := wire.Proto{
		RoomID: c.Native[core.Matrix], Type: wire.TypeMember, StateKey: &who, Sender: who,
		Content: []byte(`{"membership":"join"}`), PrevEvents: []string{ends[0].EventID}, Depth: ends[0].Depth + 1, Time: ends[0].Time + 1,
	}
	for _, k := range wire.AuthTypes(version, p.Type, p.StateKey, p.Sender, p.Content) {
		for _, e := range state {
			if e.Type == k.Type && *e.StateKey == k.Key {
				p.AuthEvents = append(p.AuthEvents, e.EventID)
			}
		}
	}
	join, err := wire.Build(version, p)
	if err != nil {
		t.Fatal(err)
	}
	return join, state
}

// enter has an account of s join a room of resident.
func enter(t testing.TB, s, resident *server, conv core.ConvID, who core.Address) core.ConvID {
	t.Helper()
	join, state := joinOf(t, resident, conv, "@"+who.Name+":"+who.Domain)
	resident.turn(func(turn *shared.Turn) error {
		if err := turn.Share(conv); err != nil {
			return err
		}
		out, err := turn.Accept(conv, shared.Incoming{PDU: join})
		if err == nil && out.Verdict != graph.Accepted {
			err = fmt.Errorf("%v: %w", out.Verdict, out.Why)
		}
		return err
	})
	entry := shared.Entry{RoomID: join.RoomID, Version: join.Version, Join: shared.Incoming{PDU: join}}
	for _, e := range state {
		entry.State = append(entry.State, shared.Incoming{PDU: e.PDU})
	}
	var there core.ConvID
	s.turn(func(turn *shared.Turn) (err error) {
		there, err = turn.Enter(entry)
		return err
	})
	return there
}

// pass gives s what from has said since the last time.
func pass(t testing.TB, from, s *server, conv core.ConvID) {
	t.Helper()
	for _, id := range from.out.owed {
		pdu := from.pdu(id)
		s.turn(func(turn *shared.Turn) error {
			out, err := turn.Accept(conv, shared.Incoming{PDU: pdu})
			if err == nil && out.Verdict != graph.Accepted {
				t.Errorf("%s at %s is %v: %v", pdu.Type, s.domain, out.Verdict, out.Why)
			}
			return err
		})
	}
	from.out.owed = nil
}

func (s *server) state(conv core.ConvID) (st *core.State) {
	s.t.Helper()
	s.read(func(v hub.View) (err error) {
		st, err = v.State(conv)
		return err
	})
	return st
}

func (s *server) texts(conv core.ConvID) string {
	s.t.Helper()
	var out []string
	s.read(func(v hub.View) error {
		page, err := v.Page(hub.Query{Conv: conv, Kinds: []core.Kind{core.KindMessage}})
		for _, e := range page {
			b, _ := core.BodyOf(e.Content)
			out = append(out, e.Sender.Name+": "+b.Plain())
		}
		return err
	})
	return strings.Join(out, "; ")
}
