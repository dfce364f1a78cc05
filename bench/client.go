package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// loginTimeout bounds connecting, TLS, authentication and binding of one client.
const loginTimeout = time.Minute

// Client is one XMPP session: direct TLS, PLAIN, stream management. One goroutine reads;
// anyone may send.
type Client struct {
	JID  string // full
	Bare string

	conn  *tls.Conn
	split splitter

	wmu sync.Mutex // held while writing

	// on gets every stanza in order, on the reading goroutine, and must not keep it. idle
	// is called when all that was read has been handled. Either may be nil.
	on   func(stanza []byte)
	idle func()

	managed bool          // stream management is on
	inbound uint32        // stanzas received since; of the reading goroutine
	acked   atomic.Uint32 // stanzas of ours that the server has acknowledged

	err  error         // why reading ended; valid after done
	done chan struct{} // closed when reading has ended
}

// session says how a client logs in.
type session struct {
	local, resource string
	away            bool // send no presence
}

// login connects a client and starts reading.
//
// spec: XEP-0368 §3
// spec: RFC 6120 §4.3
func (s *Site) login(ctx context.Context, as session) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	addr := net.JoinHostPort(s.Host().Addr4.String(), "5223")
	raw, err := s.Host().Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bench: connecting to %s: %w", s.Name, err)
	}
	c := &Client{conn: tls.Client(raw, s.tls), Bare: as.local + "@" + s.Domain(), done: make(chan struct{})}
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline) // a connection that is broken says so at the next read
	}
	if err := c.negotiate(ctx, s.Domain(), as); err != nil {
		raw.Close()
		return nil, fmt.Errorf("bench: %s: logging in as %s: %w", s.Name, as.local, err)
	}
	_ = raw.SetDeadline(time.Time{})
	return c, nil
}

// negotiate goes from TLS to a session with stream management and presence.
//
// spec: RFC 6120 §6.4
// spec: RFC 6120 §7.6
// spec: XEP-0198 §3
func (c *Client) negotiate(ctx context.Context, domain string, as session) error {
	if err := c.conn.HandshakeContext(ctx); err != nil {
		return err
	}
	header := "<?xml version='1.0'?><stream:stream to='" + domain +
		"' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	if _, err := c.ask(header, "features"); err != nil {
		return err
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + as.local + "\x00" + password))
	if _, err := c.ask("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+plain+"</auth>", "<success"); err != nil {
		return err
	}
	c.split.reset()
	if _, err := c.ask(header, "features"); err != nil {
		return err
	}
	bound, err := c.ask("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"+
		as.resource+"</resource></bind></iq>", "<jid>")
	if err != nil {
		return err
	}
	c.JID = string(between(bound, "<jid>", "</jid>"))
	if _, err := c.ask("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled"); err != nil {
		return err
	}
	c.managed = true
	if as.away {
		return nil
	}
	// The answer tells that the presence has been dealt with, and what waited for it.
	_, err = c.ask("<presence/><iq type='get' id='login-done' to='"+domain+"'><ping xmlns='urn:xmpp:ping'/></iq>", "login-done")
	return err
}

// ask sends, and reads until a stanza that contains what is expected. It is for the time
// before listen. Anything that names a failure is an error. Once stream management is on,
// stanzas are counted and acknowledged here too: a server may end a session that owes it an
// acknowledgement for too long, however silent it is otherwise.
func (c *Client) ask(text, expect string) ([]byte, error) {
	if err := c.Send(text); err != nil {
		return nil, err
	}
	var buf [4096]byte
	for {
		for {
			st := bytes.Clone(c.split.next())
			if st == nil {
				break
			}
			c.split.drop()
			if c.managed && c.take(st) {
				if err := c.acknowledge(); err != nil {
					return nil, err
				}
			}
			if bytes.Contains(st, []byte(expect)) {
				return st, nil
			}
			if bytes.Contains(st, []byte("<failure")) || bytes.Contains(st, []byte("stream:error")) ||
				bytes.Contains(st, []byte("type='error'")) || bytes.Contains(st, []byte("<failed")) {
				return nil, fmt.Errorf("the server said %.300s", st)
			}
		}
		n, err := c.conn.Read(buf[:])
		if err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", expect, err)
		}
		if err := c.split.feed(buf[:n]); err != nil {
			return nil, err
		}
	}
}

