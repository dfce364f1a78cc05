package mirror

import (
	"fmt"
	"slices"
	"strings"

	"parley/matrix/wire"
)

// Signed is an event as other servers get it. The signature is no part of an
// event's ID and no client sees it, so events are kept without, and signed when
// they first leave: with the keys of those of our servers that vouch for them,
// which are the sender's, an invited person's, and that of who let a joiner in.
//
// spec: MX 1.19 SS §10.1
// spec: MX 1.19 SS §12
func (m *Mirror) Signed(e *wire.PDU) ([]byte, error) {
	people := []string{e.Sender}
	if e.Type == wire.TypeMember && e.StateKey != nil {
		people = append(people, *e.StateKey)
		if o, err := wire.ParseObject(e.Content); err == nil {
			if via, ok := o.String("join_authorised_via_users_server"); ok {
				people = append(people, via)
			}
		}
	}
	var signers []wire.Signer
	for i, id := range people {
		_, domain, _ := strings.Cut(id, ":")
		key := m.cfg.Keys[domain]
		switch {
		case key == nil && i == 0:
			return nil, fmt.Errorf("no signing key for %q", domain)
		case key == nil || slices.ContainsFunc(signers, func(s wire.Signer) bool { return s.Server == domain }):
			continue
		}
		signers = append(signers, wire.Signer{Server: domain, Key: key})
	}
	return e.Sign(signers...)
}
