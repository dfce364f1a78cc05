package interop

import (
	"context"
	"slices"

	"parley/interop/lab"
)

// need is what a feature takes for granted.
type need int

const (
	nothing      need = iota
	aContact          // the two are each other's contacts
	aRoom             // both are in the session's room
	aForeignRoom      // the session's room is on the other server
)

// Feature is something that a person does on one client, and what the other should see.
type Feature struct {
	Name  string
	needs need // what must be done before
	gives need // what is done by it
	// only says to which sessions it applies; nil means to all.
	only func(*Session) bool
	run  func(context.Context, *Session) (Outcome, error)
}

func (f *Feature) applies(s *Session) bool { return f.only == nil || f.only(s) }

// Features are all that is tested, in the order of running and of the report's rows.
var Features = slices.Concat(
	[]*Feature{
		{Name: "contacts: ask and approve", gives: aContact, run: contacts},
		{Name: "presence to contacts", needs: aContact, run: presence},
	},
	inTalk(messages),
	[]*Feature{
		{Name: "talk: second device", needs: aContact, run: secondDevice},
		{Name: "talk: catching up after being away", needs: aContact, run: catchUp},
		{Name: "blocking", needs: aContact, run: blocking},
		{Name: "room: join by address", gives: aRoom, run: joinRoom},
	},
	inRoom(messages),
	[]*Feature{
		{Name: "room: topic", needs: aRoom, only: actorHosts, run: topic},
		{Name: "room: kick", needs: aRoom, only: actorHosts, run: kick},
		{Name: "room: ban and unban", needs: aRoom, only: actorHosts, run: ban},
		{Name: "room: three networks in one", needs: aRoom, only: besideXMPP, run: threeNetworks},
		{Name: "room: leave", needs: aRoom, only: keepsMembers, run: leave},
		{Name: "room: invitation", only: actorHosts, run: invitation},
		{Name: "room: end-to-end encrypted", only: bothMatrix, run: encrypted},
		{Name: "room: upgraded", only: both(actorHosts, actorMatrix), run: upgrade},
		{Name: "foreign room: join by address", gives: aForeignRoom, only: oneAbroad, run: joinAbroad},
	},
	abroad(inPlace(messages, "foreign room: ", aForeignRoom)),
	[]*Feature{
		{Name: "foreign room: topic", needs: aForeignRoom, only: actorAbroad, run: topic},
		{Name: "foreign room: kick", needs: aForeignRoom, only: actorAbroad, run: kick},
		{Name: "foreign room: ban and unban", needs: aForeignRoom, only: actorAbroad, run: ban},
		{Name: "foreign room: leave", needs: aForeignRoom, only: both(oneAbroad, keepsMembers), run: leave},
		{Name: "foreign room: invitation", needs: aForeignRoom, only: actorAbroad, run: invitation},
		{Name: "foreign room: end-to-end encrypted", needs: aForeignRoom, only: both(oneAbroad, bothMatrix), run: encrypted},
		{Name: "foreign room: upgraded", needs: aForeignRoom, only: both(actorAbroad, actorMatrix), run: upgrade},
	},
)

// messageFeature is a feature of messages, the same in talks and in rooms.
type messageFeature struct {
	name string
	run  func(context.Context, *Session, place) (Outcome, error)
	// only says in which places it is tested; nil means in both.
	only func(place) bool
	// among says in which sessions; nil means in all.
	among func(*Session) bool
}

var messages = []messageFeature{
	{name: "text", run: text},
	{name: "text in several languages", run: languages},
	{name: "image", run: file("image/png")},
	{name: "audio", run: file("audio/ogg")},
	{name: "video", run: file("video/webm")},
	{name: "file", run: file("application/pdf")},
	{name: "delivery confirmation", run: delivered, only: func(p place) bool { return !p.inRoom }, among: hearsOfDelivery},
	{name: "display confirmation", run: displayed},
	{name: "edit", run: edit},
	{name: "reaction", run: reaction},
	{name: "retraction", run: retraction},
	{name: "reply", run: reply},
	{name: "typing", run: typing},
	{name: "history", run: history},
}

func inTalk(list []messageFeature) []*Feature {
	return placed(list, "talk: ", aContact, func(s *Session) place { return place{s, false} })
}

func inRoom(list []messageFeature) []*Feature { return inPlace(list, "room: ", aRoom) }

func inPlace(list []messageFeature, prefix string, needs need) []*Feature {
	return placed(list, prefix, needs, func(s *Session) place { return place{s, true} })
}

// abroad are features in a room of another server than Parley, with one of the two on each.
func abroad(list []*Feature) []*Feature {
	for _, f := range list {
		f.only = oneAbroad
	}
	return list
}

func placed(list []messageFeature, prefix string, needs need, at func(*Session) place) []*Feature {
	var features []*Feature
	for _, m := range list {
		if m.only != nil && !m.only(at(nil)) {
			continue
		}
		features = append(features, &Feature{
			Name: prefix + m.name, needs: needs, only: m.among,
			run: func(ctx context.Context, s *Session) (Outcome, error) { return m.run(ctx, s, at(s)) },
		})
	}
	return features
}

func actorHosts(s *Session) bool {
	return s.World.Parley == nil || s.SeatA.Site == s.World.Parley
}

// keepsMembers says whether one who goes away from her client remains in the room for the
// other all the same, so that leaving is something else.
func keepsMembers(s *Session) bool {
	return s.SeatA.Site == s.SeatB.Site || s.overMatrix()
}

// overMatrix says whether the two are on different servers that talk in Matrix.
func (s *Session) overMatrix() bool {
	a, b := s.SeatA.Site, s.SeatB.Site
	return a != b && between(a.Domain(), b.Domain()) == Matrix
}

// besideXMPP says whether the two are on Parley and another Matrix server, and there is an
// XMPP server as well.
func besideXMPP(s *Session) bool {
	return oneAbroad(s) && s.overMatrix() && s.World.Prosody != nil
}

func both(a, b func(*Session) bool) func(*Session) bool {
	return func(s *Session) bool { return a(s) && b(s) }
}

// hearsOfDelivery says whether A's network has a word for it, or its server one instead.
func hearsOfDelivery(s *Session) bool {
	_, onParley := s.SeatA.Site.Server.(*lab.Parley)
	return onParley || s.SeatA.Driver.Network != Matrix
}

func actorMatrix(s *Session) bool { return s.SeatA.Driver.Network == Matrix }

// oneAbroad says whether one of the two is on Parley and the other is not.
func oneAbroad(s *Session) bool {
	p := s.World.Parley
	return p != nil && (s.SeatA.Site == p) != (s.SeatB.Site == p)
}

func actorAbroad(s *Session) bool { return oneAbroad(s) && s.SeatA.Site != s.World.Parley }

func bothMatrix(s *Session) bool {
	return s.SeatA.Driver.Network == Matrix && s.SeatB.Driver.Network == Matrix
}

// Select returns the features whose names match, and those that they need done first.
func Select(match func(name string) bool) []*Feature {
	wanted := make(map[need]bool)
	for _, f := range Features {
		if f.needs != nothing && match(f.Name) {
			wanted[f.needs] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(Features), func(f *Feature) bool {
		return !match(f.Name) && !wanted[f.gives]
	})
}
