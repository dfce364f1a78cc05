// Package durability asks of the whole server, from outside, that what it acknowledged is there, and that nobody can hurt it with
// what she sends.
//
// The built command is killed in the middle of load, again and again ([TestKill]); its parts run on a disk that forgets whatever was
// not synced ([TestPowerCuts]); and a table of hostile input for either protocol is sent to it, after each line of which a good client
// must be served ([TestHostileMatrix], [TestHostileXMPP]).
//
// The clients are not ours: net/http for Matrix, and mellium.im/xmpp for XMPP with a small XEP-0198 on top. What they were told is
// kept in a ledger, which is compared with the archives that every member of a conversation reads over both protocols.
//
// PARLEY_KILLS is how often the command is killed; PARLEY_SOAK, a duration, has the killing and the power cuts go on that long.
package durability
