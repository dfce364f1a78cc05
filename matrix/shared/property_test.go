package shared

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"

	"pgregory.net/rapid"
)

// net is what three servers have to tell each other about one room: for each of
// them the events that it has not got yet, in the order in which they were made.
type net struct {
	room  string
	sites []*site
	wire  map[string][]byte // as they leave, by ID
	due   map[*site][]string
	taken map[*site]int // of its out
	all   []string
	log   strings.Builder
}

func (n *net) note(format string, args ...any) { fmt.Fprintf(&n.log, format+"\n", args...) }

// collect has what was said since the last time on its way to the others.
func (n *net) collect() {
	for _, s := range n.sites {
		owed := s.out[s.conv(n.room)]
		for _, id := range owed[n.taken[s]:] {
			n.wire[id] = s.raw(id)
			n.all = append(n.all, id)
			for _, other := range n.sites {
				if other != s {
					n.due[other] = append(n.due[other], id)
				}
			}
		}
		n.taken[s] = len(owed)
	}
}

// deliver gives a site one of the events that are due. It stays due where the
// site has to know others first.
func (n *net) deliver(s *site, i int) bool {
	id := n.due[s][i]
	conv := s.conv(n.room)
	done := true
	s.turn(func(t *Turn) error {
		rm, err := t.room(conv)
		if err != nil {
			return err
		}
		out, err := t.Accept(conv, Incoming{PDU: s.parse(rm.version.ID, n.wire[id]), ViaSigned: true})
		if missing := (*MissingError)(nil); errors.As(err, &missing) {
			done = false
			return nil
		}
		n.note("%s gets %s: %v %v", s.domain, id[:6], out.Verdict, out.Why)
		return err
	})
	if done {
		n.due[s] = slices.Delete(n.due[s], i, i+1)
	}
	return done
}

// settle delivers everything.
func (n *net) settle(t *rapid.T) {
	n.collect()
	for _, s := range n.sites {
		for len(n.due[s]) > 0 {
			moved := false
			for i := 0; i < len(n.due[s]); i++ {
				if n.deliver(s, i) {
					moved = true
					i--
				}
			}
			if !moved {
				t.Fatalf("%d events never reach %s", len(n.due[s]), s.domain)
			}
		}
	}
}

// act has somebody at a site do something. That it is refused is fine.
func (n *net) act(t *rapid.T, s *site) {
	conv := s.conv(n.room)
	who := core.LocalAddress(rapid.SampledFrom([]string{"calm", "one", "two"}).Draw(t, "who"), s.domain)
	other := func() core.Address {
		there := n.sites[rapid.IntRange(0, 2).Draw(t, "of")]
		return s.address("@" + rapid.SampledFrom([]string{"one", "two"}).Draw(t, "whom") + ":" + there.domain)
	}
	text := fmt.Sprint("number ", rapid.IntRange(0, 99).Draw(t, "text"))
	member := func(standing core.Standing) core.Content { return core.Membership{Target: other(), Standing: standing} }
	change := func(a core.Aspect) core.Content { return core.Change{Aspect: a, Text: text} }
	var err error
	what := rapid.SampledFrom([]string{
		"say", "join", "join", "leave", "kick", "ban", "unban", "invite", "topic", "name", "levels", "levels", "rule", "redact", "ext",
	}).Draw(t, "what")
	slow := time.Duration(rapid.IntRange(0, 20).Draw(t, "slow")) * time.Second // its clock
	submit := func(c core.Content) {
		_, err = s.h.Submit(s.t.Context(), hub.Draft{Conv: conv, Sender: who, Content: c, Origin: time.Now().Add(-slow)})
	}
	switch what {
	case "say":
		submit(core.Message{Body: core.TextBody(text)})
	case "join":
		_, err = s.h.Join(s.t.Context(), hub.JoinRequest{Conv: conv, Who: who})
	case "leave":
		if who.Name != "calm" {
			submit(core.Membership{Target: who, Standing: core.Left})
		}
	case "kick", "unban":
		submit(member(core.Left))
	case "ban":
		submit(member(core.Banned))
	case "invite":
		submit(member(core.Invited))
	case "topic":
		submit(change(core.AspectTopic))
	case "name":
		submit(change(core.AspectName))
	case "levels":
		whose, level := other(), rapid.SampledFrom([]int64{0, 50, 100}).Draw(t, "level")
		err = s.h.ChangeLevels(s.t.Context(), conv, who, func(_ *core.State, l *core.Levels) { l.Users[whose] = level })
	case "rule":
		submit(core.Change{Aspect: core.AspectJoinRule, JoinRule: rapid.SampledFrom([]core.JoinRule{core.JoinPublic, core.JoinInvite, core.JoinKnock}).Draw(t, "rule")})
	case "ext":
		key := rapid.SampledFrom([]string{"", "x"}).Draw(t, "key")
		submit(core.Extension{Type: "org.example.thing", StateKey: &key, Data: []byte(`{"n":` + fmt.Sprint(len(text)) + `}`)})
	case "redact":
		n.collect()
		if len(n.all) == 0 {
			return
		}
		id := rapid.SampledFrom(n.all).Draw(t, "target")
		var target core.EventID
		readErr := s.h.Read(s.t.Context(), func(v hub.View) (err error) {
			target, err = s.m.CoreID(v, id)
			return err
		})
		if readErr != nil {
			return
		}
		submit(core.Retract{Target: target})
	}
	if err != nil && hub.CodeOf(err) == "" {
		t.Fatalf("%s at %s: %s: %v", who.Name, s.domain, what, err)
	}
	n.note("%s at %s: %s: %v", who.Name, s.domain, what, err)
}

