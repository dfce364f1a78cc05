package shared

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/graph"
	"parley/matrix/mirror"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// site is one server of a test: a hub, a mirror and its shared rooms. What it
// owes is in out, until the test carries it to another.
type site struct {
	t      testing.TB
	domain string
	db     *store.DB
	h      *hub.Hub
	m      *mirror.Mirror
	r      *Rooms
	out    map[core.ConvID][]string // event IDs
	peers  map[core.ConvID]map[string]bool
}

// ledger is the outbox of a site.
type ledger struct{ s *site }

func (l ledger) Owe(tx hub.Tx, conv core.ConvID, eventID string, _ core.Feed) error {
	tx.OnCommit(func() { l.s.out[conv] = append(l.s.out[conv], eventID) })
	return nil
}

func (l ledger) OweTo(hub.Tx, string, ...string) error { return nil }

func (l ledger) Peers(tx hub.Tx, conv core.ConvID, joined, parted []string, _ core.Feed) error {
	tx.OnCommit(func() {
		if l.s.peers[conv] == nil {
			l.s.peers[conv] = map[string]bool{}
		}
		for _, s := range joined {
			l.s.peers[conv][s] = true
		}
		for _, s := range parted {
			delete(l.s.peers[conv], s)
		}
	})
	return nil
}

// nowhere takes what is for other networks' servers.
type nowhere struct{ hub.Carrier }

func (nowhere) Network() core.Network                       { return core.Matrix }
func (nowhere) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (nowhere) Whisper(hub.Whisper)                         {}

func newSite(t testing.TB, domain string) *site {
	t.Helper()
	s := &site{t: t, domain: domain, out: map[core.ConvID][]string{}, peers: map[core.ConvID]map[string]bool{}}
	s.db = storetest.Open(t, storetest.SQLite(t), store.Options{})
	s.h = hubtest.On(t, s.db, func(c *hub.Config) { c.Domains, c.RoomVersion = []string{domain}, "12" })
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	s.m, err = mirror.New(t.Context(), s.db, mirror.Config{Domains: s.h.Config().Domains, Keys: map[string]*wire.SigningKey{domain: key}})
	if err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), s.db); err != nil {
		t.Fatal(err)
	}
	s.h.AddMirror(s.m)
	s.h.AddCarrier(nowhere{})
	s.r = New(Config{Hub: s.h, Mirror: s.m, Outbox: ledger{s}, Domains: s.h.Config().Domains, Log: storetest.Log(t)})
	return s
}

// account makes an account, once.
func (s *site) account(name string) core.Address {
	a := core.LocalAddress(name, s.domain)
	err := s.h.CreateAccount(s.t.Context(), a, hubtest.Password)
	if err != nil && hub.CodeOf(err) != hub.Conflict {
		s.t.Fatal(err)
	}
	return a
}

// address is how this site knows a user of any site.
func (s *site) address(userID string) core.Address {
	name, domain, _ := strings.Cut(strings.TrimPrefix(userID, "@"), ":")
	if domain == s.domain {
		return core.LocalAddress(name, domain)
	}
	return core.Address{Network: core.Matrix, Name: name, Domain: domain}
}

func (s *site) turn(f func(*Turn) error) {
	s.t.Helper()
	if err := s.r.Turn(s.t.Context(), f); err != nil {
		s.t.Fatal(err)
	}
}

// conv is the conversation of a room, "" if there is none.
func (s *site) conv(room string) (id core.ConvID) {
	s.t.Helper()
	err := s.h.Read(s.t.Context(), func(v hub.View) (err error) {
		id, err = v.ConversationNative(core.Matrix, room)
		return err
	})
	if err != nil && !errors.Is(err, hub.ErrNone) {
		s.t.Fatal(err)
	}
	return id
}

// raw is an event as it leaves a site.
func (s *site) raw(eventID string) (out []byte) {
	s.t.Helper()
	s.turn(func(t *Turn) error {
		found, err := s.m.ByEventID(t.tx, eventID)
		if err == nil && len(found) == 1 {
			out, err = s.m.Signed(found[0].PDU)
		}
		return err
	})
	if out == nil {
		s.t.Fatalf("%s has no %s", s.domain, eventID)
	}
	return out
}

func (s *site) parse(version string, raw []byte) *wire.PDU {
	s.t.Helper()
	v, err := wire.VersionOf(version)
	if err != nil {
		s.t.Fatal(err)
	}
	pdu, err := wire.Parse(v, raw)
	if err != nil || !pdu.CheckHash() {
		s.t.Fatalf("%v: %s", err, raw)
	}
	return pdu
}

// open makes a public room that is shared from the beginning.
func (s *site) open(version, creator string) (room string) {
	s.t.Helper()
	c, err := s.h.Open(s.t.Context(), hub.Opening{Creator: s.account(creator), Shape: core.Group, Public: true, Version: version})
	if err != nil {
		s.t.Fatal(err)
	}
	s.turn(func(t *Turn) error { return t.Share(c.ID) })
	return c.Native[core.Matrix]
}

