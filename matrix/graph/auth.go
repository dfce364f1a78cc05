package graph

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"parley/matrix/wire"
)

// ErrDenied is wrapped by every error that says by which rule an event is not
// authorised.
var ErrDenied = errors.New("not authorised")

func deny(why string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDenied, fmt.Sprintf(why, args...))
}

// Needs are the pieces of the state that an event of ours has to cite, where
// they exist: the auth events selection.
//
// spec: MX 1.19 SS §5.1.2
func Needs(s View, v *wire.Version, eventType string, stateKey *string, sender string, content []byte) []*Event {
	var out []*Event
	for _, k := range wire.AuthTypes(v, eventType, stateKey, sender, content) {
		if e := s.Get(k.Type, k.Key); e != nil {
			out = append(out, e)
		}
	}
	return out
}

// CheckCited applies the rules that do not depend on state: those for create
// events, and those for what an event cites.
//
// spec: MX 1.19 RV v12
func CheckCited(e *Event) error {
	if e.Type == wire.TypeCreate {
		return checkCreate(e)
	}
	if err := checkRoomID(e); err != nil {
		return err
	}
	if e.miscited != nil {
		return e.miscited
	}
	for _, a := range e.Auth {
		if a.Rejected {
			return deny("it cites %s, which was rejected", a.ID)
		}
		if a.Room != e.Room {
			return deny("it cites %s of another room", a.ID)
		}
	}
	return nil
}

// checkCreate is rule 1.
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v11
// spec: MX 1.19 RV v12
func checkCreate(e *Event) error {
	c := e.creation
	if len(e.Prev) > 0 {
		return deny("a create event comes after nothing")
	}
	// With a hashed room ID an event with room_id is malformed: wire.Parse.
	if !e.Version.HashedRoomID && domain(e.Room) != domain(e.Sender) {
		return deny("the room %s is not of the sender's server", e.Room)
	}
	if c.badVersion || c.version != "" && !recognised(c.version) {
		return deny("room version %.40q is not known", c.version)
	}
	if e.Version.CreatorKey && !c.hasCreator {
		return deny("the create event names no creator")
	}
	if c.badList {
		return deny("additional_creators is no list of user IDs")
	}
	return nil
}

func recognised(version string) bool {
	if _, err := wire.VersionOf(version); err == nil {
		return true
	}
	return slices.Contains([]string{"1", "2", "3", "4", "5"}, version)
}

// checkRoomID is rule 2 of version 12, and before it rule 2.4: there is a
// create event, which was accepted, and it is this room's.
//
// spec: MX 1.19 RV v12
func checkRoomID(e *Event) error {
	switch c := e.Create; {
	case c == nil:
		return deny("there is no create event")
	case c.Type != wire.TypeCreate || c.Rejected:
		return deny("%s is no create event that was accepted", c.ID)
	case e.Version.HashedRoomID && e.Room != "!"+strings.TrimPrefix(c.ID, "$"):
		return deny("room %s is not made by %s", e.Room, c.ID)
	}
	return nil
}

// checkSelection holds what an event cites to the selection, each once.
//
// spec: MX 1.19 SS §5.1.2
func checkSelection(e *Event, selected []wire.StateKey) error {
	for i, a := range e.Auth {
		if a.StateKey == nil || !slices.Contains(selected, a.Key()) {
			return deny("it cites %s, a %.80q that has no say in it", a.ID, a.Type)
		}
		for _, b := range e.Auth[:i] {
			if a.Key() == b.Key() {
				return deny("it cites two events of type %s and state key %q", a.Type, *a.StateKey)
			}
		}
	}
	return nil
}

// Allowed applies the rules that depend on state, that is, all from 3 on (4 on
// in version 12).
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v10
// spec: MX 1.19 RV v12
func Allowed(e *Event, s View) error {
	if e.Type == wire.TypeCreate {
		return checkCreate(e)
	}
	create := s.Get(wire.TypeCreate, "")
	if create == nil && e.Version.HashedRoomID {
		create = e.Create // which the room ID implies
	}
	if create == nil {
		return deny("there is no create event")
	}
	j := judge{e: e, s: s, create: create}
	if l := s.Get(wire.TypePowerLevels, ""); l != nil {
		j.levels = l.levels
	}
	if err := j.federate(); err != nil {
		return err
	}
	if e.Type == wire.TypeMember {
		return j.member()
	}
	if j.membership(e.Sender) != "join" {
		return deny("%s is not in the room", e.Sender)
	}
	if e.Type == wire.TypeThirdParty {
		return j.thirdPartyInvite()
	}
	if err := j.requiredLevel(); err != nil {
		return err
	}
	if err := j.ownKey(); err != nil {
		return err
	}
	if e.Type == wire.TypePowerLevels {
		return j.powerLevels()
	}
	return nil
}

// judge is one event before one state.
type judge struct {
	e      *Event
	s      View
	create *Event
	levels *levels // nil where there are none
}

