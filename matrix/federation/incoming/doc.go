// Package incoming is the customs house: what other Matrix servers send about
// the rooms that we share with them comes through here before it becomes part of
// a room.
//
// [Incoming.Receive] holds events to their form, the room's server ACL, their
// hashes and signatures, and the room's policy server, and hands them to
// parley/matrix/shared in one turn for each room. What follows or cites events
// that are not known is kept on disk and acknowledged; then the gap is filled:
// first with the events between, then, where they are too many or nobody has
// them, with the state before what is left. What cannot be filled now is tried
// again later, and given up in the end.
//
// History from before what is known is asked for when somebody reads that far:
// [Incoming.Older] and [Incoming.Reach].
//
// All of it has bounds: how many events wait for a room and from a server, how
// often a server may make us ask, how many calls, events, bytes and seconds one
// gap is worth.
package incoming
