package stream

import (
	"mellium.im/xmpp/jid"

	"parley/xmpp/element"
)

// The namespaces of streams between servers that carry stanzas in both directions.
//
// spec: XEP-0288 §2
const (
	nsBidi        = "urn:xmpp:bidi"
	nsBidiFeature = "urn:xmpp:features:bidi"
)

// enableBidi takes the peer's word that stanzas may also go to it on the stream that it opened: those for what it will have proved
// to be. TLS comes before that, and authentication after it.
//
// spec: XEP-0288 §2.2
func (in *inbound) enableBidi(*element.Element) error {
	s := in.c.s2s
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.c.tlsConn() == nil || len(s.pairs) > 0 || in.f.OneWay {
		return Errorf(PolicyViolation, "bidi comes after TLS and before authentication")
	}
	s.bidi = true
	return nil
}

// askBidi lets stanzas come back on a stream that we open, where the peer can send them. They are taken from the one domain that the
// stream is to, which the peer has proved to be as well as one must to be sent anything.
//
// spec: XEP-0288 §2.2
func (c *Conn) askBidi(pair Pair, offer *element.Element) error {
	if c.s2s.fed.OneWay || c.tlsConn() == nil || offer.Child(nsBidiFeature, "bidi") == nil {
		return nil
	}
	c.s2s.mu.Lock()
	c.s2s.bidi, c.s2s.back = true, pair
	c.s2s.mu.Unlock()
	return c.Send(element.New(nsBidi, "bidi"))
}

// Returns says whether stanzas of a pair may be sent on a stream that the peer opened.
//
// spec: XEP-0288 §2.2
func (c *Conn) Returns(pair Pair) bool {
	if c.s2s == nil || c.s2s.outbound || !c.Authorized(pair) {
		return false
	}
	c.s2s.mu.Lock()
	defer c.s2s.mu.Unlock()
	return c.s2s.bidi
}

// returned lets through what comes back on a stream that we opened.
func (c *Conn) returned(el *element.Element) (*element.Element, error) {
	c.s2s.mu.Lock()
	bidi, back := c.s2s.bidi, c.s2s.back
	c.s2s.mu.Unlock()
	if !bidi || !c.Authorized(back) {
		return nil, Errorf(NotAuthorized, "stanzas do not come back on this stream")
	}
	if !isStanza(el) {
		return nil, Errorf(UnsupportedStanzaType, "no such stanza")
	}
	pair, err := pairOfStanza(el)
	if err != nil {
		return nil, err
	}
	if pair != back {
		return nil, Errorf(InvalidFrom, "this stream is not authorised for the two domains")
	}
	return el.Rename(NSServer, NSClient), nil
}

// refuseBack answers a peer that offers a key for a further domain on a stream that we opened: it opens one of its own for that.
//
// spec: XEP-0288 §2.2
func (c *Conn) refuseBack(el *element.Element) error {
	pair, ok := pairOf(el)
	if !ok {
		return Errorf(ImproperAddressing, "dialback needs two domains")
	}
	return c.Send(dialbackElement("result", pair, "error", "not-acceptable"))
}

// pairOfStanza reads the domains between which a stanza goes.
//
// spec: RFC 6120 §8.1.1.2
// spec: RFC 6120 §8.1.2.2
func pairOfStanza(el *element.Element) (Pair, error) {
	if el.Attr("from") == "" || el.Attr("to") == "" {
		return Pair{}, Errorf(ImproperAddressing, "a stanza between servers needs both addresses")
	}
	from, err := jid.Parse(el.Attr("from"))
	if err != nil {
		return Pair{}, Errorf(ImproperAddressing, "the sender's address is malformed")
	}
	to, err := jid.Parse(el.Attr("to"))
	if err != nil {
		return Pair{}, Errorf(ImproperAddressing, "the recipient's address is malformed")
	}
	local, _ := normalDomain(to.Domainpart())
	remote, _ := normalDomain(from.Domainpart())
	return Pair{Local: local, Remote: remote}, nil
}
