package translate

import "parley/core"

// The event types that mean something to the core.
const (
	typeMessage    = "m.room.message"
	typeEncrypted  = "m.room.encrypted"
	typeReaction   = "m.reaction"
	typeRedaction  = "m.room.redaction"
	typeSticker    = "m.sticker"
	typeMember     = "m.room.member"
	typeCreate     = "m.room.create"
	typeName       = "m.room.name"
	typeTopic      = "m.room.topic"
	typeAvatar     = "m.room.avatar"
	typeLevels     = "m.room.power_levels"
	typeJoinRules  = "m.room.join_rules"
	typeVisibility = "m.room.history_visibility"
	typeAddresses  = "m.room.canonical_alias"
	typeEncryption = "m.room.encryption"
	typeTombstone  = "m.room.tombstone"
	typeThirdParty = "m.room.third_party_invite"
)

// types pairs the actions of the core with event types, one to one.
var types = map[string]string{
	"message":                     typeMessage,
	"encrypted":                   typeEncrypted,
	"reaction":                    typeReaction,
	"retract":                     typeRedaction,
	"membership":                  typeMember,
	string(core.AspectCreated):    typeCreate,
	string(core.AspectName):       typeName,
	string(core.AspectTopic):      typeTopic,
	string(core.AspectAvatar):     typeAvatar,
	string(core.AspectLevels):     typeLevels,
	string(core.AspectJoinRule):   typeJoinRules,
	string(core.AspectVisibility): typeVisibility,
	string(core.AspectAddresses):  typeAddresses,
	string(core.AspectEncryption): typeEncryption,
	string(core.AspectMovedTo):    typeTombstone,
}

var actions = func() map[string]string {
	m := make(map[string]string, len(types))
	for a, t := range types {
		m[t] = a
	}
	return m
}()

// EventType is the event type whose level an action of [core.Levels] sets.
// Actions that are extensions' types are event types as they stand.
func EventType(action string) string {
	if t, ok := types[action]; ok {
		return t
	}
	return action
}

// ActionOf is the inverse of [EventType]. It is not for the types that
// [Reserved] reports.
func ActionOf(eventType string) string {
	if a, ok := actions[eventType]; ok {
		return a
	}
	return eventType
}

// Reserved reports whether an event type is spelled like one of the core's own
// actions and can therefore not be used here. Types of the specification and
// types that are namespaced, as it wants them to be, never are.
func Reserved(eventType string) bool {
	_, ok := types[eventType]
	return ok || eventType == string(core.AspectCorrected)
}
