package s2s_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/s2s"
	"parley/xmpp/stream"
)

// peer is another server that does what the test says.
type peer struct {
	t      testing.TB
	fed    *stream.Federation
	domain string
	got    chan *element.Element
	out    *stream.Conn
}

// newPeer makes a server that hands what it gets to take, and ends the stream if that returns false.
func newPeer(t testing.TB, w *world, domain string, take func(p *peer, st *element.Element) bool) *peer {
	p := &peer{t: t, fed: federation(t, w, domain), domain: domain, got: make(chan *element.Element, 1000)}
	p.fed.OneWay = true
	p.fed.Hosted = func(d string) bool { return d == domain }
	p.fed.Handle = func(ctx context.Context, c *stream.Conn) {
		for {
			st, err := c.Next(ctx)
			if err != nil {
				c.Close(err)
				return
			}
			if !take(p, st) {
				c.Abort()
				return
			}
			p.got <- st
		}
	}
	ln := listen(t)
	w.set(ln.Addr().String(), domain)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.fed.Serve(ctx, ln) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return p
}

// open opens a stream to a node.
func (p *peer) open(local string) *peer {
	p.t.Helper()
	var err error
	p.out, err = p.fed.Dial(context.Background(), p.domain, local)
	must(p.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := p.out.Next(context.Background()); err != nil {
				p.out.Close(err)
				return
			}
		}
	}()
	p.t.Cleanup(func() {
		p.out.Close(nil)
		<-done
	})
	return p
}

func (p *peer) send(xml string) { must(p.t, p.out.Send(parse(p.t, xml))) }

// next waits for a stanza.
func (p *peer) next(is func(*element.Element) bool) *element.Element {
	p.t.Helper()
	late := time.After(patience)
	for {
		select {
		case st := <-p.got:
			if is(st) {
				return st
			}
		case <-late:
			p.t.Fatal("the peer did not get what it should")
		}
	}
}

func (p *peer) sync(domain string) {
	p.t.Helper()
	id := core.NewToken()
	p.send(`<iq type='get' id='` + id + `' from='` + p.domain + `' to='` + domain + `'><ping xmlns='urn:xmpp:ping'/></iq>`)
	p.next(func(st *element.Element) bool { return st.Attr("id") == id })
}

// pong answers a ping.
func (p *peer) pong(st *element.Element) {
	if st.Name.Local == "iq" && st.Attr("type") == "get" {
		_ = p.out.Send(element.New(stream.NSClient, "iq").SetAttr("type", "result").SetAttr("id", st.Attr("id")).
			SetAttr("from", st.Attr("to")).SetAttr("to", st.Attr("from")))
	}
}

func parcel(n *node, text string) hub.Delivery {
	n.t.Helper()
	alice := n.account("alice")
	e, err := n.hub.SubmitDirect(context.Background(), foreign("bob", "b.test"), hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody(text)}})
	must(n.t, err)
	d := hub.Delivery{Content: e, Room: core.Conversation{ID: e.Conv, Shape: core.Direct}}
	d.To, d.Parcel.From, d.Event, d.Created = []core.Address{foreign("bob", "b.test")}, alice, e.ID, time.Now()
	return d
}

// A stream that breaks before the other server has answered means that what was on it is sent again, under the same names.
func TestBrokenStream(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	var times atomic.Int32
	p := newPeer(t, w, "b.test", func(p *peer, st *element.Element) bool {
		p.pong(st)
		if st.Name.Local == "message" {
			return times.Add(1) > 1 // the first time it is taken by the network and lost
		}
		return true
	}).open("a.test")
	ctx := context.Background()
	alice := a.account("alice")
	ears, err := a.hub.Attach(hub.SessionSpec{Account: alice})
	must(t, err)
	e, err := a.hub.SubmitDirect(ctx, foreign("bob", "b.test"), hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody("hello")}})
	must(t, err)
	m := p.next(func(st *element.Element) bool { return st.Name.Local == "message" })
	if m.Attr("id") != string(e.ID) {
		t.Errorf("it came as %s", m)
	}
	wait(t, ears, func(n hub.News) bool {
		r, ok := n.(hub.ReportNews)
		return ok && r.Report.Event == e.ID && r.Report.Stage == core.StageThere
	})
}

