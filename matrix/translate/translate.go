package translate

import (
	"errors"

	"parley/core"
	"parley/matrix/wire"
)

// ErrContent is wrapped by every error about a content that does not fit its
// event type. Its text is for the client that sent it.
var ErrContent = errors.New("bad event content")

// Event is a Matrix event as a client sends it.
type Event struct {
	Type     string
	StateKey *string // nil for events that are not state
	Sender   string  // user ID
	Content  []byte  // JSON object
	// Redacts is the event that an m.room.redaction is about, whatever the
	// room version puts it in.
	Redacts string
}

// Resolver finds what Matrix and core call the same thing.
type Resolver struct {
	Names
	Version *wire.Version
	// CoreID and EventID turn event IDs into each other.
	CoreID  func(eventID string) (core.EventID, bool)
	EventID func(id core.EventID) (string, bool)
	// Conv and RoomID turn room IDs into each other.
	Conv   func(roomID string) (core.ConvID, bool)
	RoomID func(id core.ConvID) (string, bool)
}

// Native is the native form of e, to go with the content that [In] returns.
// Its data is e's content in canonical form.
func Native(e Event) (*core.Native, error) {
	canon, err := wire.Canonical(e.Content)
	if err != nil {
		return nil, errors.Join(ErrContent, err)
	}
	return &core.Native{Network: core.Matrix, Type: e.Type, Data: canon}, nil
}
