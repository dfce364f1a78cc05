package stream_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/xdg-go/scram"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// inline is a Clients with SASL2, whose Handle answers and then echoes.
func inline(c *stream.Clients) {
	c.Inline = func(*stream.Conn) []*element.Element { return nil }
	c.Handle = func(ctx context.Context, conn *stream.Conn) {
		if l := conn.Login(); l != nil {
			if l.Request.Child("", "initial-response") != nil {
				panic("the secret was kept")
			}
			_ = conn.Send(l.Success(conn.Account()+"@"+conn.LocalDomain(), element.NewText("urn:test", "client", l.Client)))
			_ = conn.Send(element.New(stream.NSStream, "features"))
		}
		echo(ctx, conn)
	}
}

// SCRAM with and without channel binding within SASL2; no new stream begins after it.
func TestSASL2Scram(t *testing.T) {
	addr := listen(t, clients(t, inline).Serve)
	for _, plus := range []bool{false, true} {
		p, _ := secured(t, addr)
		name, gen := "SCRAM-SHA-256", scram.SHA256
		client, err := gen.NewClient("alice", "secret", "")
		if err != nil {
			t.Fatal(err)
		}
		conv := client.NewConversation()
		if plus {
			name += "-PLUS"
			conv = client.NewConversationWithChannelBinding(bind(t, p, scram.ChannelBindingTLSExporter))
		}
		say := func(format, in string) *element.Element {
			out, err := conv.Step(in)
			if err != nil {
				t.Fatal(err)
			}
			p.write(fmt.Sprintf(format, base64.StdEncoding.EncodeToString([]byte(out))))
			return p.next()
		}
		text := func(s string) string {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		el := say("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='"+name+"'><initial-response>%s</initial-response>"+
			"<user-agent id='d4565fa7'/></authenticate>", "")
		el = say("<response xmlns='urn:xmpp:sasl:2'>%s</response>", text(el.Text()))
		if !el.Is(stream.NSSASL2, "success") || el.ChildText("", "authorization-identifier") != "alice@example.org" ||
			el.ChildText("urn:test", "client") != "d4565fa7" {
			t.Fatalf("got %s", el)
		}
		if _, err := conv.Step(text(el.ChildText("", "additional-data"))); err != nil {
			t.Fatalf("server's proof: %v", err)
		}
		if f := p.next(); !f.Is(stream.NSStream, "features") {
			t.Fatalf("got %s", f)
		}
		p.write("<message to='bob@example.org'><body>hi</body></message>")
		if el := p.next(); el.Attr("from") != "alice@example.org" {
			t.Fatalf("got %s", el)
		}
	}
}

// In the clear nothing of it is offered or taken, and where Handle does not know of it neither.
func TestSASL2NotOffered(t *testing.T) {
	ask := "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>AGFsaWNlAHNlY3JldA==</initial-response></authenticate>"
	p := dialPeer(t, listen(t, clients(t, inline).Serve))
	p.open("example.org")
	p.write(ask)
	p.wantError(stream.NotAuthorized)
	p, f := secured(t, listen(t, clients(t, nil).Serve))
	if f.Child(stream.NSSASL2, "authentication") != nil {
		t.Errorf("offered: %s", f)
	}
	p.write(ask)
	p.wantError(stream.NotAuthorized)
	p, _ = secured(t, listen(t, clients(t, nil).Serve))
	p.write("<iq type='set' id='1'><query xmlns='jabber:iq:register'/></iq>")
	p.wantError(stream.NotAuthorized)
}
