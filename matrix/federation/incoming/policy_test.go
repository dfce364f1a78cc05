package incoming_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"parley/matrix/federation"
	"parley/matrix/federation/federationtest"
	"parley/matrix/rooms/roomstest"
	"parley/matrix/wire"
)

// policyServer is a policy server's signature, on a server that is in the room.
type policyServer struct {
	key   ed25519.PrivateKey
	asked atomic.Int64
	off   atomic.Bool
}

func newPolicyServer(t testing.TB) *policyServer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &policyServer{key: key}
}

func (p *policyServer) public() string {
	return base64.RawStdEncoding.EncodeToString(p.key.Public().(ed25519.PublicKey))
}

// part makes p.test a policy server. It takes what does not speak of spam.
func (p *policyServer) part(t testing.TB) federationtest.Part {
	return func(s *federationtest.Server) {
		if s.Domain != "p.test" {
			return
		}
		s.API.Add(federation.Route{Method: "POST", Path: "/_matrix/policy/v1/sign", Handler: func(r *federation.Request) (any, error) {
			p.asked.Add(1)
			if p.off.Load() {
				return nil, federation.Errorf(http.StatusServiceUnavailable, "M_UNKNOWN", "Not now.")
			}
			if strings.Contains(string(r.Body), "spam") {
				return nil, federation.Errorf(http.StatusBadRequest, "M_FORBIDDEN", "That is spam.")
			}
			v, err := wire.VersionOf("12")
			if err != nil {
				return nil, err
			}
			pdu, err := wire.Parse(v, r.Body)
			if err != nil {
				return nil, err
			}
			bare, err := pdu.Redact()
			if err != nil {
				return nil, err
			}
			o, err := wire.ParseObject(bare.JSON)
			if err != nil {
				return nil, err
			}
			sig := ed25519.Sign(p.key, o.Without("signatures", "unsigned").JSON())
			return object{"p.test": object{"ed25519:policy_server": base64.RawStdEncoding.EncodeToString(sig)}}, nil
		}})
	}
}

