package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"parley/config"
	"parley/xmpp/guard"
)

// documented is a row of docs/limits.md.
type documented struct{ def, metric string }

// TestLimitsAreDocumented fails for each setting of [limits] that docs/limits.md does not have, or has with another default, for each
// row that is no setting, and for each limit of XMPP that is counted under a name which is none, or is not said to be counted.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]documented{}
	for _, m := range regexp.MustCompile("(?m)^\\|[^|]*\\| `([a-z_]+)` \\| ([^|]*) \\|[^|]*\\| ?([a-z_]*) ?\\|$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s is there twice", m[1])
		}
		rows[m[1]] = documented{m[2], m[3]}
	}
	limits := reflect.ValueOf(config.Default().Limits)
	settings := map[string]bool{}
	for i := range limits.NumField() {
		key := limits.Type().Field(i).Tag.Get("toml")
		settings[key] = true
		want := fmt.Sprint(limits.Field(i).Interface())
		if want == "[]" {
			want = "none"
		}
		if row, ok := rows[key]; !ok {
			t.Errorf("docs/limits.md has no row for %s = %s", key, want)
		} else if row.def != want {
			t.Errorf("docs/limits.md says %s = %s, but it is %s", key, row.def, want)
		}
	}
	for key := range rows {
		if !settings[key] {
			t.Errorf("docs/limits.md has %s, which is no setting", key)
		}
	}
	counted := guardLimits(t)
	for _, key := range counted {
		if row, ok := rows[key]; key != string(guard.Refused) && (!ok || row.metric != "limited") {
			t.Errorf("%s is counted as limited, which docs/limits.md does not say", key)
		}
	}
	for key, row := range rows {
		if row.metric == "limited" && !strings.Contains("\n"+strings.Join(counted, "\n")+"\n", "\n"+key+"\n") {
			t.Errorf("docs/limits.md says that %s is counted as limited, but nothing counts it", key)
		}
	}
}

// guardLimits reads the limits' names out of the source of package guard.
func guardLimits(t *testing.T) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../xmpp/guard/guard.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || fmt.Sprint(v.Type) != "Limit" || len(v.Values) != 1 {
			return true
		}
		name, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
		return true
	})
	if len(names) < 10 {
		t.Fatalf("only %v were found", names)
	}
	return names
}

// counterOf counts one name.
type counterOf map[string]int

func (c counterOf) Count(name string, labels ...string) {
	c[strings.Join(append([]string{name}, labels...), " ")]++
}

// The configuration is what holds: of each rate, as many pass as it says and no more.
func TestGuardHoldsConfiguration(t *testing.T) {
	cfg := config.Default()
	cfg.Limits.RoomJoinsPerMinute, cfg.Limits.RoomsPerHour, cfg.Limits.ArchivePagesPerMinute = 3, 4, 5
	cfg.Federation.Refuse = []string{"*.spam.example"}
	n := counterOf{}
	cfg.Domains = []string{"example.org"}
	g := newGuard(&cfg, n)
	for l, want := range map[guard.Limit]int{guard.Joins: 3, guard.Rooms: 4, guard.ArchivePages: 5} {
		got := 0
		for range 10 {
			if g.Allow(l, "somebody") == nil {
				got++
			}
		}
		if got < want || got > want+1 || n["limited "+string(l)] != 10-got { // one may have been earned meanwhile
			t.Errorf("%s: %d of 10 pass, %v are counted", l, got, n)
		}
	}
	if err := g.Refuses("x.spam.example"); err == nil || !strings.Contains(err.Error(), "mailto:postmaster@example.org") {
		t.Errorf("a refused server is told %v", err)
	}
	cfg.Contact.Abuse = []string{"xmpp:abuse@example.org"}
	if err := newGuard(&cfg, n).Refuses("x.spam.example"); err == nil || !strings.Contains(err.Error(), "xmpp:abuse@example.org") {
		t.Errorf("with a contact for abuse, it is told %v", err)
	}
}
