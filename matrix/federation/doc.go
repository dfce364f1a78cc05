// Package federation is where this server and other Matrix servers talk to each
// other: how it finds them ([parley/matrix/federation/discovery]), how it knows
// their keys ([parley/matrix/federation/keyring]), how requests are signed and
// checked, and the endpoints that others call.
//
// [Client] sends: one request in, one answer or a reason out, with the limits
// and the back-off that an unreliable peer needs. [Server] receives: a table of
// [Route]s, each of which is given requests that are known to come from the
// server that they say they come from.
//
// So far others find here our keys, a notary, and a version; rooms are to come.
package federation
