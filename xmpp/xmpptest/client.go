package xmpptest

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub/hubtest"
	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// patience is how long a test waits for what must come before it fails: no assertion depends on it.
const patience = 30 * time.Second

// Client is an XMPP client of a test. What it receives is kept until it is asked for.
type Client struct {
	JID string // full, once it is bound

	t      testing.TB
	name   string
	domain string
	conn   net.Conn
	rd     *element.Reader

	mu      sync.Mutex
	changed *sync.Cond
	got     []*element.Element
	err     error
	counted uint32 // stanzas received since stream management was enabled
	quiet   bool   // does not acknowledge
}

var encoder = element.Encoder{Default: stream.NSClient, Prefixes: map[string]string{stream.NSStream: "stream"}}

// Dial connects and authenticates an account, and binds nothing.
func (s *Server) Dial(name string) *Client {
	s.t.Helper()
	s.Account(name)
	return Dial(s.t, s.Addr, hubtest.Domain, name, hubtest.Password)
}

// Dial connects to any server that takes clients over direct TLS, authenticates, and binds nothing.
func Dial(t testing.TB, addr, domain, name, password string) *Client {
	t.Helper()
	//nolint:gosec // the certificate is one of the test's own
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}})
	must(t, err)
	c := &Client{t: t, name: name, domain: domain, conn: conn}
	c.changed = sync.NewCond(&c.mu)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	c.open()
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	c.Send(element.NewText(stream.NSSASL, "auth", secret).SetAttr("mechanism", "PLAIN"))
	if el, err := c.rd.Next(); err != nil || !el.Is(stream.NSSASL, "success") {
		t.Fatalf("%s did not authenticate: %v %v", name, el, err)
	}
	c.rd.Restart()
	c.open()
	must(t, conn.SetReadDeadline(time.Time{}))
	go c.read()
	return c
}

// Connect is Dial and the binding of a resource.
func (s *Server) Connect(name, resource string) *Client {
	s.t.Helper()
	return s.Dial(name).Bind(resource)
}

// Bind binds a resource; "" lets the server choose.
func (c *Client) Bind(resource string) *Client {
	c.t.Helper()
	iq := element.New(stream.NSClient, "iq").SetAttr("type", "set").SetAttr("id", "bind")
	bind := iq.Add("urn:ietf:params:xml:ns:xmpp-bind", "bind")
	if resource != "" {
		bind.Append(element.NewText(bind.Name.Space, "resource", resource))
	}
	c.Send(iq)
	res := c.Receive(func(el *element.Element) bool { return el.Attr("id") == "bind" })
	c.JID = res.Child(bind.Name.Space, "bind").ChildText("", "jid")
	if c.JID == "" {
		c.t.Fatalf("%s could not bind: %v", c.name, res)
	}
	return c
}

func (c *Client) open() {
	c.t.Helper()
	_, err := fmt.Fprintf(c.conn, "<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' xmlns:stream='%s'>",
		c.domain, stream.NSStream)
	must(c.t, err)
	if c.rd == nil {
		c.rd = element.NewReader(c.conn, element.DefaultLimits)
	}
	if _, err := c.rd.Header(); err != nil {
		c.t.Fatalf("stream of %s: %v", c.name, err)
	}
	if el, err := c.rd.Next(); err != nil || !el.Is(stream.NSStream, "features") {
		c.t.Fatalf("stream of %s: %v %v", c.name, el, err)
	}
}

// read keeps what comes, and acknowledges it when asked.
func (c *Client) read() {
	for {
		el, err := c.rd.Next()
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.changed.Broadcast()
			c.mu.Unlock()
			_ = c.conn.Close()
			return
		}
		if el.Is(nsSM, "enabled") {
			c.counted = 0
		}
		if el.Name.Space == stream.NSClient {
			c.counted++
		}
		ack := el.Is(nsSM, "r") && !c.quiet
		counted := c.counted
		if !el.Is(nsSM, "r") {
			c.got = append(c.got, el)
		}
		c.changed.Broadcast()
		c.mu.Unlock()
		if ack {
			c.write(element.New(nsSM, "a").SetAttr("h", strconv.FormatUint(uint64(counted), 10)))
		}
	}
}

