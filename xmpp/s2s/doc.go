// Package s2s is the XMPP house's gate to other servers: it carries what the hub owes to them, and takes what comes from them.
//
// Outbound, [Carrier] is the hub's carrier of the XMPP network and the c2s.Router of its local clients. All that goes from one of our
// domains to one of another server's goes through one link, in order, on a stream that is opened when it is needed and closed when it
// is idle. What is owed (a [hub.Delivery]) is accepted only when the other server has answered a ping that was sent behind it on the
// same stream: servers take a stream's stanzas in order, so the answer, even an error, proves that all before it was taken. A stream
// that breaks before that means that everything on it is sent again. So nothing is lost; what was taken but not yet confirmed goes out
// twice, with the same id, origin-id and stanza-id, by which the receiver can know it.
//
// A server that answers no pings though streams to it can be opened would hold up everything. After the second time without an answer
// its deliveries count as accepted when they have left for the network, for an hour; each of them is counted.
//
// Inbound, a stanza is dealt with before the next one of its stream is read, and what it says is on disk by then. So whoever gets an
// answer from us may conclude the same as we do.
package s2s
