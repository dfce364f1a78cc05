package keyring

import (
	"context"
	"sync"
	"time"

	"parley/matrix/wire"
)

// maxAsking is how many servers are asked at a time for one query.
const maxAsking = 8

// Publish is what one of our domains publishes, for GET /_matrix/key/v2/server.
// A domain that is not at home here gets what the first publishes.
//
// spec: MX 1.19 SS §2.3.1
func (k *Keyring) Publish(domain string) ([]byte, error) { return k.host(domain).Answer(k.cfg.Now()) }

func (k *Keyring) host(domain string) Own {
	if own, ok := k.own[domain]; ok {
		return own
	}
	return k.cfg.Own[0]
}

// Notarise answers as the notary domain for several servers, each with the
// moment until which its keys should hold at least; zero is now. Servers of
// which nothing is known and which do not answer are left out. Where a server
// does not answer any more, its last answer is given.
//
// spec: MX 1.19 SS §2.3.2
func (k *Keyring) Notarise(ctx context.Context, domain string, servers map[string]time.Time) ([][]byte, error) {
	signer := wire.Signer{Server: k.host(domain).Domain, Key: k.host(domain).Key}
	var (
		mu  sync.Mutex
		out [][]byte
		g   sync.WaitGroup
	)
	slots := make(chan struct{}, maxAsking)
	for name, least := range servers {
		slots <- struct{}{}
		g.Go(func() {
			defer func() { <-slots }()
			answer := k.lastAnswer(ctx, name, least)
			if answer == nil {
				return
			}
			signed, err := signer.Sign(answer)
			if err != nil {
				k.cfg.Log.Error("an answer about keys was not signed", "server", name, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, signed)
		})
	}
	g.Wait()
	return out, ctx.Err()
}

// lastAnswer is what a server says of its keys, as of half of the answer's life
// ago at most if it can be reached; nil where it never was.
//
// spec: MX 1.19 SS §2.3.1
func (k *Keyring) lastAnswer(ctx context.Context, name string, least time.Time) []byte {
	now := k.cfg.Now()
	if own, ok := k.own[name]; ok {
		answer, err := own.Answer(now)
		if err != nil {
			k.cfg.Log.Error("our keys were not signed", "server", name, "err", err)
		}
		return answer
	}
	if least.IsZero() {
		least = now
	}
	get := func() (answer []byte, fresh bool) {
		k.mu.Lock()
		defer k.mu.Unlock()
		s, err := k.loaded(ctx, name)
		if err != nil {
			k.cfg.Log.Error("keys were not read", "server", name, "err", err)
			return nil, true
		}
		half := s.fetched.Add(s.valid.Sub(s.fetched) / 2)
		return s.answer, s.answer != nil && now.Before(half) && !s.valid.Before(least)
	}
	answer, fresh := get()
	if fresh {
		return answer
	}
	// What comes of it was logged; the last answer stands. As a notary we ask
	// nobody but the server.
	_ = k.ask(ctx, name, "", time.Time{})
	answer, _ = get()
	return answer
}
