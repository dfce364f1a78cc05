package graph

import (
	"slices"
	"testing"

	"parley/matrix/wire"
)

const bobModerates = `"@bob:b.example":50`

// Carol leaves and comes back on one side while bob bans her on the other. The
// ban is a power event, and so comes first; her join then meets it.
func TestBanAgainstJoin(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		base := w.room(bobModerates)
		left := w.member(carol, carol, "leave", base)
		join := w.member(carol, carol, "join", left)
		ban := w.member(bob, carol, "ban", left)
		for _, s := range []State{w.meet(join, ban), w.meet(ban, join)} {
			if got := membership(s, carol); got != "ban" {
				t.Errorf("carol: %s", got)
			}
		}
	})
}

// Bob kicks carol while she sets a topic that she may set: the kick is applied
// first, so the topic's sender is not in the room. A message of hers is no
// state: it is soft-failed by who has seen the kick.
func TestKickAgainstMessage(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		base := w.room(bobModerates)
		base = w.ok(alice, wire.TypePowerLevels, "", `{"events":{"m.room.topic":0},"users":`+w.levels(bobModerates)[len(`{"users":`):], base)
		kick := w.member(bob, carol, "leave", base)
		topic := w.ok(carol, "m.room.topic", "", `{"topic":"x"}`, base)
		say := w.make(carol, "m.room.message", nil, `{"body":"x"}`, base)
		if s := w.meet(kick, topic); membership(s, carol) != "leave" || s.Get("m.room.topic", "") != nil {
			t.Error("the topic of one who was kicked stands")
		}
		v, _ := Check(say, w.after[base.ID], w.after[kick.ID])
		if v != SoftFailed {
			t.Errorf("her message is %v", v)
		}
		if got := Extremities([]string{kick.ID}, say, v, false, func(string) []string { return nil }); !slices.Equal(got, []string{kick.ID}) {
			t.Errorf("extremities %v", got)
		}
	})
}

// Alice takes bob's level while bob raises carol: alice stands higher and goes
// first, and bob may then change no levels.
func TestLevelsAgainstEachOther(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		base := w.room(bobModerates)
		base = w.ok(alice, wire.TypePowerLevels, "", `{"state_default":50,"events":{"m.room.power_levels":50},"users":`+w.levels(bobModerates)[len(`{"users":`):], base)
		raise := w.ok(bob, wire.TypePowerLevels, "", `{"state_default":50,"events":{"m.room.power_levels":50},"users":`+w.levels(bobModerates + `,"@carol:c.example":50`)[len(`{"users":`):], base)
		take := w.ok(alice, wire.TypePowerLevels, "", `{"state_default":50,"events":{"m.room.power_levels":50},"users":`+w.levels(`"@bob:b.example":0`)[len(`{"users":`):], base)
		if s := w.meet(raise, take); s.Get(wire.TypePowerLevels, "") != take {
			t.Error("bob's levels stand")
		}
	})
}

// Bob is cut off, bans mal and returns: his ban was by right and stands. Had he
// been demoted meanwhile, it would not.
func TestModeratorReturns(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		base := w.room(bobModerates)
		base = w.member(mal, mal, "join", base)
		ban := w.member(bob, mal, "ban", base)
		e := base
		for range 5 {
			e = w.ok(alice, "m.room.topic", "", `{"topic":"x"}`, e)
		}
		if got := membership(w.meet(ban, e), mal); got != "ban" {
			t.Errorf("mal: %s", got)
		}
		e = w.ok(alice, wire.TypePowerLevels, "", w.levels(`"@bob:b.example":0`), e)
		if got := membership(w.meet(ban, e), mal); got != "join" {
			t.Errorf("mal, after bob's demotion: %s", got)
		}
	})
}

// The room is closed on one side while mal joins on the other: the join rule
// is a power event and comes first.
func TestJoinRuleAgainstJoin(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		base := w.room(bobModerates)
		shut := w.ok(alice, wire.TypeJoinRules, "", `{"join_rule":"invite"}`, base)
		join := w.member(mal, mal, "join", base)
		if got := membership(w.meet(shut, join), mal); got != "" {
			t.Errorf("mal: %s", got)
		}
	})
}

