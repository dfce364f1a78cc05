package hub

import (
	"log/slog"
	"testing"

	"parley/core"
)

// Two hubs on one bus, as two processes would be: what one publishes reaches
// the sessions that the other holds, until it leaves.
func TestBusReachesOtherHubs(t *testing.T) {
	bus := &localBus{}
	hubs := [2]*Hub{}
	for i := range hubs {
		hubs[i] = New(Config{Domains: []string{"example.org"}}, nil, slog.New(slog.DiscardHandler), nil)
		hubs[i].UseBus(bus)
	}
	alice := core.LocalAddress("alice", "example.org")
	ears, err := hubs[1].Attach(SessionSpec{Account: alice})
	if err != nil {
		t.Fatal(err)
	}
	hubs[0].Poke([]core.Address{alice}, PokeNews{Topic: "t", Feed: 1})
	if n, ok := ears.TryNext(); !ok || FeedOf(n) != 1 {
		t.Fatalf("the other hub's session heard %v", n)
	}
	hubs[1].UseBus(&localBus{})
	hubs[0].Poke([]core.Address{alice}, PokeNews{Topic: "t", Feed: 2})
	if n, ok := ears.TryNext(); ok {
		t.Errorf("a hub that left the bus hears %v", n)
	}
}
