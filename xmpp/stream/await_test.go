package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// piecemeal is a connection on which what is written arrives one byte at a time or, while it is held, all at once.
type piecemeal struct {
	net.Conn
	single bool
	held   *bytes.Buffer
}

func (p *piecemeal) Write(b []byte) (int, error) {
	if p.held != nil {
		return p.held.Write(b)
	}
	if !p.single {
		return p.Conn.Write(b)
	}
	for i := range b {
		if _, err := p.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// letGo writes what was held.
func (p *piecemeal) letGo(t *testing.T) {
	t.Helper()
	all := p.held.Bytes()
	p.held = nil
	if _, err := p.Conn.Write(all); err != nil {
		t.Fatal(err)
	}
}

// await has a client that is logged in, below whose TLS the test can meddle, with a server that echoes.
func await(t *testing.T) (*peer, *piecemeal) {
	t.Helper()
	p := dialPeer(t, listen(t, clients(t, nil).ServeTLS))
	raw := &piecemeal{Conn: p.c}
	p.c = raw
	p.handshake(clientTLS())
	p.open("example.org")
	if el := p.auth("PLAIN", "\x00alice\x00secret"); !el.Is(stream.NSSASL, "success") {
		t.Fatalf("logging in: %s", el)
	}
	p.open("example.org")
	return p, raw
}

// wantEchoes reads the echoes of the messages with these bodies.
func (p *peer) wantEchoes(bodies ...string) {
	p.t.Helper()
	for _, want := range bodies {
		if el := p.next(); el.ChildText("", "body") != want {
			p.t.Fatalf("%.100s, not the message %.20q", el, want)
		}
	}
}

func chatMessage(body string) string { return "<message><body>" + body + "</body></message>" }

// However the records of TLS arrive, a stream that is waited for below TLS misses nothing of them.
func TestAwaitRecords(t *testing.T) {
	p, raw := await(t)
	raw.single = true // records in pieces
	p.write(" \n")
	p.write(chatMessage("one"))
	p.wantEchoes("one")
	p.write(chatMessage("two") + chatMessage("three"))
	p.wantEchoes("two", "three")

	raw.single, raw.held = false, new(bytes.Buffer) // several records at once
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("many ", i))
		p.write(chatMessage(want[i]) + " ")
	}
	raw.letGo(t)
	p.wantEchoes(want...)

	long := strings.Repeat("x", 100_000) // one stanza of several records, longer than any buffer
	p.write(chatMessage(long))
	p.wantEchoes(long)

	raw.held = new(bytes.Buffer) // the end of a stanza in the record of the next one's beginning
	p.write("<message><body>split")
	p.write("</body></message><message><body>ne")
	p.write("xt</body></message>")
	raw.letGo(t)
	p.wantEchoes("split", "next")

	p.write("</stream:stream>")
	if _, err := p.r.Next(); err != io.EOF {
		t.Errorf("closing: %v", err)
	}
}

// A connection that is lost while the stream is waited for is told as such.
func TestAwaitLost(t *testing.T) {
	lost := make(chan error, 1)
	s := clients(t, func(s *stream.Clients) {
		s.Handle = func(ctx context.Context, c *stream.Conn) {
			var err error
			for err == nil {
				var el *element.Element
				if el, err = c.Next(ctx); err == nil {
					err = c.Send(el)
				}
			}
			lost <- err
		}
	})
	p := dialPeer(t, listen(t, s.ServeTLS))
	tcp := p.c
	p.handshake(clientTLS())
	p.open("example.org")
	p.auth("PLAIN", "\x00alice\x00secret")
	p.open("example.org")
	p.write(chatMessage("here"))
	p.wantEchoes("here")
	_ = tcp.Close()
	if err := <-lost; err != io.ErrUnexpectedEOF {
		t.Errorf("the lost connection was told as %v", err)
	}
}
