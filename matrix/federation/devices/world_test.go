package devices_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/federation/devices"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
	"parley/store/storetest"
)

type (
	object = roomstest.Object
	user   = roomstest.User
)

// counter counts.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) Count(name string, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[strings.Join(append([]string{name}, labels...), " ")]++
}

func (c *counter) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// world is servers whose clients know of each other's devices.
type world struct {
	*federationtest.World
	t *testing.T

	mu      sync.Mutex
	devices map[string]*devices.Devices
	counts  *counter
	sent    []edu
	cut     map[string]bool
}

// edu is one that was on its way.
type edu struct {
	dest    string
	Type    string          `json:"edu_type"`
	Content json.RawMessage `json:"content"`
}

// newWorld makes servers. Transactions between them are taken apart by the test.
func newWorld(t *testing.T, change func(*devices.Config), domains ...string) *world {
	w := &world{t: t, devices: map[string]*devices.Devices{}, counts: &counter{n: map[string]int{}}, cut: map[string]bool{}}
	part := func(s *federationtest.Server) {
		if err := devices.Migrate(context.Background(), s.DB); err != nil {
			t.Fatal(err)
		}
		c := devices.Config{
			Hub: s.Hub, API: s.Clients, Client: s.Client, Sender: s.Sender, Log: storetest.Log(t), Count: w.counts,
			Pause: time.Millisecond, FirstRetry: 5 * time.Millisecond, MaxRetry: 20 * time.Millisecond,
		}
		if change != nil {
			change(&c)
		}
		d := devices.New(c)
		s.Clients.UseOthers(d)
		s.Hub.AddMirror(d)
		s.API.Add(d.Routes()...)
		s.OnStart(func() error { return d.Start(context.Background()) })
		s.OnStop(d.Stop)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.devices[s.Domain] = d
	}
	w.World = federationtest.NewWith(t, []federationtest.Part{part}, domains...)
	w.Watch(w.carry)
	return w
}

func (w *world) dev(domain string) *devices.Devices {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.devices[domain]
}

// Cut makes a server unreachable, or reachable again.
func (w *world) Cut(domain string, cut bool) {
	w.World.Cut(domain, cut)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[domain] = cut
}

// carry takes the ephemeral data out of transactions.
func (w *world) carry(dest string, r *http.Request, next federationtest.Next) (*http.Response, error) {
	w.mu.Lock()
	cut := w.cut[dest]
	w.mu.Unlock()
	if cut || !strings.HasPrefix(r.URL.Path, "/_matrix/federation/v1/send/") {
		return next(r)
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var txn struct {
		Origin string `json:"origin"`
		EDUs   []edu  `json:"edus"`
	}
	if err := json.Unmarshal(raw, &txn); err != nil {
		return nil, err
	}
	for _, e := range txn.EDUs {
		e.dest = dest
		if d := w.dev(dest); d != nil {
			if err := d.EDUs()[e.Type](r.Context(), txn.Origin, e.Content); err != nil {
				w.t.Errorf("%s takes no %s of %s: %v", dest, e.Type, txn.Origin, err)
			}
		}
		w.mu.Lock()
		w.sent = append(w.sent, e)
		w.mu.Unlock()
	}
	if w.dev(dest) == nil {
		return federationtest.Answer(http.StatusOK, []byte(`{"pdus":{}}`)), nil
	}
	r.Body = io.NopCloser(bytes.NewReader(raw)) // for what else is in it
	return next(r)
}

// edus are those that arrived so far.
func (w *world) edus() []edu {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}

// await waits for so many EDUs.
func (w *world) await(n int) []edu {
	w.t.Helper()
	federationtest.Eventually(w.t, fmt.Sprintf("%d EDUs", n), func() bool { return len(w.edus()) >= n })
	if got := len(w.edus()); got != n {
		w.t.Fatalf("%d EDUs, not %d: %s", got, n, w.shown())
	}
	return w.edus()
}

func (w *world) shown() string {
	var out []string
	for _, e := range w.edus() {
		out = append(out, fmt.Sprintf("%s %s %s", e.dest, e.Type, e.Content))
	}
	return strings.Join(out, "\n")
}

// remote is somebody on another server.
func remote(userID string) core.Address {
	name, domain, _ := strings.Cut(userID[1:], ":")
	return core.Address{Network: core.Matrix, Name: name, Domain: domain}
}

// at is a user as one server sees her.
func at(s *federationtest.Server, userID string) core.Address {
	a := remote(userID)
	if a.Domain == s.Domain {
		a.Network = core.Local
	}
	return a
}

// share makes a room that the users share, at one server.
func share(s *federationtest.Server, users ...string) core.ConvID {
	s.T.Helper()
	var conv core.ConvID
	err := s.Hub.Graph(context.Background(), func(g *hub.GraphTurn) error {
		creator := at(s, users[0])
		c, err := g.Begin(core.Conversation{Shape: core.Group, Creator: creator, Native: map[core.Network]string{}})
		if err != nil {
			return err
		}
		conv = c.ID
		_, err = g.Apply(hub.Draft{Conv: conv, Sender: creator, Content: core.Change{
			Aspect: core.AspectCreated, Creation: &core.Creation{Shape: core.Group, Creators: []core.Address{creator}, Version: "12"},
		}})
		return err
	})
	if err != nil {
		s.T.Fatal(err)
	}
	for _, u := range users {
		move(s, conv, u, core.Joined)
	}
	return conv
}

// move changes a user's standing in a room.
func move(s *federationtest.Server, conv core.ConvID, userID string, to core.Standing) {
	s.T.Helper()
	who := at(s, userID)
	err := s.Hub.Graph(context.Background(), func(g *hub.GraphTurn) error {
		e, err := g.Apply(hub.Draft{Conv: conv, Sender: who, Content: core.Membership{Target: who, Standing: to}})
		if err != nil || who.IsLocal() {
			return err
		}
		if to == core.Joined {
			return s.Sender.Peers(g.Tx(), conv, []string{who.Domain}, nil, e.Feed)
		}
		st, err := g.Tx().State(conv)
		if err != nil {
			return err
		}
		for a, m := range st.Members {
			if a.Domain == who.Domain && m.Standing == core.Joined {
				return nil
			}
		}
		return s.Sender.Peers(g.Tx(), conv, nil, []string{who.Domain}, e.Feed)
	})
	if err != nil {
		s.T.Fatal(err)
	}
}

var unpadded = base64.RawStdEncoding

// signer signs as a client does.
type signer struct {
	user, id string
	private  ed25519.PrivateKey
}

func newSigner(t testing.TB, user, id string) signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if id == "" {
		id = unpadded.EncodeToString(public)
	}
	return signer{user, id, private}
}

