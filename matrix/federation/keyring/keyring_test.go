package keyring

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/matrix/wire"
	"parley/store"
	"parley/store/storetest"
)

// net is the other servers: what each answers about itself, and as a notary.
type network struct {
	direct map[string]func() ([]byte, error)
	notary map[string]func(body []byte) ([]byte, error)

	mu    sync.Mutex
	asked map[string]int
}

func (n *network) ServerKeys(_ context.Context, server string) ([]byte, error) {
	n.mu.Lock()
	n.asked[server]++
	f := n.direct[server]
	n.mu.Unlock()
	if f == nil {
		return nil, errors.New("connection refused")
	}
	return f()
}

func (n *network) QueryKeys(_ context.Context, notary string, body []byte) ([]byte, error) {
	n.mu.Lock()
	n.asked["notary "+notary]++
	f := n.notary[notary]
	n.mu.Unlock()
	if f == nil {
		return nil, errors.New("connection refused")
	}
	return f(body)
}

// bench is a keyring in a world whose clock stands.
type bench struct {
	*Keyring
	*network
	now  time.Time
	ours *wire.SigningKey
	db   *store.DB
}

func newKey(t testing.TB) *wire.SigningKey {
	t.Helper()
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newBench(t *testing.T, db *store.DB, notaries ...string) *bench {
	t.Helper()
	if err := Migrate(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	b := &bench{
		network: &network{direct: map[string]func() ([]byte, error){}, notary: map[string]func([]byte) ([]byte, error){}, asked: map[string]int{}},
		now:     time.UnixMilli(1_800_000_000_000), ours: newKey(t), db: db,
	}
	b.restart(notaries...)
	return b
}

func (b *bench) restart(notaries ...string) {
	b.Keyring = New(Config{
		DB: b.db, Fetch: b.network, Own: []Own{{Domain: "here.test", Key: b.ours}}, Notaries: notaries,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return b.now },
	})
}

// publishes has a server answer with a key, and old ones, as of now.
func (b *bench) publishes(t *testing.T, server string, key *wire.SigningKey, old map[string]OldKey) []byte {
	t.Helper()
	answer, err := Own{Domain: server, Key: key, Old: old}.Answer(b.now)
	if err != nil {
		t.Fatal(err)
	}
	b.direct[server] = func() ([]byte, error) { return answer, nil }
	return answer
}

func (b *bench) want(t *testing.T, server string, key *wire.SigningKey, at time.Time, want error) {
	t.Helper()
	public, err := b.Key(t.Context(), server, key.ID(), at)
	if !errors.Is(err, want) || want == nil && !public.Equal(key.Public()) {
		t.Errorf("key %s of %s at %v: %x, %v; want %v", key.ID(), server, at, public, err, want)
	}
}

// TestValidity is for which moments a key holds, on both databases and over a
// restart.
//
// spec: MX 1.19 SS §2.3.1
func TestValidity(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		b := newBench(t, db)
		first, second := newKey(t), newKey(t)
		b.publishes(t, "a.test", first, nil)
		start := b.now
		b.want(t, "a.test", first, start, nil)
		b.want(t, "a.test", first, start.Add(-1000*time.Hour), nil)
		b.want(t, "a.test", first, start.Add(ownValidity), nil)
		if b.asked["a.test"] != 1 {
			t.Errorf("asked %d times", b.asked["a.test"])
		}
		b.want(t, "a.test", first, start.Add(ownValidity+time.Millisecond), ErrExpired)
		b.want(t, "a.test", first, start.Add(1000*time.Hour), ErrExpired) // nobody needs to be asked
		b.want(t, "a.test", second, start, ErrUnknownKey)
		if b.asked["a.test"] != 1 {
			t.Errorf("asked %d times within a minute", b.asked["a.test"])
		}
		// The server changes its key.
		b.now = start.Add(2 * time.Minute)
		rotated := b.now
		b.publishes(t, "a.test", second, map[string]OldKey{first.ID(): {first.Public(), rotated}})
		b.want(t, "a.test", second, b.now, nil)
		b.now = b.now.Add(time.Hour)
		for range 2 {
			b.want(t, "a.test", first, start, nil)
			b.want(t, "a.test", first, rotated, nil)
			b.want(t, "a.test", first, b.now, ErrExpired)
			b.want(t, "a.test", second, b.now, nil)
			b.restart()
			delete(b.direct, "a.test")
		}
	})
}

