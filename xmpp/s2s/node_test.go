package s2s_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/certs/certstest"
	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/media"
	"parley/store"
	"parley/store/storetest"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/muc"
	"parley/xmpp/s2s"
	"parley/xmpp/stream"
	"parley/xmpp/xmpptest"
)

// world is a DNS: each domain has one server, or an error.
type world struct {
	mu   sync.Mutex
	addr map[string]string
	errs map[string]error
}

func newWorld() *world { return &world{addr: map[string]string{}, errs: map[string]error{}} }

func (w *world) set(addr string, domains ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range domains {
		w.addr[d] = addr
	}
}

func (w *world) fail(domain string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs[domain] = err
}

func (w *world) LookupSRV(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.errs[name]; err != nil {
		return "", nil, err
	}
	addr, ok := w.addr[name]
	if !ok || service != "xmpp-server" {
		return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.ParseUint(port, 10, 16)
	return name, []*net.SRV{{Target: host + ".", Port: uint16(n)}}, nil
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil {
		return []netip.Addr{a}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// ca is the authority that the tests' servers trust.
var ca = certstest.New()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// federation is one side of the federation, with certificates.
func federation(t testing.TB, w *world, domain string) *stream.Federation {
	cert := ca.Issue(t, domain, "rooms."+domain)
	return &stream.Federation{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		Roots:          ca.Pool, Secret: []byte("secret of " + domain), Resolver: w, Log: slog.New(slog.DiscardHandler),
		Settings: stream.Settings{CloseTimeout: 200 * time.Millisecond},
	}
}

// counts counts what is counted.
type counts struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counts) Count(name string, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]int{}
	}
	c.m[strings.Join(append([]string{name}, labels...), " ")]++
}

func (c *counts) get(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[name]
}

// node is a whole server of one domain.
type node struct {
	t      testing.TB
	w      *world
	domain string
	db     *store.DB
	change func(*s2s.Config)
	// hubChange, if it is set, changes the hub of the next start.
	hubChange func(*hub.Config)
	hub       *hub.Hub
	carrier   *s2s.Carrier
	counts    *counts
	clients   string         // where clients connect
	peers     *cuttable      // where servers do
	stop      func(cut bool) // cut: as if the power had failed, as far as others can tell
}

func newNode(t testing.TB, w *world, domain string, change func(*s2s.Config)) *node {
	n := &node{t: t, w: w, domain: domain, change: change, db: storetest.Open(t, storetest.SQLite(t), store.Options{})}
	must(t, c2s.Migrate(t.Context(), n.db))
	must(t, muc.Migrate(t.Context(), n.db))
	n.start()
	t.Cleanup(func() { n.stop(false) })
	return n
}

func (n *node) start() {
	t := n.t
	n.counts = &counts{}
	n.hub = hubtest.On(t, n.db, func(c *hub.Config) {
		c.Domains = []string{n.domain}
		if n.hubChange != nil {
			n.hubChange(c)
		}
	})
	cfg := s2s.Config{Hub: n.hub, Federation: federation(t, n.w, n.domain), Base: "https://" + n.domain, Log: storetest.Log(t), Count: n.counts}
	if n.change != nil {
		n.change(&cfg)
	}
	n.carrier = s2s.New(cfg)
	files, err := media.Open(t.TempDir(), media.Limits{})
	must(t, err)
	sessions := c2s.New(c2s.Config{Hub: n.hub, Router: n.carrier, Log: storetest.Log(t), Files: files, Base: "https://" + n.domain})
	rooms := muc.New(muc.Config{Guard: cfg.Guard, Hub: n.hub, Names: sessions.Names(), Route: n.carrier.Route, Secret: []byte("occupants"), Log: storetest.Log(t)})
	sessions.AddService("rooms", muc.Local{Service: rooms})
	n.carrier.Attach(sessions, rooms)
	n.hub.AddCarrier(n.carrier)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	cert := ca.Issue(t, n.domain)
	clients := &stream.Clients{
		Hosted: n.hub.Hosts, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		Authenticator: c2s.Accounts{Hub: n.hub}, Secret: make([]byte, 32), ScramIterations: 4096,
		Features: sessions.Features, Handle: sessions.Handle, Log: slog.New(slog.DiscardHandler),
	}
	ln := listen(t)
	n.clients = ln.Addr().String()
	n.peers = &cuttable{Listener: listen(t)}
	n.w.set(n.peers.Addr().String(), n.domain, "rooms."+n.domain)
	wg.Go(func() { _ = clients.ServeTLS(ctx, ln) })
	wg.Go(func() { _ = sessions.Run(ctx) })
	wg.Go(func() { _ = rooms.Run(ctx) })
	wg.Go(func() { _ = n.carrier.Serve(ctx, n.peers) })
	must(t, n.hub.Start(context.Background()))
	n.stop = func(cut bool) {
		if cut {
			n.peers.cut()
		}
		n.hub.Stop()
		cancel()
		wg.Wait()
		done, end := context.WithTimeout(context.Background(), 30*time.Second)
		defer end()
		if err := n.carrier.Close(done); err != nil {
			t.Errorf("closing the carrier of %s: %v", n.domain, err)
		}
		_ = files.Close()
		n.stop = func(bool) {}
	}
}

