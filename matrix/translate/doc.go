// Package translate turns Matrix events into core contents and back. It does
// no I/O: identifiers are resolved by the functions of a [Resolver], which its
// callers make from the rows of the turn or the request they are in. What
// could not be carried is returned as a list of losses.
package translate
