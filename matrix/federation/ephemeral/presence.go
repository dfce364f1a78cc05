package ephemeral

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation/sending"
)

// presenceContent is the content of m.presence.
//
// spec: MX 1.19 SS §18
type presenceContent struct {
	Push []presenceOf `json:"push"`
}

type presenceOf struct {
	User     string `json:"user_id"`
	Presence string `json:"presence"`
	Status   string `json:"status_msg,omitempty"`
	// ActiveAgo is in milliseconds.
	ActiveAgo int64 `json:"last_active_ago"`
	Active    bool  `json:"currently_active,omitempty"`
}

// shown is one of our people, as seen by one server.
type shown struct {
	who  core.Address
	dest string
}

// status is what a server knows.
type status struct {
	presence, text string
	active         bool
	at             time.Time
}

// sayPresence tells servers how somebody of ours is there, if any of her
// contacts there may see it, and else that she is not.
//
// spec: MX 1.19 SS §18
func (e *Ephemeral) sayPresence(ctx context.Context, from core.Address, dests []string) error {
	sees, user, err := e.watchers(ctx, from)
	if err != nil {
		return err
	}
	sessions, err := e.cfg.Hub.PresenceOf(ctx, from, from)
	if err != nil {
		return err
	}
	for _, dest := range dests {
		at := time.Now()
		c := client.PresenceOf(nil, at)
		if sees[dest] {
			c = client.PresenceOf(sessions, at)
		}
		is := status{c.Presence, c.Status, c.Active, at}
		if !e.news(shown{from, dest}, is) {
			continue
		}
		raw, err := json.Marshal(presenceContent{[]presenceOf{{user, c.Presence, c.Status, c.ActiveAgo, c.Active}}})
		if err != nil {
			return err
		}
		e.cfg.Post.Say(domainOf(user), dest, "m.presence "+user, sending.EDU{Type: "m.presence", Content: raw})
	}
	return nil
}

// watchers are the servers with somebody who may see one of ours.
func (e *Ephemeral) watchers(ctx context.Context, from core.Address) (sees map[string]bool, user string, err error) {
	var contacts []core.Contact
	err = e.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		user, _ = e.cfg.Mirror.Names(v).UserID(from)
		contacts, err = v.Contacts(from)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	sees = map[string]bool{}
	for _, c := range contacts {
		a := c.Address
		if a.Network != core.Matrix || !c.Sees || sees[a.Domain] {
			continue
		}
		blocked, err := e.cfg.Hub.Blocks(ctx, from, a)
		if err != nil {
			return nil, "", err
		}
		sees[a.Domain] = !blocked
	}
	return sees, user, nil
}

// news notes what a server is told, and says whether it is any news: which of
// her clients somebody uses is none.
func (e *Ephemeral) news(s shown, is status) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, told := e.shown[s]
	if told && was.presence == is.presence && was.text == is.text && was.active == is.active && is.at.Sub(was.at) < e.cfg.PresenceEvery {
		return false
	}
	if !told && len(e.shown) >= maxPresence {
		clear(e.shown)
	}
	e.shown[s] = is
	return true
}

// renewPresence says again of those who are there that they are: others forget
// it.
func (e *Ephemeral) renewPresence(context.Context) error {
	e.mu.Lock()
	var old []shown
	for s, is := range e.shown {
		switch {
		case time.Since(is.at) < e.cfg.PresenceEvery:
		case is.presence == offline:
			delete(e.shown, s)
		default:
			old = append(old, s)
		}
	}
	e.mu.Unlock()
	for _, s := range old {
		to := core.Address{Network: core.Matrix, Domain: s.dest}
		e.gather(topic{sort: presence, from: s.who, to: to}, hub.Whisper{From: s.who, To: to})
	}
	return nil
}

// heard is what another server said of one of its users.
type heard struct {
	is   core.Presence
	at   time.Time
	told []core.Address
}

// session is the one session that a user of another Matrix server seems to have.
const session = "matrix"

// Bounds of what is taken.
const (
	maxPush   = 200  // users of one EDU
	maxStatus = 1024 // bytes
)

