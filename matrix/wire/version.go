package wire

import (
	"fmt"
	"slices"
)

// Version is what differs between room versions, as far as events go. Each
// field says which versions it holds for.
//
// spec: MX 1.19 RV
type Version struct {
	ID string
	// HashedRoomID says that a room's ID is its create event's hash, that the
	// create event has no room_id and is not listed in auth_events, and that
	// its creators stand above every level: 12 on.
	HashedRoomID bool
	// CreatorKey says that m.room.create has a creator in its content: to 10.
	CreatorKey bool
	// RedactsInContent says that m.room.redaction has redacts in its content
	// and not beside it: 11 on.
	RedactsInContent bool
	// RedactsBeside says that redactions made here have redacts beside the
	// content: to 11. In 11 it means nothing, and stands there for servers that
	// know the version and look there all the same (Dendrite 0.13).
	RedactsBeside bool
	// IntegerLevels says that levels must be integers: 10 on.
	IntegerLevels bool
	// Knock, Restricted and KnockRestricted say which join rules there are:
	// 7, 8 and 10 on.
	Knock, Restricted, KnockRestricted bool
	// redaction
	top     []string
	content map[string][]string
}

// DefaultVersion is the version of new rooms where none is configured.
const DefaultVersion = "12"

// Versions lists the room versions known here, oldest first.
func Versions() []string { return []string{"6", "7", "8", "9", "10", "11", "12"} }

// Made lists the versions in which this server makes rooms, oldest first. The
// others are only read: they come with rooms of other servers.
func Made() []string { return []string{"11", "12"} }

// VersionOf finds a room version.
func VersionOf(id string) (*Version, error) {
	if v, ok := versions[id]; ok {
		return v, nil
	}
	return nil, fmt.Errorf("unknown room version %.40q", id)
}

var versions = map[string]*Version{
	"6":  version(6),
	"7":  version(7),
	"8":  version(8),
	"9":  version(9),
	"10": version(10),
	"11": version(11),
	"12": version(12),
}

func version(n int) *Version {
	return &Version{
		ID:               fmt.Sprint(n),
		HashedRoomID:     n >= 12,
		CreatorKey:       n <= 10,
		RedactsInContent: n >= 11,
		RedactsBeside:    n <= 11,
		IntegerLevels:    n >= 10,
		Knock:            n >= 7,
		Restricted:       n >= 8,
		KnockRestricted:  n >= 10,
		top:              keptTop(n),
		content:          keptContent(n),
	}
}

// keptTop are the keys of an event that redaction leaves, sorted.
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v11
func keptTop(n int) []string {
	keys := []string{
		"auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events",
		"room_id", "sender", "signatures", "state_key", "type",
	}
	if n < 11 {
		keys = append(keys, "membership", "origin", "prev_state")
	}
	slices.Sort(keys)
	return keys
}

// keptContent are the keys of the content that redaction leaves, by type. The
// types that are not here lose all; a nil list keeps all.
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v8
// spec: MX 1.19 RV v9
// spec: MX 1.19 RV v11
func keptContent(n int) map[string][]string {
	m := map[string][]string{
		TypeMember:     {"membership"},
		TypeCreate:     {"creator"},
		TypeJoinRules:  {"join_rule"},
		TypeVisibility: {"history_visibility"},
		TypePowerLevels: {
			"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default",
		},
	}
	if n >= 8 {
		m[TypeJoinRules] = append(m[TypeJoinRules], "allow")
	}
	if n >= 9 {
		m[TypeMember] = append(m[TypeMember], viaKey)
	}
	if n >= 11 {
		m[TypeCreate] = nil
		m[TypePowerLevels] = append(m[TypePowerLevels], "invite")
		m[TypeRedaction] = []string{"redacts"}
		m[TypeMember] = append(m[TypeMember], invite3pid)
	}
	return m
}

// Keys of m.room.member that the rules look at.
const (
	viaKey     = "join_authorised_via_users_server"
	invite3pid = "third_party_invite"
)

// The event types that the rules or redaction know.
const (
	TypeCreate      = "m.room.create"
	TypeMember      = "m.room.member"
	TypePowerLevels = "m.room.power_levels"
	TypeJoinRules   = "m.room.join_rules"
	TypeVisibility  = "m.room.history_visibility"
	TypeRedaction   = "m.room.redaction"
	TypeThirdParty  = "m.room.third_party_invite"
)

// redactContent applies the version's rule for the content of a type.
func (v *Version) redactContent(eventType string, content []byte) ([]byte, error) {
	keep, known := v.content[eventType]
	if known && keep == nil {
		return content, nil
	}
	if !known {
		return []byte("{}"), nil
	}
	o, err := members(content)
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	out := o.filter(func(k string) bool { return slices.Contains(keep, k) })
	if eventType == TypeMember {
		if out, err = keepSigned(out); err != nil {
			return nil, err
		}
	}
	return out.JSON(), nil
}

// keepSigned leaves of a third-party invitation the signed part only.
//
// spec: MX 1.19 RV v11
func keepSigned(o Object) (Object, error) {
	v := o.Get(invite3pid)
	if v == nil {
		return o, nil
	}
	inner, err := members(v)
	if err != nil { // not an object: nothing in it is kept
		return o.Without(invite3pid), nil
	}
	signed := inner.filter(func(k string) bool { return k == "signed" })
	if len(signed) == 0 {
		return o.Without(invite3pid), nil
	}
	return o.With(invite3pid, signed.JSON()), nil
}

// redact applies the version's redaction to a whole event.
func (v *Version) redact(o Object) (Object, error) {
	out := o.filter(func(k string) bool { return slices.Contains(v.top, k) })
	eventType, _ := o.String("type")
	content := o.Get("content")
	if content == nil {
		content = []byte("{}")
	}
	content, err := v.redactContent(eventType, content)
	if err != nil {
		return nil, err
	}
	return out.With("content", content), nil
}
