package client

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// Evaluator says what push rules do with an event. It is made once for many
// events and may be used by many goroutines.
type Evaluator struct {
	userID string
	rules  []compiledRule
}

type compiledRule struct {
	verdict Verdict
	all     []matcher
}

// matcher is one condition.
type matcher func(e map[string]any, c *PushContext) bool

// PushContext is what rules ask of the room, at the event.
type PushContext struct {
	Members     int    // joined ones
	DisplayName string // of the account, in the room
	// MayNotify reports whether the event's sender may notify all of the room:
	// whether her level is that of the key in the room's notifications.
	MayNotify func(sender, key string) bool
}

// Verdict is what the first rule that matches does.
type Verdict struct {
	Notify, Highlight bool
	Rule              string // its ID
}

// Evaluator prepares the rules for an account.
func (s *Ruleset) Evaluator(userID string) *Evaluator {
	ev := &Evaluator{userID: userID}
	for _, k := range RuleKinds {
		for _, r := range *s.Of(k) {
			if !r.Enabled {
				continue
			}
			c := compiledRule{verdict: r.verdict()}
			for _, cond := range r.conditions(k) {
				c.all = append(c.all, cond.compile())
			}
			ev.rules = append(ev.rules, c)
		}
	}
	return ev
}

// Evaluate says what the rules do with an event as clients see it. What the
// account sent itself is no news to it.
//
// spec: MX 1.19 CS §10.15.1
func (ev *Evaluator) Evaluate(e map[string]any, c PushContext) Verdict {
	if e["sender"] == ev.userID {
		return Verdict{}
	}
rules:
	for _, r := range ev.rules {
		for _, m := range r.all {
			if !m(e, &c) {
				continue rules
			}
		}
		return r.verdict
	}
	return Verdict{}
}

func (r *Rule) verdict() Verdict {
	v := Verdict{Rule: r.ID}
	for _, a := range r.Actions {
		switch {
		case a.Name == "notify" || a.Name == "coalesce":
			v.Notify = true
		case a.Tweak == "highlight":
			v.Highlight = string(bytes.TrimSpace(a.Value)) != "false"
		}
	}
	v.Highlight = v.Highlight && v.Notify
	return v
}

// conditions are the rule's, or those that its kind stands for.
//
// spec: MX 1.19 CS §10.15.1.2
func (r *Rule) conditions(k RuleKind) []Condition {
	is := func(key, value string) []Condition {
		quoted, _ := json.Marshal(value) // of a string: cannot fail
		return []Condition{{Kind: "event_property_is", Key: key, Value: quoted}}
	}
	switch k {
	case Content:
		return []Condition{matches("content.body", r.Pattern)}
	case RoomRule:
		return is("room_id", r.ID)
	case Sender:
		return is("sender", r.ID)
	}
	return r.Conditions
}

func never(map[string]any, *PushContext) bool { return false }

// compile turns a condition into a function. One of an unknown kind matches
// nothing.
//
// spec: MX 1.19 CS §10.15.1.2
func (c Condition) compile() matcher {
	path := splitPath(c.Key)
	switch c.Kind {
	case "event_match":
		if c.Pattern == nil {
			return never
		}
		re := globPattern(*c.Pattern, c.Key == "content.body")
		return func(e map[string]any, _ *PushContext) bool {
			s, ok := lookup(e, path).(string)
			return ok && re.MatchString(s)
		}
	case "event_property_is":
		want, ok := scalar(c.Value)
		return func(e map[string]any, _ *PushContext) bool {
			v, there := find(e, path)
			return ok && there && sameScalar(v, want)
		}
	case "event_property_contains":
		want, ok := scalar(c.Value)
		return func(e map[string]any, _ *PushContext) bool {
			list, isList := lookup(e, path).([]any)
			for _, v := range list {
				if ok && isList && sameScalar(v, want) {
					return true
				}
			}
			return false
		}
	case "contains_display_name":
		return func(e map[string]any, pc *PushContext) bool {
			body, ok := lookup(e, []string{"content", "body"}).(string)
			return ok && pc.DisplayName != "" && wordPattern(regexp.QuoteMeta(pc.DisplayName)).MatchString(body)
		}
	case "room_member_count":
		return memberCount(c.Is)
	case "sender_notification_permission":
		return func(e map[string]any, pc *PushContext) bool {
			sender, ok := e["sender"].(string)
			return ok && pc.MayNotify != nil && pc.MayNotify(sender, c.Key)
		}
	}
	return never
}

func memberCount(is string) matcher {
	digits := strings.TrimLeft(is, "=<>")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return never
	}
	var holds func(int) bool
	switch strings.TrimSuffix(is, digits) {
	case "", "==":
		holds = func(m int) bool { return m == n }
	case "<":
		holds = func(m int) bool { return m < n }
	case ">":
		holds = func(m int) bool { return m > n }
	case "<=":
		holds = func(m int) bool { return m <= n }
	case ">=":
		holds = func(m int) bool { return m >= n }
	default:
		return never
	}
	return func(_ map[string]any, pc *PushContext) bool { return holds(pc.Members) }
}

// splitPath takes a dot-separated path apart; a backslash makes a dot or a
// backslash part of a name.
//
// spec: MX 1.19 AP §8
func splitPath(s string) []string {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '.' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		case s[i] == '.':
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(parts, b.String())
}

func find(e map[string]any, path []string) (any, bool) {
	for len(path) > 1 {
		next, ok := e[path[0]].(map[string]any)
		if !ok {
			return nil, false
		}
		e, path = next, path[1:]
	}
	v, ok := e[path[0]]
	return v, ok
}

func lookup(e map[string]any, path []string) any {
	v, _ := find(e, path)
	return v
}

// scalar reads a value that is neither an object nor a list.
func scalar(raw json.RawMessage) (v any, ok bool) {
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		return nil, false
	}
	switch v.(type) {
	case map[string]any, []any:
		return nil, false
	}
	return v, true
}

// sameScalar compares without casting types; numbers may be of any Go type.
func sameScalar(a, b any) bool {
	switch x := a.(type) {
	case map[string]any, []any:
		return false
	case json.Number:
		f, err := x.Float64()
		return err == nil && f == b
	case int64:
		return float64(x) == b
	case int:
		return float64(x) == b
	}
	return a == b
}

// globPattern compiles a glob; within a body it need match only a part that
// begins and ends at the boundary of a word.
//
// spec: MX 1.19 AP §7
func globPattern(glob string, words bool) *regexp.Regexp {
	var b strings.Builder
	for _, r := range glob {
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	if words {
		return wordPattern(b.String())
	}
	return regexp.MustCompile(`(?is)\A` + b.String() + `\z`)
}

func wordPattern(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`(?is)(?:\A|[^0-9A-Za-z_])(?:` + pattern + `)(?:[^0-9A-Za-z_]|\z)`)
}
