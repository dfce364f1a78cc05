package federationtest

import (
	"context"
	"errors"
	"sync/atomic"

	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
)

// Verifier checks signatures.
type Verifier interface {
	VerifyPDUs(ctx context.Context, pdus []*wire.PDU) []error
}

// Silence is a [Verifier] that, while it is on, finds servers silent when it asks for their
// keys: all of them, or the one of a domain.
type Silence struct {
	Verifier
	Of string
	On atomic.Bool
}

// VerifyPDUs implements [Verifier].
func (s *Silence) VerifyPDUs(ctx context.Context, pdus []*wire.PDU) []error {
	errs := s.Verifier.VerifyPDUs(ctx, pdus)
	for i, pdu := range pdus {
		if s.On.Load() && (s.Of == "" || keyring.Signers(pdu)[0] == s.Of) {
			errs[i] = errors.Join(keyring.ErrUnknownKey, keyring.ErrUnreachable)
		}
	}
	return errs
}
