package joining

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"parley/matrix/federation/receiving"
)

// lobby holds up what is said in rooms that are just being entered.
type lobby struct {
	receiving.Rooms
	j *Joining
}

// Lobby lets what other servers say in a room wait while the first of ours enters
// it: those in the room talk to us from the moment on at which they have let her
// in, and the room is known here a little later.
func (j *Joining) Lobby(rooms receiving.Rooms) receiving.Rooms { return lobby{rooms, j} }

// lobbyTime is how long a transaction waits, before the other server is asked to
// send it again.
const lobbyTime = 30 * time.Second

// Receive implements [receiving.Rooms].
func (l lobby) Receive(ctx context.Context, origin string, pdus []json.RawMessage) map[string]error {
	waiting, cancel := context.WithTimeout(ctx, lobbyTime)
	defer cancel()
	seen := map[string]bool{}
	for _, raw := range pdus {
		var e struct {
			RoomID string `json:"room_id"`
		}
		if json.Unmarshal(raw, &e) != nil || seen[e.RoomID] {
			continue
		}
		seen[e.RoomID] = true
		if err := l.j.settled(waiting, e.RoomID); err != nil {
			return map[string]error{"": fmt.Errorf("%w: %s is being entered", receiving.ErrLater, e.RoomID)}
		}
	}
	return l.Rooms.Receive(ctx, origin, pdus)
}

// settled waits until nobody is entering a room of which none of ours is a member
// so far.
func (j *Joining) settled(ctx context.Context, roomID string) error {
	for {
		j.mu.Lock()
		var wait chan struct{}
		for d, c := range j.doors {
			if d.roomID == roomID && d.first {
				wait = c
			}
		}
		j.mu.Unlock()
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
