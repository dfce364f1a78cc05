// Package stream negotiates XMPP streams and carries elements over them: RFC 6120 for clients and between servers, with TLS, SASL
// and Server Dialback.
//
// It is the codec room of the XMPP house. What comes out of it is a Conn, which is authenticated, reads one element at a time and
// writes without ever blocking its caller. What stanzas mean, resource binding, stream management and all else that is offered
// after authentication is the caller's; package stream/sm has the arithmetic of XEP-0198.
//
// A stream of a client stands on TCP, as one long document, or on a WebSocket, as one message for each element; what is above is the
// same for both.
//
// Clients and Federation are the two entrances. Both hand each stream to a callback, and the stream ends when the callback returns.
// Above this package a stanza is always in the namespace jabber:client: between servers, jabber:server is put in its place on the
// wire and taken back.
//
// Everything that a peer can make this package do is bounded: bytes, depth and count of what is parsed, the time until it has
// authenticated, how many streams of one address may be unauthenticated, bytes per second, what may wait to be written, and how
// many dialback verifications may run.
package stream
