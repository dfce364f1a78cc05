package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// Limits of events.
//
// spec: MX 1.19 CS §7.4
const (
	MaxPDU   = 65536 // bytes of canonical JSON, signatures included
	MaxField = 255   // bytes of type, state key, sender, room ID and event ID
	maxRefs  = 20    // previous events
	maxAuth  = 10    // auth events
)

var (
	// ErrTooLarge is wrapped by every error about an event's size.
	ErrTooLarge = errors.New("event too large")
	// ErrFormat is wrapped by every other error about an event's form.
	ErrFormat = errors.New("malformed event")
)

// Proto is an event that is yet to be hashed.
type Proto struct {
	// RoomID is empty for the create event of a version with HashedRoomID.
	RoomID   string
	Type     string
	StateKey *string
	Sender   string
	Content  []byte // a JSON object in canonical form
	// Redacts is the redacted event in versions without RedactsInContent; to be
	// written in versions with RedactsBeside.
	Redacts    string
	PrevEvents []string
	AuthEvents []string
	Depth      int64
	Time       int64 // milliseconds since 1970
}

// PDU is an event between servers.
//
// spec: MX 1.19 SS §5
type PDU struct {
	Version *Version
	EventID string
	Proto
	// JSON is the whole event, canonical, with hashes; one of another server's
	// has its signatures, one of ours gets them from Sign.
	JSON []byte
}

// maxSigners is for how many signatures Build leaves room.
const maxSigners = 3

// signatureRoom is what one signature takes besides the name of the server: the
// name of the key, 86 letters and digits, and what is between them.
const signatureRoom = 64 + 86 + 32

// Build hashes an event. Signing is [PDU.Sign]: a signature takes longer than
// all else, and only other servers look at it. Room is left for it.
//
// spec: MX 1.19 SS §28.1
func Build(v *Version, p Proto) (*PDU, error) {
	if err := p.check(v); err != nil {
		return nil, err
	}
	p.Depth = min(p.Depth, maxInt)
	whole := p.encode(v, p.Content, "", false)
	hash := sha256.Sum256(whole)
	contentHash := unpadded.EncodeToString(hash[:])

	redacted, err := v.redactContent(p.Type, p.Content)
	if err != nil {
		return nil, err
	}
	ref := sha256.Sum256(p.encode(v, redacted, contentHash, true))
	pdu := &PDU{Version: v, EventID: eventID(ref), Proto: p, JSON: p.encode(v, p.Content, contentHash, false)}
	if size := len(pdu.JSON) + maxSigners*(MaxField+signatureRoom); size > MaxPDU {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, size)
	}
	if v.HashedRoomID && p.Type == TypeCreate {
		pdu.RoomID = "!" + pdu.EventID[1:]
	}
	return pdu, nil
}

// Sign returns the event with the servers' signatures besides those it has.
// There is more than one signer where an event concerns two servers that are
// both at home here.
//
// spec: MX 1.19 SS §28.1
func (pdu *PDU) Sign(signers ...Signer) ([]byte, error) {
	o, err := members(pdu.JSON)
	if err != nil {
		return nil, err
	}
	redacted, err := pdu.Version.redact(o)
	if err != nil {
		return nil, err
	}
	canon, sigs := redacted.Without("signatures", "unsigned").JSON(), o.Get("signatures")
	for _, s := range signers {
		if sigs, err = addSignature(sigs, s.Server, s.Key.ID(), s.Key.sign(canon)); err != nil {
			return nil, err
		}
	}
	return o.With("signatures", sigs).JSON(), nil
}

// eventID is the reference hash as an event ID.
//
// spec: MX 1.19 RV v4
func eventID(ref [sha256.Size]byte) string {
	return "$" + base64.RawURLEncoding.EncodeToString(ref[:])
}

// check holds the fields to their limits.
func (p *Proto) check(v *Version) error {
	fields := []struct{ name, value string }{
		{"type", p.Type}, {"sender", p.Sender}, {"room_id", p.RoomID}, {"redacts", p.Redacts},
	}
	if p.StateKey != nil {
		fields = append(fields, struct{ name, value string }{"state_key", *p.StateKey})
	}
	for _, f := range fields {
		if len(f.value) > MaxField {
			return fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, f.name, len(f.value))
		}
	}
	if len(p.Content) > MaxPDU {
		return fmt.Errorf("%w: content has %d bytes", ErrTooLarge, len(p.Content))
	}
	if len(p.Content) < 2 || p.Content[0] != '{' {
		return fmt.Errorf("%w: content is not an object", ErrFormat)
	}
	if p.Type == "" {
		return fmt.Errorf("%w: no type", ErrFormat)
	}
	if _, _, err := ParseUserID(p.Sender); err != nil {
		return err
	}
	if hashed := v.HashedRoomID && p.Type == TypeCreate; hashed != (p.RoomID == "") {
		return fmt.Errorf("%w: room_id %q", ErrFormat, p.RoomID)
	}
	if p.Depth < 0 {
		return fmt.Errorf("%w: depth %d", ErrFormat, p.Depth)
	}
	if len(p.PrevEvents) > maxRefs || len(p.AuthEvents) > maxAuth {
		return fmt.Errorf("%w: too many previous or auth events", ErrFormat)
	}
	return nil
}

