package s2s

import (
	"context"
	"errors"
	"io"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// Components are programs that serve domains of their own on streams to this server. To accounts and rooms they are what other servers
// are; other servers reach them, and they others, through this one.
type Components interface {
	// Has says whether a domain is a component's.
	Has(domain string) bool
	// Stream is the stream of the component of a domain; false while it is away. gone is closed when it is no longer that.
	Stream(domain string) (c *stream.Conn, gone <-chan struct{}, ok bool)
}

// errAway says that a component is not connected.
var errAway = errors.New("the component of this domain is not connected")

// component says whether a domain is a component's.
func (c *Carrier) component(domain string) bool {
	return c.cfg.Components != nil && c.cfg.Components.Has(domain)
}

// serves says whether other servers find a domain here.
func (c *Carrier) serves(domain string) bool { return c.ours(domain) || c.component(domain) }

// Here is told that the component of a domain is there: what is owed to it is sent.
func (c *Carrier) Here(domain string) {
	c.hub.Reachable(hub.Destination{Network: core.XMPP, Dest: domain})
}

// Take takes a stanza of the component of a domain, wherever it is for. It returns when what the stanza says to somebody here is on
// disk. An error is one of the stream: the component says to be another.
//
// spec: XEP-0114 §3
func (c *Carrier) Take(ctx context.Context, domain string, st *element.Element) error {
	from, err := translate.ParseJID(st.Attr("from"))
	if err != nil || from.Domain != domain {
		return stream.Errorf(stream.InvalidFrom, "a component has addresses of its own domain only")
	}
	to, err := translate.ParseJID(st.Attr("to"))
	switch {
	case err != nil:
		if wantsError(st) {
			bounce := translate.Bounce(st, translate.Fail(translate.JIDMalformed, "the recipient's address is malformed or missing"))
			c.Route(bounce.SetAttr("from", c.hub.Home()))
		}
	case c.ours(to.Domain):
		c.receive(ctx, st, from, to)
	default:
		c.Route(st)
	}
	return nil
}

// attached makes a line of a component's stream. It is not the line's to close.
func (c *Carrier) attached(domain string) (*line, error) {
	conn, gone, ok := c.cfg.Components.Stream(domain)
	if !ok {
		return nil, errAway
	}
	ln := &line{Conn: conn, gone: gone, ended: make(chan struct{}), shared: true, why: io.ErrUnexpectedEOF}
	c.wg.Go(func() {
		select {
		case <-conn.Done():
		case <-gone:
		case <-c.ctx.Done():
		}
		close(ln.ended)
	})
	return ln, nil
}
