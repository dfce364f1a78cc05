package incoming

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

const (
	typePolicy = "m.room.policy"
	// policyKey is what the key of a policy server is always called.
	policyKey = "ed25519:policy_server"
	// policyTime is for one question to it.
	policyTime      = 10 * time.Second
	maxPolicyAnswer = 64 << 10
)

// policy is the policy server of a room.
type policy struct {
	via string
	key ed25519.PublicKey
}

// policyOf finds a room's policy server: nil if the room has none.
//
// spec: MX 1.19 SS §27.1
func (n *Incoming) policyOf(ctx context.Context, p *place) (*policy, error) {
	var pol *policy
	err := n.cfg.Hub.Read(ctx, func(v hub.View) error {
		e, err := n.cfg.Mirror.StateEvent(v, p.conv, typePolicy, "")
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		if err == nil {
			pol = readPolicy(e.Content)
		}
		return err
	})
	if err != nil || pol == nil {
		return nil, err
	}
	in := false
	err = n.cfg.Shared.Turn(ctx, func(t *shared.Turn) (err error) {
		in, err = t.Has(p.conv, pol.via)
		return err
	})
	if !in {
		pol = nil
	}
	return pol, err
}

func readPolicy(content []byte) *policy {
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
	return &policy{c.Via, key}
}

// covers says whether a policy server is asked about an event.
//
// spec: MX 1.19 SS §27.2
func (p *policy) covers(pdu *wire.PDU) bool {
	return pdu.Type != typePolicy || pdu.StateKey == nil || *pdu.StateKey != ""
}

// recommend asks the room's policy server, if it has one, about events that it
// has not signed, and notes which of them it does not recommend. One that does
// not answer recommends nothing.
//
// spec: MX 1.19 SS §27.2
func (n *Incoming) recommend(ctx context.Context, p *place, items []*item) {
	if len(items) == 0 || !p.shared {
		return
	}
	pol, err := n.policyOf(ctx, p)
	if err != nil || pol == nil {
		return
	}
	slots := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for _, it := range items {
		if it.unchecked || !pol.covers(it.pdu) || it.pdu.Verify(pol.via, policyKey, pol.key) == nil {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			signed, err := n.sign(ctx, pol, it.pdu)
			if err == nil {
				it.pdu = signed
				return
			}
			it.unwanted = true
			n.count("unwanted")
			n.cfg.Log.Debug("a policy server does not recommend an event", "server", pol.via, "event", it.pdu.EventID, "err", err)
		})
	}
	wg.Wait()
}

// sign asks a policy server to sign an event, and returns the event with its
// signature.
//
// spec: MX 1.19 SS §27.3
func (n *Incoming) sign(ctx context.Context, pol *policy, pdu *wire.PDU) (*wire.PDU, error) {
	raw, err := n.cfg.Client.Do(ctx, federation.Call{
		Origin: n.cfg.Domains[0], Destination: pol.via, Method: http.MethodPost, URI: "/_matrix/policy/v1/sign",
		Body: pdu.JSON, MaxAnswer: maxPolicyAnswer, Timeout: policyTime,
	})
	if err != nil {
		return nil, err
	}
	var answer map[string]map[string]string
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	signed, err := withSignature(pdu, pol.via, policyKey, answer[pol.via][policyKey])
	if err != nil {
		return nil, err
	}
	return signed, signed.Verify(pol.via, policyKey, pol.key)
}

// withSignature adds a signature to an event.
func withSignature(pdu *wire.PDU, server, keyID, signature string) (*wire.PDU, error) {
	o, err := wire.ParseObject(pdu.JSON)
	if err != nil {
		return nil, err
	}
	object := func(raw []byte) (wire.Object, error) {
		if raw == nil {
			raw = []byte(`{}`)
		}
		return wire.ParseObject(raw)
	}
	all, err := object(o.Get("signatures"))
	if err != nil {
		return nil, err
	}
	its, err := object(all.Get(server))
	if err != nil {
		return nil, err
	}
	all = all.With(server, its.With(keyID, wire.Quote(signature)).JSON())
	return wire.Restore(pdu.Version, pdu.EventID, o.With("signatures", all.JSON()).JSON())
}
