// Package mirror gives every event that the hub admits its form as a Matrix
// event, in the transaction that admits it: a PDU with real hashes, signatures
// and state, so that a conversation is a Matrix room from its first event on.
//
// Minting happens at write time. It costs a fraction of the fsync that it
// shares, and in return event IDs never change and reading is a look-up.
//
// It also reads: PDUs as clients see them, with everything under `unsigned`,
// and the state of a room at any position.
package mirror
