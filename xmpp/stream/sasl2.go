package stream

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"mellium.im/xmpp/jid"

	"parley/xmpp/element"
)

// maxClientID bounds what a client calls its installation. It should be a UUID, which is 36 bytes long.
const maxClientID = 100

// Login is what a client asked for in one go with its authentication by SASL2. Handle of [Clients] answers it with the element that
// [Login.Success] makes, and then, unless a session was resumed, with stream features; nothing has been sent before.
//
// spec: XEP-0388 §2.6.1
type Login struct {
	// Request is <authenticate/>, with its inline features but without the secrets.
	Request *element.Element
	// Client names the installation of the client, which told it; "" if it did not. Others must not see it.
	Client string
	// success is what there is to tell so far.
	success *element.Element
}

// Success makes <success/> with who the client is now, a bare or full JID, and the results of what it asked for.
func (l *Login) Success(identifier string, results ...*element.Element) *element.Element {
	s := l.success.Copy()
	s.Append(element.NewText(NSSASL2, "authorization-identifier", identifier))
	return s.Append(results...)
}

// Login is what the client asked for with SASL2, or nil if it used another way. The stream forgets it when it is asked.
func (c *Conn) Login() *Login {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.login
	c.login = nil
	return l
}

// offer2 offers SASL2 with what may be asked for in one go.
//
// spec: XEP-0388 §2.1
func (n *clientNegotiation) offer2() *element.Element {
	offer := element.New(NSSASL2, "authentication")
	for _, m := range n.mechanisms() {
		offer.Add("", "mechanism").SetText(m)
	}
	inline := offer.Add("", "inline")
	inline.Append(n.s.Inline(n.c)...)
	if n.s.Tokens != nil {
		fast := inline.Add(nsFast, "fast")
		for _, m := range n.tokenMechanisms() {
			fast.Add("", "mechanism").SetText(m)
		}
	}
	return offer
}

// authenticate is SASL2: there is no new stream after it.
//
// spec: XEP-0388 §2.3
func (n *clientNegotiation) authenticate(ctx context.Context, el *element.Element) (bool, error) {
	if n.s.Inline == nil || !n.c.secured() {
		return false, Errorf(NotAuthorized, "this way to authenticate is not offered")
	}
	name := el.Attr("mechanism")
	out, err := n.exchange2(ctx, name, el)
	if f, ok := errors.AsType[*saslFailure](err); ok {
		n.id.local = ""
		failure := element.New(NSSASL2, "failure").Append(element.New(NSSASL, f.condition))
		if err := n.c.Send(failure); err != nil {
			return false, err
		}
		return false, n.failed(name, f)
	}
	if err != nil {
		return false, err
	}
	n.c.setMechanism(name)
	success := element.New(NSSASL2, "success")
	if out != nil {
		success.Append(element.NewText(NSSASL2, "additional-data", base64.StdEncoding.EncodeToString(out)))
	}
	n.issue(ctx, el, success)
	n.login = &Login{Client: clientID(el), success: success,
		Request: el.RemoveChildren(func(c *element.Element) bool { return c.Is(NSSASL2, "initial-response") })}
	n.c.mu.Lock()
	n.c.account, n.c.login = n.id.local, n.login
	n.c.mu.Unlock()
	return false, nil
}

// exchange2 runs the exchange of the mechanism and checks that its outcome is who the client said it was.
//
// spec: XEP-0388 §2.3
func (n *clientNegotiation) exchange2(ctx context.Context, name string, el *element.Element) ([]byte, error) {
	m := n.find(name)
	if fast := el.Child(nsFast, "fast"); fast != nil || strings.HasPrefix(name, "HT-") {
		var err error
		if m, err = n.findToken(name, el, fast); err != nil {
			return nil, err
		}
	}
	if m == nil {
		return nil, refuse("invalid-mechanism", "not offered")
	}
	initial := el.Child(NSSASL2, "initial-response")
	out, err := n.c.converse(ctx, NSSASL2, m, initial.Text(), initial != nil)
	if err != nil {
		return nil, err
	}
	if j, err := jid.Parse(n.from); err == nil && j.Localpart() != "" &&
		(j.Localpart() != n.id.local || !strings.EqualFold(j.Domainpart(), n.id.domain)) {
		return nil, refuse("invalid-authzid", "another account than the stream header says")
	}
	return out, nil
}

// clientID is the installation that the client says it is.
func clientID(el *element.Element) string {
	id := el.Child(NSSASL2, "user-agent").Attr("id")
	if len(id) > maxClientID {
		return ""
	}
	return id
}