// What comes back before the message was accepted is its outcome; what comes back later is a late failure.
func TestOutcome(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	bounce := func(p *peer, st *element.Element) {
		p.send(fmt.Sprintf(`<message type='error' id='%s' from='%s' to='%s'><error type='cancel'><service-unavailable
			xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`, st.Attr("id"), st.Attr("to"), st.Attr("from")))
	}
	p := newPeer(t, w, "b.test", func(p *peer, st *element.Element) bool {
		if st.ChildText("", "body") == "at once" {
			bounce(p, st)
		}
		p.pong(st)
		return true
	}).open("a.test")
	ctx := context.Background()
	alice := a.account("alice")
	ears, err := a.hub.Attach(hub.SessionSpec{Account: alice})
	must(t, err)
	say := func(text string) core.EventID {
		e, err := a.hub.SubmitDirect(ctx, foreign("bob", "b.test"), hub.Draft{Sender: alice, Content: core.Message{Body: core.TextBody(text)}})
		must(t, err)
		return e.ID
	}
	reported := func(id core.EventID, stage core.Stage) {
		t.Helper()
		wait(t, ears, func(n hub.News) bool {
			r, ok := n.(hub.ReportNews)
			if ok && r.Report.Event == id && r.Report.Stage != stage {
				t.Errorf("told %s before %s", r.Report.Stage, stage)
			}
			return ok && r.Report.Event == id && r.Report.Stage == stage
		})
		if all := reportsOn(t, a.hub, id); len(all) != 1 || all[0].Stage != stage || stage == core.StageFailed && all[0].Reason != "service-unavailable" {
			t.Errorf("what is reported is %+v", all)
		}
	}
	first, second := say("at once"), say("later")
	reported(first, core.StageFailed)
	reported(second, core.StageThere)
	bounce(p, p.next(func(st *element.Element) bool { return st.ChildText("", "body") == "later" }))
	reported(second, core.StageFailed)
}

// A server that answers no pings is asked twice, and then for a while not at all.
func TestSilentPeer(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", func(c *s2s.Config) { c.Answer = 200 * time.Millisecond })
	d := parcel(a, "hello") // before there is a server to take it
	p := newPeer(t, w, "b.test", func(*peer, *element.Element) bool { return true })
	ctx := context.Background()
	a.hub.Stop() // only this test delivers
	for i, want := range []hub.Outcome{hub.Retry, hub.Accepted, hub.Accepted} {
		if r := a.carrier.Deliver(ctx, "b.test", []hub.Delivery{d}); len(r) != 1 || r[0].Outcome != want {
			t.Fatalf("delivery %d: %+v", i, r)
		}
		p.next(func(st *element.Element) bool { return st.Attr("id") == string(d.Content.ID) })
	}
	if n := a.counts.get("s2s_unconfirmed"); n != 2 {
		t.Errorf("%d deliveries counted as unconfirmed", n)
	}
}

// What no server is there to take fails after a short while; what is only away is for the hub to try again.
func TestMissing(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", func(c *s2s.Config) { c.Missing = time.Hour })
	closed := listen(t)
	_ = closed.Close()
	w.set(closed.Addr().String(), "down.test")
	w.fail("dns.test", &net.DNSError{Err: "server misbehaving", Name: "dns.test", IsTemporary: true})
	w.fail("odd.test", errors.New("odd"))
	newPeer(t, w, "other.test", func(*peer, *element.Element) bool { return true })
	w.set(w.addr["other.test"], "alias.test") // a server that does not know itself under this name
	d := parcel(a, "hello")
	a.hub.Stop()
	for dest, want := range map[string]struct {
		outcome hub.Outcome
		reason  string
	}{
		"nowhere.test": {hub.Failed, "remote-server-not-found (that domain has no XMPP server)"},
		"down.test":    {hub.Retry, "remote-server-timeout (that server cannot be reached)"},
		"dns.test":     {hub.Retry, "remote-server-timeout (that server cannot be reached)"},
		"odd.test":     {hub.Retry, "remote-server-timeout (that server cannot be reached)"},
		"alias.test":   {hub.Failed, "remote-server-not-found (that domain has no XMPP server)"},
		"a.test":       {hub.Retry, "remote-server-timeout (that server cannot be reached)"},
	} {
		for _, age := range []time.Duration{0, 2 * time.Hour} {
			d.Created = time.Now().Add(-age)
			d.To = []core.Address{foreign("bob", dest)}
			r := a.carrier.Deliver(context.Background(), dest, []hub.Delivery{d})
			outcome := want.outcome
			if age == 0 {
				outcome = hub.Retry
			}
			if len(r) != 1 || r[0].Outcome != outcome || r[0].Reason != want.reason {
				t.Errorf("to %s after %v: %+v", dest, age, r)
			}
		}
	}
}

