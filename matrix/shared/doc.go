// Package shared keeps the rooms that other Matrix servers take part in: the
// graph of their events on disk, the state after each of them, and what becomes
// of an event in the hub's turn. It stands between parley/matrix/graph, which
// knows the rules and nothing else, and the hub, whose judge it is in
// conversations of authority [core.Graph].
//
// A [Turn] is one turn of the writer. [Turn.Accept] takes an event of another
// server whose signatures were checked and whose past is known; it judges it,
// finds the room's new state, and applies to the conversation what is to be
// seen: the event, and corrections where branches met. What is said here is
// judged by [Rooms.Verdict] and enters the same graph.
//
// Nothing here talks to other servers. Who does gets told what is missing by a
// [MissingError].
//
// What is in force, and the events that led to it, are in memory as long as a
// room is in use; they belong to the writer's goroutine.
package shared
