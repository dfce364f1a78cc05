package core

// Contact is one entry of an account's one list of people.
type Contact struct {
	Account Address
	Address Address
	Name    string
	Groups  []string
	// Sees is consent that we gave: the contact sees our presence. Seen is
	// consent that they gave: we see theirs.
	Sees bool
	Seen bool
	// Asked says that we asked and wait; Asks that they asked and wait for us.
	Asked bool
	Asks  bool
	// Approved is consent given before it was asked for.
	Approved bool
	// Listed says that the account put the contact on its list; without it
	// the entry only records a request.
	Listed bool
	// Words came with the request.
	Words string
	Feed  Feed
}

// Strangers says what an account wants done with first messages and invitations
// of people whom it does not know.
type Strangers string

// What can be done with strangers.
const (
	Deliver Strangers = "deliver"
	Hold    Strangers = "hold"
	Refuse  Strangers = "refuse"
)

// Profile is how a person appears where nothing else is said.
type Profile struct {
	Name   string
	Avatar *File
}