// Three servers do as they like, and hear of each other late and in any order.
// When everything has arrived, and everybody has said something since, they have
// one end, one state, and show it to all their clients.
func TestServersAgree(t *testing.T) {
	for _, version := range []string{"12", "11"} {
		t.Run("version "+version, func(t *testing.T) { serversAgree(t, version) })
	}
}

// fewer has rapid try less than it does by itself: each try is a few hundred
// turns of the writer. -rapid.checks says how often.
func fewer(t *testing.T) {
	const checks = "rapid.checks"
	if f := flag.Lookup(checks); f.Value.String() == f.DefValue {
		if err := flag.Set(checks, "12"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(checks, f.DefValue) })
	}
}

func serversAgree(t *testing.T, version string) {
	sites := []*site{newSite(t, "a.test"), newSite(t, "b.test"), newSite(t, "c.test")}
	for _, s := range sites {
		for _, name := range []string{"calm", "one", "two"} {
			s.account(name)
		}
	}
	fewer(t)
	rapid.Check(t, func(rt *rapid.T) {
		for _, s := range sites {
			clear(s.out)
		}
		n := &net{
			room: sites[0].open(version, "calm"), sites: sites,
			wire: map[string][]byte{}, due: map[*site][]string{}, taken: map[*site]int{},
		}
		for _, s := range sites[1:] {
			s.enter(sites[0], n.room, "calm")
			if s == sites[2] { // of which the second has to hear
				n.collectJoin(sites)
			}
		}
		n.say(rt, sites[0]) // the others follow that, and not what they do not know
		n.settle(rt)
		n.staff(rt)
		defer func() {
			if rt.Failed() {
				rt.Log(n.log.String())
			}
		}()
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			s := sites[rapid.IntRange(0, 2).Draw(rt, "site")]
			if rapid.IntRange(0, 2).Draw(rt, "deliver") > 0 {
				n.act(rt, s)
				continue
			}
			n.collect()
			for range rapid.IntRange(1, 5).Draw(rt, "some") {
				if due := len(n.due[s]); due > 0 {
					n.deliver(s, rapid.IntRange(0, due-1).Draw(rt, "which"))
				}
			}
		}
		n.compare(rt)
	})
}

// staff has everybody join, of whom many have a say.
func (n *net) staff(t *rapid.T) {
	err := n.sites[0].h.ChangeLevels(n.sites[0].t.Context(), n.sites[0].conv(n.room), core.LocalAddress("calm", "a.test"), func(_ *core.State, l *core.Levels) {
		for _, s := range n.sites {
			l.Users[n.sites[0].address("@one:"+s.domain)] = 100
			l.Users[n.sites[0].address("@two:"+s.domain)] = 50
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	n.settle(t)
	for _, s := range n.sites {
		for _, name := range []string{"one", "two"} {
			if _, err := s.h.Join(s.t.Context(), hub.JoinRequest{Conv: s.conv(n.room), Who: core.LocalAddress(name, s.domain)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.settle(t)
}

// collectJoin tells the second server that the third came.
func (n *net) collectJoin(sites []*site) {
	var join string
	third := sites[2]
	third.turn(func(t *Turn) error {
		rm, err := t.room(third.conv(n.room))
		join = rm.ends[0]
		return err
	})
	n.wire[join] = third.raw(join)
	n.due[sites[1]] = append(n.due[sites[1]], join)
}

func (n *net) compare(t *rapid.T) {
	n.settle(t)
	for range 3 {
		for _, s := range n.sites {
			n.say(t, s)
		}
		n.settle(t)
	}
	n.say(t, n.sites[0])
	n.settle(t)
	first := n.sites[0].look(n.room)
	for _, s := range n.sites {
		got := s.look(n.room)
		if got.ends != first.ends {
			t.Errorf("the ends at %s are %s, not %s", s.domain, got.ends, first.ends)
		}
		if got.state != first.state {
			t.Errorf("the state at %s is\n%s\nnot\n%s", s.domain, got.state, first.state)
		}
		if got.core != first.core {
			t.Errorf("the core at %s says\n%s\nnot\n%s", s.domain, got.core, first.core)
		}
	}
	if n.sites[0].t.Failed() {
		t.Fatal("see above")
	}
}

func (n *net) say(t *rapid.T, s *site) {
	_, err := s.h.Submit(s.t.Context(), hub.Draft{
		Conv: s.conv(n.room), Sender: core.LocalAddress("calm", s.domain), Content: core.Message{Body: core.TextBody("well")},
	})
	if err != nil {
		t.Fatalf("calm cannot speak at %s: %v", s.domain, err)
	}
}
