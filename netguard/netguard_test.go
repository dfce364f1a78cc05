package netguard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/miekg/dns"
)

func newGuard(t *testing.T, o Options) *Guard {
	t.Helper()
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestEveryClassOfAddress(t *testing.T) {
	g := newGuard(t, Options{})
	blocked := map[string]string{
		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified",
		"10.0.0.1": "private", "10.255.255.255": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private",
		"100.64.0.1": "carrier-grade NAT", "100.127.255.255": "carrier-grade NAT",
		"127.0.0.1": "loopback", "127.8.8.8": "loopback",
		"169.254.169.254": "link-local", // cloud metadata
		"192.0.0.170":     "protocol assignments", "192.0.2.1": "documentation", "198.51.100.1": "documentation", "203.0.113.1": "documentation",
		"198.18.0.1": "benchmarking", "198.19.255.255": "benchmarking", "192.88.99.1": "6to4 relay",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "reserved",
		"::": "unspecified", "::1": "loopback", "fd00::1": "private", "fc00::1": "private",
		"fe80::1": "link-local", "fe80::1%eth0": "link-local", "fec0::1": "site-local", "ff02::1": "multicast",
		"100::1": "discard-only", "2001::1": "protocol assignments", "2001:20::1": "protocol assignments",
		"2001:db8::1": "documentation", "3fff::1": "documentation", "5f00::1": "segment routing", "4000::1": "reserved", "1::1": "reserved",
		// IPv4 in IPv6
		"::ffff:127.0.0.1": "loopback", "::ffff:10.0.0.1": "private", "::ffff:169.254.169.254": "link-local",
		"::127.0.0.1": "IPv4-compatible loopback", "::8.8.8.8": "IPv4-compatible", "::ffff:0:10.0.0.1": "IPv4-translated private",
		"64:ff9b::10.0.0.1": "NAT64 private", "64:ff9b::127.0.0.1": "NAT64 loopback", "64:ff9b:1::1": "NAT64",
		"2002:0a00:0001::1": "6to4 private", "2002:7f00:0001::": "6to4 loopback",
	}
	for s, kind := range blocked {
		err := g.Check(netip.MustParseAddr(s))
		var b *BlockedError
		if !errors.As(err, &b) || b.Kind != kind {
			t.Errorf("%s: %v, want %s", s, err, kind)
		}
	}
	if err := g.Check(netip.Addr{}); err == nil {
		t.Error("the zero address is let through")
	}
	for _, s := range []string{"8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "9.255.255.255", "11.0.0.0",
		"2606:4700::1111", "2a00::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::1", "2001:4860:4860::8888"} {
		if err := g.Check(netip.MustParseAddr(s)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestAllowedNetworks(t *testing.T) {
	g := newGuard(t, Options{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/64")}})
	for s, ok := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.2.0.1": false, "127.0.0.1": false,
		"fd00::5": true, "fd01::5": false, "64:ff9b::10.1.2.3": false,
	} {
		if err := g.Check(netip.MustParseAddr(s)); (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestDialIsRefusedAtConnect(t *testing.T) {
	ln := listen(t)
	for _, host := range []string{"127.0.0.1", "localhost", "::ffff:127.0.0.1"} {
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		addr := net.JoinHostPort(host, port)
		_, err := newGuard(t, Options{}).DialContext(t.Context(), "tcp", addr)
		var b *BlockedError
		if !errors.As(err, &b) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	conn, err := newGuard(t, Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	conn, err = newGuard(t, Options{}).DialRoute(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatalf("a static route: %v", err)
	}
	conn.Close()
	if _, err := newGuard(t, Options{}).DialContext(t.Context(), "unix", "/x:1"); err == nil {
		t.Error("a unix socket was dialled")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// dnsServer answers A questions on loopback; answer is called for each.
func dnsServer(t *testing.T, answer func(name string) string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	srv := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			rr, err := dns.NewRR(fmt.Sprintf("%s 0 IN A %s", q.Question[0].Name, answer(q.Question[0].Name)))
			if err != nil {
				t.Error(err)
				return
			}
			m.Answer = append(m.Answer, rr)
		}
		if err := w.WriteMsg(m); err != nil {
			t.Error(err)
		}
	})}
	go srv.ActivateAndServe()
	<-started
	t.Cleanup(func() { srv.Shutdown() })
	return pc.LocalAddr().String()
}

// A name that shows a public address when it is looked at and a private one
// when it is connected to is still refused.
func TestDNSRebinding(t *testing.T) {
	var asked atomic.Int32
	resolver := dnsServer(t, func(string) string {
		if asked.Add(1) == 1 {
			return "8.8.8.8"
		}
		return "127.0.0.1"
	})
	g := newGuard(t, Options{Resolver: resolver})
	addrs, err := g.LookupHost(t.Context(), "rebind.test.")
	if err != nil || len(addrs) != 1 || g.Check(addrs[0]) != nil {
		t.Fatalf("first look-up: %v, %v", addrs, err)
	}
	_, err = g.DialContext(t.Context(), "tcp", "rebind.test.:80")
	var b *BlockedError
	if !errors.As(err, &b) || b.Addr != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("dialling the rebound name: %v", err)
	}
}

func TestStaticHosts(t *testing.T) {
	ln := listen(t)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	hosts := map[string][]netip.Addr{"peer.test": {netip.MustParseAddr("127.0.0.1")}}
	if _, err := newGuard(t, Options{Hosts: hosts}).DialContext(t.Context(), "tcp", "peer.test:"+port); err == nil {
		t.Error("a static host is let into a private network")
	}
	g := newGuard(t, Options{Hosts: hosts, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	conn, err := g.DialContext(t.Context(), "tcp", "Peer.test.:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if addrs, err := g.LookupHost(t.Context(), "peer.test"); err != nil || len(addrs) != 1 {
		t.Errorf("LookupHost = %v, %v", addrs, err)
	}
}

func TestRedirects(t *testing.T) {
	var inside atomic.Bool
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Store(true) }))
	defer secret.Close()
	// Only the first server's address is allowed: 127.0.0.1, and the second is
	// reached by another name of the same machine.
	target := strings.Replace(secret.URL, "127.0.0.1", "127.0.0.2", 1)
	mux := http.NewServeMux()
	mux.Handle("/inside", http.RedirectHandler(target, http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/file", http.RedirectHandler("file:///etc/passwd", http.StatusFound))
	mux.Handle("/ok", http.RedirectHandler("/end", http.StatusFound))
	mux.HandleFunc("/end", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "end") })
	open := httptest.NewServer(mux)
	defer open.Close()

	g := newGuard(t, Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	c := g.Client(ClientOptions{Timeout: time.Minute, MaxBytes: 100})
	_, _, err := Get(t.Context(), c, open.URL+"/inside")
	var b *BlockedError
	if !errors.As(err, &b) || inside.Load() {
		t.Errorf("redirect into a private network: %v", err)
	}
	for _, path := range []string{"/loop", "/file"} {
		if _, _, err := Get(t.Context(), c, open.URL+path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
	body, _, err := Get(t.Context(), c, open.URL+"/ok")
	if err != nil || string(body) != "end" {
		t.Errorf("/ok: %q, %v", body, err)
	}
}

func TestNoDowngrade(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	g := newGuard(t, Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	tlsConf := secure.Client().Transport.(*http.Transport).TLSClientConfig
	c := g.Client(ClientOptions{Timeout: time.Minute, MaxBytes: 100, TLS: tlsConf})
	if _, _, err := Get(t.Context(), c, secure.URL); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("error is %v", err)
	}
	strict := g.Client(ClientOptions{Timeout: time.Minute, MaxBytes: 100})
	if _, _, err := Get(t.Context(), strict, secure.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
}

func TestSizeLimit(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, strings.Repeat("x", 101))
	}))
	defer srv.Close()
	g := newGuard(t, Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for _, path := range []string{"/", "/chunked"} {
		if _, _, err := Get(t.Context(), g.Client(ClientOptions{Timeout: time.Minute, MaxBytes: 100}), srv.URL+path); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", path, err)
		}
		body, _, err := Get(t.Context(), g.Client(ClientOptions{Timeout: time.Minute, MaxBytes: 101}), srv.URL+path)
		if err != nil || len(body) != 101 {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
		}
	}
}

func TestReadAllLimit(t *testing.T) {
	data := bytes.Repeat([]byte("y"), 10)
	for limit := range int64(13) {
		for _, r := range []io.Reader{bytes.NewReader(data), iotest.OneByteReader(bytes.NewReader(data)), iotest.DataErrReader(bytes.NewReader(data))} {
			got, err := ReadAll(r, limit)
			if limit < 10 {
				if !errors.Is(err, ErrTooLarge) || int64(len(got)) != limit {
					t.Errorf("limit %d: %d bytes, %v", limit, len(got), err)
				}
			} else if err != nil || !bytes.Equal(got, data) {
				t.Errorf("limit %d: %q, %v", limit, got, err)
			}
		}
	}
}

func TestContextEndsRequest(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	g := newGuard(t, Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Get(ctx, g.Client(ClientOptions{Timeout: time.Minute, MaxBytes: 1}), srv.URL); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestBadResolver(t *testing.T) {
	if _, err := New(Options{Resolver: "ns.example.org:53"}); err == nil {
		t.Error("a resolver that is a name is taken")
	}
}
