package foreign_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/translate"
)

// enters is the script of a client that enters the room.
func enters(who, nick string) string {
	return fmt.Sprintf(`
		%s sends:
		  <presence to='garden@rooms.test/%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>
		%s receives:
		  <presence from='garden@rooms.test/*'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
		  <message type='groupchat' from='garden@rooms.test*'><subject/></message>
	`, who, nick, who)
}

// alice is a world with a room, in which bob is, and alice's client.
func garden(t *testing.T, change ...func(*foreign.Config)) (*world, *room) {
	w := newWorld(t, change...)
	r := w.room("garden@rooms.test")
	r.enter(guest{nick: "bob", affiliation: "owner", role: "moderator"})
	w.Run("alice connects\nalice is available", nil)
	return w, r
}

func TestEntering(t *testing.T) {
	w, r := garden(t)
	for i := range 5 {
		r.say("bob", fmt.Sprintf("<body>said %d</body>", i))
	}
	r.mu.Lock()
	r.subject = "roses"
	r.mu.Unlock()
	alice := w.Server.Connect("alice", "desk")
	alice.Send(xml(t, `<presence/>`))
	alice.Send(xml(t, `<presence to='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='2'/></x></presence>`))
	var order []string
	for len(order) == 0 || order[len(order)-1] != "subject" {
		el := alice.Receive(func(el *element.Element) bool { return strings.HasPrefix(el.Attr("from"), "garden@rooms.test") })
		switch {
		case el.Name.Local == "presence" && len(mucStatus(el)) > 0:
			order = append(order, "self "+strings.Join(mucStatus(el), " "))
		case el.Name.Local == "presence":
			order = append(order, "presence "+el.Attr("from"))
		case el.Child("", "subject") != nil:
			order = append(order, "subject")
			if el.ChildText("", "subject") != "roses" {
				t.Errorf("the subject: %v", el)
			}
		default:
			order = append(order, el.ChildText("", "body"))
			if el.Child(translate.NSDelay, "delay") == nil || el.Child(translate.NSSID, "stanza-id").Attr("by") != "garden@rooms.test" {
				t.Errorf("history without delay or stanza-id: %v", el)
			}
		}
	}
	want := []string{"presence garden@rooms.test/bob", "self 110", "said 3", "said 4", "subject"}
	if !slices.Equal(order, want) {
		t.Errorf("entering tells %q, and not %q", order, want)
	}
	// Another client of hers is let in by ourselves, under the one nick.
	n := r.count(func(st *element.Element) bool { return st.Name.Local == "presence" })
	w.Run(`
		alice sends:
		  <presence to='garden@rooms.test/other'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>
		alice receives:
		  <presence from='garden@rooms.test/bob'/>
		  <presence from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/><status code='210'/></x></presence>
		  <message type='groupchat'><subject>roses</subject></message>
		alice does not receive:
		  <message type='groupchat'><body/></message>
		alice sends:
		  <message type='groupchat' to='garden@rooms.test' id='m1-of-alice'><body>good day</body></message>
		alice receives:
		  <message type='groupchat' from='garden@rooms.test/alice' id='m1-of-alice'><body>good day</body><stanza-id xmlns='urn:xmpp:sid:0' by='garden@rooms.test'/></message>
		alice sends:
		  <presence to='garden@rooms.test/alice' type='unavailable'/>
		alice receives:
		  <presence type='unavailable' from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
	`, nil)
	if m := r.count(func(st *element.Element) bool { return st.Name.Local == "presence" }); m != n {
		t.Errorf("the room was told of a second client, or that it left")
	}
	r.say("bob", "<body>still there?</body>")
	alice.Receive(func(el *element.Element) bool { return el.ChildText("", "body") == "good day" })
	alice.Receive(func(el *element.Element) bool { return el.ChildText("", "body") == "still there?" })
	w.Run(`
		alice does not receive:
		  <message type='groupchat'><body>still there?</body></message>
	`, nil)
	if got, want := w.texts("alice", r), []string{"said 0", "said 1", "said 2", "said 3", "said 4", "good day", "still there?"}; !slices.Equal(got, want) {
		t.Errorf("the projection has %q", got)
	}
}

func mucStatus(p *element.Element) (codes []string) {
	for _, s := range p.Child(translate.NSMUCUser, "x").ChildrenNamed("", "status") {
		codes = append(codes, s.Attr("code"))
	}
	return codes
}

