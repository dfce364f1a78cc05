package directory

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/federation/refusal"
	"parley/matrix/wire"
)

// told is what a server is told of an error.
func told(err error) error { return refusal.Of(err) }

// maxPlaces is in how many rooms a person of another network is looked for.
const maxPlaces = 1000

// serveProfile says how one of ours appears. Other servers are told what any
// account here is: of accounts what their profiles say. People of other networks
// have names under our domain, but their profiles were not told to us for
// everybody: only a server that is in a room with them is told.
//
// spec: MX 1.19 SS §20
func (d *Directory) serveProfile(r *federation.Request) (any, error) {
	q := r.HTTP.URL.Query()
	userID := q.Get("user_id")
	if _, domain, err := wire.ParseUserID(userID); err != nil || !d.cfg.Hub.Hosts(domain) {
		return nil, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "user_id is no user of this server.")
	}
	var who core.Address
	err := d.cfg.Hub.Read(r.Context(), func(v hub.View) (err error) {
		if who, err = d.cfg.Mirror.Names(v).Address(userID); err != nil {
			return hub.ErrNone
		}
		if who.IsLocal() {
			return nil
		}
		shares, err := d.shares(v, who, r.Origin)
		if err == nil && !shares {
			err = hub.ErrNone
		}
		return err
	})
	if err != nil {
		return nil, noUser(err)
	}
	fields, err := d.cfg.API.ProfileHere(r.Context(), who)
	if err != nil {
		return nil, noUser(err)
	}
	if field := q.Get("field"); field != "" {
		one := map[string]json.RawMessage{}
		if value, ok := fields[field]; ok {
			one[field] = value
		}
		return one, nil
	}
	return fields, nil
}

func noUser(err error) error {
	if errors.Is(err, hub.ErrNone) {
		return federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "There is no such user.")
	}
	return told(err)
}

// shares reports whether a server is in a room with somebody.
func (d *Directory) shares(v hub.View, who core.Address, server string) (bool, error) {
	places, err := v.Places(who)
	if err != nil {
		return false, err
	}
	for _, p := range places[:min(len(places), maxPlaces)] {
		if p.Standing != core.Joined && p.Standing != core.Invited {
			continue
		}
		servers, err := d.cfg.Servers(v, p.Conv)
		if err != nil || slices.Contains(servers, server) {
			return err == nil, err
		}
	}
	return false, nil
}

// profile is how one on another server appears.
type profile struct {
	fields map[string]json.RawMessage
	known  core.Profile
}

// maxProfileAnswer bounds an answer, in bytes: the largest profile.
const maxProfileAnswer = 64 << 10

// Ask implements [client.Profiles].
//
// spec: MX 1.19 SS §20
func (d *Directory) Ask(ctx context.Context, who core.Address, fresh func() error) (map[string]json.RawMessage, error) {
	p, err := d.profile(ctx, who, fresh)
	return p.fields, err
}

// Profile is how one on another Matrix server appears, for the clients of other
// networks: what Ask is for Matrix clients. It is asked for on behalf of an
// account, which may do so only so often. Of people of other networks it is what
// is known.
func (d *Directory) Profile(ctx context.Context, account, who core.Address) (core.Profile, error) {
	if who.Network != core.Matrix {
		return d.cfg.Hub.Profile(ctx, who)
	}
	p, err := d.profile(ctx, who, func() error {
		if !d.pace.allow(account, d.cfg.Now()) {
			return hub.Refuse(hub.TooMany, "you look at too many people; wait a little")
		}
		return nil
	})
	return p.known, err
}

func (d *Directory) profile(ctx context.Context, who core.Address, fresh func() error) (profile, error) {
	return d.profiles.get(ctx, who.String(), fresh, func(ctx context.Context) (profile, int, time.Duration, error) {
		raw, err := d.ask(ctx, question{
			server: who.Domain, path: []string{"query", "profile"}, maxAnswer: maxProfileAnswer,
			query: url.Values{"user_id": {"@" + who.Name + ":" + who.Domain}},
		})
		var p profile
		if err == nil {
			if p.fields, p.known, err = d.cfg.API.ReadProfile(raw); err != nil {
				err = malformed(who.Domain, errForm)
			}
		}
		if err == nil {
			err = d.learn(ctx, who, p.known)
			return p, len(raw), profileLife, err
		}
		d.cfg.Log.Debug("a profile was not found out", "who", who, "err", err)
		if e, ok := errors.AsType[*federation.Error](err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusForbidden) {
			return p, 0, profileLife, refused(err, who.Domain, "such user")
		}
		if before, known := d.remembered(ctx, who); known {
			return before, 0, failureLife, nil
		}
		return p, 0, failureLife, refused(err, who.Domain, "such user")
	})
}

// remembered is what was learnt before of one whose server cannot be asked.
func (d *Directory) remembered(ctx context.Context, who core.Address) (p profile, known bool) {
	fields, err := d.cfg.API.ProfileHere(ctx, who)
	if err == nil {
		p.fields = fields
		p.known, err = d.cfg.Hub.Profile(ctx, who)
	}
	return p, err == nil && len(fields) > 0
}

// learn has the hub keep a profile, if anybody here knows whose it is: who looks
// at the profiles of strangers does not fill the database with them.
func (d *Directory) learn(ctx context.Context, who core.Address, p core.Profile) error {
	news := false
	err := d.cfg.Hub.Read(ctx, func(v hub.View) error {
		old, err := v.Profile(who)
		if err != nil || same(old, p) {
			return err
		}
		sharers, err := hub.Sharers(v, who)
		news = len(sharers) > 0
		return err
	})
	if err != nil || !news {
		return err
	}
	return d.cfg.Hub.LearnProfile(ctx, who, p)
}

func same(a, b core.Profile) bool {
	return a.Name == b.Name && (a.Avatar == nil) == (b.Avatar == nil) && (a.Avatar == nil || *a.Avatar == *b.Avatar)
}
