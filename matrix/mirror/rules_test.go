package mirror_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
	"pgregory.net/rapid"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/mirror"
	"parley/matrix/wire"
)

// What the hub admits a Matrix server would too: random commands, sensible and
// not, go to a hub; the log of what it admitted is then replayed through a
// library's event authorisation, event by event, with the auth events that
// each of our PDUs cites and with the whole state before it.
//
// spec: MX 1.19 RV v12
// spec: MX 1.19 RV v11
func TestHubRulesAreMatrixRules(t *testing.T) {
	for _, version := range []string{"12", "11"} {
		t.Run("version "+version, func(t *testing.T) {
			w := newWorld(t, version)
			cast := []core.Address{
				hubtest.Account(t, w.h, "alice"), hubtest.Account(t, w.h, "bob"), hubtest.Account(t, w.h, "carol"),
				{Network: core.XMPP, Name: "Dave", Domain: "a.net"}, {Network: core.XMPP, Name: "erin", Domain: "a.net"},
			}
			var admitted, refused, rooms int
			rapid.Check(t, func(t *rapid.T) {
				rooms++
				p := &play{world: w, t: t, cast: cast, version: version, room: rooms}
				p.begin()
				for range rapid.IntRange(5, 40).Draw(t, "steps") {
					p.step()
				}
				p.replay()
				admitted, refused = admitted+p.admitted, refused+p.refused
			})
			t.Logf("%d rooms, %d commands admitted, %d refused", rooms, admitted, refused)
			if admitted < 100 || refused < 100 {
				t.Errorf("the commands are not a fair sample: %d admitted, %d refused", admitted, refused)
			}
		})
	}
}

// play is one room's log in the making.
type play struct {
	*world
	t                 *rapid.T
	cast              []core.Address
	version           string
	room              int
	conv              core.Conversation
	events            []core.EventID // that can be reacted to and retracted
	admitted, refused int
}

func (p *play) who() core.Address { return rapid.SampledFrom(p.cast).Draw(p.t, "who") }

func (p *play) level() int64 {
	return rapid.SampledFrom([]int64{-5, 0, 1, 25, 50, 51, 75, 99, 100, 101}).Draw(p.t, "level")
}

func (p *play) begin() {
	o := hub.Opening{
		Creator: p.cast[0], Shape: core.Group, Version: p.version,
		Address: core.LocalAddress(fmt.Sprintf("r%s-%d", p.version, p.room), hubtest.Domain),
		Public:  rapid.Bool().Draw(p.t, "public"),
	}
	if rapid.Bool().Draw(p.t, "creators") {
		o.Creators = []core.Address{p.cast[1]}
	}
	if rapid.Bool().Draw(p.t, "early levels") {
		l := p.levels(core.DefaultLevels())
		o.Initial = append(o.Initial, hub.Draft{Content: core.Change{Aspect: core.AspectLevels, Levels: &l}})
	}
	var err error
	if p.conv, err = p.h.Open(p.ctx, o); err != nil { // levels that shut the creator out
		o.Initial = nil
		if p.conv, err = p.h.Open(p.ctx, o); err != nil {
			p.t.Fatal(err)
		}
	}
}

// levels changes l here and there.
func (p *play) levels(l core.Levels) core.Levels {
	l = l.Clone()
	actions := []string{"message", "name", "topic", "levels", "reaction", "retract", "join-rule", "org.example.x", "org.example.s"}
	for range rapid.IntRange(1, 3).Draw(p.t, "changes") {
		fields := []*int64{&l.Ban, &l.Kick, &l.Invite, &l.Redact, &l.Message, &l.State, &l.Default, &l.Notify}
		switch rapid.IntRange(0, 4).Draw(p.t, "change") {
		case 0:
			*rapid.SampledFrom(fields).Draw(p.t, "field") = p.level()
		case 1:
			l.Actions[rapid.SampledFrom(actions).Draw(p.t, "action")] = p.level()
		case 2:
			delete(l.Actions, rapid.SampledFrom(actions).Draw(p.t, "action"))
		case 3:
			l.Users[p.who()] = p.level()
		case 4:
			delete(l.Users, p.who())
		}
	}
	return l
}

// step is one command. Half of those about members are what a person could
// sensibly want, or else rooms would stay empty.
func (p *play) step() {
	who := p.who()
	if rapid.IntRange(0, 3).Draw(p.t, "sort") == 0 {
		_, err := p.h.Join(p.ctx, hub.JoinRequest{Conv: p.conv.ID, Who: who})
		p.note(core.Event{}, err)
		return
	}
	e, err := p.h.Submit(p.ctx, hub.Draft{Conv: p.conv.ID, Sender: who, Content: p.content(who)})
	p.note(e, err)
}