// encode writes the event with its keys in canonical order: whole, or (bare)
// without what redaction takes from beside the content.
func (p *Proto) encode(v *Version, content []byte, contentHash string, bare bool) []byte {
	b := make([]byte, 0, len(content)+1024)
	b = appendList(append(b, `{"auth_events":`...), p.AuthEvents)
	b = append(append(b, `,"content":`...), content...)
	b = strconv.AppendInt(append(b, `,"depth":`...), p.Depth, 10)
	if contentHash != "" {
		b = append(append(append(b, `,"hashes":{"sha256":"`...), contentHash...), `"}`...)
	}
	b = strconv.AppendInt(append(b, `,"origin_server_ts":`...), p.Time, 10)
	b = appendList(append(b, `,"prev_events":`...), p.PrevEvents)
	if p.Redacts != "" && !bare && v.RedactsBeside {
		b = appendString(append(b, `,"redacts":`...), p.Redacts)
	}
	if p.RoomID != "" {
		b = appendString(append(b, `,"room_id":`...), p.RoomID)
	}
	b = appendString(append(b, `,"sender":`...), p.Sender)
	if p.StateKey != nil {
		b = appendString(append(b, `,"state_key":`...), *p.StateKey)
	}
	b = appendString(append(b, `,"type":`...), p.Type)
	return append(b, '}')
}

func appendList(b []byte, ids []string) []byte {
	b = append(b, '[')
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, id)
	}
	return append(b, ']')
}

// Parse reads an event as another server or our own store holds it, and works
// out its ID. It holds it to the form of the version and to the limits; hash
// and signatures are for [PDU.CheckHash] and [PDU.Verify].
//
// spec: MX 1.19 SS §5.1
func Parse(v *Version, raw []byte) (*PDU, error) {
	if len(raw) > MaxPDU {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(raw))
	}
	o, err := ParseObject(raw)
	if err != nil {
		return nil, err
	}
	o = o.Without("unsigned", "event_id")
	pdu := &PDU{Version: v, JSON: o.JSON()}
	if err := pdu.read(o); err != nil {
		return nil, err
	}
	if err := pdu.check(v); err != nil {
		return nil, err
	}
	redacted, err := v.redact(o)
	if err != nil {
		return nil, err
	}
	pdu.EventID = eventID(sha256.Sum256(redacted.Without("signatures").JSON()))
	if v.HashedRoomID && pdu.Type == TypeCreate {
		pdu.RoomID = "!" + pdu.EventID[1:]
	}
	return pdu, nil
}

// read fills in the fields from o.
func (pdu *PDU) read(o Object) error {
	bad := func(key string) error { return fmt.Errorf("%w: %s", ErrFormat, key) }
	var ok bool
	if pdu.Type, ok = o.String("type"); !ok {
		return bad("type")
	}
	if pdu.Sender, ok = o.String("sender"); !ok {
		return bad("sender")
	}
	if v := o.Get("room_id"); v != nil {
		if pdu.RoomID, ok = o.String("room_id"); !ok {
			return bad("room_id")
		}
	}
	if v := o.Get("state_key"); v != nil {
		key, ok := o.String("state_key")
		if !ok {
			return bad("state_key")
		}
		pdu.StateKey = &key
	}
	if !pdu.Version.RedactsInContent {
		pdu.Redacts, _ = o.String("redacts")
	}
	if pdu.Depth, ok = o.Int("depth"); !ok {
		return bad("depth")
	}
	if pdu.Time, ok = o.Int("origin_server_ts"); !ok {
		return bad("origin_server_ts")
	}
	if pdu.Content = o.Get("content"); pdu.Content == nil {
		return bad("content")
	}
	if pdu.PrevEvents, ok = stringList(o.Get("prev_events")); !ok {
		return bad("prev_events")
	}
	if pdu.AuthEvents, ok = stringList(o.Get("auth_events")); !ok {
		return bad("auth_events")
	}
	return nil
}

// stringList reads a canonical array of strings.
func stringList(v []byte) ([]string, bool) {
	elements, ok := Elements(v)
	out := make([]string, len(elements))
	for i, e := range elements {
		s, isString := Unquote(e)
		ok = ok && isString
		out[i] = s
	}
	return out, ok
}

