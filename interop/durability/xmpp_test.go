package durability

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

const (
	nsBind    = "urn:ietf:params:xml:ns:xmpp-bind"
	nsSM      = "urn:xmpp:sm:3"
	nsSID     = "urn:xmpp:sid:0"
	nsMAM     = "urn:xmpp:mam:2"
	nsForward = "urn:xmpp:forward:0"
	nsRSM     = "http://jabber.org/protocol/rsm"
	nsClient  = "jabber:client"
	nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
)

// garden is the room of the tests.
const garden = "garden@rooms." + domain

// node is an element that was received.
type node struct {
	XMLName xml.Name
	Attrs   []xml.Attr `xml:",any,attr"`
	Text    string     `xml:",chardata"`
	Nodes   []node     `xml:",any"`
}

func (n *node) is(space, local string) bool {
	return n != nil && n.XMLName == xml.Name{Space: space, Local: local}
}

func (n *node) attr(name string) string {
	if n != nil {
		for _, a := range n.Attrs {
			if a.Name.Local == name && a.Name.Space == "" {
				return a.Value
			}
		}
	}
	return ""
}

// name is that of a child in whatever namespace.
func name(local string) xml.Name { return xml.Name{Local: local} }

// child follows a path of names; an empty space stands for any.
func (n *node) child(path ...xml.Name) *node {
	for _, name := range path {
		if n = n.one(name); n == nil {
			return nil
		}
	}
	return n
}

func (n *node) one(name xml.Name) *node {
	for i := range n.Nodes {
		if c := &n.Nodes[i]; c.XMLName.Local == name.Local && (name.Space == "" || c.XMLName.Space == name.Space) {
			return c
		}
	}
	return nil
}

// condition is the defined condition of an error stanza, "" if it is none.
func (n *node) condition() string {
	if e := n.child(xml.Name{Local: "error"}); e != nil {
		for _, c := range e.Nodes {
			if c.XMLName.Space == nsStanzas && c.XMLName.Local != "text" {
				return c.XMLName.Local
			}
		}
	}
	return ""
}

// stream is one connection of a client, logged in by mellium's library.
type stream struct {
	*xmpp.Session
	conn net.Conn
	d    *xml.Decoder
}

// resumption is what a client asks for before it binds a resource, and what it is told.
type resumption struct {
	id      string
	h       uint32
	resumed bool
	answer  node
}

// dialXMPP connects and logs in. With resume.id, it asks to take that stream up again, and binds a resource only if it may not.
func dialXMPP(ctx context.Context, to *target, name, resource string, resume *resumption) (*stream, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.xmpp)
	if err != nil {
		return nil, err
	}
	who, err := jid.New(name, domain, resource)
	if err != nil {
		return nil, err
	}
	// Nothing of a real client waits for ever; this is no measurement, only longer than anything takes.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	session, err := xmpp.NewSession(ctx, who.Domain(), who, conn, 0, xmpp.NewNegotiator(
		func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
			return xmpp.StreamConfig{Features: []xmpp.StreamFeature{
				xmpp.StartTLS(to.tls), xmpp.SASL("", password, sasl.ScramSha256), resumeOrBind(resume),
			}}
		}))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &stream{Session: session, conn: conn, d: xml.NewTokenDecoder(session.TokenReader())}, nil
}

// resumeOrBind is the library's resource binding, before which a stream may be resumed.
func resumeOrBind(resume *resumption) xmpp.StreamFeature {
	f := xmpp.BindResource()
	bind := f.Negotiate
	f.Negotiate = func(ctx context.Context, s *xmpp.Session, data interface{}) (xmpp.SessionState, io.ReadWriter, error) {
		if resume == nil || resume.id == "" {
			return bind(ctx, s, data)
		}
		if err := send(ctx, s, fmt.Sprintf(`<resume xmlns='%s' previd='%s' h='%d'/>`, nsSM, resume.id, resume.h)); err != nil {
			return 0, nil, err
		}
		r := s.TokenReader()
		err := xml.NewTokenDecoder(r).Decode(&resume.answer)
		if err = errors.Join(err, r.Close()); err != nil {
			return 0, nil, err
		}
		switch {
		case resume.answer.is(nsSM, "resumed"):
			resume.resumed = true
			return xmpp.Ready, nil, nil
		case resume.answer.is(nsSM, "failed"):
			return bind(ctx, s, data)
		}
		return 0, nil, fmt.Errorf("in answer to <resume/>: %+v", resume.answer.XMLName)
	}
	return f
}

