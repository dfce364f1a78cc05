// Package sync answers /sync: the one place where a Matrix client hears of
// everything. It contributes one route to [client.API].
//
// It reads a snapshot of the store and keeps no queue: a token says how far a
// client has come in the hub's feed, and what the store has learnt since is
// the answer. A hub session only wakes a request that waits. So a client may
// be away for weeks, a token outlives restarts, and nothing depends on being
// connected.
//
// Three things are kept in memory, each of which may be lost: which members a
// lazily loading device has been told of, how many unread notifications there
// are (worked out from the log when it is asked for), and who is shown as
// online because of a running /sync.
//
// spec: MX 1.19 CS §7.6
package sync
