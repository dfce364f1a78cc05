package durability

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// conversation is one that all its members can read, over both protocols.
type conversation struct {
	name    string
	room    string // its Matrix room ID
	members []string
	group   bool
}

// other is with whom one talks in a direct conversation.
func (c *conversation) other(who string) string {
	if c.members[0] == who {
		return c.members[1]
	}
	return c.members[0]
}

// ledger is what the clients were told. Its methods may be called by any goroutine.
type ledger struct {
	mu sync.Mutex
	// acked is by conversation what was acknowledged, in the words of the message; the value is what it is called, or "".
	acked map[string]map[string]string
	media map[string]string // path of the file to its content
	count int
	fails []string
	moved chan struct{} // closed and replaced with every acknowledgement
	tally map[string]int
}

func newLedger() *ledger {
	return &ledger{acked: map[string]map[string]string{}, media: map[string]string{}, moved: make(chan struct{}), tally: map[string]int{}}
}

// ack notes that a message was acknowledged. A message may be acknowledged in more than one way.
func (l *ledger) ack(how string, c *conversation, body, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked[c.name] == nil {
		l.acked[c.name] = map[string]string{}
	}
	before, known := l.acked[c.name][body]
	if known && before != "" && id != "" && before != id {
		l.fails = append(l.fails, fmt.Sprintf("%q was acknowledged as %s and as %s", body, before, id))
	}
	if id == "" {
		id = before
	}
	l.acked[c.name][body] = id
	l.step(how)
}

// step counts an acknowledgement. The caller holds mu.
func (l *ledger) step(how string) {
	l.count++
	l.tally[how]++
	close(l.moved)
	l.moved = make(chan struct{})
}

func (l *ledger) kept(path, content string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.media[path] = content
	l.step("file")
}

// note counts what is no acknowledgement.
func (l *ledger) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally[what]++
}

// fail is t.Errorf for goroutines that may outlive the test.
func (l *ledger) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails = append(l.fails, fmt.Sprintf(format, args...))
	close(l.moved)
	l.moved = make(chan struct{})
}

// failures is what clients have found wrong so far.
func (l *ledger) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.fails)
}

// await returns when n more acknowledgements have come; it ends the test at the first failure.
func (l *ledger) await(t *testing.T, n int) {
	t.Helper()
	for until := -1; ; {
		l.mu.Lock()
		count, fails, moved := l.count, l.fails, l.moved
		l.mu.Unlock()
		if until < 0 {
			until = count + n
		}
		if len(fails) > 0 {
			t.Fatal(strings.Join(fails, "\n"))
		}
		if count >= until {
			return
		}
		<-moved
	}
}

// problems compares one view of a conversation with what was acknowledged: all of that is there, with the name that it was given,
// nothing is there twice, and what one client said is in the order in which it said it.
//
// A message is WHO/CLIENT NUMBER.
func (l *ledger) problems(c *conversation, view []line) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there := map[string]string{}
	last := map[string]int{}
	for _, m := range view {
		if _, twice := there[m.body]; twice {
			out = append(out, fmt.Sprintf("%q is there twice", m.body))
		}
		there[m.body] = m.id
		var by string
		var n int
		if _, err := fmt.Sscanf(m.body, "%s %d", &by, &n); err != nil {
			out = append(out, fmt.Sprintf("%q was never said", m.body))
			continue
		}
		if n < last[by] {
			out = append(out, fmt.Sprintf("%q comes after number %d", m.body, last[by]))
		}
		last[by] = n
	}
	for body, id := range l.acked[c.name] {
		switch is, ok := there[body]; {
		case !ok:
			out = append(out, fmt.Sprintf("%q was acknowledged and is lost", body))
		case id != "" && strings.HasPrefix(id, "$") == strings.HasPrefix(is, "$") && is != id:
			out = append(out, fmt.Sprintf("%q was acknowledged as %s and is %s", body, id, is))
		}
	}
	return out
}

// same says where two views of a conversation differ.
func same(a, b []line) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d messages and %d", len(a), len(b))
	}
	for i := range a {
		if a[i].body != b[i].body {
			return fmt.Sprintf("number %d is %q and %q", i, a[i].body, b[i].body)
		}
	}
	return ""
}

// The ledger finds each thing that can be wrong, and nothing where nothing is.
func TestLedger(t *testing.T) {
	c := &conversation{name: "c"}
	l := newLedger()
	l.ack("test", c, "a/1 1", "$one")
	l.ack("test", c, "a/1 2", "")
	good := []line{{"a/1 1", "$one"}, {"b/1 1", "$else"}, {"a/1 2", "$two"}}
	if got := l.problems(c, good); got != nil {
		t.Errorf("a good view has problems: %q", got)
	}
	for name, bad := range map[string][]line{
		"lost":       good[1:],
		"twice":      append(good, good[1]),
		"disordered": {good[2], good[0], good[1]},
		"renamed":    {{"a/1 1", "$other"}, good[1], good[2]},
		"not said":   append(good, line{"gibberish", "$x"}),
	} {
		if len(l.problems(c, bad)) != 1 {
			t.Errorf("%s: %q", name, l.problems(c, bad))
		}
		if name != "renamed" && same(good, bad) == "" {
			t.Errorf("%s: the views are taken for the same", name)
		}
	}
}