// federate keeps strangers out of a room that is for one server.
//
// spec: MX 1.19 RV v12
func (j *judge) federate() error {
	if j.create.creation.noFederate && domain(j.e.Sender) != domain(j.create.Sender) {
		return deny("the room is for %s alone", domain(j.create.Sender))
	}
	return nil
}

// thirdPartyInvite is for invitations of addresses that are no user IDs.
//
// spec: MX 1.19 RV v12
func (j *judge) thirdPartyInvite() error {
	if have, need := j.level(j.e.Sender), j.levels.get("invite"); have < need {
		return deny("inviting needs level %d, %s has %d", need, j.e.Sender, have)
	}
	return nil
}

// requiredLevel is the level that an event's type takes.
//
// spec: MX 1.19 SS §5.1.1
func (j *judge) requiredLevel() error {
	have, need := j.level(j.e.Sender), j.levels.required(j.e.Type, j.e.StateKey != nil)
	if have < need {
		return deny("a %.80q needs level %d, %s has %d", j.e.Type, need, j.e.Sender, have)
	}
	return nil
}

// ownKey keeps state keys that are user IDs for that user.
//
// spec: MX 1.19 RV v12
func (j *judge) ownKey() error {
	if k := j.e.StateKey; k != nil && strings.HasPrefix(*k, "@") && *k != j.e.Sender {
		return deny("the state key %.80q is for another", *k)
	}
	return nil
}

// membership is a user's membership; who never was in the room has left it.
func (j *judge) membership(user string) string {
	if m := j.s.Get(wire.TypeMember, user); m != nil {
		return m.membership
	}
	return "leave"
}

// level is a user's level.
//
// spec: MX 1.19 RV v12
func (j *judge) level(user string) int64 { return levelOf(user, j.create, j.levels) }

func levelOf(user string, create *Event, l *levels) int64 {
	switch {
	case create.supreme(user):
		return Supreme
	case l != nil:
		return l.of(user)
	case create != nil && create.creation != nil && user == create.creation.creator && !create.Version.HashedRoomID:
		return 100
	}
	return 0
}

// powerLevels is rule 9 (10 in version 12).
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v10
// spec: MX 1.19 RV v12
func (j *judge) powerLevels() error {
	next := j.e.levels
	if next.flaw != nil {
		return deny("%v", next.flaw)
	}
	for user := range next.users {
		if j.create.supreme(user) {
			return deny("the level of the creator %s is not to be set", user)
		}
	}
	old := j.levels
	if old == nil {
		return nil
	}
	have := j.level(j.e.Sender)
	if err := changes(old.plain, next.plain, func(name string, was, is *int64) error {
		return noMore(name, have, was, is)
	}); err != nil {
		return err
	}
	for _, m := range []struct{ old, next map[string]int64 }{{old.events, next.events}, {old.notifications, next.notifications}} {
		if err := changes(m.old, m.next, func(name string, was, is *int64) error {
			return noMore(name, have, was, is)
		}); err != nil {
			return err
		}
	}
	return changes(old.users, next.users, func(user string, was, is *int64) error {
		if was != nil && user != j.e.Sender && *was >= have {
			return deny("%s stands at %d, and %s at %d", user, *was, j.e.Sender, have)
		}
		return noMore(user, have, nil, is)
	})
}

// noMore refuses a change from or to more than one has.
func noMore(name string, have int64, was, is *int64) error {
	if was != nil && *was > have {
		return deny("%.80q is at %d, the sender at %d", name, *was, have)
	}
	if is != nil && *is > have {
		return deny("%.80q would be at %d, the sender is at %d", name, *is, have)
	}
	return nil
}

// changes calls f for what was added, changed or removed, until it refuses.
// What is not there is nil.
func changes(old, next map[string]int64, f func(name string, was, is *int64) error) error {
	for name, was := range old {
		is, there := next[name]
		var err error
		switch {
		case !there:
			err = f(name, &was, nil)
		case was != is:
			err = f(name, &was, &is)
		}
		if err != nil {
			return err
		}
	}
	for name, is := range next {
		if _, there := old[name]; !there {
			if err := f(name, nil, &is); err != nil {
				return err
			}
		}
	}
	return nil
}

// MayRedact says whether a redaction that was accepted is to be carried out on
// its target: by the state before it, or because both are of one server.
//
// spec: MX 1.19 RV v3
func MayRedact(redaction, target *Event, before View) bool {
	if domain(redaction.Sender) == domain(target.Sender) {
		return true
	}
	var l *levels
	if e := before.Get(wire.TypePowerLevels, ""); e != nil {
		l = e.levels
	}
	return levelOf(redaction.Sender, redaction.Create, l) >= l.get("redact")
}

// domain is what follows the first colon of an identifier.
func domain(id string) string {
	_, d, _ := strings.Cut(id, ":")
	return d
}
