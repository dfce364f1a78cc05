package muc_test

import (
	"log/slog"
	"testing"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/muc"
	"parley/xmpp/translate"
)

// A panic in a room is an error for who caused it.
func TestPanic(t *testing.T) {
	var told []*element.Element
	// Without a hub nothing can be asked of a room.
	s := muc.New(muc.Config{Log: slog.New(slog.DiscardHandler), Route: func(el *element.Element) { told = append(told, el) },
		Names: translate.Names{Home: "example.org", Hosts: func(d string) bool { return d == "example.org" }}})
	from := translate.JID{Local: "carol", Domain: "other.example", Resource: "here"}
	ask, err := element.Parse([]byte(`<iq xmlns='jabber:client' type='get' id='i' from='carol@other.example/here' to='r@rooms.example.org'>`+
		`<query xmlns='http://jabber.org/protocol/disco#info'/></iq>`), element.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	s.Handle(t.Context(), muc.Visit{From: from, Who: core.Address{Network: core.XMPP, Name: "carol", Domain: "other.example"}}, ask)
	if len(told) != 1 || told[0].Attr("to") != from.String() ||
		told[0].Child("", "error").Child(translate.NSStanzas, "internal-server-error") == nil {
		t.Errorf("told %v", told)
	}
}
