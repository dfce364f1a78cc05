package translate

import (
	"strconv"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
)

// shows are the texts of <show/>.
//
// spec: RFC 6121 §4.7.2.1
var shows = map[string]core.Show{"": core.ShowOnline, "chat": core.ShowChat, "away": core.ShowAway, "xa": core.ShowXA, "dnd": core.ShowDND}

// maxNativePresence bounds what is kept of one presence, in bytes: it stays in memory for as long as its sender is available.
const maxNativePresence = 16 << 10

// ReadPresence says what a presence stanza without type or of type unavailable means. The session is the resource that sent it.
//
// spec: RFC 6121 §4.7
func ReadPresence(st *element.Element, from JID) core.Presence {
	p := core.Presence{Show: core.ShowOffline, Session: from.Resource, Status: st.ChildText("", "status")}
	if st.Attr("type") == "" {
		known := false
		if p.Show, known = shows[strings.TrimSpace(st.ChildText("", "show"))]; !known {
			p.Show = core.ShowOnline
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(st.ChildText("", "priority")), 10, 8); err == nil {
			p.Priority = int(n)
		}
	}
	if data := element.Marshal(st.Copy().RemoveAttr("from").RemoveAttr("to")); len(data) <= maxNativePresence {
		p.Native = &core.Native{Network: core.XMPP, Type: "presence", Data: data}
	}
	return p
}

// Presence writes presence: as the client of XMPP that it came from did, or anew. It has no `to`.
//
// spec: RFC 6121 §4.7
func Presence(n Names, who core.Address, p core.Presence) *element.Element {
	from := n.JID(who).With(p.Session).String()
	if p.Native != nil && p.Native.Network == core.XMPP {
		if st, err := element.Parse(p.Native.Data, element.DefaultLimits); err == nil && st.Is(NSClient, "presence") {
			return st.RemoveAttr("to").SetAttr("from", from)
		}
	}
	st := element.New(NSClient, "presence").SetAttr("from", from)
	if p.Show == core.ShowOffline {
		st.SetAttr("type", "unavailable")
	}
	for name, show := range shows {
		if show == p.Show && name != "" {
			st.Append(element.NewText(NSClient, "show", name))
		}
	}
	if p.Status != "" {
		st.Append(element.NewText(NSClient, "status", p.Status))
	}
	if p.Priority != 0 {
		st.Append(element.NewText(NSClient, "priority", strconv.Itoa(p.Priority)))
	}
	return st
}

// noticeTypes are the presence types of the steps of consent.
//
// spec: RFC 6121 §3
var noticeTypes = map[hub.NoticeKind]string{
	hub.Ask: "subscribe", hub.Approve: "subscribed", hub.Deny: "unsubscribed", hub.Unask: "unsubscribe",
}

// maxWords bounds the words that come with a request, in bytes.
const maxWords = 1000

// ReadNotice says which step of consent a presence stanza takes, if it takes one; who takes it with whom is the caller's.
func ReadNotice(st *element.Element) (n hub.ContactNotice, ok bool) {
	for kind, typ := range noticeTypes {
		if st.Attr("type") == typ {
			n.Kind, ok = kind, true
		}
	}
	if n.Words = st.ChildText("", "status"); len(n.Words) > maxWords {
		n.Words = ""
	}
	return n, ok
}

// Notice writes a step of consent.
func Notice(names Names, n hub.ContactNotice) *element.Element {
	p := element.New(NSClient, "presence").SetAttr("type", noticeTypes[n.Kind])
	p.SetAttr("from", names.JID(n.From).String()).SetAttr("to", names.JID(n.To).String())
	if n.Words != "" {
		p.Append(element.NewText(NSClient, "status", n.Words))
	}
	if n.Moved != (core.Address{}) {
		p.Add(NSMoved, "moved").Append(element.NewText(NSMoved, "old-jid", names.JID(n.Moved).String()))
	}
	return p
}
