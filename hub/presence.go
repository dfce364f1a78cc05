package hub

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core"
)

// presences holds who is available, in memory: after a restart everybody comes
// back by connecting. The serial numbers changes, for readers that poll.
type presences struct {
	mu     sync.Mutex
	m      map[core.Address]*standing
	serial int64
}

type standing struct {
	by     map[string]core.Presence // by session
	serial int64
}

func newPresences() *presences {
	// Serials of an earlier life of the server are smaller.
	return &presences{m: map[core.Address]*standing{}, serial: time.Now().UnixMilli()}
}

// set notes a presence and reports what there was before.
func (p *presences) set(a core.Address, pr core.Presence) (before core.Presence, had bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.m[a]
	if st == nil {
		st = &standing{by: map[string]core.Presence{}}
		p.m[a] = st
	}
	before, had = st.by[pr.Session]
	if !had && pr.Show == core.ShowOffline || had && samePresence(before, pr) {
		return before, had // nothing changed, so nobody need look
	}
	if pr.Show == core.ShowOffline {
		delete(st.by, pr.Session)
	} else {
		st.by[pr.Session] = pr
	}
	p.serial++
	st.serial = p.serial
	return before, had
}

func (p *presences) of(a core.Address) []core.Presence {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.m[a]
	if st == nil {
		return nil
	}
	out := slices.Collect(maps.Values(st.by))
	slices.SortFunc(out, func(a, b core.Presence) int {
		if a.Priority != b.Priority {
			return b.Priority - a.Priority
		}
		return strings.Compare(a.Session, b.Session)
	})
	return out
}

// SetPresence sets the presence of one session of an account, told to its
// approved contacts on every network and to its own other sessions.
// ShowOffline ends it.
func (h *Hub) SetPresence(ctx context.Context, account core.Address, p core.Presence) error {
	before, had := h.presence.set(account, p)
	if p.Show == core.ShowOffline && !had {
		return nil
	}
	if had && samePresence(before, p) {
		return nil
	}
	var contacts []core.Contact
	err := h.Read(ctx, func(v View) (err error) {
		if contacts, err = v.Contacts(account); err != nil {
			return err
		}
		var failed error
		contacts = slices.DeleteFunc(contacts, func(c core.Contact) bool {
			blocked, err := h.blocks.has(v, account, c.Address)
			failed = errors.Join(failed, err)
			return blocked
		})
		return failed
	})
	if err != nil {
		return err
	}
	h.tell(PresenceNews{account, p}, account)
	for _, c := range contacts {
		if c.Sees {
			h.presentTo(account, c.Address, p)
		}
		if !had && c.Seen {
			h.probe(account, c.Address, p.Session)
		}
	}
	return nil
}

func samePresence(a, b core.Presence) bool {
	same := a.Show == b.Show && a.Status == b.Status && a.Priority == b.Priority
	if a.Native != nil && b.Native != nil {
		return same && string(a.Native.Data) == string(b.Native.Data)
	}
	return same && a.Native == b.Native
}

// presentTo shows from's presence to a contact.
func (h *Hub) presentTo(from, to core.Address, p core.Presence) {
	if h.ours(to) {
		h.tell(PresenceNews{from, p}, to)
	} else if c := h.carriers[to.Network]; c != nil {
		c.Whisper(Whisper{From: from, To: to, Presence: &p})
	}
}

// probe asks for the presence of to, for one session of from.
func (h *Hub) probe(from, to core.Address, session string) {
	if !h.ours(to) {
		if c := h.carriers[to.Network]; c != nil {
			c.Whisper(Whisper{From: from, To: to, Probe: true})
		}
		return
	}
	for _, p := range h.presence.of(to) {
		for _, s := range h.sessions.of(from) {
			if s.ID() == session {
				s.push(PresenceNews{to, p})
			}
		}
	}
}

// RemotePresence takes the presence that one on another server shows to an
// account here. It counts only where the account's list says that it is seen.
func (h *Hub) RemotePresence(ctx context.Context, from, to core.Address, p core.Presence) error {
	c, found, err := h.contact(ctx, to, from)
	if err != nil {
		return err
	}
	blocked, err := h.Blocks(ctx, to, from)
	if err != nil {
		return err
	}
	if !found || !c.Seen || blocked {
		h.count.Count("presence_dropped", string(from.Network))
		return nil
	}
	h.presence.set(from, p)
	h.tell(PresenceNews{from, p}, to)
	return nil
}

// RemoteProbe answers one on another server who asks for an account's
// presence, if the account lets her see it.
func (h *Hub) RemoteProbe(ctx context.Context, from, to core.Address) error {
	c, found, err := h.contact(ctx, to, from)
	if err != nil || !found || !c.Sees {
		return err
	}
	if blocked, err := h.Blocks(ctx, to, from); err != nil || blocked {
		return err
	}
	all := h.presence.of(to)
	if len(all) == 0 {
		all = []core.Presence{{Show: core.ShowOffline}}
	}
	for _, p := range all {
		h.presentTo(to, from, p)
	}
	return nil
}

// PresenceOf returns what viewer may see now of who: nothing unless who
// consented. The strongest session comes first.
func (h *Hub) PresenceOf(ctx context.Context, viewer, who core.Address) ([]core.Presence, error) {
	if viewer != who {
		c, found, err := h.contact(ctx, viewer, who)
		if err != nil || !found || !c.Seen {
			return nil, err
		}
	}
	return h.presence.of(who), nil
}