// TestStolenKey: a server says that its key holds for years, and takes it back.
//
// spec: MX 1.19 SS §2.3.1
func TestStolenKey(t *testing.T) {
	b := newBench(t, storetest.Open(t, storetest.SQLite(t), store.Options{}))
	stolen, next := newKey(t), newKey(t)
	was := b.now
	b.now = was.Add(10000 * time.Hour)
	far := b.publishes(t, "a.test", stolen, nil) // holds until then
	b.now = was
	b.want(t, "a.test", stolen, b.now, nil)
	b.want(t, "a.test", stolen, b.now.Add(MaxValidity), nil)
	b.want(t, "a.test", stolen, b.now.Add(MaxValidity+time.Second), ErrExpired)
	b.now = b.now.Add(time.Hour)
	b.publishes(t, "a.test", next, map[string]OldKey{stolen.ID(): {stolen.Public(), was.Add(-time.Hour)}})
	b.want(t, "a.test", next, b.now, nil)
	b.want(t, "a.test", stolen, was, ErrExpired)
	b.want(t, "a.test", stolen, was.Add(-2*time.Hour), nil)
	// A notary that still has the old answer does not bring it back.
	b.restart("notary.test")
	notary := newKey(t)
	b.publishes(t, "notary.test", notary, nil)
	b.notary["notary.test"] = notarised(t, "notary.test", notary, far)
	b.now = b.now.Add(time.Hour)
	delete(b.direct, "a.test")
	b.want(t, "a.test", stolen, b.now, ErrExpired)
	if b.asked["notary notary.test"] != 1 {
		t.Errorf("the notary was asked %d times", b.asked["notary notary.test"])
	}
	// An old key whose end is said to be in the future is out of use all the same.
	third := newKey(t)
	b.publishes(t, "a.test", third, map[string]OldKey{next.ID(): {next.Public(), b.now.Add(time.Hour)}})
	b.now = b.now.Add(time.Hour)
	b.want(t, "a.test", third, b.now, nil)
	b.want(t, "a.test", next, b.now.Add(time.Minute), ErrExpired)
}

// notarised is a notary that answers with what it signs.
func notarised(t *testing.T, name string, key *wire.SigningKey, answers ...[]byte) func([]byte) ([]byte, error) {
	t.Helper()
	out := []json.RawMessage{}
	for _, a := range answers {
		signed, err := wire.Signer{Server: name, Key: key}.Sign(a)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, signed)
	}
	raw, err := json.Marshal(map[string]any{"server_keys": out})
	if err != nil {
		t.Fatal(err)
	}
	return func([]byte) ([]byte, error) { return raw, nil }
}

