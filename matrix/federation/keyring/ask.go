package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"parley/matrix/wire"
	"parley/store"
)

// PauseError says that a server is not asked for its keys, because it was a
// short while ago.
type PauseError struct {
	Server string
	Until  time.Time
}

func (e *PauseError) Error() string {
	return fmt.Sprintf("%s is not asked for its keys before %v", e.Server, e.Until.UTC())
}

// ask gets a server's keys from itself, and if that does not bring the key for
// the moment, from the notaries; with no id, from itself only. However many
// want it, a server is asked once.
func (k *Keyring) ask(ctx context.Context, name, id string, at time.Time) error {
	if err := k.paused(name); err != nil {
		return err
	}
	flight := name
	if id == "" {
		flight += " alone"
	}
	done := k.flights.DoChan(flight, func() (any, error) {
		if err := k.paused(name); err != nil {
			return nil, err // another flight has just landed
		}
		// Others wait for it too: it does not end with who asked first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		select {
		case k.slots <- struct{}{}:
			defer func() { <-k.slots }()
		case <-ctx.Done():
			return nil, errors.New("too many servers are being asked")
		}
		return nil, k.fetch(ctx, name, id, at)
	})
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keyring) paused(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if next := k.of(name).next; k.cfg.Now().Before(next) {
		return &PauseError{name, next}
	}
	return nil
}

func (k *Keyring) fetch(ctx context.Context, name, id string, at time.Time) error {
	err := k.fetchDirect(ctx, name)
	if id == "" {
		k.pause(name, err)
		return err
	}
	if err == nil {
		if found, kerr := k.known(ctx, name, id); kerr != nil || found.public != nil && !at.After(found.until) {
			k.pause(name, nil)
			return kerr
		}
	}
	failed := err
	for _, notary := range k.cfg.Notaries {
		if notary == name {
			continue
		}
		nerr := k.fetchNotary(ctx, notary, name, id, at)
		if nerr == nil {
			break
		}
		err = errors.Join(err, fmt.Errorf("notary %s: %w", notary, nerr))
	}
	if err != nil {
		k.cfg.Log.Info("the keys of a Matrix server were not got", "server", name, "err", err)
	}
	k.pause(name, failed)
	return err
}

// pause says when a server may be asked again; failed is why it did not answer.
func (k *Keyring) pause(name string, failed error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.of(name)
	wait := askAgain
	if failed == nil {
		s.failures = 0
	} else {
		wait = min(firstPause<<min(s.failures, 11), maxPause)
		s.failures++
	}
	s.next = k.cfg.Now().Add(wait)
}

func (k *Keyring) fetchDirect(ctx context.Context, name string) error {
	raw, err := k.cfg.Fetch.ServerKeys(ctx, name)
	if err != nil {
		return err
	}
	a, err := ParseAnswer(name, raw)
	if err != nil {
		return err
	}
	return k.keep(ctx, a, true)
}

// fetchNotary asks a notary. Its answer must have the server's signature and
// its own.
//
// spec: MX 1.19 SS §2.3.2
func (k *Keyring) fetchNotary(ctx context.Context, notary, name, id string, at time.Time) error {
	body, err := json.Marshal(map[string]any{"server_keys": map[string]any{
		name: map[string]any{id: map[string]any{"minimum_valid_until_ts": at.UnixMilli()}},
	}})
	if err != nil {
		return err
	}
	raw, err := k.cfg.Fetch.QueryKeys(ctx, notary, body)
	if err != nil {
		return err
	}
	var answers struct {
		ServerKeys []json.RawMessage `json:"server_keys"`
	}
	if err := json.Unmarshal(raw, &answers); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if len(answers.ServerKeys) > maxAnswers {
		return fmt.Errorf("%w: %d answers", ErrAnswer, len(answers.ServerKeys))
	}
	for _, raw := range answers.ServerKeys {
		a, err := ParseAnswer(name, raw)
		if err != nil {
			return err
		}
		// A notary's own keys are never asked of another, or two that do not
		// answer would be waiting for each other.
		if err := k.notarised(ctx, notary, a); err != nil {
			return err
		}
		if err := k.keep(ctx, a, false); err != nil {
			return err
		}
	}
	if found, err := k.known(ctx, name, id); err != nil || found.public == nil || at.After(found.until) {
		return errors.Join(err, errors.New("it does not know the key"))
	}
	return nil
}

// maxAnswers is how many answers of a notary are read.
const maxAnswers = 50

