package graph

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"parley/matrix/wire"
)

// Supreme is the level of a creator in version 12: above all others.
//
// spec: MX 1.19 RV v12
const Supreme = math.MaxInt64

// levels is the content of a power levels event. A level that is not there is
// not in the maps: to add one is a change.
type levels struct {
	plain         map[string]int64 // ban, kick, users_default...
	events        map[string]int64
	notifications map[string]int64
	users         map[string]int64
	// flaw is why the version's rules refuse this content whoever sends it.
	flaw error
}

// plainLevels are the properties that are a level themselves.
var plainLevels = [...]string{"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"}

// defaults of the plain levels, where there is a power levels event and where
// there is none. Those that are not here are 0.
//
// spec: MX 1.19 SS §5.1.1
func defaultLevel(name string) int64 {
	switch name {
	case "state_default", "ban", "kick", "redact":
		return 50
	}
	return 0
}

func (l *levels) get(name string) int64 {
	if l != nil {
		if n, ok := l.plain[name]; ok {
			return n
		}
	}
	return defaultLevel(name)
}

// required is the level that it takes to send an event of a type.
//
// spec: MX 1.19 SS §5.1.1
func (l *levels) required(eventType string, state bool) int64 {
	if l != nil {
		if n, ok := l.events[eventType]; ok {
			return n
		}
	}
	if state {
		return l.get("state_default")
	}
	return l.get("events_default")
}

// of is a user's level, by a power levels event that there is.
func (l *levels) of(user string) int64 {
	if n, ok := l.users[user]; ok {
		return n
	}
	return l.get("users_default")
}

// readLevels reads levels by the version's rules for their form.
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v10
func readLevels(v *wire.Version, o wire.Object) *levels {
	l := &levels{plain: map[string]int64{}}
	for _, name := range plainLevels {
		raw := o.Get(name)
		if raw == nil {
			continue
		}
		n, ok := readLevel(v, raw)
		if !ok {
			l.flaw = fmt.Errorf("%s is no level", name)
			return l
		}
		l.plain[name] = n
	}
	for _, m := range []struct {
		name string
		into *map[string]int64
	}{{"events", &l.events}, {"notifications", &l.notifications}, {"users", &l.users}} {
		if l.flaw = readLevelMap(v, o.Get(m.name), m.name, m.into); l.flaw != nil {
			return l
		}
	}
	for user := range l.users {
		if _, _, err := wire.ParseUserID(user); err != nil {
			l.flaw = fmt.Errorf("users: %w", err)
			return l
		}
	}
	return l
}

func readLevelMap(v *wire.Version, raw []byte, name string, into *map[string]int64) error {
	if raw == nil {
		return nil
	}
	o, err := wire.ParseObject(raw)
	if err != nil {
		return fmt.Errorf("%s is no object", name)
	}
	*into = make(map[string]int64, len(o))
	for _, m := range o {
		n, ok := readLevel(v, m.Value)
		if !ok {
			return fmt.Errorf("%s: that of %.80q is no level", name, m.Key)
		}
		(*into)[m.Key] = n
	}
	return nil
}

// readLevel reads an integer, before version 10 also one that is a string.
//
// spec: MX 1.19 RV v10
func readLevel(v *wire.Version, raw []byte) (int64, bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	if v.IntegerLevels {
		return 0, false
	}
	s, ok := wire.Unquote(raw)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return n, err == nil
}
