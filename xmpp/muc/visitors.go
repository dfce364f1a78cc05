package muc

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/translate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the service's tables up to date.
func Migrate(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return db.Migrate(ctx, "xmpp-muc", dir)
}

// Run puts the visitors back into their rooms who were in them when the server
// stopped, and ends, until ctx does, the membership of those who stay away.
func (s *Service) Run(ctx context.Context) error {
	err := s.restore(ctx)
	if ctx.Err() != nil {
		return nil // the server ends as soon as it has begun: they are brought back the next time
	}
	if err != nil {
		return fmt.Errorf("bringing visitors back into their rooms: %w", err)
	}
	s.sweep(ctx)
	return nil
}

func (s *Service) restore(ctx context.Context) error {
	type visitor struct {
		conv core.ConvID
		session
	}
	var all []visitor
	err := s.Hub.Read(ctx, func(v hub.View) (err error) {
		all, err = store.List(hubstore.Querier(v), func(row store.Scanner) (visitor, error) {
			var conv, jid, who string
			if err := row.Scan(&conv, &jid, &who); err != nil {
				return visitor{}, err
			}
			a, err := core.ParseAddress(who)
			if err != nil {
				return visitor{}, err
			}
			j, err := translate.ParseJID(jid)
			return visitor{core.ConvID(conv), session{jid: j, who: a}}, err
		}, `SELECT conv, jid, who FROM muc_visitors WHERE away = 0`)
		return err
	})
	if err != nil {
		return err
	}
	for _, v := range all {
		r := s.room(v.conv, true)
		r.mu.Lock()
		s.enter(v.conv, r, &v.session)
		r.mu.Unlock()
	}
	return nil
}

func (s *Service) sweep(ctx context.Context) {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx, time.Now().Add(-s.Grace)); err != nil && ctx.Err() == nil {
			s.Log.Warn("ending the membership of visitors who stay away", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Sweep ends the membership of visitors all of whose sessions have left before
// a time.
func (s *Service) Sweep(ctx context.Context, before time.Time) error {
	type stay struct{ conv, who string }
	var over []stay
	err := s.Hub.Read(ctx, func(v hub.View) (err error) {
		over, err = store.List(hubstore.Querier(v), func(row store.Scanner) (st stay, err error) {
			return st, row.Scan(&st.conv, &st.who)
		}, `SELECT conv, who FROM muc_visitors
			GROUP BY conv, who HAVING MIN(away) > 0 AND MAX(away) <= $1`, before.UnixMilli())
		return err
	})
	if err != nil {
		return err
	}
	for _, st := range over {
		who, err := core.ParseAddress(st.who)
		if err != nil {
			return err
		}
		_, err = s.Hub.Submit(ctx, hub.Draft{
			Conv: core.ConvID(st.conv), Sender: who, Content: core.Membership{Target: who, Standing: core.Left},
		})
		if err != nil && hub.CodeOf(err) == "" {
			return err
		}
		err = s.Hub.Write(ctx, func(tx hub.Tx) error {
			_, err := hubstore.Tx(tx).Exec(`DELETE FROM muc_visitors WHERE conv = $1 AND who = $2`, st.conv, st.who)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// remember keeps a visitor's session over restarts.
func (s *Service) remember(ctx context.Context, conv core.ConvID, v Visit) error {
	if v.Who.IsLocal() {
		return nil
	}
	return s.Hub.Write(ctx, func(tx hub.Tx) error {
		_, err := hubstore.Tx(tx).Exec(`INSERT INTO muc_visitors (conv, jid, who, away) VALUES ($1, $2, $3, 0)
			ON CONFLICT (conv, jid) DO UPDATE SET away = 0`, string(conv), v.From.String(), v.Who.String())
		return err
	})
}

// forget notes when a visitor's session left. The last one stays noted, for
// the grace.
func (s *Service) forget(ctx context.Context, conv core.ConvID, r *room, o *session) error {
	if o.who.IsLocal() {
		return nil
	}
	return s.Hub.Write(ctx, func(tx hub.Tx) error {
		var err error
		if s.occupied(r, o.who) {
			_, err = hubstore.Tx(tx).Exec(`DELETE FROM muc_visitors WHERE conv = $1 AND jid = $2`, string(conv), o.jid.String())
		} else {
			_, err = hubstore.Tx(tx).Exec(`UPDATE muc_visitors SET away = $1 WHERE conv = $2 AND jid = $3`,
				time.Now().UnixMilli(), string(conv), o.jid.String())
		}
		return err
	})
}
