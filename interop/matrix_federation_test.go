package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"parley/interop/lab"
)

// TestMatrixFederation has people on two Parleys meet by Matrix federation: in talks and in rooms of
// either server, Matrix clients end-to-end encrypted as well, and an XMPP client among them.
func TestMatrixFederation(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true, Second: true})
	names := []string{
		"talk: text", "room: text", "foreign room: text", "room: end-to-end encrypted", "foreign room: end-to-end encrypted",
	}
	features := Select(func(name string) bool { return slices.Contains(names, name) })
	for _, s := range []*Session{
		{World: w, SeatA: Seat{driver(t, "matrixjs"), w.Parley}, SeatB: Seat{driver(t, "matrixjs"), w.Second}},
		{World: w, SeatA: Seat{driver(t, "nio"), w.Second}, SeatB: Seat{driver(t, "slixmpp"), w.Parley}},
	} {
		t.Run(s.String(), func(t *testing.T) { runSession(ctx, t, s, features, new(Report)) })
	}
}

// TestMatrixFederationOfThree has three Parleys share rooms: joined in every order, and with the
// servers cut off from each other while all speak.
func TestMatrixFederationOfThree(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	w, sites := three(ctx, t)
	t.Run("orders", func(t *testing.T) { testJoinOrders(ctx, t, w, sites) })
	t.Run("cut off", func(t *testing.T) { testPartition(ctx, t, w, sites) })
}

// TestMatrixFederationKilled kills, while bob joins a room that two servers are in, his server or the
// room's, each at some moment. He joins again then, and all is as if nothing had happened. For as
// long as PARLEY_SOAK says (`make soak`) it is done again, at other moments.
func TestMatrixFederationKilled(t *testing.T) {
	var long time.Duration
	if s := os.Getenv("PARLEY_SOAK"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatalf("PARLEY_SOAK: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute+long)
	defer cancel()
	w, sites := three(ctx, t)
	victims := []*Site{sites[1], sites[0]}
	until := time.Now().Add(long)
	for round := 0; round < len(victims) || time.Now().Before(until); round++ {
		victim, moment := victims[round%len(victims)], time.Duration(rand.IntN(300))*time.Millisecond
		t.Run(fmt.Sprintf("%s after %v", victim.Name, moment), func(t *testing.T) {
			testKilledJoining(ctx, t, w, sites, victim, moment)
		})
	}
}

// three makes a world of three Parleys, each of which is found in its own way.
func three(ctx context.Context, t *testing.T) (*World, []*Site) {
	w := newWorld(ctx, t, Parts{Parley: true, Second: true})
	third, err := w.addParley(ctx, ThirdDomain, lab.Certificates)
	if err != nil {
		t.Fatal(err)
	}
	w.Lab.DNS.AddService("_matrix-fed._tcp", ThirdDomain, "matrix."+ThirdDomain, 8448)
	if err := w.Add(ctx, third); err != nil {
		t.Fatal(err)
	}
	return w, []*Site{w.Parley, w.Second, third}
}

// trio makes a gathering of three, one on each site, in a room of the first.
func trio(ctx context.Context, t *testing.T, w *World, sites []*Site) (*gathering, []*person) {
	home := sites[0]
	g := &gathering{t: t, w: w, room: RoomAddress{
		Local: "garden-" + token(), Domain: home.Domain(), Service: home.Service,
	}}
	var people []*person
	clients := map[string]string{ParleyDomain: "nio", SecondDomain: "matrixjs", ThirdDomain: "slixmpp"}
	for i, name := range []string{"alice", "bob", "carol"} {
		people = append(people, g.invite(ctx, name, Seat{driver(t, clients[sites[i].Domain()]), sites[i]}))
	}
	return g, people
}

func testJoinOrders(ctx context.Context, t *testing.T, w *World, sites []*Site) {
	for _, order := range [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		ordered := []*Site{sites[order[0]], sites[order[1]], sites[order[2]]}
		t.Run(ordered[0].Name+" "+ordered[1].Name+" "+ordered[2].Name, func(t *testing.T) {
			g, people := trio(ctx, t, w, ordered)
			g.found(ctx, people[0])
			for i, p := range people {
				if i > 0 {
					g.join(ctx, p)
				}
				// It is heard by those who are there, before the next one comes.
				g.say(ctx, p, "on coming")
				for _, present := range people[:i+1] {
					g.all(ctx, present, oneOrder)
				}
			}
		})
	}
}

// testPartition has each pair of servers not hear each other for a while, and then one of them
// neither of the others. In the end everybody has heard everything.
func testPartition(ctx context.Context, t *testing.T, w *World, sites []*Site) {
	g, people := trio(ctx, t, w, sites)
	g.found(ctx, people[0])
	g.join(ctx, people[1])
	g.join(ctx, people[2])
	for _, p := range people {
		g.say(ctx, p, "at first")
	}
	for _, p := range people {
		g.all(ctx, p, ownOrder)
	}
	for _, cut := range [][][2]int{{{0, 1}}, {{1, 2}}, {{0, 2}}, {{0, 1}, {0, 2}}} {
		for _, pair := range cut {
			if err := w.Lab.Cut(ctx, sites[pair[0]].Host(), sites[pair[1]].Host()); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			for _, p := range people {
				g.say(ctx, p, fmt.Sprintf("with %v cut", cut))
			}
		}
		for _, pair := range cut {
			if err := w.Lab.Mend(ctx, sites[pair[0]].Host(), sites[pair[1]].Host()); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range people {
			g.say(ctx, p, "together again")
		}
		for _, p := range people {
			g.all(ctx, p, ownOrder)
		}
	}
}

func testKilledJoining(ctx context.Context, t *testing.T, w *World, sites []*Site, victim *Site, moment time.Duration) {
	g, people := trio(ctx, t, w, sites)
	g.found(ctx, people[0])
	g.join(ctx, people[2])
	g.say(ctx, people[0], "before")
	bob := people[1]
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = bob.client.Do(ctx, "join", Args{"room": g.room}) // it may well fail
	}()
	time.Sleep(moment)
	victim.Kill()
	if err := victim.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range people {
		if p.seat.Site == victim {
			g.login(ctx, p)
		}
	}
	<-ended
	for _, p := range people { // who is in it already enters it again, as clients do
		g.joinAtLast(ctx, p)
	}
	for _, p := range people {
		g.say(ctx, p, "after")
	}
	for _, p := range people {
		g.all(ctx, p, ownOrder)
	}
}

// joinAtLast has a person try to join as often as it takes her server to find out that the
// room's is back.
func (g *gathering) joinAtLast(ctx context.Context, p *person) {
	g.t.Helper()
	room := g.room.Spell(p.seat.Driver.Network, p.address.Domain)
	for tries := 0; ; tries++ {
		a, err := p.client.Do(ctx, "join", Args{"room": room})
		if err == nil {
			p.client.enter(g.room, a.Room)
			return
		}
		if tries > maxTries || ctx.Err() != nil {
			g.t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
}
