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
// wakes whom it concerns.
//
// spec: MX 1.19 CS §10.12.2.6
func (a *API) devicesChanged(tx hub.Tx, account core.Address) error {
	feed := tx.NextFeed()
	if _, err := exec(tx, `INSERT INTO mxc_device_changes (account, feed) VALUES ($1, $2)
		ON CONFLICT (account) DO UPDATE SET feed = $2`, key(account), int64(feed)); err != nil {
		return err
	}
	to, err := hub.Sharers(tx, account)
	if err != nil {
		return err
	}
	tx.OnCommit(func() {
		a.hub.Poke(append(to, account), hub.PokeNews{Topic: TopicDevices, Feed: feed, Data: account})
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
	for who := range s.now {
		var feed int64
		found, err := row(v, into(&feed), `SELECT feed FROM mxc_device_changes WHERE account = $1`, key(who))
		if err != nil {
			return nil, nil, err
		}
		if found && core.Feed(feed) > since || s.fresh[who] {
			changed = append(changed, a.UserID(who))
		}
	}
	signed, err := column(v, `SELECT target FROM mxc_signed WHERE account = $1 AND feed > $2`, key(account), int64(since))
	if err != nil {
		return nil, nil, err
	}
	for _, s := range signed {
		who, err := core.ParseAddress(s)
		if err != nil {
			return nil, nil, err
		}
		changed = append(changed, a.UserID(who))
	}
	for who := range s.parted {
		if !s.now[who] {
			left = append(left, a.UserID(who))
		}
	}
	slices.Sort(changed)
	slices.Sort(left)
	return slices.Compact(changed), left, nil
}

// sharing is with whom an account shares rooms: now, only since a point of the
// feed, and no longer in some room.
type sharing struct {
	now, fresh, parted map[core.Address]bool
}

// mayHaveDevices reports whether a can have Matrix devices.
func mayHaveDevices(a core.Address) bool { return a.IsLocal() || a.Network == core.Matrix }

func newSharing(v hub.View, account core.Address, since core.Feed) (*sharing, error) {
	s := &sharing{map[core.Address]bool{account: true}, map[core.Address]bool{}, map[core.Address]bool{}}
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
		for _, m := range st.Joined() {
			switch {
			case !mayHaveDevices(m.Address) || m.Address == account:
			case p.Standing != core.Joined:
				s.parted[m.Address] = true
			default:
				s.now[m.Address] = true
				// One's own place has a new number also when only the name
				// changed; telling too much does no harm.
				if p.Feed > since {
					s.fresh[m.Address] = true
				}
			}
		}
		if p.Standing == core.Joined && p.Feed <= since {
			if err := s.moves(v, p.Conv, since); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// moves notes who came and went in a room that the account was in all the time.
func (s *sharing) moves(v hub.View, conv core.ConvID, since core.Feed) error {
	const page = 500
	q := hub.Query{Conv: conv, AfterFeed: since, Kinds: []core.Kind{core.KindMembership}, ByFeed: true, Limit: page}
	for {
		events, err := v.Page(q)
		if err != nil {
			return err
		}
		for _, e := range events {
			m, ok := e.Content.(core.Membership)
			switch {
			case !ok || !mayHaveDevices(m.Target):
			case m.Standing == core.Joined:
				s.fresh[m.Target] = true
			default:
				s.parted[m.Target] = true
			}
			q.AfterFeed = e.Feed
		}
		if len(events) < page {
			return nil
		}
	}
}