const offline = "offline"

var shows = map[string]core.Show{"online": core.ShowOnline, "unavailable": core.ShowAway, offline: core.ShowOffline}

// presenceIn takes how users of another server are there, for those here who
// have them among their contacts and may see it.
//
// spec: MX 1.19 SS §18
func (e *Ephemeral) presenceIn(ctx context.Context, origin string, content json.RawMessage) error {
	var c struct {
		Push []json.RawMessage `json:"push"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	var wrong []error
	if len(c.Push) > maxPush {
		c.Push, wrong = c.Push[:maxPush], append(wrong, errTooFar)
	}
	for _, raw := range c.Push {
		var p presenceOf
		err := json.Unmarshal(raw, &p)
		if err == nil {
			err = e.onePresence(ctx, origin, p)
		}
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

func (e *Ephemeral) onePresence(ctx context.Context, origin string, p presenceOf) error {
	show, ok := shows[p.Presence]
	if !ok {
		return fmt.Errorf("a presence %.40q", p.Presence)
	}
	var who core.Address
	var to []core.Address
	err := e.cfg.Hub.Read(ctx, func(v hub.View) (err error) {
		if who, err = e.theirs(v, origin, p.User); err != nil {
			return err
		}
		contacts, err := v.ContactsOf(who)
		for _, c := range contacts {
			if c.Seen {
				to = append(to, c.Account)
			}
		}
		return err
	})
	if err != nil || len(to) == 0 {
		return err
	}
	now := time.Now()
	is := core.Presence{Show: show, Status: clean(p.Status), Session: session}
	if p.ActiveAgo >= 0 && p.ActiveAgo < (365*24*time.Hour).Milliseconds() && show != core.ShowOffline {
		is.Active = now.Add(-time.Duration(p.ActiveAgo) * time.Millisecond)
	}
	if !e.hear(who, heard{is, now, to}) {
		return nil
	}
	if !e.allows(origin) {
		return errTooFar
	}
	return e.tell(ctx, who, is, to)
}

// hear notes a presence, and says whether it is any news.
func (e *Ephemeral) hear(who core.Address, h heard) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, known := e.heard[who]
	if h.is.Show == core.ShowOffline {
		delete(e.heard, who)
		return known
	}
	if !known && len(e.heard) >= maxPresence {
		return false
	}
	e.heard[who] = h
	return !known || was.is.Show != h.is.Show || was.is.Status != h.is.Status || !slices.Equal(was.told, h.told)
}

func (e *Ephemeral) tell(ctx context.Context, who core.Address, is core.Presence, to []core.Address) error {
	var errs []error
	for _, account := range to {
		errs = append(errs, e.cfg.Hub.RemotePresence(ctx, who, account, is))
	}
	return errors.Join(errs...)
}

// answer tells one of ours what is known of a contact. Matrix servers do not ask
// each other.
func (e *Ephemeral) answer(ctx context.Context, t topic) error {
	e.mu.Lock()
	h, known := e.heard[t.to]
	e.mu.Unlock()
	if !known {
		return nil
	}
	return e.cfg.Hub.RemotePresence(ctx, t.to, t.from, h.is)
}

// expirePresence no longer believes what was said long ago: a server that is
// gone does not say so.
func (e *Ephemeral) expirePresence(ctx context.Context) error {
	old := map[core.Address][]core.Address{}
	e.mu.Lock()
	for who, h := range e.heard {
		if time.Since(h.at) >= e.cfg.PresenceFor {
			old[who] = h.told
			delete(e.heard, who)
		}
	}
	e.mu.Unlock()
	var errs []error
	for who, to := range old {
		errs = append(errs, e.tell(ctx, who, core.Presence{Show: core.ShowOffline, Session: session}, to))
	}
	return errors.Join(errs...)
}

// clean makes a status of another server fit for every protocol.
func clean(text string) string {
	if len(text) > maxStatus {
		text = strings.ToValidUTF8(text[:maxStatus], "")
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' {
			return -1
		}
		return r
	}, text))
}
