package graph

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"

	"parley/matrix/wire"
)

// member is rule 4 (5 in version 12): one rule for each membership.
//
// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v8
// spec: MX 1.19 RV v12
func (j *judge) member() error {
	e := j.e
	if e.StateKey == nil || !e.hasMembership {
		return deny("a member event without state key or membership")
	}
	if e.hasVia && e.Version.Restricted && !e.ViaSigned {
		return deny("the server of %.80q, who is said to have let %s in, has not signed", e.via, *e.StateKey)
	}
	switch e.membership {
	case "join":
		return j.join()
	case "invite":
		return j.invite()
	case "leave":
		return j.leave()
	case "ban":
		return j.ban()
	case "knock":
		if e.Version.Knock {
			return j.knock()
		}
	}
	return deny("there is no membership %.40q", e.membership)
}

// joinRule is the room's; without one it is by invitation.
func (j *judge) joinRule() string {
	if r := j.s.Get(wire.TypeJoinRules, ""); r != nil {
		return r.joinRule
	}
	return "invite"
}

// spec: MX 1.19 RV v6
// spec: MX 1.19 RV v7
// spec: MX 1.19 RV v10
func (j *judge) join() error {
	e, v := j.e, j.e.Version
	if len(e.Prev) == 1 && e.Prev[0] == j.create.ID && *e.StateKey == j.create.creation.creator {
		return nil
	}
	if e.Sender != *e.StateKey {
		return deny("nobody can make another join")
	}
	was := j.membership(e.Sender)
	if was == "ban" {
		return deny("%s is banned", e.Sender)
	}
	asked := was == "invite" || was == "join"
	switch rule := j.joinRule(); {
	case rule == "public":
		return nil
	case rule == "invite", rule == "knock" && v.Knock:
		if asked {
			return nil
		}
	case rule == "restricted" && v.Restricted, rule == "knock_restricted" && v.KnockRestricted:
		if asked {
			return nil
		}
		return j.letIn()
	}
	return deny("%s has no invitation", e.Sender)
}

// letIn asks whether she who is said to have let the sender in could do so.
//
// spec: MX 1.19 RV v8
func (j *judge) letIn() error {
	via := j.e.via
	if via == "" || j.membership(via) != "join" || j.level(via) < j.levels.get("invite") {
		return deny("%.80q cannot let %s in", via, j.e.Sender)
	}
	return nil
}

// spec: MX 1.19 RV v12
func (j *judge) invite() error {
	e := j.e
	if e.hasThirdParty {
		return j.inviteThirdParty()
	}
	if j.membership(e.Sender) != "join" {
		return deny("%s is not in the room", e.Sender)
	}
	if was := j.membership(*e.StateKey); was == "join" || was == "ban" {
		return deny("%s cannot be invited: %s", *e.StateKey, was)
	}
	if have, need := j.level(e.Sender), j.levels.get("invite"); have < need {
		return deny("inviting needs level %d, %s has %d", need, e.Sender, have)
	}
	return nil
}

// spec: MX 1.19 RV v7
func (j *judge) leave() error {
	e := j.e
	was := j.membership(*e.StateKey)
	if e.Sender == *e.StateKey {
		if was == "invite" || was == "join" || was == "knock" && e.Version.Knock {
			return nil
		}
		return deny("%s has nothing to leave", e.Sender)
	}
	if j.membership(e.Sender) != "join" {
		return deny("%s is not in the room", e.Sender)
	}
	if have, need := j.level(e.Sender), j.levels.get("ban"); was == "ban" && have < need {
		return deny("to lift a ban needs level %d, %s has %d", need, e.Sender, have)
	}
	return j.above("kick")
}

// spec: MX 1.19 RV v12
func (j *judge) ban() error {
	if j.membership(j.e.Sender) != "join" {
		return deny("%s is not in the room", j.e.Sender)
	}
	return j.above("ban")
}

// spec: MX 1.19 RV v7
// spec: MX 1.19 RV v10
func (j *judge) knock() error {
	e := j.e
	if rule := j.joinRule(); rule != "knock" && (rule != "knock_restricted" || !e.Version.KnockRestricted) {
		return deny("nobody can knock by the join rule %.40q", rule)
	}
	if e.Sender != *e.StateKey {
		return deny("nobody can knock for another")
	}
	if was := j.membership(e.Sender); was == "ban" || was == "invite" || was == "join" {
		return deny("%s cannot knock: %s", e.Sender, was)
	}
	return nil
}

// above asks for the level that an act takes, and that its target is lower.
func (j *judge) above(act string) error {
	have, need := j.level(j.e.Sender), j.levels.get(act)
	if have < need {
		return deny("to %s needs level %d, %s has %d", act, need, j.e.Sender, have)
	}
	if target := j.level(*j.e.StateKey); target >= have {
		return deny("%s stands as high as %s", *j.e.StateKey, j.e.Sender)
	}
	return nil
}

// Bounds on the work that one invitation makes: so many keys of an invitation
// and so many signatures are tried. Identity servers give two keys and one
// signature; the specification has no bounds.
const (
	maxKeys       = 16
	maxSignatures = 16
)

// inviteThirdParty is for who was invited by another address than a user ID and
// is known by now.
//
// spec: MX 1.19 RV v12
func (j *judge) inviteThirdParty() error {
	e := j.e
	if j.membership(*e.StateKey) == "ban" {
		return deny("%s is banned", *e.StateKey)
	}
	raw := e.thirdParty.Get("signed")
	signed, err := wire.ParseObject(raw)
	if err != nil {
		return deny("third_party_invite has nothing signed")
	}
	mxid, ok := signed.String("mxid")
	token, ok2 := signed.String("token")
	if !ok || !ok2 {
		return deny("third_party_invite names no user or token")
	}
	if mxid != *e.StateKey {
		return deny("third_party_invite is for %.80q", mxid)
	}
	invitation := j.s.Get(wire.TypeThirdParty, token)
	if invitation == nil {
		return deny("there is no third-party invitation with the token")
	}
	if invitation.Sender != e.Sender {
		return deny("the third-party invitation is not by %s", e.Sender)
	}
	if !signedByOne(raw, signed, invitation.publicKeys) {
		return deny("third_party_invite is not signed by a key of the invitation")
	}
	return nil
}

// signedByOne says whether any signature matches any of the keys.
func signedByOne(raw []byte, signed wire.Object, keys []string) bool {
	servers, err := wire.ParseObject(signed.Get("signatures"))
	if err != nil {
		return false
	}
	tried := 0
	for _, server := range servers {
		sigs, err := wire.ParseObject(server.Value)
		if err != nil {
			continue
		}
		for _, sig := range sigs {
			if !strings.HasPrefix(sig.Key, "ed25519:") {
				continue
			}
			if tried++; tried > maxSignatures {
				return false
			}
			for _, k := range keys {
				public, err := decodeKey(k)
				if err == nil && wire.VerifyJSON(server.Key, sig.Key, public, raw) == nil {
					return true
				}
			}
		}
	}
	return false
}

// decodeKey reads a public key in base64, of which old identity servers write
// the URL-safe form.
func decodeKey(s string) (ed25519.PublicKey, error) {
	s = strings.TrimRight(s, "=")
	if strings.ContainsAny(s, "-_") {
		return base64.RawURLEncoding.DecodeString(s)
	}
	return base64.RawStdEncoding.DecodeString(s)
}
