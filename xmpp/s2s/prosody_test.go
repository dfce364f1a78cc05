package s2s_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
	"parley/xmpp/xmpptest"
)

// ServeDNS makes the test's DNS one that other programs can ask: every server is on host.test, which is this machine.
func (w *world) ServeDNS(rw dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	name := strings.ToLower(q.Question[0].Name)
	head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET}
	w.mu.Lock()
	addr := w.addr[strings.TrimSuffix(strings.TrimPrefix(name, "_xmpp-server._tcp."), ".")]
	w.mu.Unlock()
	switch {
	case name == "host.test.":
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)})
		}
	case q.Question[0].Qtype == dns.TypeSRV && strings.HasPrefix(name, "_xmpp-server._tcp.") && addr != "":
		_, port, _ := net.SplitHostPort(addr)
		n, _ := strconv.ParseUint(port, 10, 16)
		m.Answer = append(m.Answer, &dns.SRV{Hdr: head, Port: uint16(n), Target: "host.test."})
	default:
		m.Rcode = dns.RcodeNameError
	}
	_ = rw.WriteMsg(m)
}

// nameServer serves the test's DNS and returns its port.
func nameServer(t testing.TB, w *world) int {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	addr := udp.LocalAddr().(*net.UDPAddr)
	tcp, err := net.Listen("tcp", addr.String())
	must(t, err)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: dns.HandlerFunc(w.ServeDNS)}, {Listener: tcp, Handler: dns.HandlerFunc(w.ServeDNS)}} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		t.Cleanup(func() {
			_ = udp.Close()
			_ = tcp.Close()
			<-ended
		})
	}
	return addr.Port
}

const prosodyConfig = `
run_as_root = true
data_path = %[1]q
pidfile = %[2]q
log = { debug = %[3]q }
unbound = { resolvconf = false, hoststxt = false, forward = "127.0.0.1@%[4]d",
  options = { ["local-zone:"] = "test. transparent", ["do-not-query-localhost:"] = "no" } }
modules_enabled = { "roster", "saslauth", "tls", "disco", "ping", "offline", "s2s_auth_certs", "s2s_bidi" }
modules_disabled = { "s2s_auth_dane_in" }
interfaces = { "127.0.0.1" }
c2s_ports = {}
c2s_direct_tls_ports = { %[5]s }
s2s_ports = { %[6]s }
s2s_secure_auth = true
ssl = { cafile = %[7]q, key = %[8]q, certificate = %[9]q }
VirtualHost "b.test"
`

// prosody is Prosody with the domain b.test, in this machine's name space.
type prosody struct {
	t                    testing.TB
	dir, config, clients string
	cmd                  *exec.Cmd
}

func newProsody(t testing.TB, w *world) *prosody {
	t.Helper()
	if _, err := exec.LookPath("prosody"); err != nil {
		t.Fatalf("this test needs Prosody, which scripts/install-test-deps.sh installs: %v", err)
	}
	p := &prosody{t: t, dir: t.TempDir()}
	must(t, os.Chmod(p.dir, 0o755))
	file := func(name string, data []byte) string {
		path := filepath.Join(p.dir, name)
		must(t, os.WriteFile(path, data, 0o600))
		return path
	}
	cert := ca.Issue(t, "b.test")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	must(t, err)
	clients, servers := listen(t), listen(t) // free ports, for Prosody to take
	p.clients = clients.Addr().String()
	w.set(servers.Addr().String(), "b.test")
	_, clientPort, _ := net.SplitHostPort(p.clients)
	_, serverPort, _ := net.SplitHostPort(servers.Addr().String())
	_, _ = clients.Close(), servers.Close()
	p.config = file("prosody.cfg.lua", fmt.Appendf(nil, prosodyConfig, p.dir, filepath.Join(p.dir, "pid"), filepath.Join(p.dir, "log"),
		nameServer(t, w), clientPort, serverPort, file("ca.pem", pemOf("CERTIFICATE", ca.Cert.Raw)),
		file("key.pem", pemOf("PRIVATE KEY", key)), file("cert.pem", pemOf("CERTIFICATE", cert.Certificate[0]))))
	p.start()
	t.Cleanup(func() {
		p.kill()
		if log, err := os.ReadFile(filepath.Join(p.dir, "log")); err == nil && t.Failed() {
			t.Logf("%s", log)
		}
	})
	return p
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (p *prosody) start() {
	p.t.Helper()
	p.cmd = exec.Command("prosody", "-F", "--config", p.config)
	must(p.t, p.cmd.Start())
	//nolint:gosec // the certificate is one of the test's own
	cfg := &tls.Config{InsecureSkipVerify: true}
	for late := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		c, err := tls.Dial("tcp", p.clients, cfg)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(late) {
			p.t.Fatalf("Prosody does not listen: %v", err)
		}
	}
}