// TestNotaries: a server does not answer, and others speak for it.
//
// spec: MX 1.19 SS §2.3.2
func TestNotaries(t *testing.T) {
	key, notary, thief := newKey(t), newKey(t), newKey(t)
	setup := func(t *testing.T) (b *bench, genuine, forged []byte) {
		b = newBench(t, storetest.Open(t, storetest.SQLite(t), store.Options{}), "notary.test")
		genuine, forged = b.publishes(t, "a.test", key, nil), b.publishes(t, "a.test", thief, nil)
		delete(b.direct, "a.test")
		b.publishes(t, "notary.test", notary, nil)
		return b, genuine, forged
	}
	t.Run("honest", func(t *testing.T) {
		b, genuine, _ := setup(t)
		b.notary["notary.test"] = func(body []byte) ([]byte, error) {
			if want := fmt.Sprintf(`{"server_keys":{"a.test":{%q:{"minimum_valid_until_ts":1800000000000}}}}`, key.ID()); string(body) != want {
				t.Errorf("the question is %s", body)
			}
			return notarised(t, "notary.test", notary, genuine)(body)
		}
		b.want(t, "a.test", key, b.now, nil)
		b.want(t, "a.test", key, b.now, nil)
		if b.asked["notary notary.test"] != 1 || b.asked["a.test"] != 1 {
			t.Errorf("asked: %v", b.asked)
		}
	})
	lies := map[string]func(b *bench, genuine, forged []byte) func([]byte) ([]byte, error){
		"unsigned": func(_ *bench, g, _ []byte) func([]byte) ([]byte, error) {
			return func([]byte) ([]byte, error) { return fmt.Appendf(nil, `{"server_keys":[%s]}`, g), nil }
		},
		"signed with another's key": func(_ *bench, g, _ []byte) func([]byte) ([]byte, error) {
			return notarised(t, "notary.test", thief, g)
		},
		"signed, then changed": func(_ *bench, g, _ []byte) func([]byte) ([]byte, error) {
			raw, _ := notarised(t, "notary.test", notary, g)(nil)
			raw = []byte(strings.Replace(string(raw), `"valid_until_ts":18`, `"valid_until_ts":19`, 1))
			return func([]byte) ([]byte, error) { return raw, nil }
		},
		"another key ID's content": func(_ *bench, g, _ []byte) func([]byte) ([]byte, error) {
			return notarised(t, "notary.test", notary, []byte(strings.Replace(string(g), key.PublicBase64(), thief.PublicBase64(), 1)))
		},
		"another server's": func(_ *bench, _, _ []byte) func([]byte) ([]byte, error) {
			other, _ := Own{Domain: "b.test", Key: key}.Answer(time.UnixMilli(1_800_000_000_000))
			return notarised(t, "notary.test", notary, other)
		},
		"nothing": func(*bench, []byte, []byte) func([]byte) ([]byte, error) {
			return func([]byte) ([]byte, error) { return []byte(`{"server_keys":[]}`), nil }
		},
		"not JSON": func(*bench, []byte, []byte) func([]byte) ([]byte, error) {
			return func([]byte) ([]byte, error) { return []byte(`<html>`), nil }
		},
		"too many": func(_ *bench, g, _ []byte) func([]byte) ([]byte, error) {
			all := make([][]byte, maxAnswers+1)
			for i := range all {
				all[i] = g
			}
			return notarised(t, "notary.test", notary, all...)
		},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			b, genuine, forged := setup(t)
			b.notary["notary.test"] = lie(b, genuine, forged)
			b.want(t, "a.test", key, b.now, ErrUnknownKey)
			b.want(t, "a.test", thief, b.now, ErrUnknownKey)
		})
	}
	t.Run("against the server's own word", func(t *testing.T) {
		b, genuine, _ := setup(t)
		b.direct["a.test"] = func() ([]byte, error) { return genuine, nil }
		b.want(t, "a.test", key, b.now, nil)
		// A key with the same ID and another content, signed by it: not taken.
		clash, err := wire.ParseSigningKey([]byte("ed25519 " + strings.TrimPrefix(key.ID(), "ed25519:") + " YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
		if err != nil {
			t.Fatal(err)
		}
		forged := b.publishes(t, "a.test", clash, nil)
		delete(b.direct, "a.test")
		b.notary["notary.test"] = notarised(t, "notary.test", notary, forged)
		b.now = b.now.Add(ownValidity + time.Hour)
		b.publishes(t, "notary.test", notary, nil)
		b.want(t, "a.test", key, b.now, ErrExpired)
		b.want(t, "a.test", key, b.now.Add(-2*time.Hour), nil)
	})
}

// TestLeftAlone: a server that does not answer is asked less and less often,
// and one request serves all who wait.
func TestLeftAlone(t *testing.T) {
	b := newBench(t, storetest.Open(t, storetest.SQLite(t), store.Options{}))
	key := newKey(t)
	for range 1000 {
		b.want(t, "a.test", newKey(t), b.now, ErrUnknownKey)
	}
	if b.asked["a.test"] != 1 {
		t.Errorf("asked %d times", b.asked["a.test"])
	}
	b.now = b.now.Add(5 * time.Second) // it may just have been started again
	if b.want(t, "a.test", key, b.now, ErrUnknownKey); b.asked["a.test"] != 2 {
		t.Errorf("asked %d times soon after", b.asked["a.test"])
	}
	b.want(t, "a.test", key, b.now, ErrUnreachable)
	b.publishes(t, "honest.test", newKey(t), nil)
	if _, err := b.Key(t.Context(), "honest.test", key.ID(), b.now); errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a server that answers: %v", err)
	}
	for range 24 * 60 {
		b.now = b.now.Add(time.Minute)
		b.want(t, "a.test", key, b.now, ErrUnknownKey)
	}
	if n := b.asked["a.test"]; n < 24 || n > 35 {
		t.Errorf("asked %d times in a day", n)
	}
	release := make(chan struct{})
	answer := b.publishes(t, "b.test", key, nil)
	b.direct["b.test"] = func() ([]byte, error) { <-release; return answer, nil }
	var g sync.WaitGroup
	for range 50 {
		g.Go(func() { b.want(t, "b.test", key, b.now, nil) })
	}
	close(release)
	g.Wait()
	if b.asked["b.test"] != 1 {
		t.Errorf("asked %d times", b.asked["b.test"])
	}
}

