package muc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/store/storetest"
	"parley/xmpp/element"
	"parley/xmpp/muc"
	"parley/xmpp/xmpptest"
)

// large is a server with a room of another network's, in which alice is among many.
func large(t testing.TB, members int, tune func(*muc.Config)) (*xmpptest.Server, core.ConvID) {
	t.Helper()
	s := xmpptest.New(t, xmpptest.Setup(func(s *xmpptest.Server) {
		if err := muc.Migrate(context.Background(), s.DB); err != nil {
			t.Fatal(err)
		}
		cfg := muc.Config{
			Hub: s.Hub, Names: s.C2S.Names(), Base: "https://example.org", Secret: []byte("secret"), Log: storetest.Log(t),
			Route: func(el *element.Element) { s.C2S.Deliver(context.Background(), el) },
		}
		tune(&cfg)
		s.C2S.AddService("rooms", muc.Local{Service: muc.New(cfg)})
	}))
	room := core.Address{Network: core.Matrix, Name: "crowd", Domain: "b.test"}
	maker := core.Address{Network: core.Matrix, Name: "maker", Domain: "b.test"}
	var conv core.ConvID
	alice := s.Account("alice")
	err := s.Hub.Graph(t.Context(), func(g *hub.GraphTurn) error {
		c, err := g.Begin(core.Conversation{Shape: core.Group, Creator: maker, Address: room, Native: map[core.Network]string{core.Matrix: "!crowd:b.test"}})
		if err != nil {
			return err
		}
		conv = c.ID
		contents := []core.Content{
			core.Change{Aspect: core.AspectCreated, Creation: &core.Creation{Shape: core.Group, Creators: []core.Address{maker}, Version: "11"}},
			core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinPublic},
		}
		for i := range members {
			who := core.Address{Network: core.Matrix, Name: fmt.Sprintf("m%05d", i), Domain: "b.test"}
			contents = append(contents, core.Membership{Target: who, Standing: core.Joined})
		}
		var list []core.Correction
		for _, content := range contents {
			sender := maker
			if m, ok := content.(core.Membership); ok {
				sender = m.Target
			}
			e, err := g.Apply(hub.Draft{Conv: conv, Sender: sender, Content: content, Found: true})
			if err != nil {
				return err
			}
			k, _ := core.StateKeyOf(e.Content)
			list = append(list, core.Correction{Kind: k.Kind, Key: k.Key, Is: e.ID})
		}
		if _, err := g.Correct(conv, list); err != nil {
			return err
		}
		_, err = g.Apply(hub.Draft{Conv: conv, Sender: alice, Content: core.Membership{Target: alice, Standing: core.Joined, Nick: "Alice"}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, conv
}

const crowd = "_matrix_crowd=40b.test@rooms.example.org"

// enterCrowd has alice enter, and returns who she was shown, but for herself.
func enterCrowd(c *xmpptest.Client) (shown int) {
	c.SendRaw("<presence to='" + crowd + "/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	c.Receive(func(el *element.Element) bool { return el.Child("", "subject") != nil })
	for c.Has(func(el *element.Element) bool {
		return el.Name.Local == "presence" && strings.HasPrefix(el.Attr("from"), crowd+"/m")
	}) != nil {
		shown++
	}
	return shown
}

// say has a member say something.
func sayInCrowd(t testing.TB, s *xmpptest.Server, conv core.ConvID, i int, c core.Content) {
	t.Helper()
	who := core.Address{Network: core.Matrix, Name: fmt.Sprintf("m%05d", i), Domain: "b.test"}
	if m, ok := c.(core.Membership); ok {
		m.Target = who
		c = m
	}
	err := s.Hub.Graph(t.Context(), func(g *hub.GraphTurn) error {
		_, err := g.Apply(hub.Draft{Conv: conv, Sender: who, Content: c})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who enters a room of thousands is shown some, those first who were active last, and others when they do something.
func TestLargeRoom(t *testing.T) {
	s, conv := large(t, 2000, func(c *muc.Config) { c.MaxShown = 50 })
	sayInCrowd(t, s, conv, 1500, core.Message{Body: core.TextBody("before")})
	s.Run("alice connects\nalice is available", nil)
	c := s.Client("alice")
	c.SendRaw("<presence to='" + crowd + "/Alice'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	s.Run(`
alice receives:
  <presence from='`+crowd+`/m01500'/>
  <message from='`+crowd+`/m01500'><body>before</body></message>
  <message type='groupchat'><subject/></message>
`, nil)
	if n := enterCrowd(s.Connect("alice", "desk")); n != 50 {
		t.Errorf("she was shown %d others", n)
	}
	s.Run(`
alice does not receive:
  <presence from='`+crowd+`/m00700'/>
`, nil)
	sayInCrowd(t, s, conv, 700, core.Message{Body: core.TextBody("hello")})
	s.Run(`
alice receives:
  <presence from='`+crowd+`/m00700'><x xmlns='http://jabber.org/protocol/muc#user'><item role='participant' jid='_matrix_m00700=40b.test@example.org'/></x></presence>
  <message from='`+crowd+`/m00700'><body>hello</body></message>
`, nil)
	sayInCrowd(t, s, conv, 700, core.Message{Body: core.TextBody("again")})
	sayInCrowd(t, s, conv, 701, core.Membership{Standing: core.Left})
	sayInCrowd(t, s, conv, 700, core.Membership{Standing: core.Left})
	s.Run(`
alice receives:
  <message from='`+crowd+`/m00700'><body>again</body></message>
  <presence type='unavailable' from='`+crowd+`/m00700'/>
alice does not receive:
  <presence from='`+crowd+`/m00700'/>
  <presence from='`+crowd+`/m00701'/>
`, nil)
}

// A client that acknowledges what it gets is not shown more than it can take.
//
// spec: XEP-0198 §4
func TestLargeRoomForSlowClient(t *testing.T) {
	s, _ := large(t, 3000, func(c *muc.Config) { c.MaxShown = 5000 })
	c := s.Connect("alice", "phone")
	c.SendRaw("<enable xmlns='urn:xmpp:sm:3'/>")
	c.Receive(func(el *element.Element) bool { return el.Name.Local == "enabled" })
	if n := enterCrowd(c); n != 1000 {
		t.Errorf("she was shown %d others", n)
	}
	c.Sync()
}

// BenchmarkEnterLarge is entering a room of ten thousand.
func BenchmarkEnterLarge(b *testing.B) {
	for _, members := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			s, _ := large(b, members, func(*muc.Config) {})
			c := s.Connect("alice", "desk")
			b.ResetTimer()
			for b.Loop() {
				enterCrowd(c)
			}
		})
	}
}