// kill ends Prosody without a word.
func (p *prosody) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *prosody) account(name string) {
	p.t.Helper()
	out, err := exec.Command("prosodyctl", "--config", p.config, "register", name, "b.test", "secret").CombinedOutput()
	if err != nil {
		p.t.Fatalf("making an account on Prosody: %v\n%s", err, out)
	}
}

func (p *prosody) connect(name string) *xmpptest.Client {
	p.t.Helper()
	c := xmpptest.Dial(p.t, p.clients, "b.test", name, "secret").Bind("there")
	c.Send(parse(p.t, `<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>`)) // without it, Prosody shows no consent
	c.Send(element.New(translate.NSClient, "presence"))
	c.Sync()
	return c
}

// Talk with somebody on a Prosody server: consent, presence, messages and receipts both ways, and a visit in a room here.
func TestProsody(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	p := newProsody(t, w)
	p.account("bob")
	alice, bob := a.connect("alice"), p.connect("bob")
	befriend(t, alice, bob)

	alice.Send(parse(t, `<message to='bob@b.test' type='chat' id='message-of-alice-1'><body>hello</body><request xmlns='urn:xmpp:receipts'/></message>`))
	body(bob, "alice@a.test", "hello")
	bob.Send(parse(t, `<message to='alice@a.test/here' type='chat' id='receipt-of-bob'><received xmlns='urn:xmpp:receipts' id='message-of-alice-1'/></message>`))
	stanza(alice, "message", "chat", "bob@b.test", translate.NSReceipts, "received")
	bob.Send(parse(t, `<message to='alice@a.test' type='chat' id='message-of-bob-1'><body>good day</body><request xmlns='urn:xmpp:receipts'/></message>`))
	body(alice, "bob@b.test", "good day")
	alice.Send(parse(t, `<message to='bob@b.test' type='chat'><received xmlns='urn:xmpp:receipts' id='message-of-bob-1'/></message>`))
	stanza(bob, "message", "chat", "alice@a.test", translate.NSReceipts, "received")
	alice.Send(parse(t, `<message to='nobody@b.test' type='chat' id='message-to-nobody'><body>?</body></message>`))
	stanza(alice, "message", "error", "nobody@b.test", "", "")

	const room = "garden@rooms.a.test"
	w.set(w.addr["a.test"], "rooms.a.test")
	alice.Send(parse(t, `<presence to='`+room+`/alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>`))
	stanza(alice, "message", "groupchat", room, "", "")
	bob.Send(parse(t, `<presence to='`+room+`/bob'><x xmlns='http://jabber.org/protocol/muc'/></presence>`))
	stanza(bob, "message", "groupchat", room, "", "")
	bob.Send(parse(t, `<message to='`+room+`' type='groupchat' id='groupchat-of-bob'><body>hello, all</body></message>`))
	body(alice, room, "hello, all")
	body(bob, room, "hello, all")
	alice.Send(parse(t, `<message to='`+room+`' type='groupchat' id='groupchat-of-alice'><body>hello, Bob</body></message>`))
	body(bob, room, "hello, Bob")
	bob.Send(parse(t, `<presence to='`+room+`/bob' type='unavailable'/>`))
	stanza(bob, "presence", "unavailable", room, "", "")
	if n := a.counts.get("s2s_unconfirmed"); n != 0 {
		t.Errorf("%d deliveries were not confirmed", n)
	}
}

// Prosody is killed while messages go to it, and nothing is lost or out of order.
func TestProsodyIsKilled(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	p := newProsody(t, w)
	p.account("bob")
	alice := a.connect("alice")
	bob := p.connect("bob")
	befriend(t, alice, bob)
	bob.Send(parse(t, `<presence type='unavailable'/>`))
	stanza(alice, "presence", "unavailable", "bob@b.test", "", "")
	var want []string
	say := func(n int) {
		for range n {
			text := fmt.Sprintf("message %d", len(want))
			want = append(want, text)
			_, err := a.hub.SubmitDirect(context.Background(), foreign("bob", "b.test"),
				hub.Draft{Sender: a.account("alice"), Content: core.Message{Body: core.TextBody(text)}})
			must(t, err)
		}
	}
	for range 2 {
		say(40)
		p.kill()
		say(10)
		p.start()
		// Bob's server asks for alice's presence, and so is heard of again.
		bob := p.connect("bob")
		var got []string
		for !slices.Contains(got, want[len(want)-1]) {
			m := bob.Receive(func(el *element.Element) bool { return el.Name.Local == "message" && el.ChildText("", "body") != "" })
			if text := m.ChildText("", "body"); !slices.Contains(got, text) { // Prosody does not drop what it has already
				got = append(got, text)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("bob got %d messages:\n%s\nof %d", len(got), strings.Join(got, ", "), len(want))
		}
		want = nil
		bob.Send(parse(t, `<presence type='unavailable'/>`))
		bob.Sync()
	}
}
