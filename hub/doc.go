// Package hub is the middle of the house: what one can do here (send, edit,
// react, invite, mark displayed …), in which order it happens, who may, who
// hears of it, and what is still owed to other servers.
//
// Every command is a turn: a function run by the store's one writer, in which
// the hub asks the conversation's authority for a verdict, writes the event,
// lets the [Mirror]s write their own form of it, and puts what is owed to
// other servers into the outbox; all of it commits together, or none. Only
// after the commit do sessions hear of it. So a number that a reader sees has
// no smaller one still to come, and what was acknowledged is on disk.
//
// The hub declares what it needs (Store, Mirror, Carrier) and imports neither
// a protocol nor a database.
package hub
