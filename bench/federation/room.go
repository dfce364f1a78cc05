package federation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/bench/matrixroom"
	"parley/matrix/wire"
)

// maxAnswer bounds answers and bodies, in bytes: a room of 10,000 members has some
// 10 MB of state.
const maxAnswer = 256 << 20

// room is one of the [Peer]'s rooms.
type room struct {
	mu sync.Mutex
	*matrixroom.Room
	home    string // the server that lets people in
	servers []string
	joined  chan struct{} // closed when the first of the other server has joined
	// seen is the number of the last message of the peer that the other server has
	// shown to its user, said that of the last that was made.
	seen, said int64
}

// newRoom makes a room of so many members on so many servers.
func (p *Peer) newRoom(version string, home, members, servers int) (*room, error) {
	who := func(i int) string { return userID((home+i)%servers, i) }
	mr, err := matrixroom.New(matrixroom.Config{
		Version: version, ID: "!room" + p.id() + ":" + serverName(home), Creator: who(0), Began: time.Now().Add(-time.Hour),
		Key: func(string) *wire.SigningKey { return p.key },
	})
	if err != nil {
		return nil, err
	}
	for i := 1; i < members; i++ {
		if err := mr.Join(who(i)); err != nil {
			return nil, err
		}
	}
	r := &room{Room: mr, home: serverName(home), joined: make(chan struct{})}
	for i := range min(servers, members) {
		r.servers = append(r.servers, serverName((home+i)%servers))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rooms[mr.ID] = r
	return r, nil
}

// find is a room that the peer has; nil for none.
func (p *Peer) find(id string) *room {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rooms[id]
}

// bodyMark is before the number in the body of a message of the peer.
const bodyMark = "message "

// say has one of the first few members of the home server's names say the next
// messages. They are not sent.
func (r *room) say(n, senders int) ([]json.RawMessage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]json.RawMessage, 0, n)
	for range n {
		r.said++
		who := r.Users[int(r.said)%min(senders, len(r.Users))]
		e, err := r.Say("m.room.message", nil, who, fmt.Sprintf(`{"body":"%s%d","msgtype":"m.text"}`, bodyMark, r.said))
		if err != nil {
			return nil, err
		}
		out = append(out, e.JSON)
	}
	return out, nil
}

// note learns that the other server has shown a message of the peer.
func (r *room) note(body string) {
	if len(body) <= len(bodyMark) || body[:len(bodyMark)] != bodyMark {
		return
	}
	n, err := strconv.ParseInt(body[len(bodyMark):], 10, 64)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = max(r.seen, n)
}

// counts are how many messages were made and shown.
func (r *room) counts() (said, seen int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said, r.seen
}

// template is what a joiner's event comes after and cites.
//
// spec: MX 1.19 SS §10
func (r *room) template(user string) map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	depth := int64(0)
	prev := []string{}
	for _, e := range r.Ends {
		prev = append(prev, e.EventID)
		depth = max(depth, e.Depth)
	}
	return map[string]any{
		"room_version": r.Version.ID,
		"event": map[string]any{
			"type": wire.TypeMember, "room_id": r.ID, "sender": user, "state_key": user, "origin": r.home,
			"origin_server_ts": time.Now().UnixMilli(), "depth": depth + 1, "prev_events": prev,
			"auth_events": r.Cites(wire.TypeMember, &user, user, []byte(`{"membership":"join"}`)),
			"content":     map[string]any{"membership": "join"},
		},
	}
}

// welcome takes a join and tells the room's state before it, without the members
// where they are not wanted.
//
// spec: MX 1.19 SS §10
func (r *room) welcome(raw []byte, omit bool) (map[string]any, error) {
	join, err := wire.Parse(r.Version, raw)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	state := slices.Clone(r.State)
	if omit {
		cites := r.Chain(join)
		state = slices.DeleteFunc(state, func(e *wire.PDU) bool { return e.Type == wire.TypeMember && !slices.Contains(cites, e) })
	}
	answer := map[string]any{
		"origin": r.home, "event": json.RawMessage(raw), "members_omitted": omit, "servers_in_room": r.servers,
		"state": texts(state), "auth_chain": texts(r.Chain(append(slices.Clone(state), join)...)),
	}
	r.Take(join)
	select {
	case <-r.joined:
	default:
		close(r.joined)
	}
	return answer, nil
}

// texts are events as they are sent.
func texts(events []*wire.PDU) []json.RawMessage {
	out := make([]json.RawMessage, len(events))
	for i, e := range events {
		out[i] = e.JSON
	}
	return out
}

// ids are the IDs of events.
func ids(events []*wire.PDU) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.EventID
	}
	return out
}

// take makes an event of the other server part of the room, and says whether it is a
// message that was not there.
func (r *room) take(raw []byte) (fresh bool, id string, err error) {
	e, err := wire.Parse(r.Version, raw)
	if err != nil {
		return false, "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh = r.Events[e.EventID] == nil && e.Type == "m.room.message"
	r.Take(e)
	return fresh, e.EventID, nil
}

// stateBefore is the state before an event: that of now without what came with it or
// later. Nobody replaces state in the rooms of a measurement.
func (r *room) stateBefore(id string) ([]*wire.PDU, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Events[id] == nil {
		return nil, false
	}
	later := map[string]bool{}
	for i := len(r.Said) - 1; i >= 0; i-- {
		later[r.Said[i].EventID] = true
		if r.Said[i].EventID == id {
			break
		}
	}
	return slices.DeleteFunc(slices.Clone(r.State), func(e *wire.PDU) bool { return later[e.EventID] }), true
}

// before are the events that came before some, latest first, and these.
func (r *room) before(of map[string]bool, limit int) (out []*wire.PDU) {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := false
	for i := len(r.Said) - 1; i >= 0 && len(out) < limit; i-- {
		began = began || of[r.Said[i].EventID]
		if began {
			out = append(out, r.Said[i])
		}
	}
	return out
}
