package keyring

import (
	"context"
	"crypto/ed25519"
	"strings"
	"sync"
	"time"

	"parley/matrix/wire"
)

// Signers are the servers whose signatures an event must have: the sender's,
// but for an invitation by a third party, and that of the server which let a
// joiner into a restricted room.
//
// spec: MX 1.19 SS §28.2
// spec: MX 1.19 SS §10.1
func Signers(pdu *wire.PDU) []string {
	_, sender, _ := strings.Cut(pdu.Sender, ":")
	if pdu.Type != wire.TypeMember {
		return []string{sender}
	}
	content, err := wire.ParseObject(pdu.Content)
	if err != nil {
		return []string{sender}
	}
	membership, _ := content.String("membership")
	if membership == "invite" && content.Get("third_party_invite") != nil {
		return nil
	}
	out := []string{sender}
	if via, ok := content.String("join_authorised_via_users_server"); ok && membership == "join" && pdu.Version.Restricted {
		if _, server, err := wire.ParseUserID(via); err == nil && server != sender {
			out = append(out, server)
		}
	}
	return out
}

// VerifyPDU checks the signatures of all [Signers] of an event, with keys that
// hold for its origin_server_ts. The content hash is for [wire.PDU.CheckHash].
//
// spec: MX 1.19 SS §28.2
// spec: MX 1.19 RV v5
func (k *Keyring) VerifyPDU(ctx context.Context, pdu *wire.PDU) error {
	o, err := wire.ParseObject(pdu.JSON)
	if err != nil {
		return err
	}
	for _, server := range Signers(pdu) {
		err := k.verify(ctx, server, o, time.UnixMilli(pdu.Time), func(id string, public ed25519.PublicKey) error {
			return pdu.Verify(server, id, public)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maxVerifiers is how many events are checked at a time. Most of that waits for
// servers that do not answer.
const maxVerifiers = 32

// VerifyPDUs is VerifyPDU for many events; the errors are in their order.
func (k *Keyring) VerifyPDUs(ctx context.Context, pdus []*wire.PDU) []error {
	errs := make([]error, len(pdus))
	next := make(chan int)
	var g sync.WaitGroup
	for range min(maxVerifiers, len(pdus)) {
		g.Go(func() {
			for i := range next {
				errs[i] = k.VerifyPDU(ctx, pdus[i])
			}
		})
	}
	for i := range pdus {
		next <- i
	}
	close(next)
	g.Wait()
	return errs
}
