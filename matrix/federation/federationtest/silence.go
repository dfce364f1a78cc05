package federationtest

import (
	"context"
	"errors"
	"sync/atomic"

	"parley/matrix/federation/incoming"
	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
)

// Silence is an [incoming.Verifier] that, while it is on, finds servers silent when it asks for their
// keys: all of them, or the one of a domain.
type Silence struct {
	incoming.Verifier
	Of string
	On atomic.Bool
}

// VerifyPDUs implements [incoming.Verifier].
func (s *Silence) VerifyPDUs(ctx context.Context, pdus []*wire.PDU) []error {
	errs := s.Verifier.VerifyPDUs(ctx, pdus)
	for i, pdu := range pdus {
		if s.On.Load() && (s.Of == "" || keyring.Signers(pdu)[0] == s.Of) {
			errs[i] = errors.Join(keyring.ErrUnknownKey, keyring.ErrUnreachable)
		}
	}
	return errs
}
