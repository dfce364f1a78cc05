// Package graph is Matrix's room graph as the specification tells it: which
// events are authorised, what a room's state is where branches of its history
// meet, and what becomes of an event that arrives. It does no I/O, keeps
// nothing and changes nothing: the same events give the same answer on every
// server and in every order.
//
// An [Event] is what the rules look at of a PDU, linked to its auth events, so
// that an auth chain is walked and never looked up; links lead to older events
// only, so there are no cycles. A [State] is an immutable map that shares with
// the state it was made from all but what differs: [State.With] costs the same
// in a room of ten members and of ten thousand, and so does finding out where
// two branches disagree.
//
//	before := graph.Resolve(version, after the previous events...)
//	verdict, why := graph.Check(event, before, current)
//	after := graph.After(before, event, verdict)
//
// [Resolve] is state resolution version 2, and 2.1 in rooms of version 12.
//
// It is our own code and not gomatrixserverlib's, which is the tests' second
// opinion: differential_test.go says where the two part and why, and
// bench_test.go measures both.
package graph
