package client

import (
	"slices"

	"parley/core"
	"parley/hub"
)

// The topics under which this package pokes the sessions of accounts.
const (
	TopicDevices  = "matrix.devices"   // somebody's devices or keys changed
	TopicToDevice = "matrix.to-device" // a message waits; Data is the device's ID
	TopicKeys     = "matrix.keys"      // one's own one-time keys became fewer; Data is the device's ID
)

// devicesChanged notes that an account's devices or keys are others now, and
// tells whom it concerns, here and on other servers.
//
// spec: MX 1.19 CS §10.12.2.6
func (a *API) devicesChanged(tx hub.Tx, account core.Address, changes ...DeviceChange) error {
	if err := a.NoteDevices(tx, account); err != nil || len(changes) == 0 {
		return err
	}
	return a.others.DevicesChanged(tx, account, changes)
}

// crossKeysChanged is devicesChanged for cross-signing keys.
func (a *API) crossKeysChanged(tx hub.Tx, account core.Address) error {
	if err := a.NoteDevices(tx, account); err != nil {
		return err
	}
	return a.others.CrossKeysChanged(tx, account)
}

// NoteDevices notes that somebody's devices or keys are others now, and wakes
// the accounts here that it concerns.
//
// spec: MX 1.19 CS §10.12.2.6
func (a *API) NoteDevices(tx hub.Tx, who core.Address) error {
	feed := tx.NextFeed()
	if _, err := exec(tx, `INSERT INTO mxc_device_changes (account, feed) VALUES ($1, $2)
		ON CONFLICT (account) DO UPDATE SET feed = $2`, key(who), int64(feed)); err != nil {
		return err
	}
	to, err := hub.Sharers(tx, who)
	if err != nil {
		return err
	}
	if who.IsLocal() {
		to = append(to, who)
	}
	tx.OnCommit(func() {
		a.hub.Poke(to, hub.PokeNews{Topic: TopicDevices, Feed: feed, Data: who})
	})
	return nil
}

// DeviceChanges says, for /sync and /keys/changes, whose devices an account has
// to look at again (those who changed them after since, and those with whom it
// shares a room only since then) and with whom it no longer shares any room.
//
// spec: MX 1.19 CS §10.12.2.6
func (a *API) DeviceChanges(v hub.View, account core.Address, since core.Feed) (changed, left []string, err error) {
	s, err := newSharing(v, account, since)
	if err != nil {
		return nil, nil, err
	}
	if err := addresses(s.fresh, v, `SELECT account FROM mxc_device_changes WHERE feed > $1`, int64(since)); err != nil {
		return nil, nil, err
	}
	told := map[core.Address]bool{}
	for who := range s.fresh {
		told[who] = s.shares(who)
	}
	if err := addresses(told, v, `SELECT target FROM mxc_signed WHERE account = $1 AND feed > $2`, key(account), int64(since)); err != nil {
		return nil, nil, err
	}
	for who, tell := range told {
		if tell {
			changed = append(changed, a.UserID(who))
		}
	}
	for who := range s.parted {
		if !s.shares(who) {
			left = append(left, a.UserID(who))
		}
	}
	slices.Sort(changed)
	slices.Sort(left)
	return changed, left, nil
}

// addresses adds a column of addresses to a set.
func addresses(to map[core.Address]bool, v hub.View, query string, args ...any) error {
	list, err := column(v, query, args...)
	if err != nil {
		return err
	}
	for _, text := range list {
		who, err := core.ParseAddress(text)
		if err != nil {
			return err
		}
		to[who] = true
	}
	return nil
}

// sharing is with whom an account shares rooms. In a room of thousands, in which
// it was all the time, it looks only at those who came and went.
type sharing struct {
	account core.Address
	rooms   []*core.State // in which it is
	// fresh may share a room only since a point of the feed, and parted may
	// share none any longer; there may be too many in both.
	fresh, parted map[core.Address]bool
}

// mayHaveDevices reports whether a can have Matrix devices.
func mayHaveDevices(a core.Address) bool { return a.IsLocal() || a.Network == core.Matrix }

func newSharing(v hub.View, account core.Address, since core.Feed) (*sharing, error) {
	s := &sharing{account: account, fresh: map[core.Address]bool{}, parted: map[core.Address]bool{}}
	places, err := v.Places(account)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.Standing != core.Joined && p.Feed <= since {
			continue
		}
		st, err := v.State(p.Conv)
		if err != nil {
			return nil, err
		}
		if p.Standing != core.Joined {
			s.all(s.parted, st)
			continue
		}
		s.rooms = append(s.rooms, st)
		if p.Feed > since {
			// One's own place has a new number also when only the name
			// changed; telling too much does no harm.
			s.all(s.fresh, st)
		} else if err := s.moves(v, p.Conv, st, since); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// all notes everybody in a room.
func (s *sharing) all(in map[core.Address]bool, st *core.State) {
	for who, m := range st.Members {
		if m.Standing == core.Joined && who != s.account && mayHaveDevices(who) {
			in[who] = true
		}
	}
}

// shares reports whether the account is in a room with who.
func (s *sharing) shares(who core.Address) bool {
	return who == s.account || slices.ContainsFunc(s.rooms, func(st *core.State) bool {
		return st.Standing(who) == core.Joined
	})
}

// moves notes who came and went in a room.
func (s *sharing) moves(v hub.View, conv core.ConvID, st *core.State, since core.Feed) error {
	const page = 500
	q := hub.Query{Conv: conv, AfterFeed: since, Kinds: []core.Kind{core.KindMembership, core.KindChange}, ByFeed: true, Limit: page}
	for {
		events, err := v.Page(q)
		if err != nil {
			return err
		}
		for _, e := range events {
			for _, who := range moved(e.Content) {
				switch {
				case !mayHaveDevices(who):
				case st.Standing(who) == core.Joined:
					s.fresh[who] = true
				default:
					s.parted[who] = true
				}
			}
			q.AfterFeed = e.Feed
		}
		if len(events) < page {
			return nil
		}
	}
}

// moved are those whose membership an event changes.
func moved(c core.Content) (list []core.Address) {
	switch c := c.(type) {
	case core.Membership:
		list = append(list, c.Target)
	case core.Change:
		for _, piece := range c.Corrected {
			if who, err := core.ParseAddress(piece.Key); err == nil && piece.Kind == string(core.KindMembership) {
				list = append(list, who)
			}
		}
	}
	return list
}
