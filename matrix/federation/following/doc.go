// Package following is the removal firm: when a Matrix room goes on in another
// one, it brings the accounts of this server that are in it to where it goes on,
// whatever network their clients speak.
//
// That a room goes on elsewhere is said by an event in it, and anybody who may
// send that can name any room; so an account is brought only into a room that
// says of itself that it goes on for the other one, and nobody who has left
// either of the two. What is to be done is on disk in the turn that keeps the
// event.
//
// Clients that have to be told where a room went on, as those of XMPP, wait until
// that is known: [Following.Following]. They do not wait long.
package following
