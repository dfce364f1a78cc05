// Package c2s holds the sessions of local XMPP clients: what a client may ask of its server, and what the hub's news looks like on
// its stream.
//
// One goroutine owns a [Session]: it takes what the client says, one stanza after the other, and the news of its hub session. A
// stanza is dealt with when the next one is looked at, and what it changed is on disk by then, so the count that is told in
// <a/> (XEP-0198) is durable; messages carry the count into the very turn that keeps them, so that it is right after a crash too. A
// session outlives its stream for some minutes, waiting to be resumed, and its news waits with it.
//
// Stanzas are dispatched by the address that they are to and then by a table: see tables.go. Rooms and other services of their own
// domain implement [Service]; servers elsewhere are reached by a [Router].
package c2s