// enter has a user of this site join a room by way of another, as make_join
// and send_join do.
func (s *site) enter(host *site, room, name string) {
	s.t.Helper()
	s.account(name)
	user := "@" + name + ":" + s.domain
	conv := host.conv(room)
	var in Entry
	host.turn(func(t *Turn) error {
		rm, err := t.room(conv)
		if err != nil {
			return err
		}
		in.RoomID, in.Version = rm.id, rm.version
		p := wire.Proto{
			RoomID: rm.id, Type: wire.TypeMember, StateKey: &user, Sender: user, Content: []byte(`{"membership":"join"}`),
			PrevEvents: slices.Clone(rm.ends), Depth: rm.depth + 1, Time: time.Now().UnixMilli(),
		}
		for _, a := range graph.Needs(rm.current, rm.version, p.Type, p.StateKey, p.Sender, p.Content) {
			p.AuthEvents = append(p.AuthEvents, a.ID)
		}
		pdu, err := wire.Build(rm.version, p)
		if err != nil {
			return err
		}
		in.Join = Incoming{PDU: pdu}
		var ids []string
		for e := range rm.current.All() {
			ids = append(ids, e.ID)
		}
		in.State, in.Auth, err = host.withChain(t, rm, ids)
		if err != nil {
			return err
		}
		out, err := t.Accept(conv, in.Join)
		if err == nil && out.Verdict != graph.Accepted {
			err = out.Why
		}
		return err
	})
	s.turn(func(t *Turn) error {
		_, err := t.Enter(in)
		return err
	})
}

// withChain are events and the rest of what they cite, oldest first.
func (s *site) withChain(t *Turn, rm *room, ids []string) (state, auth []Incoming, err error) {
	seen := map[string]bool{}
	var walk func(e *graph.Event, out *[]Incoming) error
	walk = func(e *graph.Event, out *[]Incoming) error {
		if seen[e.ID] {
			return nil
		}
		seen[e.ID] = true
		for _, a := range e.Auth {
			if err := walk(a, &auth); err != nil {
				return err
			}
		}
		got, err := read(t.sql, rm.version, []string{e.ID})
		if err != nil {
			return err
		}
		*out = append(*out, Incoming{PDU: got[e.ID].pdu, ViaSigned: got[e.ID].viaSigned})
		return nil
	}
	events := make([]*graph.Event, len(ids))
	for i, id := range ids {
		events[i] = rm.events[id]
	}
	sort.Slice(events, func(i, j int) bool {
		return events[i].Type == wire.TypeCreate || events[j].Type != wire.TypeCreate && events[i].Time < events[j].Time
	})
	in := map[string]bool{}
	for _, id := range ids {
		in[id] = true
	}
	for _, e := range events {
		if err := walk(e, &auth); err != nil {
			return nil, nil, err
		}
	}
	for _, a := range auth {
		if in[a.PDU.EventID] {
			state = append(state, a)
		}
	}
	return state, auth, nil
}

// end is what is compared at the end: where a room has got to, and what the
// graph, the mirror and the core say of its state.
type end struct{ ends, state, mirrored, core string }

// look reads it. It fails the test where the core's state is not what comes of
// applying the events of the graph's.
func (s *site) look(room string) (out end) {
	s.t.Helper()
	conv := s.conv(room)
	s.turn(func(t *Turn) error {
		rm, err := t.room(conv)
		if err != nil {
			return err
		}
		out.ends = written(slices.Values(rm.ends))
		state := map[string]string{}
		fresh := core.NewState()
		kinds := map[core.StateKey]string{}
		for e := range rm.current.All() {
			state[e.Type+"|"+*e.StateKey] = e.ID
			id, err := s.m.CoreID(t.tx, e.ID)
			if err != nil {
				return fmt.Errorf("%s, which is in force, is not known to clients: %w", e.ID, err)
			}
			ev, err := t.tx.Event(id)
			if err != nil {
				return err
			}
			fresh.Apply(&ev)
			if k, ok := core.StateKeyOf(ev.Content); ok {
				kinds[k] = e.ID
			}
		}
		out.state = fmt.Sprint(state)
		list, err := s.m.State(t.tx, conv)
		if err != nil {
			return err
		}
		mirrored := map[string]string{}
		for _, e := range list {
			mirrored[e.Type+"|"+*e.StateKey] = e.EventID
		}
		if out.mirrored = fmt.Sprint(mirrored); out.mirrored != out.state {
			s.t.Errorf("%s: the mirror's state is\n%s\nand the graph's\n%s", s.domain, out.mirrored, out.state)
		}
		st, err := t.tx.State(conv)
		if err != nil {
			return err
		}
		if got, want := s.describe(st), s.describe(fresh); got != want {
			s.t.Errorf("%s: the core's state is\n%s\nand the graph's\n%s", s.domain, got, want)
		}
		for k, id := range kinds {
			want, err := s.m.CoreID(t.tx, id)
			if err != nil {
				return err
			}
			if st.Events[k] != want {
				s.t.Errorf("%s: %v is set by %q, not %q", s.domain, k, st.Events[k], want)
			}
		}
		if len(st.Events) != len(kinds) {
			s.t.Errorf("%s: %d pieces of state, not %d", s.domain, len(st.Events), len(kinds))
		}
		out.core = s.describe(st)
		return nil
	})
	return out
}

// describe writes out what everybody has to agree on.
func (s *site) describe(st *core.State) string {
	var list []string
	spell := func(a core.Address) string { return "@" + a.Name + ":" + a.Domain }
	for _, m := range st.Members {
		list = append(list, fmt.Sprintf("%s %s by %s", spell(m.Address), m.Standing, spell(m.By)))
	}
	for a, n := range st.Levels.Users {
		list = append(list, fmt.Sprintf("level of %s %d", spell(a), n))
	}
	slices.Sort(list)
	return fmt.Sprintf("name %q topic %q rule %s visibility %s state %d redact %d\n%s",
		st.Name, st.Topic, st.JoinRule, st.Visibility, st.Levels.State, st.Levels.Redact, strings.Join(list, "\n"))
}

func written(seq func(func(string) bool)) string {
	return strings.Join(slices.Sorted(seq), " ")
}