// Bob's topic, from before his demotion, is soft-failed by who has seen the
// demotion. When alice gives his level back and somebody cites the topic, it
// counts: both levels are power events and come first, and by them he may.
func TestSoftFailedBecomesCurrent(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		base := w.room(bobModerates)
		own := w.ok(bob, "m.room.topic", "", `{"topic":"early"}`, base)
		demoted := w.ok(alice, wire.TypePowerLevels, "", w.levels(`"@bob:b.example":0`), base)
		v, _ := Check(own, w.after[base.ID], w.after[demoted.ID])
		if v != SoftFailed {
			t.Fatalf("bob's topic is %v", v)
		}
		again := w.ok(alice, wire.TypePowerLevels, "", w.levels(bobModerates), demoted)
		s := w.meet(again, own)
		if s.Get("m.room.topic", "") != own {
			t.Error("the topic that was soft-failed is not current")
		}
	})
}

// In version 12 creators stand above all, whatever the levels say, and none of
// them can be given a level.
func TestCreators(t *testing.T) {
	w := newWorld(t, "12")
	e := w.ok(alice, wire.TypeCreate, "", `{"room_version":"12","additional_creators":["@bob:b.example"]}`)
	e = w.member(alice, alice, "join", e)
	e = w.ok(alice, wire.TypeJoinRules, "", `{"join_rule":"public"}`, e)
	e = w.member(bob, bob, "join", e)
	e = w.ok(bob, wire.TypePowerLevels, "", `{"ban":9007199254740991,"users":{"@carol:c.example":9007199254740991}}`, e)
	e = w.member(carol, carol, "join", e)
	if x := w.make(carol, wire.TypeMember, ptr(bob), `{"membership":"ban"}`, e); !x.Rejected {
		t.Error("a creator is banned")
	}
	if x := w.make(alice, wire.TypePowerLevels, ptr(""), `{"users":{"@bob:b.example":100}}`, e); !x.Rejected {
		t.Error("a creator gets a level")
	}
	w.member(bob, carol, "ban", e)
	bad := newWorld(t, "12")
	if x := bad.make(alice, wire.TypeCreate, ptr(""), `{"additional_creators":["bob"]}`); !x.Rejected {
		t.Error("a creator without a user ID")
	}
}

// A restricted room lets in whom a member that may invite vouches for.
func TestRestrictedJoin(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		e := w.room(bobModerates)
		e = w.ok(alice, wire.TypeJoinRules, "", `{"join_rule":"restricted","allow":[]}`, e)
		join := func(via string) bool {
			return !w.make(mal, wire.TypeMember, ptr(mal), `{"membership":"join","join_authorised_via_users_server":"`+via+`"}`, e).Rejected
		}
		if got := join(bob); got != w.v.Restricted {
			t.Errorf("vouched for by bob: %v", got)
		}
		if join("@nobody:b.example") {
			t.Error("vouched for by a stranger")
		}
		if x := w.make(mal, wire.TypeMember, ptr(mal), `{"membership":"join"}`, e); !x.Rejected {
			t.Error("vouched for by nobody")
		}
		x := w.make(mal, wire.TypeMember, ptr(mal), `{"membership":"join","join_authorised_via_users_server":"`+bob+`"}`, e)
		x.ViaSigned = false
		if v, _ := Check(x, w.after[e.ID], w.after[e.ID]); v != Rejected {
			t.Error("without the signature of bob's server")
		}
	})
}

// Invitations by third parties that lack what proves them.
func TestThirdPartyInviteRefused(t *testing.T) {
	versions(t, func(t *testing.T, w *world) {
		e := w.room(bobModerates)
		e = w.ok(alice, wire.TypeThirdParty, "tok", `{"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, e)
		for _, tp := range []string{
			`1`, `{}`, `{"signed":{}}`, `{"signed":{"mxid":"@mal:m.example","token":"other"}}`,
			`{"signed":{"mxid":"@eve:m.example","token":"tok"}}`,
			`{"signed":{"mxid":"@mal:m.example","token":"tok","signatures":{"id.example":{"ed25519:0":"AAAA"}}}}`,
		} {
			if x := w.make(alice, wire.TypeMember, ptr(mal), `{"membership":"invite","third_party_invite":`+tp+`}`, e); !x.Rejected {
				t.Errorf("allowed: %s", tp)
			}
		}
	})
}

func ptr(s string) *string { return &s }
