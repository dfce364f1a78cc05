// Package rooms answers what Matrix clients ask about rooms: creating, joining
// and leaving them, sending and redacting, state, history, relations, aliases,
// the directory, receipts, typing, upgrades and spaces. It contributes a table
// of routes to [client.API].
//
// It decides nothing about who may do what: every change is a draft for the
// hub, written by package translate, and every event shown is one that package
// mirror made. What it adds is the shape of the requests and answers, filters
// and pagination tokens.
//
// Package sync stands beside it and uses its filters and tokens.
package rooms
