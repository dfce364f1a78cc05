// Package foreign is the rooms of other XMPP servers: what stands for local accounts there. For each account and room the server
// itself is an occupant, whatever clients are there or not: it keeps a conversation of the hub in step with the room (a projection,
// whose authority is elsewhere), enters again after a break and fills the gap from the room's archive, and answers the account's own
// XMPP clients when they enter, as if it were the room; all else of theirs it passes on under its own name.
//
// Every account has a projection of its own, because a room does not show the same to everybody: who is moderator sees real addresses
// in a semi-anonymous room, and that two occupants are accounts of one server is nobody's business. An occupant whose real address the
// room shows to all is known by it; any other is known as [core.OccupantAddress], and stays the same under another nick where the
// room gives occupant-ids.
//
// One goroutine owns an occupancy. What comes from the room, from the account's clients, from the hub's outbox and from commands goes
// through its queue; it waits for nothing but the hub.
package foreign