func TestMembershipLastsAndEnds(t *testing.T) {
	w, r := garden(t)
	w.Run(enters("alice", "alice"), nil)
	w.Run("alice disconnects\nalice connects\nalice is available", nil)
	r.say("bob", "<body>while nobody looked</body>")
	w.until("the account hears on", func() bool { return slices.Contains(w.texts("alice", r), "while nobody looked") })
	w.restart()
	w.until("we are in the room again", func() bool { return r.ours("alice") != nil })
	w.Run("alice connects\nalice is available"+enters("alice", "alice"), nil)
	w.Run(`
		alice sends:
		  <iq type='set' id='unmark'><pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='urn:xmpp:bookmarks:1' notify='true'><item id='garden@rooms.test'/></retract></pubsub></iq>
		alice receives:
		  <presence type='unavailable' from='garden@rooms.test/alice'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
	`, nil)
	w.until("the room is told", func() bool { return r.ours("alice") == nil })
	if _, st, _ := w.conv("alice", r); st.Standing(core.LocalAddress("alice", "example.org")) != core.Left {
		t.Errorf("a retracted bookmark did not end the membership")
	}
	r.say("bob", "<body>not for her</body>")
	w.Run(`
		alice does not receive:
		  <message type='groupchat'><body>not for her</body></message>
	`, nil)
	w.Run(enters("alice", "alice"), nil)
	if got := w.texts("alice", r); !slices.Contains(got, "not for her") {
		t.Errorf("the archive was not read when she came back: %q", got)
	}
}

func TestGapIsFilled(t *testing.T) {
	for _, held := range []int{1, 300} {
		t.Run(fmt.Sprint(held), func(t *testing.T) {
			w, r := garden(t, func(c *foreign.Config) { c.Fill = 5000 })
			r.mu.Lock()
			r.page = 30
			r.mu.Unlock()
			w.Run(enters("alice", "alice"), nil)
			r.say("bob", "<body>before</body>")
			w.until("it is heard", func() bool { return len(w.texts("alice", r)) == 1 })
			w.halt()
			want := []string{"before"}
			for i := range 100 {
				want = append(want, fmt.Sprintf("missed %d", i))
				r.quietly("bob", want[len(want)-1])
			}
			// While the gap is filled the room goes on, and its archive is slow.
			var fetched atomic.Bool
			r.mu.Lock()
			r.hook = func(st *element.Element) bool {
				if st.First().Is(translate.NSMAM, "query") && !fetched.Load() {
					fetched.Store(true)
					for i := range held {
						want = append(want, fmt.Sprintf("meanwhile %d", i))
						r.reflect("bob", xml(t, `<message type='groupchat' id='%s'><body>meanwhile %d</body></message>`, core.NewToken(), i))
					}
				}
				return false
			}
			r.mu.Unlock()
			w.Restart()
			w.run()
			w.until("the gap is filled", func() bool {
				r.mu.Lock()
				n := len(want) // the room adds to it
				r.mu.Unlock()
				return fetched.Load() && len(w.texts("alice", r)) >= n
			})
			r.mu.Lock()
			defer r.mu.Unlock()
			if got := w.texts("alice", r); !slices.Equal(got, want) {
				t.Errorf("%d known of %d:\n%q", len(got), len(want), got)
			}
		})
	}
}

// What was said while the room was away, in both directions, is there once and in order.
func TestRoomAwayInTheMiddle(t *testing.T) {
	for name, features := range map[string][]string{
		"archive":    nil,
		"no archive": {translate.NSMUC, "muc_semianonymous"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.room("garden@rooms.test", features...)
			r.enter(guest{nick: "bob"})
			w.Run("alice connects\nalice is available"+enters("alice", "alice"), nil)
			say := func(i int) {
				w.Run(fmt.Sprintf(`
					alice sends:
					  <message type='groupchat' to='garden@rooms.test' id='message-of-alice-%d'><body>alice %d</body></message>
				`, i, i), nil)
			}
			say(0)
			w.Run(`
				alice receives:
				  <message type='groupchat' from='garden@rooms.test/alice'><body>alice 0</body></message>
			`, nil)
			// The room takes the next one, and is gone before it says so.
			r.mu.Lock()
			taken := make(chan struct{})
			r.hook = func(st *element.Element) bool {
				if st.ChildText("", "body") != "alice 1" {
					return false
				}
				r.down = true
				r.reflect("alice", st)
				r.guests = slices.DeleteFunc(r.guests, func(g *guest) bool { return g.ours })
				r.hook = nil
				close(taken)
				return true
			}
			r.mu.Unlock()
			say(1)
			<-taken
			say(2)
			w.Server.In(t)
			for _, c := range []string{"bob 0", "bob 1"} {
				r.quietly("bob", c)
			}
			r.hears(true)
			r.raw(`<presence type='unavailable' from='garden@rooms.test/alice'/>`) // reaches nobody: the room knows us no more
			w.take(xml(t, `<presence type='unavailable' from='garden@rooms.test/alice' to='%s'><x xmlns='http://jabber.org/protocol/muc#user'>
				<item affiliation='none' role='none'/><status code='110'/><status code='332'/></x></presence>`, occupantOf(t, r)))
			w.Run(`
				alice receives:
				  <message type='groupchat' from='garden@rooms.test/alice' id='message-of-alice-1'><body>alice 1</body></message>
				  <message type='groupchat' from='garden@rooms.test/bob'><body>bob 0</body></message>
				  <message type='groupchat' from='garden@rooms.test/bob'><body>bob 1</body></message>
				  <message type='groupchat' from='garden@rooms.test/alice' id='message-of-alice-2'><body>alice 2</body></message>
				alice does not receive:
				  <message type='groupchat'><body>alice 1</body></message>
				alice does not receive:
				  <message type='groupchat'><body>bob 0</body></message>
			`, nil)
			want := map[string]int{"alice 0": 1, "alice 1": 1, "alice 2": 1, "bob 0": 1, "bob 1": 1}
			got := map[string]int{}
			for _, text := range w.texts("alice", r) {
				got[text]++
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("known are %v", got)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			said := map[string]int{}
			for _, s := range r.archive {
				said[s.el.ChildText("", "body")]++
			}
			if fmt.Sprint(said) != fmt.Sprint(want) {
				t.Errorf("the room has heard %v", said)
			}
		})
	}
}

