// Package translate is the XMPP house's dictionary: pure functions between stanzas and the core model. In says what a message
// stanza means, Out writes an event as a message; both return what could not be carried as a list of losses. Neither reads a store,
// a clock or a socket: what they need to know besides the stanza or event, References and Targets name, and the caller looks up.
//
// Sessions of local clients, the room service and the carrier between servers all translate here, so that a reaction means the same
// wherever it comes from.
//
// How messages are named. A message that was written by an XMPP client keeps its own id; any other goes out with its core EventID as
// id. Archives hosted here use the EventID as stanza-id. So whatever ID a client refers to, [Ref] finds it among the aliases of the
// conversation or it is an EventID.
package translate
