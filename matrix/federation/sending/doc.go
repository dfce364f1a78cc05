// Package sending is the post room for other Matrix servers: what is owed to
// them, and how it goes out.
//
// What is owed is in the store from the turn on in which it came to be, and
// leaves it when the other server has answered: events of ours in rooms that
// are shared ([Sender.Owe]; one row for each event, whatever the number of
// servers), events that are for single servers ([Sender.OweTo]), and ephemeral
// data that must not be lost ([Sender.OweEDU]). What is worth nothing later is
// kept in memory only ([Sender.Say]).
//
// For each of our domains and each destination there is a queue, and at most one
// transaction at a time is under way for it. A destination that does not answer
// is let alone for longer and longer, until it calls us ([Sender.Heard]). One
// that comes back after much was said in a room gets the newest few events of
// it; they name those before them, for which its server asks by itself.
//
// Everything goes out at least once: that a server has taken something is
// written down after its answer, and a little later, so that what was in
// between when this server died goes out again. Events are recognised by their
// IDs, so nothing is doubled.
package sending