// send sends an element by way of the library's encoder, which writes declarations of namespaces itself.
func send(ctx context.Context, s *xmpp.Session, element string) error {
	return s.Send(ctx, undeclared{xml.NewDecoder(strings.NewReader(element))})
}

// undeclared leaves out attributes that declare namespaces.
type undeclared struct{ *xml.Decoder }

func (u undeclared) Token() (xml.Token, error) {
	tok, err := u.Decoder.Token()
	if el, ok := tok.(xml.StartElement); ok {
		var attrs []xml.Attr
		for _, a := range el.Attr {
			if a.Name.Local != "xmlns" && a.Name.Space != "xmlns" {
				attrs = append(attrs, a)
			}
		}
		el.Attr = attrs
		return el, err
	}
	return xml.CopyToken(tok), err
}

// put sends an element.
func (s *stream) put(ctx context.Context, format string, args ...any) error {
	return send(ctx, s.Session, fmt.Sprintf(format, args...))
}

// next reads an element.
func (s *stream) next() (*node, error) {
	n := new(node)
	if err := s.d.Decode(n); err != nil {
		return nil, err
	}
	if n.is("http://etherx.jabber.org/streams", "error") {
		return nil, fmt.Errorf("stream error: %+v", n.Nodes)
	}
	return n, nil
}

// until reads until f is content.
func (s *stream) until(f func(*node) bool) (*node, error) {
	for {
		n, err := s.next()
		if err != nil || f(n) {
			return n, err
		}
	}
}

// ask sends an IQ and returns the answer to it; other stanzas that come before go to seen, which may be nil.
func (s *stream) ask(ctx context.Context, kind, to, payload string, seen func(*node)) (*node, error) {
	id := "ask" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if to != "" {
		to = "to='" + to + "'"
	}
	if err := s.put(ctx, `<iq xmlns='jabber:client' type='%s' id='%s' %s>%s</iq>`, kind, id, to, payload); err != nil {
		return nil, err
	}
	return s.until(func(n *node) bool {
		if n.is(nsClient, "iq") && n.attr("id") == id {
			return true
		}
		if seen != nil {
			seen(n)
		}
		return false
	})
}

// enter enters the garden, and returns when everything is told that one is told on entering.
func (s *stream) enter(ctx context.Context, nick string) error {
	if err := s.put(ctx, `<presence xmlns='jabber:client' to='%s/%s'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>`, garden, nick); err != nil {
		return err
	}
	n, err := s.until(func(n *node) bool {
		return n.attr("type") == "error" || strings.HasPrefix(n.attr("from"), garden) && n.child(xml.Name{Local: "subject"}) != nil
	})
	if err == nil && n.attr("type") == "error" {
		err = fmt.Errorf("entering the room: %s", n.condition())
	}
	return err
}

// archive reads a whole archive: of the room at `of`, or one's own of the talk with somebody.
func (s *stream) archive(ctx context.Context, of, with string) ([]line, error) {
	var out []line
	after := ""
	for {
		form := `<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>` + nsMAM + `</value></field>`
		if with != "" {
			form += `<field var='with'><value>` + with + `</value></field>`
		}
		page := `<max>37</max>`
		if after != "" {
			page += `<after>` + after + `</after>`
		}
		var broken error
		got, err := s.ask(ctx, "set", of, fmt.Sprintf(`<query xmlns='%s'>%s</x><set xmlns='%s'>%s</set></query>`, nsMAM, form, nsRSM, page), func(n *node) {
			r := n.child(xml.Name{Space: nsMAM, Local: "result"})
			if r == nil {
				return
			}
			m := r.child(xml.Name{Space: nsForward, Local: "forwarded"}, xml.Name{Space: nsClient, Local: "message"})
			if m == nil {
				broken = errors.New("a result without a message")
				return
			}
			if b := m.child(xml.Name{Space: nsClient, Local: "body"}); b != nil {
				out = append(out, line{b.Text, r.attr("id")})
			}
		})
		if err = errors.Join(err, broken); err != nil {
			return nil, err
		}
		fin := got.child(xml.Name{Space: nsMAM, Local: "fin"})
		if fin == nil {
			return nil, fmt.Errorf("reading an archive: %s", got.condition())
		}
		last := fin.child(xml.Name{Space: nsRSM, Local: "set"}, xml.Name{Local: "last"})
		if fin.attr("complete") == "true" || last == nil {
			return out, nil
		}
		after = last.Text
	}
}

// wire is the connection under the library, after TLS, for what the library would not say.
func (s *stream) wire() io.Writer { return s.Session.Conn() }

// drop breaks the connection off, as a lost network does.
func (s *stream) drop() { s.conn.Close() }
