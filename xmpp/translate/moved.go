package translate

import (
	"net/url"
	"strings"

	"parley/xmpp/element"
)

// NSMoved is the namespace, and the node, in which people say that they have another address.
//
// spec: XEP-0283 §4.1
const NSMoved = "urn:xmpp:moved:1"

const nsPubsub = "http://jabber.org/protocol/pubsub" // XEP-0060

// MovedFrom is the address that a request for consent says its sender to have had before.
//
// spec: XEP-0283 §4.2
func MovedFrom(st *element.Element) (JID, bool) {
	return bareIn(st.Child(NSMoved, "moved").ChildText(NSMoved, "old-jid"))
}

// MovedTo is the address that an account says to have moved to, in answer to a question for its statement: in what it has published,
// or in an error that says that the account has gone.
//
// spec: XEP-0283 §4.3
func MovedTo(answer *element.Element) (JID, bool) {
	if answer.Attr("type") == "error" {
		gone := answer.Child("", "error").Child(NSStanzas, GoneError.Name)
		uri, ok := strings.CutPrefix(gone.Text(), "xmpp:")
		uri, _, _ = strings.Cut(uri, "?")
		path, err := url.PathUnescape(uri)
		if !ok || err != nil {
			return JID{}, false
		}
		return bareIn(path)
	}
	for _, item := range answer.Child(nsPubsub, "pubsub").Child("", "items").Elements() {
		if moved := item.Child(NSMoved, "moved"); moved != nil {
			return bareIn(moved.ChildText(NSMoved, "new-jid"))
		}
	}
	return JID{}, false
}

// bareIn reads a bare JID.
func bareIn(s string) (JID, bool) {
	j, err := ParseJID(strings.TrimSpace(s))
	return j, err == nil && j.Resource == "" && j.Local != ""
}
