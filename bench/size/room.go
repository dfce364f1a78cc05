package size

import (
	"fmt"
	"slices"
	"time"

	"parley/bench/matrixroom"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// newRoom makes a public room of so many members on so many servers.
func newRoom(members, servers int) (*matrixroom.Room, error) {
	r, err := matrixroom.New(matrixroom.Config{
		Version: wire.DefaultVersion, Creator: user(0, servers), Began: time.UnixMilli(1_700_000_000_000),
	})
	if err != nil {
		return nil, err
	}
	for i := 1; i < members; i++ {
		if err := r.Join(user(i, servers)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func user(i, servers int) string { return fmt.Sprintf("@user%d:server%d.test", i, i%servers) }

// split is the state without most members, as a server tells it at first, and the
// members that are left out.
func split(r *matrixroom.Room, keep int) (first, rest []shared.Incoming) {
	for _, e := range r.State {
		in := shared.Incoming{PDU: e}
		if e.Type != wire.TypeMember || slices.Contains(r.Users[:keep], *e.StateKey) {
			first = append(first, in)
		} else {
			rest = append(rest, in)
		}
	}
	return first, rest
}
