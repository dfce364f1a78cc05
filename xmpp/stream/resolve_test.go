package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is drawn, the order is a permutation in which priorities never fall.
func TestOrderKeepsPriorities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []target
		for i := range rapid.IntRange(0, 12).Draw(t, "records") {
			all = append(all, target{host: fmt.Sprint(i), direct: rapid.Bool().Draw(t, "direct"),
				priority: rapid.Uint16Max(3).Draw(t, "priority"), weight: rapid.Uint16().Draw(t, "weight")})
		}
		before := slices.Clone(all)
		got := order(all, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "draw") })
		if !slices.IsSortedFunc(got, func(a, b target) int { return int(a.priority) - int(b.priority) }) {
			t.Fatalf("priorities out of order: %v", got)
		}
		byHost := func(a, b target) int { return len(a.host)*1000 + int(a.host[0]) - len(b.host)*1000 - int(b.host[0]) }
		slices.SortFunc(got, byHost)
		slices.SortFunc(before, byHost)
		for _, b := range before {
			if !slices.Contains(got, b) || len(got) != len(before) {
				t.Fatalf("%v is lost", b)
			}
		}
	})
}

func TestOrderDrawsByWeight(t *testing.T) {
	all := func() []target { return []target{{host: "light", weight: 1}, {host: "heavy", weight: 9}} }
	for draw, want := range map[int]string{0: "light", 1: "light", 2: "heavy", 10: "heavy"} {
		if got := order(all(), func(n int) int { return min(draw, n-1) }); got[0].host != want {
			t.Errorf("draw %d: %v", draw, got)
		}
	}
}

// zone answers from maps; what is in neither does not exist.
type zone struct {
	srv    map[string][]*net.SRV
	broken string
}

func (z zone) LookupSRV(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
	if service == z.broken {
		return "", nil, &net.DNSError{Err: "server failure", Name: name, IsTemporary: true}
	}
	if recs, ok := z.srv[service+" "+name]; ok {
		return name, recs, nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (z zone) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }

func TestResolve(t *testing.T) {
	z := zone{srv: map[string][]*net.SRV{
		"xmpps-server both.test":         {{Target: "d.both.test.", Port: 5270, Priority: 20}},
		"xmpp-server both.test":          {{Target: "s.both.test.", Port: 5269, Priority: 10}},
		"xmpps-server nodirect.test":     {{Target: "."}},
		"xmpp-server nodirect.test":      {{Target: "x.test.", Port: 1}},
		"xmpps-server none.test":         {{Target: "."}},
		"xmpp-server xn--bcher-kva.test": {{Target: "x.test.", Port: 2}},
	}}
	for domain, want := range map[string][]target{
		"both.test":     {{host: "s.both.test", port: 5269, priority: 10}, {host: "d.both.test", port: 5270, priority: 20, direct: true}},
		"nodirect.test": {{host: "x.test", port: 1}},
		"plain.test":    {{host: "plain.test", port: 5269}},
		"bücher.test":   {{host: "x.test", port: 2}},
		"192.0.2.1":     {{host: "192.0.2.1", port: 5269}},
	} {
		got, err := resolve(context.Background(), z, domain)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", domain, got, err)
		}
	}
	if _, err := resolve(context.Background(), z, "none.test"); !errors.Is(err, ErrNoService) {
		t.Errorf("none.test: %v", err)
	}
	z.broken = "xmpp-server" // must not be taken for "no records"
	if _, err := resolve(context.Background(), z, "plain.test"); err == nil {
		t.Error("a failure of DNS led to the fallback")
	}
}
