package devices

import (
	"strings"
	"time"

	"parley/core"
)

// key is the form in which tables of this package name a person.
func key(a core.Address) string { return a.String() }

func now() time.Time { return time.Now().UTC() }

// textual reports whether IDs from outside can be kept in a TEXT column.
func textual(ids ...string) bool {
	for _, s := range ids {
		if s == "" || len(s) > maxID || strings.IndexByte(s, 0) >= 0 {
			return false
		}
	}
	return true
}
