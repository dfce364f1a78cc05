// Package together holds tests in which clients of XMPP and of Matrix, on servers
// of both, meet in one process: what a remote Matrix room and a remote Matrix
// user are to a client of XMPP. What it tests is elsewhere; real clients have
// their turn in the rest of interop.
package together