// occupantOf is the address as which the room has last heard of us.
func occupantOf(t *testing.T, r *room) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, st := range slices.Backward(r.heard) {
		if st.Name.Local == "presence" {
			return st.Attr("from")
		}
	}
	t.Fatal("the room has not heard of us")
	return ""
}

func TestOlder(t *testing.T) {
	w, r := garden(t)
	r.mu.Lock()
	r.page = 20
	r.mu.Unlock()
	var want []string
	var ids []string
	for i := range 90 {
		want = append(want, fmt.Sprintf("said %d", i))
		ids = append(ids, r.say("bob", "<body>"+want[i]+"</body>"))
		if i == 10 {
			r.say("bob", "<reactions xmlns='urn:xmpp:reactions:0' id='"+ids[10]+"'><reaction>a</reaction></reactions>")
			r.say("bob", "<reactions xmlns='urn:xmpp:reactions:0' id='"+ids[10]+"'><reaction>b</reaction></reactions>")
		}
	}
	w.Run(enters("alice", "alice"), nil)
	if n := len(w.texts("alice", r)); n != 20 {
		t.Fatalf("%d messages are known at first", n)
	}
	// A client pages up through the archive, beyond what was known.
	var before string
	var got []string
	for n := range 20 {
		w.Run(fmt.Sprintf(`
			alice sends:
			  <iq type='set' id='page%d' to='garden@rooms.test'><query xmlns='urn:xmpp:mam:2' queryid='q'><set xmlns='http://jabber.org/protocol/rsm'><max>15</max><before>%s</before></set></query></iq>
			alice receives:
			  <iq type='result' id='page%d' from='garden@rooms.test'/>
		`, n, before, n), nil)
		page, first := w.page("alice")
		if len(page) == 0 {
			break
		}
		got, before = append(page, got...), first
	}
	if !slices.Equal(got, want) {
		t.Errorf("paging finds %d of %d: %q", len(got), len(want), got)
	}
	if got := w.texts("alice", r); !slices.Equal(got, want) {
		t.Errorf("the timeline has %q", got)
	}
	var keys []string
	for _, e := range w.events("alice", r, core.KindReaction) {
		if c := e.Content.(core.Reaction); e.Retracted == "" {
			keys = append(keys, c.Key)
		}
	}
	if !slices.Equal(keys, []string{"b"}) {
		t.Errorf("the reactions in force are %q", keys)
	}
	for _, e := range w.events("alice", r, core.KindMessage)[:70] {
		if e.Feed >= 0 {
			t.Fatalf("older history is news: %d", e.Feed)
		}
	}
}

// page takes the results of a query that a client has received.
func (w *world) page(who string) (texts []string, first string) {
	c := w.Client(who)
	for {
		el := c.Has(func(el *element.Element) bool { return el.Child(translate.NSMAM, "result") != nil })
		if el == nil {
			return texts, first
		}
		res := el.Child(translate.NSMAM, "result")
		if first == "" {
			first = res.Attr("id")
		}
		m := res.Child(translate.NSForward, "forwarded").Child(translate.NSClient, "message")
		if text := m.ChildText("", "body"); text != "" {
			texts = append(texts, text)
		}
	}
}

// submit is what a client of another protocol than XMPP has the hub do.
func (w *world) submit(r *room, c core.Content) error {
	conv, _, _ := w.conv("alice", r)
	_, err := w.Hub.Submit(w.t.Context(), hub.Draft{Conv: conv.ID, Sender: core.LocalAddress("alice", "example.org"), Content: c})
	return err
}
