package incoming

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

const (
	// policyTime is for one question to a policy server, recommendTime for those
	// about what came at once.
	policyTime      = 10 * time.Second
	recommendTime   = 30 * time.Second
	maxPolicyAnswer = 64 << 10
)

// policyOf finds a room's policy server: nil if the room has none.
//
// spec: MX 1.19 SS §27.1
func (n *Incoming) policyOf(ctx context.Context, p *place) (pol *shared.PolicyServer, err error) {
	named := false
	err = n.cfg.Hub.Read(ctx, func(v hub.View) error {
		_, err := n.cfg.Mirror.StateEvent(v, p.conv, "m.room.policy", "")
		named = err == nil
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		return err
	})
	if err != nil || !named {
		return nil, err
	}
	err = n.cfg.Shared.Turn(ctx, func(t *shared.Turn) (err error) {
		pol, err = t.Policy(p.conv)
		return err
	})
	return pol, err
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
	timed, cancel := context.WithTimeout(ctx, recommendTime)
	defer cancel()
	slots := make(chan struct{}, maxAtOnce)
	var wg sync.WaitGroup
	for _, it := range items {
		if it.unchecked || !pol.Covers(it.pdu) || pol.Signed(it.pdu) {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			signed, err := n.sign(timed, pol, it.pdu)
			if err == nil {
				it.pdu = signed
				return
			}
			it.unwanted = true
			n.count("unwanted")
			n.cfg.Log.Debug("a policy server does not recommend an event", "server", pol.Via, "event", it.pdu.EventID, "err", err)
		})
	}
	wg.Wait()
}

// Sign implements [shared.PolicyAsker]. What the policy server says against an
// event is for its sender to read.
//
// spec: MX 1.19 SS §27.2
func (n *Incoming) Sign(ctx context.Context, pol *shared.PolicyServer, pdu *wire.PDU) (*wire.PDU, error) {
	signed, err := n.sign(ctx, pol, pdu)
	if err == nil {
		return signed, nil
	}
	n.cfg.Log.Info("a policy server does not recommend what is said here", "server", pol.Via, "err", err)
	if e, ok := errors.AsType[*federation.Error](err); ok && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests {
		return nil, hub.Refuse(hub.Forbidden, "%.500s", e.Text)
	}
	return nil, hub.Refuse(hub.Unreachable, "the policy server of the room, %s, does not answer", pol.Via)
}

// sign asks a policy server to sign an event, and returns the event with its
// signature.
//
// spec: MX 1.19 SS §27.3
func (n *Incoming) sign(ctx context.Context, pol *shared.PolicyServer, pdu *wire.PDU) (*wire.PDU, error) {
	raw, err := n.cfg.Client.Do(ctx, federation.Call{
		Origin: n.originOf(pdu), Destination: pol.Via, Method: http.MethodPost, URI: "/_matrix/policy/v1/sign",
		Body: pdu.JSON, MaxAnswer: maxPolicyAnswer, Timeout: policyTime,
		Insist: true, // for what it does not answer to is refused
	})
	if err != nil {
		return nil, err
	}
	var answer map[string]map[string]string
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, err
	}
	signed, err := withSignature(pdu, pol.Via, shared.PolicyKey, answer[pol.Via][shared.PolicyKey])
	if err != nil {
		return nil, err
	}
	return signed, signed.Verify(pol.Via, shared.PolicyKey, pol.Key)
}

// originOf is the domain of ours in whose name one asks about an event.
func (n *Incoming) originOf(pdu *wire.PDU) string {
	if d := server(pdu.Sender); slices.Contains(n.cfg.Domains, d) {
		return d
	}
	return n.cfg.Domains[0]
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