// CheckHash reports whether the content hash is right. An event with a wrong
// one is to be redacted and not refused.
//
// spec: MX 1.19 SS §5.1
func (pdu *PDU) CheckHash() bool {
	o, err := members(pdu.JSON)
	if err != nil {
		return false
	}
	hashes, err := members(o.Get("hashes"))
	if err != nil {
		return false
	}
	text, _ := hashes.String("sha256")
	want, err := decodeBase64(text)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(o.Without("hashes", "signatures", "unsigned").JSON())
	return bytes.Equal(sum[:], want)
}

// Verify checks a server's signature on the event.
//
// spec: MX 1.19 SS §28.2
func (pdu *PDU) Verify(server, keyID string, public ed25519.PublicKey) error {
	o, err := members(pdu.JSON)
	if err != nil {
		return err
	}
	redacted, err := pdu.Version.redact(o)
	if err != nil {
		return err
	}
	return verify(server, keyID, public, o.Get("signatures"), redacted.Without("signatures", "unsigned").JSON())
}

// Redact returns the event without what redaction takes away. Its ID, hash
// and signatures stay what they were.
func (pdu *PDU) Redact() (*PDU, error) {
	o, err := members(pdu.JSON)
	if err != nil {
		return nil, err
	}
	redacted, err := pdu.Version.redact(o)
	if err != nil {
		return nil, err
	}
	out := *pdu
	out.JSON, out.Content, out.Redacts = redacted.JSON(), redacted.Get("content"), ""
	return &out, nil
}

// SignEvent adds the content hash and a signature to an event that somebody
// else laid out, such as the template that a resident server gives to a joiner.
//
// spec: MX 1.19 SS §28.1
func (v *Version) SignEvent(raw []byte, s Signer) ([]byte, error) {
	o, err := ParseObject(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(o.Without("hashes", "signatures", "unsigned").JSON())
	o = o.With("hashes", []byte(`{"sha256":"`+unpadded.EncodeToString(sum[:])+`"}`))
	redacted, err := v.redact(o)
	if err != nil {
		return nil, err
	}
	sig := s.Key.sign(redacted.Without("signatures", "unsigned").JSON())
	sigs, err := addSignature(o.Get("signatures"), s.Server, s.Key.ID(), sig)
	if err != nil {
		return nil, err
	}
	return o.With("signatures", sigs).JSON(), nil
}

// RedactContent is what redaction leaves of a content in canonical form.
func (v *Version) RedactContent(eventType string, content []byte) ([]byte, error) {
	return v.redactContent(eventType, content)
}

// Restore is [Parse] for an event that this server built or checked before and
// has kept with its ID: nothing is worked out anew.
func Restore(v *Version, id string, stored []byte) (*PDU, error) {
	o, err := members(stored)
	if err != nil {
		return nil, err
	}
	pdu := &PDU{Version: v, EventID: id, JSON: stored}
	if err := pdu.read(o); err != nil {
		return nil, err
	}
	if v.HashedRoomID && pdu.Type == TypeCreate {
		pdu.RoomID = "!" + id[1:]
	}
	return pdu, nil
}

// Countersigned is the event with the signatures of one more server besides
// those it has, as that server gave it back; keys are what it signed with. It is
// an error if that is another event, or not signed.
//
// spec: MX 1.19 SS §12
func (pdu *PDU) Countersigned(server string, returned []byte) (signed *PDU, keys []string, err error) {
	same, err := Parse(pdu.Version, returned)
	if err != nil {
		return nil, nil, err
	}
	if same.EventID != pdu.EventID {
		return nil, nil, fmt.Errorf("%w: %s was given back as %s", ErrFormat, pdu.EventID, same.EventID)
	}
	o, err := members(same.JSON)
	if err != nil {
		return nil, nil, err
	}
	theirs, err := signaturesOf(o, server)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range theirs {
		keys = append(keys, m.Key)
	}
	if len(keys) == 0 {
		return nil, nil, fmt.Errorf("%w: none of %s", ErrSignature, server)
	}
	if o, err = members(pdu.JSON); err != nil {
		return nil, nil, err
	}
	var all Object
	if sigs := o.Get("signatures"); sigs != nil {
		if all, err = ParseObject(sigs); err != nil {
			return nil, nil, err
		}
	}
	out := *pdu
	out.JSON = o.With("signatures", all.With(server, theirs.JSON()).JSON()).JSON()
	if len(out.JSON) > MaxPDU {
		return nil, nil, fmt.Errorf("%w: %d bytes with all signatures", ErrTooLarge, len(out.JSON))
	}
	return &out, keys, nil
}

// signaturesOf are a server's signatures of an event, by key.
func signaturesOf(event Object, server string) (Object, error) {
	sigs, err := ParseObject(event.Get("signatures"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	theirs, err := ParseObject(sigs.Get(server))
	if err != nil {
		return nil, fmt.Errorf("%w: none of %s", ErrSignature, server)
	}
	return theirs, nil
}