const nsSM = "urn:xmpp:sm:3"

// Send sends an element.
func (c *Client) Send(el *element.Element) {
	c.t.Helper()
	c.write(el)
}

func (c *Client) write(el *element.Element) {
	_, _ = c.conn.Write(encoder.Append(nil, el)) // if it fails, so does what is waited for
}

// SendRaw sends bytes.
func (c *Client) SendRaw(s string) { _, _ = c.conn.Write([]byte(s)) }

// Quiet makes the client acknowledge no more, or again.
func (c *Client) Quiet(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quiet = on
}

// Counted is how many stanzas the client has received since it enabled stream management.
func (c *Client) Counted() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counted
}

// Receive waits for an element and takes it. Elements that came before it stay.
func (c *Client) Receive(is func(*element.Element) bool) *element.Element {
	c.t.Helper()
	el, rest := c.wait(is)
	if el == nil {
		c.t.Fatalf("%s did not receive what it should. It received:\n%s", c.name, rest)
	}
	return el
}

func (c *Client) wait(is func(*element.Element) bool) (*element.Element, string) {
	late := time.AfterFunc(patience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err == nil {
			c.err = fmt.Errorf("nothing for %v", patience)
		}
		c.changed.Broadcast()
	})
	defer late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if el := c.take(is); el != nil {
			return el, ""
		}
		if c.err != nil {
			rest := ""
			for _, el := range c.got {
				rest += el.String() + "\n"
			}
			return nil, rest + c.err.Error()
		}
		c.changed.Wait()
	}
}

func (c *Client) take(is func(*element.Element) bool) *element.Element {
	for i, el := range c.got {
		if is(el) {
			c.got = append(c.got[:i], c.got[i+1:]...)
			return el
		}
	}
	return nil
}

// Has says whether an element has come, and takes it.
func (c *Client) Has(is func(*element.Element) bool) *element.Element {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(is)
}

// Sync waits until the server has dealt with all that the client has sent, and the client has all that was for it by then.
func (c *Client) Sync() {
	c.t.Helper()
	id := "sync-" + core.NewToken()[:12]
	ping := element.New(stream.NSClient, "iq").SetAttr("type", "get").SetAttr("id", id)
	ping.Add("urn:xmpp:ping", "ping")
	c.Send(ping)
	c.Receive(func(el *element.Element) bool { return el.Attr("id") == id })
}

// Drop breaks the connection.
func (c *Client) Drop() { _ = c.conn.Close() }

// Finish says no more, as a client does that crashes after its last word.
func (c *Client) Finish() {
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
}

// Ended waits until the server has ended the stream.
func (c *Client) Ended() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil {
		c.changed.Wait()
	}
}

// Password is that of every account of a test.
const Password = hubtest.Password

// Login tries to log in by PLAIN and returns the condition of the failure, or "success".
func (s *Server) Login(name, password string) string {
	s.t.Helper()
	//nolint:gosec // the certificate is one of the test's own
	conn, err := tls.Dial("tcp", s.Addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}})
	must(s.t, err)
	defer func() { _ = conn.Close() }()
	c := &Client{t: s.t, name: name, domain: hubtest.Domain, conn: conn}
	must(s.t, conn.SetReadDeadline(time.Now().Add(patience)))
	c.open()
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	c.Send(element.NewText(stream.NSSASL, "auth", secret).SetAttr("mechanism", "PLAIN"))
	el, err := c.rd.Next()
	must(s.t, err)
	if el.Is(stream.NSSASL, "failure") {
		return el.First().Name.Local
	}
	return el.Name.Local
}
