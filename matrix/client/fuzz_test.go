package client

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"parley/core"
)

// Whatever path comes, it is found or not found, and the variables are those
// that the path spells.
func FuzzRouter(f *testing.F) {
	for _, seed := range []string{
		"/_matrix/client/v3/rooms/!a%2Fb:c/state/m.room.name/", "//", "/_matrix/client/r0/login", "/%", "/%00/x", "/a//b",
		"/_parley/media/x/../y", "/_matrix/client/v3/user/%40a%3Ab/filter/1",
	} {
		f.Add(seed)
	}
	a := &API{}
	for _, table := range a.routes() {
		a.Add(table)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, method := range []string{http.MethodGet, http.MethodPut, "BREW"} {
			r, vars, allowed, err := a.router.find(method, path)
			if err != nil && r != nil || r != nil && allowed != nil {
				t.Fatalf("%s: a route and an error", path)
			}
			for name, v := range vars {
				if v == "" || !textual(v[:min(len(v), maxTextual)]) {
					t.Errorf("%s: variable %s is %q", path, name, v)
				}
			}
		}
	})
}

// What the check of bodies lets through is a JSON object within bounds.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{"{}", `{"a":[{"b":"\"[{"}]}`, "[", "\"", `{"a":"\\"}`, " ", "{}{}", "\xff", `{"a":1e999}`, "null"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkJSON(b) != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			// Numbers beyond every type are valid JSON.
			if _, ok := err.(*json.UnmarshalTypeError); !ok {
				t.Fatalf("%q was let through: %v", b, err)
			}
		}
		if _, err := withoutAuth(b); err != nil {
			t.Errorf("%q: %v", b, err)
		}
	})
}

// Any rules and any event give a verdict, in reasonable time.
func FuzzPushRules(f *testing.F) {
	f.Add([]byte(`{"override":[{"rule_id":"x","enabled":true,"actions":["notify",{"set_tweak":"highlight"}],"conditions":[
		{"kind":"event_match","key":"content.body","pattern":"*a*b*?"},{"kind":"room_member_count","is":">=2"},
		{"kind":"event_property_is","key":"a\\.b.c","value":1},{"kind":"event_property_contains","key":"x","value":null}]}]}`),
		[]byte(`{"sender":"@a:b","content":{"body":"aaaaaaaaaab"},"a.b":{"c":1},"x":[null,{}]}`))
	f.Add([]byte(`{"content":[{"rule_id":"y","enabled":true,"pattern":"(","actions":[]}]}`), []byte(`{"content":{"body":"("}}`))
	f.Add([]byte(`{"room":[{"rule_id":"!r","actions":null}]}`), []byte(`{"room_id":["!r"]}`))
	f.Fuzz(func(t *testing.T, rules, event []byte) {
		var s Ruleset
		var e map[string]any
		if len(rules) > 4096 || json.Unmarshal(rules, &s) != nil || json.Unmarshal(event, &e) != nil {
			return
		}
		v := s.Evaluator("@me:example.org").Evaluate(e, PushContext{Members: 2, DisplayName: "me"})
		if v.Highlight && !v.Notify {
			t.Errorf("a highlight without a notification: %+v", v)
		}
		defaults := defaultRules("@me:example.org")
		for _, k := range RuleKinds {
			merge(defaults.Of(k), *s.Of(k))
		}
		if defaults.Override[0].ID != ".m.rule.master" {
			t.Error("the master rule is not the first")
		}
	})
}

func TestBuckets(t *testing.T) {
	at := time.Now()
	l := newLimits(map[Class]pace{Logins: {time.Second, 2}})
	for i := range 2 {
		if w := l.take(Logins, "x", at); w != 0 {
			t.Fatalf("take %d waits %s", i, w)
		}
	}
	w := l.take(Logins, "x", at)
	if w <= 0 || w > 2*time.Second {
		t.Fatalf("an empty bucket waits %s", w)
	}
	if l.take(Logins, "y", at) != 0 || l.take(Reads, "x", at) != 0 {
		t.Error("somebody else, or another class, waits too")
	}
	l.giveBack(Logins, "x", at)
	if l.take(Logins, "x", at) != 0 || l.take(Logins, "x", at) == 0 {
		t.Error("giving back does not give one back")
	}
	if l.take(Logins, "x", at.Add(w)) != 0 {
		t.Error("not filled up after the time that it said")
	}
	l.sweep(at.Add(time.Hour))
	if len(l.buckets) != 0 {
		t.Error("full buckets are kept")
	}
}

// A set of clients in every constellation has one presence.
func TestPresenceWords(t *testing.T) {
	at := time.Now()
	for _, c := range []struct {
		in   []core.Presence
		want PresenceContent
	}{
		{nil, PresenceContent{Presence: "offline"}},
		{[]core.Presence{{Show: core.ShowDND, Status: "busy"}}, PresenceContent{Presence: "unavailable", Status: "busy"}},
		{[]core.Presence{{Show: core.ShowAway, Status: "out"}, {Show: core.ShowChat}}, PresenceContent{Presence: "online", Status: "out"}},
		{[]core.Presence{{Show: core.ShowOnline, Active: at.Add(-time.Minute)}},
			PresenceContent{Presence: "online", ActiveAgo: 60_000, Active: true}},
		{[]core.Presence{{Show: core.ShowXA, Active: at.Add(-time.Hour)}}, PresenceContent{Presence: "unavailable", ActiveAgo: 3_600_000}},
	} {
		if got := PresenceOf(c.in, at); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.in, got, c.want)
		}
	}
}
