// Package interop proves Parley with software that others wrote: it drives real clients
// (package folder drivers) against a Parley server and real peers (package lab), and
// records feature by feature what arrives on the other side.
//
// A scenario is written once, in terms of features: "A edits a message, B sees the edit".
// A [Session] runs every feature for one ordered pair of clients on their servers; what
// came of each is a [Cell]: it works, it works by a stated fallback, or it does not, and
// why. The command in cmd/interop runs all sessions and writes docs/interop.md;
// TestSmoke runs a few of them.
package interop
