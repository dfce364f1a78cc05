package guard_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/xmpp/guard"
	"parley/xmpp/guard/guardtest"
	"parley/xmpp/translate"
)

// clock is a time that the test sets.
type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func made(servers guard.Servers, rates map[guard.Limit]guard.Rate) (*guard.Guard, *guardtest.Counts, *clock) {
	c, n := &clock{time.Unix(1_800_000_000, 0)}, &guardtest.Counts{}
	return guard.New(guard.Config{Rates: rates, Servers: servers, Count: n, Contact: "mailto:abuse@a.test",
		Now: func() time.Time { return c.now }}), n, c
}

func condition(t *testing.T, err error) *translate.Error {
	t.Helper()
	e, ok := errors.AsType[*translate.Error](err)
	if !ok {
		t.Fatalf("the error is %v", err)
	}
	return e
}

func TestAllow(t *testing.T) {
	g, n, c := made(guard.Servers{}, map[guard.Limit]guard.Rate{guard.Joins: {N: 3, Per: time.Minute}})
	for range 3 {
		if err := g.Allow(guard.Joins, "alice"); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 { // what is refused costs nothing
		e := condition(t, g.Allow(guard.Joins, "alice"))
		if e.Condition != translate.ResourceConstraint || !strings.HasSuffix(e.Text, "try again in 20 seconds") {
			t.Errorf("alice is told %v", e)
		}
	}
	if err := g.Allow(guard.Joins, "bob"); err != nil {
		t.Error("bob is held for what alice did:", err)
	}
	if err := g.Allow(guard.Rooms, "alice"); err != nil {
		t.Error("a limit that is not set holds:", err)
	}
	c.pass(20 * time.Second)
	if err := g.Allow(guard.Joins, "alice"); err != nil {
		t.Error("after the wait:", err)
	}
	if n.Limited(guard.Joins) != 5 {
		t.Errorf("%d are counted", n.Limited(guard.Joins))
	}
	var none *guard.Guard
	if none.Allow(guard.Joins, "x") != nil || none.Refuses("x.test") != nil || none.Wait(t.Context(), guard.Joins, "x") != nil {
		t.Error("no guard holds")
	}
}

func TestFailedLogins(t *testing.T) {
	g, _, c := made(guard.Servers{}, map[guard.Limit]guard.Rate{guard.Logins: {N: 2, Per: time.Minute}})
	f := guard.FailedLogins{Guard: g}
	for i := range 3 {
		if f.Exhausted("alice") != (i == 2) {
			t.Errorf("after %d failures", i)
		}
		f.Failed("alice")
	}
	if f.Exhausted("bob") {
		t.Error("bob has to wait for what alice did")
	}
	c.pass(time.Minute)
	if f.Exhausted("alice") {
		t.Error("it is never forgotten")
	}
}

// Keys that nobody hears of again do not stay, and a flood of them costs no more than its bound.
func TestManyKeys(t *testing.T) {
	g, _, c := made(guard.Servers{}, map[guard.Limit]guard.Rate{guard.Joins: {N: 1, Per: time.Minute}})
	for i := range 250_000 {
		if err := g.Allow(guard.Joins, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.Keys(guard.Joins); n > 100_000 {
		t.Errorf("%d keys are kept", n)
	}
	c.pass(2 * time.Minute)
	_ = g.Allow(guard.Joins, "one more")
	if n := g.Keys(guard.Joins); n != 1 {
		t.Errorf("%d keys are kept after a pause", n)
	}
}

func TestRefuses(t *testing.T) {
	g, n, _ := made(guard.Servers{Refuse: []string{"spam.example", "*.spam.example", "*.bad.example"}}, nil)
	for domain, want := range map[string]bool{
		"spam.example": true, "a.spam.example": true, "a.b.spam.example": true, "nospam.example": false,
		"bad.example": false, "x.bad.example": true, "example": false, "good.example": false,
	} {
		if err := g.Refuses(domain); (err != nil) != want {
			t.Errorf("%s: %v", domain, err)
		} else if err != nil && (condition(t, err).Condition != translate.PolicyViolation || !strings.Contains(err.Error(), "mailto:abuse@a.test")) {
			t.Errorf("%s is told %v", domain, err)
		}
	}
	if n.Limited(guard.Refused) != 4 {
		t.Error("refusals are not counted")
	}
	g, _, _ = made(guard.Servers{Refuse: []string{"x.friends.example"}, Only: []string{"*.friends.example"}}, nil)
	if g.Refuses("other.example") == nil || g.Refuses("a.friends.example") != nil || g.Refuses("x.friends.example") == nil {
		t.Error("the list of the only servers is not held to")
	}
}

// A server that sends what nobody wants may send ever less, is refused altogether, and is forgiven in the end. Its subdomains are no way
// around that.
func TestReputation(t *testing.T) {
	g, n, c := made(guard.Servers{HalfLife: time.Hour, RefuseAt: 10},
		map[guard.Limit]guard.Rate{guard.Strangers: {N: 5, Per: time.Hour}, guard.StrangerSender: {N: 1, Per: time.Hour}})
	spam := func(i int) error {
		domain := fmt.Sprintf("s%d.b.test", i)
		return g.Stranger(guard.Approach{Limit: guard.Strangers, Sender: fmt.Sprintf("spam%d@%s", i, domain), Domain: domain, Known: true})
	}
	for i := range 5 {
		if err := spam(i); err != nil {
			t.Fatal(i, err)
		}
	}
	for range 50 { // one alone does not spoil the name of all
		if condition(t, spam(0)).Condition != translate.ResourceConstraint {
			t.Fatal("a single sender was enough")
		}
	}
	if n.Limited(guard.StrangerSender) != 50 || g.Score("b.test") != guard.ScoreOver {
		t.Errorf("the score is %v", g.Score("b.test"))
	}
	for i := 5; g.Score("b.test") < 10; i++ {
		if e := condition(t, spam(i)); e.Condition != translate.ResourceConstraint || !strings.Contains(e.Text, "mailto:abuse@a.test") {
			t.Fatal(e)
		}
	}
	if e := condition(t, spam(1000)); e.Condition != translate.PolicyViolation || n.Limited(guard.Reputation) != 1 {
		t.Errorf("a server of bad name is told %v", e)
	}
	other := guard.Approach{Limit: guard.Strangers, Sender: "x@c.test", Domain: "c.test", Known: true}
	if err := g.Stranger(other); err != nil {
		t.Error("another server is held for it:", err)
	}
	c.pass(3 * time.Hour)
	if err := spam(2000); err != nil {
		t.Error("after a while:", err)
	}
}

// What accounts say of a server counts, but of each account only once.
func TestBlame(t *testing.T) {
	g, _, c := made(guard.Servers{RefuseAt: 30}, map[guard.Limit]guard.Rate{guard.Strangers: {N: 20, Per: time.Hour}})
	for range 10 {
		g.Blame("alice", "chat.b.test", guard.ScoreReported)
	}
	if s := g.Score("b.test"); s != guard.ScoreReported {
		t.Errorf("one account alone brings a score of %v", s)
	}
	allowed := 0
	for i := range 20 {
		if g.Stranger(guard.Approach{Limit: guard.Strangers, Sender: fmt.Sprint(i), Domain: "b.test", Known: true}) == nil {
			allowed++
		}
	}
	if allowed != 10 {
		t.Errorf("of 20 messages of a server that was reported, %d are taken", allowed)
	}
	c.pass(25 * time.Hour)
	g.Blame("alice", "b.test", guard.ScoreReported)
	g.Blame("bob", "b.test", guard.ScoreReported)
	g.Blame("carol", "b.test", guard.ScoreReported)
	if g.Stranger(guard.Approach{Limit: guard.Strangers, Sender: "z", Domain: "b.test"}) == nil {
		t.Error("three reports change nothing")
	}
}

// Servers on which nobody here has a contact have a smaller allowance, all domains of one owner together.
func TestUnknownServer(t *testing.T) {
	g, n, _ := made(guard.Servers{}, map[guard.Limit]guard.Rate{
		guard.Strangers: {N: 100, Per: time.Hour}, guard.UnknownServer: {N: 2, Per: time.Hour}})
	taken := func(known bool) (n int) {
		for i := range 10 {
			d := fmt.Sprintf("s%d.b.test", i)
			if g.Stranger(guard.Approach{Limit: guard.Strangers, Sender: "x@" + d, Domain: d, Known: known}) == nil {
				n++
			}
		}
		return n
	}
	if got := taken(false); got != 2 || n.Limited(guard.UnknownServer) != 8 {
		t.Errorf("of an unknown server %d are taken", got)
	}
	if got := taken(true); got != 10 {
		t.Errorf("of a known server %d are taken", got)
	}
}

// FuzzStranger: whatever a server calls itself, it is held to something, and nothing panics.
func FuzzStranger(f *testing.F) {
	for _, s := range []string{"b.test", "", ".", "..", "*.b.test", "[::1]", "10.0.0.1", "co.uk", "xn--bcher-kva.example", strings.Repeat("a.", 500)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, domain string) {
		g, _, _ := made(guard.Servers{Refuse: []string{"*.x"}, RefuseAt: 5}, map[guard.Limit]guard.Rate{guard.Strangers: {N: 2, Per: time.Hour}})
		_ = g.Refuses(domain)
		for i := range 3 {
			err := g.Stranger(guard.Approach{Limit: guard.Strangers, Sender: fmt.Sprint(i), Domain: domain, Known: true})
			if (err != nil) != (i == 2) {
				t.Fatalf("%q: message %d: %v", domain, i, err)
			}
		}
	})
}