// Send writes text to the stream as it is.
func (c *Client) Send(text string) error { return c.write([]byte(text)) }

func (c *Client) write(data []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_, err := c.conn.Write(data)
	return err
}

// listen starts reading, with the functions that are told (see on and idle).
func (c *Client) listen(on func([]byte), idle func()) {
	c.on, c.idle = on, idle
	go func() {
		defer close(c.done)
		c.err = c.read()
	}()
}

// read reads until the connection ends, answers requests for acknowledgement and hands
// everything else on.
//
// spec: XEP-0198 §4
func (c *Client) read() error {
	var buf [4096]byte
	for {
		owed, some := false, false
		for st := c.split.next(); st != nil; st = c.split.next() {
			some = true
			owed = c.take(st) || owed
		}
		c.split.drop()
		if some {
			if owed {
				if err := c.acknowledge(); err != nil {
					return err
				}
			}
			if c.idle != nil {
				c.idle()
			}
		}
		n, err := c.conn.Read(buf[:])
		if err != nil {
			return err
		}
		if err := c.split.feed(buf[:n]); err != nil {
			return err
		}
	}
}

// acknowledge says how many stanzas have come.
func (c *Client) acknowledge() error {
	return c.Send("<a xmlns='urn:xmpp:sm:3' h='" + strconv.FormatUint(uint64(c.inbound), 10) + "'/>")
}

// take handles one stanza and reports whether the server wants an acknowledgement.
func (c *Client) take(st []byte) (owed bool) {
	switch {
	case bytes.HasPrefix(st, []byte("<message")), bytes.HasPrefix(st, []byte("<presence")), bytes.HasPrefix(st, []byte("<iq")):
		c.inbound++
		if bytes.HasPrefix(st, []byte("<iq")) && bytes.Contains(st, []byte("urn:xmpp:ping")) {
			_ = c.Send("<iq type='result' to='" + string(attr(st, "from")) + "' id='" + string(attr(st, "id")) + "'/>")
		}
		if c.on != nil {
			c.on(st)
		}
	case bytes.HasPrefix(st, []byte("<r ")), bytes.HasPrefix(st, []byte("<r/")):
		return true
	case bytes.HasPrefix(st, []byte("<a ")):
		if h, err := strconv.ParseUint(string(attr(st, "h")), 10, 32); err == nil {
			c.acked.Store(uint32(h))
		}
	}
	return false
}

// Close ends the session without waiting for the server.
func (c *Client) Close() {
	_ = c.Send("<presence type='unavailable'/></stream:stream>") // the server may be gone
	c.conn.Close()
}

// failed says why a client no longer reads, nil while it does.
func (c *Client) failed() error {
	select {
	case <-c.done:
		return fmt.Errorf("bench: %s: the session ended: %w", c.JID, c.err)
	default:
		return nil
	}
}

// logins is how many clients log in at the same time.
const logins = 8

// loginAll logs many clients in, in order of the list, and calls started for each as soon
// as it is in, several at a time. started must have the client listen.
func (s *Site) loginAll(ctx context.Context, all []session, started func(i int, c *Client)) ([]*Client, error) {
	clients, errs := make([]*Client, len(all)), make([]error, len(all))
	next := make(chan int)
	var wg sync.WaitGroup
	for range logins {
		wg.Go(func() {
			for i := range next {
				if clients[i], errs[i] = s.login(ctx, all[i]); errs[i] == nil {
					started(i, clients[i])
				}
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil { // the others are of the same kind
			closeAll(clients)
			return nil, err
		}
	}
	return clients, nil
}

func closeAll(clients []*Client) {
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
}