// sign adds the signature to an object.
func (s signer) sign(t testing.TB, o object) object {
	t.Helper()
	bare := maps.Clone(o)
	delete(bare, "signatures")
	raw, err := json.Marshal(bare)
	if err != nil {
		t.Fatal(err)
	}
	canon, err := wire.Canonical(raw)
	if err != nil {
		t.Fatal(err)
	}
	signatures := maps.Clone(o.Obj("signatures"))
	if signatures == nil {
		signatures = object{}
	}
	mine := maps.Clone(signatures.Obj(s.user))
	if mine == nil {
		mine = object{}
	}
	mine["ed25519:"+s.id] = unpadded.EncodeToString(ed25519.Sign(s.private, canon))
	signatures[s.user] = map[string]any(mine)
	out := maps.Clone(o)
	out["signatures"] = map[string]any(signatures)
	return out
}

// deviceKeys are keys of a device.
func deviceKeys(user, device, curve string) object {
	return object{
		"user_id": user, "device_id": device, "algorithms": []any{"m.olm.v1.curve25519-aes-sha2"},
		"keys": map[string]any{"curve25519:" + device: curve}, "signatures": map[string]any{},
	}
}

// upload uploads a device's keys.
func upload(u *user, curve string) {
	u.Server.T.Helper()
	u.Do("POST", "/v3/keys/upload", object{"device_keys": deviceKeys(u.ID, u.Device, curve)})
}

// cross are cross-signing keys.
type cross struct {
	master, self, user signer
	body               object
}

func newCross(t testing.TB, user string) cross {
	t.Helper()
	c := cross{newSigner(t, user, ""), newSigner(t, user, ""), newSigner(t, user, ""), nil}
	k := func(s signer, usage string) object {
		return object{"user_id": user, "usage": []any{usage}, "keys": map[string]any{"ed25519:" + s.id: s.id}}
	}
	c.body = object{
		"master_key":       map[string]any(k(c.master, "master")),
		"self_signing_key": map[string]any(c.master.sign(t, k(c.self, "self_signing"))),
		"user_signing_key": map[string]any(c.master.sign(t, k(c.user, "user_signing"))),
	}
	return c
}

