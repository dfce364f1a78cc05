// Package core is the model of Parley: addresses, conversations, a small closed
// set of events, bodies, levels, capabilities and losses.
//
// It is the room of the house that every other room looks into and that looks
// into none: it imports the standard library only, and no protocol's type is
// the model. A protocol package translates between its wire and these types
// and says in a list of [Loss] what it could not carry; the hub orders,
// authorises and fans out values of these types; the store keeps them.
//
// Bodies follow the semantics of the IETF MIMI content draft, and the rules
// that levels feed are Matrix event authorisation restated in core terms.
package core
