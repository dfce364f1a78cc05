// Package muc is the room service of the XMPP house: the conversations of this
// server as rooms on rooms.DOMAIN, for sessions of local accounts and for
// occupants who come from other servers.
//
// A conversation lasts, and so does membership in it; being in a room is per
// session. This package keeps, in memory, which sessions are in which room and
// shows each of them the conversation as a room: members as occupants, levels
// as affiliations and roles, messages, the topic as the subject, history.
// What is done in a room is a command to the hub, which asks the
// conversation's authority; what happened comes back as news (for local
// sessions) or as a delivery of the outbox (for foreign ones), so that an
// occupant sees her own message when it is on disk and not before.
//
// Rooms are not anonymous, because members of other networks see each other's
// addresses: every occupant is told so (status 100).
package muc