// PresenceSince returns those whose presence viewer may see and that changed
// after a serial, and the serial now.
func (h *Hub) PresenceSince(ctx context.Context, viewer core.Address, serial int64) ([]core.Address, int64, error) {
	contacts, _, err := h.Contacts(ctx, viewer)
	if err != nil {
		return nil, 0, err
	}
	h.presence.mu.Lock()
	defer h.presence.mu.Unlock()
	changed := func(a core.Address) bool { st := h.presence.m[a]; return st != nil && st.serial > serial }
	var out []core.Address
	if changed(viewer) {
		out = append(out, viewer)
	}
	for _, c := range contacts {
		if c.Seen && changed(c.Address) {
			out = append(out, c.Address)
		}
	}
	return out, h.presence.serial, nil
}

// typists holds who is writing, in memory.
type typists struct {
	mu     sync.Mutex
	m      map[core.ConvID]*writing
	serial int64
}

type writing struct {
	who    map[core.Address]time.Time
	serial int64
}

func newTypists() *typists {
	return &typists{m: map[core.ConvID]*writing{}, serial: time.Now().UnixMilli()}
}

// maxTyping is the longest that one may be said to write without saying so
// again.
const maxTyping = 2 * time.Minute

func (t *typists) set(conv core.ConvID, who core.Address, until time.Time) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.m[conv]
	if w == nil {
		if until.IsZero() {
			return false
		}
		w = &writing{who: map[core.Address]time.Time{}}
		t.m[conv] = w
	}
	_, was := w.who[who]
	if until.IsZero() {
		delete(w.who, who)
	} else {
		w.who[who] = until
	}
	if was && !until.IsZero() || !was && until.IsZero() {
		return false
	}
	t.serial++
	w.serial = t.serial
	return true
}

// Typing says that who is writing in a conversation, until a time; zero says
// that she has stopped. It goes to the other members, on every network.
func (h *Hub) Typing(ctx context.Context, conv core.ConvID, who core.Address, until time.Time, from string) error {
	if most := time.Now().Add(maxTyping); until.After(most) {
		until = most
	}
	var to []core.Address
	err := h.Read(ctx, func(v View) (err error) {
		to, err = h.watchers(v, conv, who)
		return err
	})
	if err != nil {
		return err
	}
	if !h.typing.set(conv, who, until) {
		return nil
	}
	if !until.IsZero() {
		time.AfterFunc(time.Until(until)+time.Second, func() { h.outbox.during(func() { h.typingOver(conv, who) }) })
	}
	news := TypingNews{conv, who, until, from}
	for _, a := range to {
		if h.ours(a) {
			h.tell(news, a)
		} else if car := h.carriers[a.Network]; car != nil && a != who {
			car.Whisper(Whisper{From: who, To: a, Conv: conv, Typing: &core.Typing{Until: until}})
		}
	}
	return nil
}

// watchers are the members who see that one of them writes: all who have
// joined and do not block her.
func (h *Hub) watchers(v View, conv core.ConvID, who core.Address) ([]core.Address, error) {
	c, err := v.Conversation(conv)
	if err != nil {
		return nil, refuseNone(err, "there is no such conversation")
	}
	s, err := v.State(conv)
	if err != nil {
		return nil, err
	}
	if s.Standing(who) != core.Joined {
		return nil, Refuse(NotMember, "you are not in this room")
	}
	var out []core.Address
	if c.Authority == core.Elsewhere && h.ours(who) {
		out = append(out, c.Address) // which tells the others
	}
	for _, m := range s.Members {
		if !h.hears(&c, m) || c.Authority == core.Elsewhere && !h.ours(m.Address) {
			continue
		}
		if h.ours(m.Address) {
			if blocked, err := h.blocks.has(v, m.Address, who); err != nil {
				return nil, err
			} else if blocked {
				continue
			}
		}
		out = append(out, m.Address)
	}
	return out, nil
}

// typingOver ends a typing that nobody renewed.
func (h *Hub) typingOver(conv core.ConvID, who core.Address) {
	h.typing.mu.Lock()
	w := h.typing.m[conv]
	until, is := time.Time{}, false
	if w != nil {
		until, is = w.who[who]
	}
	h.typing.mu.Unlock()
	if !is {
		return
	}
	if left := time.Until(until); left > 0 {
		time.AfterFunc(left+time.Second, func() { h.outbox.during(func() { h.typingOver(conv, who) }) })
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Typing(ctx, conv, who, time.Time{}, ""); err != nil && CodeOf(err) == "" {
		h.log.Warn("ending a typing notice", "err", err)
	}
}

// TypingIn returns who writes in a conversation, and the serial of the last
// change there.
func (h *Hub) TypingIn(conv core.ConvID) ([]core.Address, int64) {
	h.typing.mu.Lock()
	defer h.typing.mu.Unlock()
	w := h.typing.m[conv]
	if w == nil {
		return nil, 0
	}
	var out []core.Address
	now := time.Now()
	for a, until := range w.who {
		if until.After(now) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b core.Address) int { return strings.Compare(a.String(), b.String()) })
	return out, w.serial
}

// TypingSerial is the serial of the last change anywhere.
func (h *Hub) TypingSerial() int64 {
	h.typing.mu.Lock()
	defer h.typing.mu.Unlock()
	return h.typing.serial
}
