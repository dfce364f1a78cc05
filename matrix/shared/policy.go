package shared

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

// PolicyKey is what the key of a policy server is always called.
const PolicyKey = "ed25519:policy_server"

const typePolicy = "m.room.policy"

// PolicyServer is who recommends what is said in a room.
type PolicyServer struct {
	Via string
	Key ed25519.PublicKey
}

// ReadPolicy reads an m.room.policy; nil if it names no policy server.
//
// spec: MX 1.19 SS §27.1
func ReadPolicy(content []byte) *PolicyServer {
	var c struct {
		Via  string            `json:"via"`
		Keys map[string]string `json:"public_keys"`
	}
	if json.Unmarshal(content, &c) != nil || wire.ParseServerName(c.Via) != nil {
		return nil
	}
	key, err := base64.RawStdEncoding.DecodeString(c.Keys["ed25519"])
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil
	}
	return &PolicyServer{c.Via, key}
}

// Covers says whether a policy server is asked about an event.
//
// spec: MX 1.19 SS §27.2
func (p *PolicyServer) Covers(pdu *wire.PDU) bool {
	return pdu.Type != typePolicy || pdu.StateKey == nil || *pdu.StateKey != ""
}

// Signed says whether an event has the policy server's signature.
func (p *PolicyServer) Signed(pdu *wire.PDU) bool { return pdu.Verify(p.Via, PolicyKey, p.Key) == nil }

// PolicyAsker asks policy servers. Package incoming does.
type PolicyAsker interface {
	// Sign has one sign an event of ours, which has our signatures, and returns it
	// with its signature. An error that is a [hub.Refusal] is for who wants to say
	// it.
	Sign(ctx context.Context, p *PolicyServer, pdu *wire.PDU) (*wire.PDU, error)
}

// UsePolicy sets who asks policy servers; without one nobody does. It is called
// before the hub starts.
func (r *Rooms) UsePolicy(a PolicyAsker) { r.approvals.asker = a }

// Policy is the policy server of a room; nil if it has none.
//
// spec: MX 1.19 SS §27.1
func (t *Turn) Policy(conv core.ConvID) (*PolicyServer, error) {
	rm, err := t.room(conv)
	if err != nil {
		return nil, err
	}
	return t.policy(rm)
}

func (t *Turn) policy(rm *room) (*PolicyServer, error) {
	e := rm.current.Get(typePolicy, "")
	if e == nil {
		return nil, nil
	}
	got, err := read(t.sql, rm.version, []string{e.ID})
	if err != nil {
		return nil, err
	}
	k, ok := got[e.ID]
	if !ok {
		return nil, nil
	}
	p := ReadPolicy(k.pdu.Content)
	if p == nil || rm.joined[p.Via] == 0 || slices.Contains(t.r.cfg.Domains, p.Via) {
		return nil, nil
	}
	return p, nil
}

// approvals are events of ours that policy servers have signed and that are yet
// to be kept.
type approvals struct {
	asker PolicyAsker

	mu sync.Mutex
	m  map[approvalKey]approval
}

// approvalKey is what somebody wants to say.
type approvalKey [sha256.Size]byte

type approval struct {
	pdu   *wire.PDU
	until time.Time
}

const (
	// approvedFor is how long what a policy server has signed can be kept: there
	// is not much between.
	approvedFor  = time.Minute
	maxApprovals = 10_000
)

func keyOf(p *wire.Proto) approvalKey {
	raw, err := json.Marshal([]any{p.RoomID, p.Type, p.StateKey, p.Sender, p.Content, p.Redacts})
	if err != nil {
		panic(err) // strings and bytes have JSON
	}
	return sha256.Sum256(raw)
}

func (a *approvals) put(p approval) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = map[approvalKey]approval{}
	}
	if len(a.m) >= maxApprovals {
		now := time.Now()
		for k, old := range a.m {
			if now.After(old.until) {
				delete(a.m, k)
			}
		}
	}
	if len(a.m) < maxApprovals {
		a.m[keyOf(&p.pdu.Proto)] = p
	}
}

// take takes what was signed of what somebody wants to say; it is put back if
// the turn is undone. nil if there is none.
func (a *approvals) take(tx hub.Tx, p *wire.Proto) *wire.PDU {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.m) == 0 {
		return nil
	}
	k := keyOf(p)
	found, ok := a.m[k]
	if delete(a.m, k); !ok || time.Now().After(found.until) {
		return nil
	}
	tx.OnRollback(func() { a.put(found) })
	return found.pdu
}

// consult has the room's policy server asked about an event of ours. It is built
// anew then as the server has signed it, if the same is to be said.
//
// spec: MX 1.19 SS §27.3
func (r *Rooms) consult(p *PolicyServer, pdu *wire.PDU) error {
	return &hub.Consult{Ask: func(ctx context.Context) error {
		raw, err := r.mirror.Signed(pdu)
		if err != nil {
			return err
		}
		ours, err := wire.Restore(pdu.Version, pdu.EventID, raw)
		if err != nil {
			return err
		}
		signed, err := r.approvals.asker.Sign(ctx, p, ours)
		if err != nil {
			return err
		}
		r.approvals.put(approval{signed, time.Now().Add(approvedFor)})
		return nil
	}}
}
