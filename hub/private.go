package hub

import (
	"context"
	"slices"

	"parley/core"
)

// PutDatum keeps one piece of an account's private data; nil Data deletes it.
func (h *Hub) PutDatum(ctx context.Context, d Datum, from string) error {
	if len(d.Data) > h.cfg.MaxData {
		return Refuse(TooLarge, "private data of more than %d bytes", h.cfg.MaxData)
	}
	return h.turn(ctx, func(t *turn) error {
		d.Feed = t.tx.NextFeed()
		t.tell(DataNews{d, from}, d.Account)
		return t.tx.PutDatum(d)
	})
}

// Datum returns one piece of private data, [ErrNone] where there is none.
func (h *Hub) Datum(ctx context.Context, account core.Address, conv core.ConvID, typ string) (Datum, error) {
	var d Datum
	err := h.Read(ctx, func(v View) (err error) {
		d, err = v.Datum(account, conv, typ)
		if err == nil && d.Data == nil {
			err = ErrNone
		}
		return err
	})
	return d, err
}

// Profile returns how a person appears.
func (h *Hub) Profile(ctx context.Context, a core.Address) (p core.Profile, err error) {
	err = h.Read(ctx, func(v View) error {
		p, err = v.Profile(a)
		return err
	})
	return p, err
}

// SetProfile sets how an account appears, here and, by a new membership event
// each, in every conversation in which it is. Nicks stay as they are.
func (h *Hub) SetProfile(ctx context.Context, account core.Address, p core.Profile) error {
	if len(p.Name) > 256 {
		return Refuse(TooLarge, "a display name has at most 256 bytes")
	}
	var places []Place
	err := h.turn(ctx, func(t *turn) (err error) {
		if err := t.tx.PutProfile(account, p); err != nil {
			return err
		}
		if places, err = t.tx.Places(account); err != nil {
			return err
		}
		to, err := Sharers(t.tx, account)
		t.tell(ProfileNews{account, p}, append(to, account)...)
		return err
	})
	if err != nil {
		return err
	}
	for _, place := range places {
		if place.Standing != core.Joined {
			continue
		}
		_, err := h.Submit(ctx, Draft{Conv: place.Conv, Sender: account, Content: core.Membership{
			Target: account, Standing: core.Joined, Name: p.Name, Avatar: p.Avatar, Nick: place.Nick,
		}})
		if err != nil && CodeOf(err) == "" {
			return err
		}
	}
	return nil
}

// LearnProfile notes how one on another server appears.
func (h *Hub) LearnProfile(ctx context.Context, a core.Address, p core.Profile) error {
	return h.turn(ctx, func(t *turn) error {
		if err := t.tx.PutProfile(a, p); err != nil {
			return err
		}
		to, err := Sharers(t.tx, a)
		t.tell(ProfileNews{a, p}, to...)
		return err
	})
}

// Sharers are the accounts here that share a conversation with a, or have a on
// their list, without a itself: they are whom a's devices and profile concern.
func Sharers(v View, a core.Address) ([]core.Address, error) {
	set := map[core.Address]bool{}
	places, err := v.Places(a)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if p.Standing != core.Joined {
			continue
		}
		s, err := v.State(p.Conv)
		if err != nil {
			return nil, err
		}
		for _, m := range s.Members {
			if m.Standing == core.Joined && m.Address.IsLocal() {
				set[m.Address] = true
			}
		}
	}
	contacts, err := v.ContactsOf(a)
	if err != nil {
		return nil, err
	}
	for _, c := range contacts {
		set[c.Account] = true
	}
	delete(set, a)
	out := make([]core.Address, 0, len(set))
	for b := range set {
		out = append(out, b)
	}
	slices.SortFunc(out, compareAddresses)
	return out, nil
}

// AddMedia records a file. Its bytes are on disk already, or elsewhere.
func (h *Hub) AddMedia(ctx context.Context, m Media) error {
	return h.store.Write(ctx, func(tx Tx) error { return tx.PutMedia(m) })
}

// MediaByID returns a file for one who has logged in.
func (h *Hub) MediaByID(ctx context.Context, id core.MediaID) (m Media, err error) {
	err = h.Read(ctx, func(v View) error {
		m, err = v.Media(id)
		return refuseNone(err, "there is no such file")
	})
	return m, err
}

// MediaBySecret returns a file for one who has its unguessable link.
func (h *Hub) MediaBySecret(ctx context.Context, secret string) (m Media, err error) {
	err = h.Read(ctx, func(v View) error {
		m, err = v.MediaBySecret(secret)
		return refuseNone(err, "there is no such file, or it was withdrawn")
	})
	return m, err
}
