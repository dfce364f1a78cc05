package core

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// ConvID names a conversation. It is minted here, is never re-used and says
// nothing to anybody outside.
type ConvID string

// EventID names an event. It is minted here; what other networks call the
// event are its [Alias]es.
type EventID string

// MediaID names a stored or referenced file.
type MediaID string

// Position orders a conversation's timeline. What is accepted now gets the
// next one up; older history that is learnt later gets positions below.
type Position int64

// Feed is when this server learnt of something, across all conversations. It
// drives sync tokens and archives; readers never see a number while a smaller
// one is uncommitted.
type Feed int64

// newID is 26 letters and digits: 48 bits of milliseconds and 80 of chance, so
// that IDs made later sort later and none can be guessed.
func newID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(time.Now().UnixMilli())<<16)
	_, _ = rand.Read(b[6:]) // never fails: crypto/rand crashes the program first
	return lower32.EncodeToString(b[:])
}

// NewConvID mints a conversation ID.
func NewConvID() ConvID { return ConvID(newID()) }

// NewEventID mints an event ID.
func NewEventID() EventID { return EventID(newID()) }

// NewMediaID mints a media ID.
func NewMediaID() MediaID { return MediaID(newID()) }

// MediaIDOf names a file elsewhere by a URL that will never lead to another
// one, so that it has one name however often it is met. It is longer than any
// ID that is minted.
func MediaIDOf(url string) MediaID {
	sum := sha256.Sum256([]byte(url))
	return MediaID(lower32.EncodeToString(sum[:20]))
}

// NewToken is a secret of 160 bits for links and the like, in letters and
// digits that every protocol can carry.
func NewToken() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // see newID
	return lower32.EncodeToString(b[:])
}

// Alias is what a network calls an event. Scope is what the key is unique in:
// nothing for a Matrix event ID, the `by` for a stanza-id, sender and
// conversation for an origin-id, device and path for a Matrix transaction.
// The same key with another content is another message, so whoever makes an
// alias for matching a resent message puts a digest of the content in Digest.
type Alias struct {
	Network Network `json:"n"`
	Kind    string  `json:"k"` // "event", "stanza-id", "origin-id", "id", "txn" …
	Scope   string  `json:"s,omitempty"`
	Key     string  `json:"key"`
	Digest  string  `json:"d,omitempty"`
}