// TestBadAnswers are answers that are not believed.
//
// spec: MX 1.19 SS §2.3.1
func TestBadAnswers(t *testing.T) {
	key, other := newKey(t), newKey(t)
	good, err := Own{Domain: "a.test", Key: key, Old: map[string]OldKey{other.ID(): {other.Public(), time.UnixMilli(5)}}}.Answer(time.UnixMilli(1_800_000_000_000))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAnswer("a.test", good)
	if err != nil || !a.Verify[key.ID()].Equal(key.Public()) || !a.Old[other.ID()].Expired.Equal(time.UnixMilli(5)) ||
		!a.ValidUntil.Equal(time.UnixMilli(1_800_000_000_000).Add(ownValidity)) {
		t.Fatalf("%+v, %v", a, err)
	}
	sign := func(s string, signers ...wire.Signer) string {
		for _, one := range signers {
			out, err := one.Sign([]byte(s))
			if err != nil {
				t.Fatal(err)
			}
			s = string(out)
		}
		return s
	}
	mine := wire.Signer{Server: "a.test", Key: key}
	keys := fmt.Sprintf(`{%q:{"key":%q}}`, key.ID(), key.PublicBase64())
	many := map[string]any{key.ID(): map[string]string{"key": key.PublicBase64()}}
	for i := range maxKeys {
		many[fmt.Sprintf("ed25519:k%d", i)] = map[string]string{"key": other.PublicBase64()}
	}
	flood, _ := json.Marshal(many)
	for name, text := range map[string]string{
		"another's name":       strings.Replace(string(good), "a.test", "b.test", 1),
		"no signature":         `{"server_name":"a.test","valid_until_ts":1,"verify_keys":` + keys + `}`,
		"changed":              strings.Replace(string(good), `"expired_ts":5`, `"expired_ts":6`, 1),
		"signed by an old key": sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":`+keys+`}`, wire.Signer{Server: "a.test", Key: other}),
		"signed by another":    sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":`+keys+`}`, wire.Signer{Server: "b.test", Key: key}),
		"no keys":              sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":{}}`, mine),
		"keys no object":       sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":[]}`, mine),
		"no moment":            sign(`{"server_name":"a.test","verify_keys":`+keys+`}`, mine),
		"negative moment":      sign(`{"server_name":"a.test","valid_until_ts":-1,"verify_keys":`+keys+`}`, mine),
		"short key":            sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":{"ed25519:a":{"key":"AAAA"}}}`, mine),
		"old without a moment": sign(`{"server_name":"a.test","valid_until_ts":1,"old_verify_keys":`+keys+`,"verify_keys":`+keys+`}`, mine),
		"too many":             sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":`+string(flood)+`}`, mine),
		"too long":             sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":`+keys+`,"x":"`+strings.Repeat("x", maxAnswer)+`"}`, mine),
		"a key twice":          `{"server_name":"a.test","server_name":"a.test","valid_until_ts":1,"verify_keys":` + keys + `}`,
		"an array":             `[]`, "nothing": ``, "deep": strings.Repeat(`{"a":`, 10000),
	} {
		if _, err := ParseAnswer("a.test", []byte(text)); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Keys of algorithms to come are no reason to refuse.
	future := sign(`{"server_name":"a.test","valid_until_ts":1,"verify_keys":{"mldsa:1":{"key":"AAAA"},`+keys[1:]+`}`, mine)
	if a, err := ParseAnswer("a.test", []byte(future)); err != nil || len(a.Verify) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestEvents checks PDUs with keys that hold for their time.
//
// spec: MX 1.19 SS §28.2
func TestEvents(t *testing.T) {
	b := newBench(t, storetest.Open(t, storetest.SQLite(t), store.Options{}))
	key, via, stray := newKey(t), newKey(t), newKey(t)
	b.publishes(t, "a.test", key, nil)
	b.publishes(t, "via.test", via, nil)
	v, err := wire.VersionOf("11")
	if err != nil {
		t.Fatal(err)
	}
	build := func(at time.Time, content string, signers ...wire.Signer) *wire.PDU {
		t.Helper()
		state := "@u:a.test"
		pdu, err := wire.Build(v, wire.Proto{RoomID: "!r:a.test", Type: wire.TypeMember, StateKey: &state, Sender: "@u:a.test", Content: []byte(content), Time: at.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		raw := pdu.JSON
		if len(signers) > 0 {
			raw, err = pdu.Sign(signers...)
		}
		if err != nil {
			t.Fatal(err)
		}
		if pdu, err = wire.Parse(v, raw); err != nil {
			t.Fatal(err)
		}
		return pdu
	}
	a, w, x := wire.Signer{Server: "a.test", Key: key}, wire.Signer{Server: "via.test", Key: via}, wire.Signer{Server: "a.test", Key: stray}
	plain, restricted := `{"membership":"join"}`, `{"join_authorised_via_users_server":"@m:via.test","membership":"join"}`
	third := `{"membership":"invite","third_party_invite":{"signed":{}}}`
	spoilt := build(b.now, plain, a)
	spoilt.JSON = []byte(strings.Replace(string(spoilt.JSON), `"depth":0`, `"depth":1`, 1))
	pdus := []*wire.PDU{
		build(b.now, plain, a), build(b.now.Add(-1000*time.Hour), plain, a), build(b.now, plain, a, x), build(b.now, restricted, a, w), build(b.now, third),
		build(b.now, plain), build(b.now, plain, x), build(b.now, plain, w), build(b.now, restricted, a), build(b.now.Add(ownValidity+time.Second), plain, a), spoilt,
	}
	want := []error{nil, nil, nil, nil, nil, ErrUnsigned, ErrUnsigned, ErrUnsigned, ErrUnsigned, ErrUnsigned, wire.ErrSignature}
	for i, err := range b.VerifyPDUs(t.Context(), pdus) {
		if !errors.Is(err, want[i]) {
			t.Errorf("event %d: %v, want %v", i, err, want[i])
		}
	}
}

// TestAsNotary is what others get who ask us.
//
// spec: MX 1.19 SS §2.3.2
func TestAsNotary(t *testing.T) {
	b := newBench(t, storetest.Open(t, storetest.SQLite(t), store.Options{}))
	key := newKey(t)
	b.publishes(t, "a.test", key, nil)
	query := func(least time.Time) [][]byte {
		t.Helper()
		out, err := b.Notarise(t.Context(), "here.test", map[string]time.Time{"a.test": least, "gone.test": {}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	check := func(out [][]byte, asked int) {
		t.Helper()
		if len(out) != 1 || b.asked["a.test"] != asked {
			t.Fatalf("%d answers, asked %v", len(out), b.asked)
		}
		if _, err := ParseAnswer("a.test", out[0]); err != nil {
			t.Error(err)
		}
		if err := b.VerifyJSON(t.Context(), "here.test", out[0], b.now); err != nil {
			t.Error(err)
		}
	}
	check(query(time.Time{}), 1)
	b.now = b.now.Add(11 * time.Hour)
	check(query(time.Time{}), 1)
	check(query(b.now.Add(20*time.Hour)), 2) // what we have does not hold so long
	b.now = b.now.Add(13 * time.Hour)
	check(query(time.Time{}), 3) // more than half of its life is over
	b.now = b.now.Add(1000 * time.Hour)
	delete(b.direct, "a.test")
	check(query(time.Time{}), 4)
	b.restart()
	check(query(time.Time{}), 5)
	own, err := b.Notarise(t.Context(), "here.test", map[string]time.Time{"here.test": {}})
	if err != nil || len(own) != 1 {
		t.Fatalf("%s, %v", own, err)
	}
	if a, err := ParseAnswer("here.test", own[0]); err != nil || !a.Verify[b.ours.ID()].Equal(b.ours.Public()) {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestOldKeyFile(t *testing.T) {
	now, before, then := newKey(t), newKey(t), newKey(t)
	list := FormatOldKeys(map[string]OldKey{before.ID(): {before.Public(), time.UnixMilli(99)}, then.ID(): {then.Public(), time.UnixMilli(7)}, now.ID(): {now.Public(), time.UnixMilli(100)}})
	old, err := ParseOldKeys(list, now)
	if err != nil || len(old) != 2 || !old[before.ID()].Public.Equal(before.Public()) || old[then.ID()].Expired.UnixMilli() != 7 {
		t.Errorf("%s: %v, %v", list, old, err)
	}
	for _, bad := range []string{"ed25519 a AAAA 5", "rsa a b 5", "ed25519 a " + now.PublicBase64() + " x", "ed25519 a/ " + now.PublicBase64() + " 5"} {
		if _, err := ParseOldKeys([]byte(bad), now); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	key := newKey(f)
	good, err := Own{Domain: "a.test", Key: key, Old: map[string]OldKey{"ed25519:x": {key.Public(), time.UnixMilli(5)}}}.Answer(time.UnixMilli(1_800_000_000_000))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"server_name":"a.test","signatures":{"a.test":{"ed25519:1":""}},"valid_until_ts":1,"verify_keys":{"ed25519:1":{"key":""}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := ParseAnswer("a.test", raw)
		if err != nil {
			return
		}
		if len(a.Verify) == 0 || len(a.Verify) > maxKeys || len(a.Old) > maxOld {
			t.Errorf("%d keys and %d old ones", len(a.Verify), len(a.Old))
		}
		for id, public := range a.Verify {
			if !keyID.MatchString(id) || len(public) != ed25519.PublicKeySize {
				t.Errorf("key %q of %d bytes", id, len(public))
			}
		}
	})
}