// TestPolicy: in a room with a policy server, what it does not recommend is not
// shown; what has its signature is not asked about again; and without somebody of
// its in the room it has no say.
//
// spec: MX 1.19 SS §27.2
func TestPolicy(t *testing.T) {
	p := newPolicyServer(t)
	w := newWorld(t, []federationtest.Part{p.part(t)}, "a.test", "b.test", "p.test")
	a, b := w.Server("a.test"), w.Server("b.test")
	alice, bob, warden := a.User("alice"), b.User("bob"), w.Server("p.test").User("warden")
	room := alice.Create(object{"preset": "public_chat"})
	join(bob, room, "a.test")
	w.Same(room, "a.test", "b.test")
	set := func() {
		t.Helper()
		alice.SetState(room, "m.room.policy", "", object{"via": "p.test", "public_keys": object{"ed25519": p.public()}})
	}
	set()
	w.Same(room, "a.test", "b.test")
	hears(t, alice, room, bob.Say(room, "spam, and nobody of the policy server is here"))
	if n := p.asked.Load(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	join(warden, room, "a.test")
	w.Same(room, "a.test", "b.test", "p.test")

	ok := plant(t, w, bob, room, "good news")
	hears(t, alice, room, ok)
	spam := plant(t, w, bob, room, "spam")
	federationtest.Eventually(t, "a.test has the spam", func() bool { return verdict(a, spam) != "" })
	if got := verdict(a, spam); got != "soft-failed" {
		t.Errorf("spam is %s", got)
	}
	asked := p.asked.Load()
	if asked == 0 {
		t.Error("it was never asked")
	}
	set() // about this alone it is not asked
	w.Same(room, "a.test", "b.test")
	if n := p.asked.Load(); n != asked {
		t.Errorf("it was asked %d times about itself", n-asked)
	}
	p.off.Store(true)
	unheard := plant(t, w, bob, room, "is anybody there?")
	federationtest.Eventually(t, "a.test has it", func() bool { return verdict(a, unheard) != "" })
	if got := verdict(a, unheard); got != "soft-failed" {
		t.Errorf("what nobody recommended is %s", got)
	}
}

// plant has a.test get an event of somebody else's server that has not asked the
// policy server itself.
func plant(t testing.TB, w *lossy, u *roomstest.User, room, text string) string {
	t.Helper()
	a, b := w.Server("a.test"), w.Server("b.test")
	s := a.State(room)
	v, err := wire.VersionOf("12")
	if err != nil {
		t.Fatal(err)
	}
	pdu, err := wire.Build(v, wire.Proto{
		RoomID: room, Type: "m.room.message", Sender: u.ID, Content: []byte(`{"body":"` + text + `","msgtype":"m.text"}`),
		PrevEvents: ends(a, room), AuthEvents: []string{s["m.room.power_levels|"], s["m.room.member|"+u.ID]}, Depth: 50, Time: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := pdu.Sign(wire.Signer{Server: "b.test", Key: b.Key})
	if err != nil {
		t.Fatal(err)
	}
	for id, err := range a.Incoming.Receive(t.Context(), "b.test", []json.RawMessage{raw}) {
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	return pdu.EventID
}

// TestPolicyAsked: what is said here goes to the policy server first, and out with
// its signature; what it refuses is not said, and who wanted to is told why.
//
// spec: MX 1.19 SS §27.3
func TestPolicyAsked(t *testing.T) {
	p := newPolicyServer(t)
	w := newWorld(t, []federationtest.Part{p.part(t)}, "a.test", "b.test", "p.test")
	a, b := w.Server("a.test"), w.Server("b.test")
	alice, bob, warden := a.User("alice"), b.User("bob"), w.Server("p.test").User("warden")
	room := alice.Create(object{"preset": "public_chat"})
	join(bob, room, "a.test")
	join(warden, room, "a.test")
	w.Same(room, "a.test", "b.test", "p.test")
	alice.SetState(room, "m.room.policy", "", object{"via": "p.test", "public_keys": object{"ed25519": p.public()}})
	w.Same(room, "a.test", "b.test", "p.test")

	for _, u := range []*roomstest.User{alice, bob} {
		asked := p.asked.Load()
		ok := u.Say(room, "good news")
		if n := p.asked.Load() - asked; n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		hears(t, alice, room, ok)
		hears(t, bob, room, ok)
		if n := p.asked.Load() - asked; n != 1 {
			t.Errorf("it was asked %d times in all", n)
		}
		again := u.Say(room, "good news") // the same, but not the same event
		if again == ok {
			t.Error("said again, it is not another")
		}
		hears(t, alice, room, again)
		hears(t, bob, room, again)
		bad := u.Try("PUT", roomstest.Room(room, "/send/m.room.message/spam"), object{"msgtype": "m.text", "body": "spam"})
		if bad.Status != http.StatusForbidden || !strings.Contains(string(bad.Raw), "That is spam.") {
			t.Errorf("%d %s", bad.Status, bad.Raw)
		}
		topic := u.Try("PUT", roomstest.Room(room, "/state/m.room.member/%s", u.ID), object{"membership": "join", "displayname": "spam"})
		if topic.Status != http.StatusForbidden {
			t.Errorf("%d %s", topic.Status, topic.Raw)
		}
	}
	p.off.Store(true)
	if got := bob.Try("PUT", roomstest.Room(room, "/send/m.room.message/off"), object{"msgtype": "m.text", "body": "hello?"}); got.Status < 400 {
		t.Errorf("%d %s", got.Status, got.Raw)
	}
	p.off.Store(false)
	hears(t, alice, room, bob.Say(room, "there you are"))
	for _, text := range said(b, room) {
		if strings.Contains(text, "spam") || strings.Contains(text, "hello?") {
			t.Errorf("%q was said", text)
		}
	}
	w.cores(room, "a.test", "b.test", "p.test")
}