// One domain may send so much to people who do not know the sender, and no more; others and those who are known are not touched.
func TestQuotas(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", func(c *s2s.Config) {
		c.Guard = guard.New(guard.Config{Count: c.Count, Rates: map[guard.Limit]guard.Rate{
			guard.Strangers: {N: 3, Per: time.Hour}, guard.Requests: {N: 2, Per: time.Hour},
		}})
	})
	alice := a.account("alice")
	p := newPeer(t, w, "b.test", func(p *peer, st *element.Element) bool { p.pong(st); return true }).open("a.test")
	must(t, a.hub.SetContact(context.Background(), alice, foreign("friend", "b.test"), "", nil))
	said := func(who, id string) {
		p.send(`<message from='` + who + `@b.test/x' to='alice@a.test' type='chat' id='` + id + `'><body>buy</body></message>`)
	}
	for i := range 5 {
		said(fmt.Sprintf("spam%d", i), fmt.Sprintf("spam-message-%d", i))
		said("friend", fmt.Sprintf("friendly-message-%d", i))
		p.send(fmt.Sprintf(`<presence type='subscribe' from='spam%d@b.test' to='alice@a.test' id='ask-%d'/>`, i, i))
	}
	p.sync("a.test")
	if n, m := a.counts.get("limited strangers_per_hour"), a.counts.get("limited requests_per_hour"); n != 2 || m != 3 {
		t.Errorf("%d messages and %d requests were refused", n, m)
	}
	said("spam9", "one-more-message")
	st := p.next(func(st *element.Element) bool { return st.Attr("id") == "one-more-message" })
	if e := st.Child("", "error"); e.Attr("type") != "wait" || e.Child("urn:ietf:params:xml:ns:xmpp-stanzas", "resource-constraint") == nil || e.ChildText("urn:ietf:params:xml:ns:xmpp-stanzas", "text") == "" {
		t.Errorf("the refusal is %s", st)
	}
	events, err := a.hub.History(context.Background(), alice, hub.Query{Directs: true, Kinds: []core.Kind{core.KindMessage}, ByFeed: true})
	must(t, err)
	if len(events) != 5 {
		t.Errorf("alice has %d messages of her friend", len(events))
	}
}

