package meter

import (
	"fmt"
	"os"
	"testing"
)

// TestTable sees that a ratio says how many times better the first server is, whichever way
// better is.
func TestTable(t *testing.T) {
	values := map[string]float64{"a": 10, "b": 5}
	value := func(name string) (float64, bool) { v, ok := values[name]; return v, ok }
	for better, ratio := range map[Direction]string{More: " 2.00×", Less: " 0.50×", Neither: ""} {
		want := fmt.Sprintf("| x | s | 10.0 | 5.00 | — |%s | |\n", ratio)
		if got := (Row[string]{"x", "s", better, value}).line([]string{"a", "b", "c"}); got != want {
			t.Errorf("%d: %q, want %q", better, got, want)
		}
	}
	none := Row[string]{"x", "s", More, func(string) (float64, bool) { return 0, false }}
	head := "| | unit | a | b | to b |\n|---|---|--:|--:|--:|\n"
	if got := Table([]string{"a", "b"}, func(name string) string { return name }, []Row[string]{none}); got != head {
		t.Errorf("%q, want %q", got, head)
	}
}

// TestPeak sees a peak that is over.
func TestPeak(t *testing.T) {
	pid := os.Getpid()
	if err := ResetPeak(pid); err != nil {
		t.Fatal(err)
	}
	before, _, err := Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	for block, i := make([]byte, size), 0; i < size; i += 4096 {
		block[i] = 1
	}
	if peak, err := Peak(pid); err != nil || peak < before+size/2 {
		t.Errorf("the peak is %d, and it was %d before %d more were used: %v", peak, before, size, err)
	}
}

func TestPackageOf(t *testing.T) {
	for name, want := range map[string]string{
		"parley/xmpp/c2s.(*Session).run": "parley/xmpp/c2s",
		"runtime.mallocgc":               "runtime",
		"github.com/a/b-c/d.F.G.func1":   "github.com/a/b-c/d",
		"memeqbody":                      "memeqbody",
	} {
		if got := packageOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestPerfTotal(t *testing.T) {
	text := "3,,syscalls:sys_enter_fsync,1,100.00,,\n4,,syscalls:sys_enter_fdatasync,1,100.00,,\n"
	if n := perfTotal(text); n != 7 {
		t.Errorf("total %d", n)
	}
	if n := perfTotal("<not supported>,,syscalls:sys_enter_fsync\n"); n != -1 {
		t.Errorf("of nothing: %d", n)
	}
}