func (p *play) note(e core.Event, err error) {
	switch {
	case err == nil:
		p.admitted++
		if e.ID != "" {
			p.events = append(p.events, e.ID)
		}
	case hub.CodeOf(err) != "":
		p.refused++
	default:
		p.t.Fatalf("an error of the server's own: %v", err)
	}
}

func (p *play) content(who core.Address) core.Content {
	var s *core.State
	if err := p.h.Read(p.ctx, func(v hub.View) (err error) {
		s, err = v.State(p.conv.ID)
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	sample := func(list []string) string { return rapid.SampledFrom(list).Draw(p.t, "of") }
	switch rapid.IntRange(0, 9).Draw(p.t, "content") {
	case 0, 1, 2:
		standing := rapid.SampledFrom([]core.Standing{core.Joined, core.Invited, core.Invited, core.Knocked, core.Left, core.Banned, "odd"}).Draw(p.t, "standing")
		m := core.Membership{Target: p.who(), Standing: standing}
		if rapid.IntRange(0, 3).Draw(p.t, "via") == 0 {
			m.Via = p.who()
		}
		if standing == core.Joined || standing == core.Knocked {
			m.Target = who
		}
		return m
	case 3:
		l := p.levels(s.Levels)
		return core.Change{Aspect: core.AspectLevels, Levels: &l}
	case 4:
		rule := rapid.SampledFrom([]core.JoinRule{core.JoinPublic, core.JoinInvite, core.JoinKnock, core.JoinRestricted, core.JoinKnockRestricted}).Draw(p.t, "rule")
		return core.Change{Aspect: core.AspectJoinRule, JoinRule: rule, Allow: []string{"!other:example.org"}}
	case 5:
		return core.Change{Aspect: core.Aspect(sample([]string{"name", "topic"})), Text: "x"}
	case 6:
		key := sample([]string{"", "k", "@alice:" + hubtest.Domain, "@bob:" + hubtest.Domain})
		return core.Extension{Type: "org.example.s", StateKey: &key, Data: []byte(`{}`)}
	case 7:
		if len(p.events) > 0 {
			target := rapid.SampledFrom(p.events).Draw(p.t, "target")
			if rapid.Bool().Draw(p.t, "retract") {
				return core.Retract{Target: target}
			}
			return core.Reaction{Target: target, Key: "👍"}
		}
	case 8:
		return core.Extension{Type: "org.example.x", Data: []byte(`{"a":1}`)}
	}
	return core.Message{Body: core.TextBody("hello")}
}

func senderID(_ spec.RoomID, id spec.SenderID) (*spec.UserID, error) {
	return spec.NewUserID(string(id), true)
}

// replay authorises the log as another server would that learns of it.
func (p *play) replay() {
	lib := gmsl.MustGetRoomVersion(gmsl.RoomVersion(p.version))
	state := map[wire.StateKey]gmsl.PDU{}
	byID := map[string]gmsl.PDU{}
	for _, e := range p.log() {
		// The event as it was sent: redaction does not change what authorises.
		pdu, err := lib.NewEventFromTrustedJSON(e.JSON, e.RedactedBy != "")
		if err != nil {
			p.t.Fatalf("%v: %s", err, e.JSON)
		}
		if pdu.EventID() != e.EventID {
			p.t.Fatalf("event ID %s, ours %s: %s", pdu.EventID(), e.EventID, e.JSON)
		}
		var cited []gmsl.PDU
		for _, id := range pdu.AuthEventIDs() {
			if byID[id] == nil {
				p.t.Fatalf("cites %s, which is not known: %s", id, e.JSON)
			}
			cited = append(cited, byID[id])
		}
		all := []gmsl.PDU{}
		for _, s := range state {
			all = append(all, s)
		}
		for name, list := range map[string][]gmsl.PDU{"cited": cited, "all": all} {
			event, list := p.spellOut(lib, pdu, list)
			provider, err := gmsl.NewAuthEvents(list)
			if err != nil {
				p.t.Fatal(err)
			}
			if err := gmsl.Allowed(event, provider, senderID); err != nil {
				p.t.Fatalf("the hub admitted what Matrix does not, by the %s state: %v\n%s\n%s", name, err, e.JSON, p.dump(list))
			}
		}
		p.citesOnlyItsOwn(e, state)
		byID[e.EventID] = pdu
		if e.StateKey != nil {
			state[wire.StateKey{Type: e.Type, Key: *e.StateKey}] = pdu
		}
	}
	p.sameState(state)
}

// nowhere is a level below all others.
const nowhere = -1000

// spellOut changes an event and what authorises it so that the library reads
// them as the specification does. In three things it does not. Who knocked may
// not join a room that has become public since; so her knock is taken away. A
// level that is added or removed is a change from or to the default; so it is
// written out, as one that nobody minds. And creators in version 12 do not
// stand above the levels of notifications; so those that a creator sets are
// left as they were.
//
// spec: MX 1.19 RV v12
func (p *play) spellOut(lib gmsl.IRoomVersion, pdu gmsl.PDU, auth []gmsl.PDU) (gmsl.PDU, []gmsl.PDU) {
	if m, err := pdu.Membership(); err == nil && m == spec.Join {
		auth = slices.DeleteFunc(slices.Clone(auth), func(e gmsl.PDU) bool {
			was, err := e.Membership()
			return err == nil && was == spec.Knock && e.StateKeyEquals(*pdu.StateKey())
		})
	}
	i := slices.IndexFunc(auth, func(e gmsl.PDU) bool { return e.Type() == wire.TypePowerLevels })
	if pdu.Type() != wire.TypePowerLevels || i < 0 {
		return pdu, auth
	}
	before, after := p.decode(auth[i].JSON()), p.decode(pdu.JSON())
	old, next := before["content"].(map[string]any), after["content"].(map[string]any)
	for _, key := range []string{"users", "events"} {
		a, _ := old[key].(map[string]any)
		b, _ := next[key].(map[string]any)
		for k := range b {
			if _, had := a[k]; !had && k != string(pdu.SenderID()) {
				a[k] = nowhere
			}
		}
		for k := range a {
			if _, has := b[k]; !has {
				b[k] = nowhere
			}
		}
	}
	create := auth[slices.IndexFunc(auth, func(e gmsl.PDU) bool { return e.Type() == wire.TypeCreate })]
	if p.version == "12" && slices.Contains(gmsl.CreatorsFromCreateEvent(create), string(pdu.SenderID())) {
		next["notifications"] = old["notifications"]
	}
	auth = slices.Clone(auth)
	auth[i] = p.encode(lib, before)
	return p.encode(lib, after), auth
}

func (p *play) decode(raw []byte) map[string]any {
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *play) encode(lib gmsl.IRoomVersion, m map[string]any) gmsl.PDU {
	raw, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	e, err := lib.NewEventFromTrustedJSON(raw, false)
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// citesOnlyItsOwn holds auth_events to the selection, and to what was in force.
//
// spec: MX 1.19 SS §5.1.2
func (p *play) citesOnlyItsOwn(e mirror.Event, state map[wire.StateKey]gmsl.PDU) {
	var want []string
	for _, k := range wire.AuthTypes(e.Version, e.Type, e.StateKey, e.Sender, e.Content) {
		if s := state[k]; s != nil {
			want = append(want, s.EventID())
		}
	}
	got := slices.Clone(e.AuthEvents)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		p.t.Fatalf("cites %v, not %v: %s", got, want, e.JSON)
	}
}

// sameState compares the folded state with what the mirror says it is.
func (p *play) sameState(state map[wire.StateKey]gmsl.PDU) {
	if err := p.h.Read(p.ctx, func(v hub.View) error {
		now, err := p.m.State(v, p.conv.ID)
		if err != nil {
			return err
		}
		if len(now) != len(state) {
			return fmt.Errorf("%d pieces of state, not %d", len(now), len(state))
		}
		for _, e := range now {
			if s := state[wire.StateKey{Type: e.Type, Key: *e.StateKey}]; s == nil || s.EventID() != e.EventID {
				return fmt.Errorf("%s of %s is in force", e.EventID, e.Type)
			}
		}
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *play) log() []mirror.Event {
	var out []mirror.Event
	err := p.h.Read(p.ctx, func(v hub.View) error {
		page, err := v.Page(hub.Query{Conv: p.conv.ID, Limit: 1000})
		if err != nil {
			return err
		}
		var ids []core.EventID
		for _, e := range page {
			ids = append(ids, e.ID)
		}
		if out, err = p.m.ByCore(v, ids...); err == nil && len(out) != len(page) {
			err = errors.New("events without a Matrix form")
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *play) dump(list []gmsl.PDU) string {
	var b strings.Builder
	for _, e := range list {
		b.Write(e.JSON())
		b.WriteByte('\n')
	}
	return b.String()
}