// What another server may not say is not passed on, and what is no business of its is not answered.
func TestHostile(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", nil)
	alice := a.connect("alice")
	p := newPeer(t, w, "b.test", func(p *peer, st *element.Element) bool { p.pong(st); return true }).open("a.test")
	for _, xml := range []string{
		// Of a stranger, without her request being answered.
		`<message from='eve@b.test/x' to='alice@a.test/wrong' type='headline'><body>shown</body></message>`,
		`<message from='eve@b.test/x' to='alice@a.test' type='headline'><body>shown</body></message>`,
		`<message from='eve@b.test/x' to='alice@a.test' type='chat' id='pretends-to-be-of-a-room'><body>shown</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>`,
		`<message from='eve@b.test/x' to='alice@a.test' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>`,
		`<message from='eve@b.test/x' to='alice@a.test' type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='none'/></message>`,
		`<message from='eve@b.test/x' to='alice@a.test' type='error' id='none'><error type='cancel'/></message>`,
		`<presence from='eve@b.test/x' to='alice@a.test'/>`,
		`<presence from='eve@b.test/x' to='alice@a.test' type='error'/>`,
		`<presence from='eve@b.test/x' to='alice@a.test' type='probe'/>`,
		`<presence from='eve@b.test/x' to='a.test'/>`,
		`<message from='eve@b.test/x' to='_matrix_x=40b.net@a.test' type='chat'><body>relayed</body></message>`,
		`<message from='eve@b.test/x' to='a.test' type='chat'><body>?</body></message>`,
		`<iq from='b.test' to='a.test' type='result' id='none'/>`,
	} {
		p.send(xml)
	}
	for xml, condition := range map[string]string{
		`<message from='eve@b.test/x' to='garden@a.test' type='groupchat' id='%s'><body>?</body></message>`:                              "service-unavailable",
		`<message from='eve@b.test/x' to='nobody@a.test' type='chat' id='%s'><body>?</body></message>`:                                   "service-unavailable",
		`<iq from='eve@b.test/x' to='a.test' type='get' id='%s'><query xmlns='jabber:iq:roster'/></iq>`:                                  "service-unavailable",
		`<iq from='eve@b.test/x' to='alice@a.test' type='get' id='%s'><query xmlns='jabber:iq:roster'/></iq>`:                            "service-unavailable",
		`<iq from='eve@b.test/x' to='alice@a.test' type='get' id='%s'><query xmlns='urn:xmpp:mam:2'/></iq>`:                              "service-unavailable",
		`<iq from='eve@b.test/x' to='a.test' type='set' id='%s'><enable xmlns='urn:xmpp:carbons:2'/></iq>`:                               "service-unavailable",
		`<message from='eve@b.test/x' to='alice@a.test/wrong' type='groupchat' id='%s'><body>?</body></message>`:                         "service-unavailable",
		`<iq from='eve@b.test/x' to='alice@a.test/wrong' type='get' id='%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`: "service-unavailable",
		`<iq from='eve@b.test/x' to='nobody@a.test' type='get' id='%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`:      "service-unavailable",
		`<iq from='eve@b.test/x' to='alice@a.test' type='get' id='%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`:       "service-unavailable",
		`<iq from='eve@b.test/x' to='alice@a.test' type='strange' id='%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`:   "bad-request",
	} {
		id := core.NewToken()
		p.send(fmt.Sprintf(xml, id))
		st := p.next(func(st *element.Element) bool { return st.Attr("id") == id })
		if st.Attr("type") != "error" || st.Child("", "error").Child("urn:ietf:params:xml:ns:xmpp-stanzas", condition) == nil {
			t.Errorf("to %s the answer is %s", xml, st)
		}
	}
	p.sync("a.test")
	alice.Sync()
	for {
		el := alice.Has(func(el *element.Element) bool {
			return el.Attr("from") != "alice@a.test/here" && el.Attr("from") != "a.test"
		})
		if el == nil {
			break
		}
		if el.Attr("type") == "subscribe" && el.Attr("from") == "eve@b.test" {
			continue // her messages are held until alice answers
		}
		t.Errorf("alice was shown %s", el)
	}
}

// A stream on which nothing goes is closed, and opened again when there is something.
func TestIdleStream(t *testing.T) {
	w := newWorld()
	a := newNode(t, w, "a.test", func(c *s2s.Config) { c.Idle = 50 * time.Millisecond })
	var mu sync.Mutex
	var streams sync.WaitGroup
	p := newPeer(t, w, "b.test", func(p *peer, st *element.Element) bool { p.pong(st); return true }).open("a.test")
	handle, opened := p.fed.Handle, 0
	p.fed.Handle = func(ctx context.Context, c *stream.Conn) {
		mu.Lock()
		opened++
		mu.Unlock()
		defer streams.Done()
		handle(ctx, c)
	}
	for i := range 2 {
		streams.Add(1)
		if r := a.carrier.Deliver(context.Background(), "b.test", []hub.Delivery{notice(a)}); len(r) != 1 || r[0].Outcome != hub.Accepted {
			t.Fatalf("delivery %d: %+v", i, r)
		}
		streams.Wait() // until it has ended
	}
	if opened != 2 {
		t.Errorf("%d streams were opened", opened)
	}
}

func notice(n *node) hub.Delivery {
	from, to := n.account("alice"), foreign("bob", "b.test")
	d := hub.Delivery{}
	d.To, d.Parcel.From, d.Created = []core.Address{to}, from, time.Now()
	d.Notice = &hub.ContactNotice{Kind: hub.Ask, From: from, To: to, Words: "it is me"}
	return d
}