// query asks for the keys of users.
func query(u *user, users ...string) object {
	u.Server.T.Helper()
	keys := object{}
	for _, id := range users {
		keys[id] = []string{}
	}
	return u.Do("POST", "/v3/keys/query", object{"device_keys": keys}).Object
}

// curve is the key of a device in the answer to a query; "" where there is none.
func curve(o object, user, device string) string {
	return o.Text("device_keys", user, device, "keys", "curve25519:"+device)
}

// changes are whose devices changed since a token, and who left.
func changes(u *user, since string) string {
	u.Server.T.Helper()
	o := u.Do("GET", "/v3/keys/changes?from="+since+"&to="+since, nil)
	return fmt.Sprint(o.Get("changed"), o.Get("left"))
}

// token is where the feed is.
func token(u *user) string {
	u.Server.T.Helper()
	return u.Sync("", "").Text("next_batch")
}

// scripted is another server whose answers a test writes. It has no federation
// API of its own.
type scripted struct {
	t      *testing.T
	w      *world
	domain string

	mu      sync.Mutex
	answers map[string]string                    // by method and path
	hooks   map[string]func(*http.Request) error // likewise, before the answer
	calls   []string
	bodies  []string
}

func (w *world) scripted(domain string) *scripted {
	s := &scripted{t: w.t, w: w, domain: domain, answers: map[string]string{}, hooks: map[string]func(*http.Request) error{}}
	w.Impostor(domain, s)
	return s
}

const (
	queryPath = "POST /_matrix/federation/v1/user/keys/query"
	claimPath = "POST /_matrix/federation/v1/user/keys/claim"
)

func listPath(user string) string { return "GET /_matrix/federation/v1/user/devices/" + user }

// ServeHTTP implements [http.Handler].
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := r.Method + " " + r.URL.Path
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	s.calls = append(s.calls, what)
	s.bodies = append(s.bodies, string(body))
	answer, ok := s.answers[what]
	hook := s.hooks[what]
	s.mu.Unlock()
	if hook != nil {
		if err := hook(r); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		answer = `{"errcode":"M_NOT_FOUND","error":"nothing"}`
	}
	_, _ = io.Copy(w, bytes.NewReader([]byte(answer)))
}

// answer sets what is answered; it may hold objects.
func (s *scripted) answer(what string, v any) {
	s.t.Helper()
	text, ok := v.(string)
	if !ok {
		raw, err := json.Marshal(v)
		if err != nil {
			s.t.Fatal(err)
		}
		text = string(raw)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[what] = text
}

// hook has f run before an answer is given.
func (s *scripted) hook(what string, f func(*http.Request) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks[what] = f
}

// asked are the calls since it was asked last.
func (s *scripted) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = nil
	return out
}

// says has the server send an EDU to a server of the world.
func (s *scripted) says(to, typ string, content any) error {
	raw, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return s.w.dev(to).EDUs()[typ](context.Background(), s.domain, raw)
}

// must is says for what is in order.
func (s *scripted) must(to, typ string, content any) {
	s.t.Helper()
	if err := s.says(to, typ, content); err != nil {
		s.t.Errorf("%s: %v", typ, err)
	}
}

// list is an answer with devices of a user.
func list(user string, stream int, devices ...object) object {
	l := []any{}
	for _, d := range devices {
		l = append(l, map[string]any{"device_id": d["device_id"], "keys": map[string]any(d)})
	}
	return object{"user_id": user, "stream_id": stream, "devices": l}
}

// queried is an answer to a query with devices of a user.
func queried(user string, devices ...object) object {
	of := object{}
	for _, d := range devices {
		of[d.Text("device_id")] = map[string]any(d)
	}
	return object{"device_keys": map[string]any{user: map[string]any(of)}}
}

// update is an m.device_list_update.
func update(user string, stream int, before []int, device object) object {
	return object{"user_id": user, "device_id": device["device_id"], "stream_id": stream, "prev_id": before, "keys": map[string]any(device)}
}

// ask has one server of the world ask another.
func ask(s *federationtest.Server, dest, method, uri string, body any) (object, error) {
	s.T.Helper()
	c := federation.Call{Origin: s.Domain, Destination: dest, Method: method, URI: uri, Insist: true}
	if text, ok := body.(string); ok {
		c.Body = []byte(text)
	} else if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			s.T.Fatal(err)
		}
		c.Body = raw
	}
	raw, err := s.Client.Do(context.Background(), c)
	if err != nil {
		return nil, err
	}
	var o object
	return o, json.Unmarshal(raw, &o)
}