func (k *Keyring) notarised(ctx context.Context, notary string, a *Answer) error {
	o, err := wire.ParseObject(a.JSON)
	if err != nil {
		return err
	}
	now := k.cfg.Now()
	var errs error
	for range 2 {
		for _, id := range signedWith(o, notary) {
			found, err := k.known(ctx, notary, id)
			if err == nil && found.public != nil && !now.After(found.until) {
				return wire.VerifyJSON(notary, id, found.public, a.JSON)
			}
			errs = errors.Join(errs, err)
		}
		if k.paused(notary) != nil {
			break
		}
		err := k.fetchDirect(ctx, notary)
		k.pause(notary, err)
		errs = errors.Join(errs, err)
	}
	return errors.Join(fmt.Errorf("%w by the notary", ErrUnsigned), errs)
}

// keep writes down what a server, or a notary for it, said. A server's own word
// stands above a notary's, which cannot replace a key, bring back one that is
// out of use, or shorten the life of one.
func (k *Keyring) keep(ctx context.Context, a *Answer, direct bool) error {
	now := k.cfg.Now()
	valid := a.ValidUntil
	if most := now.Add(MaxValidity).Truncate(time.Millisecond); valid.After(most) {
		valid = most
	}
	changed := map[string]key{}
	k.mu.Lock()
	s, err := k.loaded(ctx, a.Server)
	if err != nil {
		k.mu.Unlock()
		return err
	}
	for id, public := range a.Verify {
		was, known := s.keys[id]
		switch {
		case !known, direct && !was.public.Equal(public):
			changed[id] = key{public, valid}
		case was.public.Equal(public) && valid.After(was.until) && (direct || !was.until.Before(s.valid)):
			changed[id] = key{public, valid}
		}
	}
	for id, old := range a.Old {
		if old.Expired.After(now) {
			old.Expired = now.Truncate(time.Millisecond) // it says itself that it is out of use
		}
		was, known := s.keys[id]
		if !known || direct && !(was.public.Equal(old.Public) && was.until.Equal(old.Expired)) {
			changed[id] = key{old.Public, old.Expired}
		}
	}
	kept := len(s.keys)
	k.mu.Unlock()
	if kept+len(changed) > maxKept {
		return fmt.Errorf("%w: %s has had %d", ErrAnswer, a.Server, kept+len(changed))
	}
	if err := k.write(ctx, a, direct, now, valid, changed); err != nil {
		return fmt.Errorf("keeping the keys of %s: %w", a.Server, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, err = k.loaded(ctx, a.Server); err != nil {
		return err
	}
	maps.Copy(s.keys, changed)
	if direct {
		s.answer, s.fetched, s.valid = a.JSON, now, valid
	}
	return nil
}

// maxKept is how many keys of one server are kept.
const maxKept = 2000

// rows is what the database has of a server.
type rows struct {
	keys           map[string]key
	answer         []byte
	fetched, valid time.Time
}

func (k *Keyring) read(ctx context.Context, name string) (r rows, err error) {
	r.keys = map[string]key{}
	err = k.cfg.DB.Read(ctx, func(q store.Querier) error {
		var fetched, valid int64
		err := q.QueryRow(`SELECT json, fetched, valid_until FROM fed_key_answers WHERE server = $1`, name).Scan(&r.answer, &fetched, &valid)
		if err != nil && !store.NotFound(err) {
			return err
		}
		r.fetched, r.valid = time.UnixMilli(fetched), time.UnixMilli(valid)
		all, err := q.Query(`SELECT key_id, public, valid_until FROM fed_keys WHERE server = $1`, name)
		if err != nil {
			return err
		}
		defer all.Close()
		for all.Next() {
			var id string
			var one key
			var until int64
			if err := all.Scan(&id, (*[]byte)(&one.public), &until); err != nil {
				return err
			}
			one.until = time.UnixMilli(until)
			r.keys[id] = one
		}
		return all.Err()
	})
	return r, err
}

func (k *Keyring) write(ctx context.Context, a *Answer, direct bool, fetched, valid time.Time, changed map[string]key) error {
	return k.cfg.DB.Write(ctx, func(tx *store.Tx) error {
		for id, one := range changed {
			_, err := tx.Exec(`INSERT INTO fed_keys (server, key_id, public, valid_until) VALUES ($1, $2, $3, $4)
				ON CONFLICT (server, key_id) DO UPDATE SET public = $3, valid_until = $4`,
				a.Server, id, []byte(one.public), one.until.UnixMilli())
			if err != nil {
				return err
			}
		}
		if !direct {
			return nil
		}
		_, err := tx.Exec(`INSERT INTO fed_key_answers (server, fetched, valid_until, json) VALUES ($1, $2, $3, $4)
			ON CONFLICT (server) DO UPDATE SET fetched = $2, valid_until = $3, json = $4`,
			a.Server, fetched.UnixMilli(), valid.UnixMilli(), a.JSON)
		return err
	})
}
