package muc_test

import (
	"testing"

	"parley/core"
	"parley/hub"
	"parley/xmpp/xmpptest"
)

// correct makes other contents the state of the garden than are, as servers of a graph do that have come to agree.
func correct(t *testing.T, s *xmpptest.Server, contents ...core.Content) {
	t.Helper()
	conv := conversation(t, s.Hub, "garden")
	err := s.Hub.Graph(t.Context(), func(g *hub.GraphTurn) error {
		if err := g.Share(conv); err != nil {
			return err
		}
		st, err := g.Tx().State(conv)
		if err != nil {
			return err
		}
		var list []core.Correction
		for _, c := range contents {
			e, err := g.Apply(hub.Draft{Conv: conv, Sender: s.Account("alice"), Content: c, Aside: true})
			if err != nil {
				return err
			}
			k, _ := core.StateKeyOf(e.Content)
			list = append(list, core.Correction{Kind: k.Kind, Key: k.Key, Was: st.Events[k], Is: e.ID})
		}
		_, err = g.Correct(conv, list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What the branches of a graph agree on is shown as it stands: who is there, who is in charge, the subject, the rest as a changed
// configuration. An event that stands aside is not shown.
//
// spec: XEP-0045 §9.6
func TestCorrected(t *testing.T) {
	s := play(t, garden, `
carol connects
carol is available
carol sends:
  <presence to='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc'/></presence>
alice receives:
  <presence from='garden@rooms.example.org/Carol'/>
bob receives:
  <presence from='garden@rooms.example.org/Carol'/>
carol receives:
  <message><subject/></message>
`)
	bob := s.Account("bob")
	levels := core.DefaultLevels()
	levels.Users[bob] = 50
	correct(t, s, core.Change{Aspect: core.AspectLevels, Levels: &levels}, core.Change{Aspect: core.AspectTopic, Text: "weeds"},
		core.Change{Aspect: core.AspectName, Text: "The Garden"})
	s.Run(`
bob receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='admin' role='moderator'/><status code='110'/></x></presence>
  <message type='groupchat' from='garden@rooms.example.org/Alice'><subject>weeds</subject></message>
  <message type='groupchat' from='garden@rooms.example.org'><x xmlns='http://jabber.org/protocol/muc#user'><status code='104'/></x></message>
alice receives:
  <presence from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='admin' role='moderator'/></x></presence>
`, nil)
	correct(t, s, core.Membership{Target: bob, Standing: core.Joined, Nick: "Robert"})
	s.Run(`
alice receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><item nick='Robert'/><status code='303'/></x></presence>
  <presence from='garden@rooms.example.org/Robert'/>
`, nil)
	correct(t, s, core.Membership{Target: bob, Standing: core.Banned})
	s.Run(`
bob receives:
  <presence type='unavailable' from='garden@rooms.example.org/Bob'><x xmlns='http://jabber.org/protocol/muc#user'><status code='303'/><status code='110'/></x></presence>
  <presence from='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
  <presence type='unavailable' from='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='outcast' role='none'/><status code='110'/><status code='301'/></x></presence>
alice receives:
  <presence type='unavailable' from='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc#user'><status code='301'/></x></presence>
bob sends:
  <message to='garden@rooms.example.org' type='groupchat' id='still-here'><body>I am still here</body></message>
bob receives:
  <message type='error' id='still-here'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
alice does not receive:
  <presence from='garden@rooms.example.org/Alice'/>
`, nil)
	correct(t, s, core.Membership{Target: bob, Standing: core.Joined, Nick: "Robert"})
	s.Run(`
alice receives:
  <presence from='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='admin' role='moderator' jid='bob@example.org'/></x></presence>
bob does not receive:
  <presence from='garden@rooms.example.org/Robert'><x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>
`, nil)
	correct(t, s, core.Change{Aspect: core.AspectMovedTo, MovedTo: &core.Move{Address: core.LocalAddress("shed", "example.org"), Reason: "rain"}})
	s.Run(`
carol receives:
  <presence type='unavailable' from='garden@rooms.example.org/Carol'><x xmlns='http://jabber.org/protocol/muc#user'><destroy jid='shed@rooms.example.org'><reason>rain</reason></destroy><status code='110'/></x></presence>
carol sends:
  <iq type='get' id='p1' to='garden@rooms.example.org/Carol'><ping xmlns='urn:xmpp:ping'/></iq>
carol receives:
  <iq type='error' id='p1'><error><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>
`, nil)
}
