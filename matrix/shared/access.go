package shared

import (
	"errors"
	"slices"
	"sync"

	"parley/core"
	"parley/hub"
	"parley/matrix/mirror"
)

// access remembers, for rooms that servers ask about, which of them are in and
// which the room keeps out. All of it can be thrown away.
type access struct {
	mu      sync.Mutex
	servers map[core.ConvID]*present
	lists   map[string]*serverList // by event ID
}

// present are the servers in a room, as of one of its states.
type present struct {
	state *core.State
	n     map[string]int // joined members of each, not ours
}

// maxAccess bounds the rooms and the lists that are remembered.
const maxAccess = 1 << 14

// servers are the other servers in a room now.
func (r *Rooms) servers(v hub.View, conv core.ConvID) (map[string]int, error) {
	s, err := v.State(conv)
	if err != nil {
		return nil, err
	}
	r.access.mu.Lock()
	defer r.access.mu.Unlock()
	if p := r.access.servers[conv]; p != nil && p.state == s {
		return p.n, nil
	}
	p := &present{s, map[string]int{}}
	for _, m := range s.Members {
		if m.Standing == core.Joined && m.Address.Network == core.Matrix {
			p.n[m.Address.Domain]++
		}
	}
	if r.access.servers == nil || len(r.access.servers) >= maxAccess {
		r.access.servers = map[core.ConvID]*present{}
	}
	r.access.servers[conv] = p
	return p.n, nil
}

// Present reports whether somebody of another server is in a room now.
func (r *Rooms) Present(v hub.View, conv core.ConvID, server string) (bool, error) {
	n, err := r.servers(v, conv)
	return n[server] > 0, err
}

// Servers are the other servers that are known to be in a room now, sorted.
func (r *Rooms) Servers(v hub.View, conv core.ConvID) ([]string, error) {
	n, err := r.servers(v, conv)
	out := make([]string, 0, len(n))
	for s := range n {
		out = append(out, s)
	}
	slices.Sort(out)
	return out, err
}

const typeServerACL = "m.room.server_acl"

// Allows reports whether a room's list of servers lets one take part. Ours are let
// in by all.
//
// spec: MX 1.19 SS §26
func (r *Rooms) Allows(v hub.View, conv core.ConvID, server string) (bool, error) {
	if slices.Contains(r.cfg.Domains, server) {
		return true, nil
	}
	e, err := r.mirror.StateEvent(v, conv, typeServerACL, "")
	if errors.Is(err, hub.ErrNone) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return r.list(e).allows(server), nil
}

// list is what an event says of servers, read once.
func (r *Rooms) list(e mirror.Event) *serverList {
	r.access.mu.Lock()
	defer r.access.mu.Unlock()
	l := r.access.lists[e.EventID]
	// A redacted event has another content by the same ID.
	if l == nil || l.redacted != (e.RedactedBy != "") {
		l = newServerList(e.Content)
		l.redacted = e.RedactedBy != ""
		if r.access.lists == nil || len(r.access.lists) >= maxAccess {
			r.access.lists = map[string]*serverList{}
		}
		r.access.lists[e.EventID] = l
	}
	return l
}