// account returns an address, of an account that is made if there is none.
func (n *node) account(name string) core.Address {
	n.t.Helper()
	a := core.LocalAddress(name, n.domain)
	if _, err := n.hub.Account(context.Background(), a); errors.Is(err, hub.ErrNone) {
		must(n.t, n.hub.CreateAccount(context.Background(), a, hubtest.Password))
	}
	return a
}

// connect logs an account's client in and makes it available.
func (n *node) connect(name string) *xmpptest.Client {
	n.t.Helper()
	n.account(name)
	c := xmpptest.Dial(n.t, n.clients, n.domain, name, hubtest.Password).Bind("here")
	c.Send(parse(n.t, `<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://test' ver='of `+name+`'/></presence>`))
	c.Sync()
	return c
}

func foreign(name, domain string) core.Address {
	return core.Address{Network: core.XMPP, Name: name, Domain: domain}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	return ln
}

// cuttable is a listener whose connections can be broken.
type cuttable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cuttable) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, nc)
		c.mu.Unlock()
	}
	return nc, err
}

func (c *cuttable) cut() {
	_ = c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, nc := range c.conns {
		_ = nc.Close()
	}
}

func parse(t testing.TB, xml string) *element.Element {
	t.Helper()
	el, err := element.Parse([]byte("<all xmlns='jabber:client'>"+xml+"</all>"), element.DefaultLimits)
	must(t, err)
	return el.First()
}

// body waits for a message with a body from a bare JID.
func body(c *xmpptest.Client, from, text string) *element.Element {
	return c.Receive(func(el *element.Element) bool {
		bare, _, _ := strings.Cut(el.Attr("from"), "/")
		return el.Name.Local == "message" && el.Attr("type") != "error" && bare == from && el.ChildText("", "body") == text
	})
}

// stanza waits for a stanza of a kind and type from a bare JID, with a child, if ns is not empty.
func stanza(c *xmpptest.Client, kind, typ, from, ns, child string) *element.Element {
	return c.Receive(func(el *element.Element) bool {
		bare, _, _ := strings.Cut(el.Attr("from"), "/")
		return el.Name.Local == kind && el.Attr("type") == typ && bare == from && (ns == "" || el.Child(ns, child) != nil)
	})
}

// befriend has two clients see each other.
func befriend(t testing.TB, a, b *xmpptest.Client) {
	t.Helper()
	bareA, _, _ := strings.Cut(a.JID, "/")
	bareB, _, _ := strings.Cut(b.JID, "/")
	for _, x := range []struct {
		c, d     *xmpptest.Client
		from, to string
	}{{a, b, bareA, bareB}, {b, a, bareB, bareA}} {
		x.c.Send(parse(t, `<presence type='subscribe' to='`+x.to+`'/>`))
		stanza(x.d, "presence", "subscribe", x.from, "", "")
		x.d.Send(parse(t, `<presence type='subscribed' to='`+x.from+`'/>`))
		stanza(x.c, "presence", "subscribed", x.to, "", "")
		stanza(x.c, "presence", "", x.to, "", "")
	}
}

// patience is how long a test waits for what must come before it fails: no assertion depends on it.
const patience = 60 * time.Second
