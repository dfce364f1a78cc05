package incoming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley/core"
	"parley/matrix/federation/keyring"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// item is an event on its way into a room. Its hash was looked at.
type item struct {
	pdu *wire.PDU
	// origin is the server that sent it.
	origin string
	// unchecked says that its signatures could not be checked, because a server
	// did not answer.
	unchecked bool
	// unwanted says that the policy server of the room does not recommend it.
	unwanted bool

	// The rest is for filling gaps. waits says that there is a row of it, found
	// that it was asked for on the way to one of which there is.
	waits  bool
	found  bool
	tries  int
	before []string // the state before it, where another server told it
	walked bool     // what comes before it was asked for
	told   bool     // so was the state
	cites  bool     // so was what it cites
}

func (i *item) incoming() shared.Incoming {
	// That all signers had signed it was checked: see keyring.Signers.
	return shared.Incoming{PDU: i.pdu, ViaSigned: true, Before: i.before, Unwanted: i.unwanted}
}

// place is a room into which events come.
type place struct {
	conv    core.ConvID
	roomID  string
	version *wire.Version
	// shared says that a server of others is or was in it; in another case one
	// of ours is invited at most.
	shared bool
}

var (
	errForm   = errors.New("this is no event of the room's version")
	errRoom   = errors.New("this event is of another room")
	errHash   = errors.New("the hash is wrong, and nothing is left of the event without it")
	errDenied = errors.New("the room's server ACL does not let this server in")
	errBusy   = errors.New("too much waits for this room")
)

// parse reads an event of a room, without what its hash does not vouch for.
//
// spec: MX 1.19 SS §5.1
func (p *place) parse(raw json.RawMessage) (*wire.PDU, error) {
	pdu, err := wire.Parse(p.version, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForm, err)
	}
	if pdu.RoomID != p.roomID {
		return nil, errRoom
	}
	if pdu.CheckHash() {
		return pdu, nil
	}
	if pdu, err = pdu.Redact(); err != nil {
		return nil, fmt.Errorf("%w: %w", errHash, err)
	}
	return pdu, nil
}

// checkTime is for looking at the signatures of what came at once.
const checkTime = 15 * time.Second

// verify checks signatures. Of items whose server does not answer it notes that;
// for others that are not good there is an error, by event ID.
//
// spec: MX 1.19 SS §5.1
func (n *Incoming) verify(ctx context.Context, items []*item) map[string]error {
	timed, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	pdus := make([]*wire.PDU, len(items))
	for i, it := range items {
		pdus[i] = it.pdu
	}
	bad := map[string]error{}
	for i, err := range n.cfg.Keys.VerifyPDUs(timed, pdus) {
		it := items[i]
		it.unchecked = false
		switch {
		case err == nil:
		case ctx.Err() != nil:
			bad[it.pdu.EventID] = ctx.Err()
		case errors.Is(err, keyring.ErrUnreachable) || timed.Err() != nil && errors.Is(err, timed.Err()):
			it.unchecked = true
		default:
			bad[it.pdu.EventID] = err
		}
	}
	return bad
}

// server is the domain of a user ID.
func server(userID string) string {
	_, domain, _ := strings.Cut(userID, ":")
	return domain
}

// byDepth sorts events as they claim to follow each other.
func byDepth(items []*item) {
	slices.SortStableFunc(items, func(a, b *item) int {
		switch {
		case a.pdu.Depth != b.pdu.Depth:
			return int(min(max(a.pdu.Depth-b.pdu.Depth, -1), 1))
		case a.pdu.Time != b.pdu.Time:
			return int(min(max(a.pdu.Time-b.pdu.Time, -1), 1))
		}
		return strings.Compare(a.pdu.EventID, b.pdu.EventID)
	})
}

// inOrder sorts events such that each comes after those of them that it leads
// to by the references that refs gives; otherwise they stay as they are. Events
// are named by their hashes, so that there are no circles.
func inOrder(items []*item, refs func(*wire.PDU) []string) []*item {
	byID := make(map[string]*item, len(items))
	for _, it := range items {
		byID[it.pdu.EventID] = it
	}
	out := make([]*item, 0, len(items))
	placed := map[*item]bool{}
	type step struct {
		it   *item
		next int
	}
	for _, it := range items {
		way := []step{{it: it}}
		for len(way) > 0 {
			at := &way[len(way)-1]
			list := refs(at.it.pdu)
			if placed[at.it] || at.next == len(list) {
				if !placed[at.it] {
					placed[at.it] = true
					out = append(out, at.it)
				}
				way = way[:len(way)-1]
				continue
			}
			at.next++
			if below := byID[list[at.next-1]]; below != nil && !placed[below] {
				way = append(way, step{it: below})
			}
		}
	}
	return out
}

func previous(pdu *wire.PDU) []string { return pdu.PrevEvents }

// causes are what an event cites; the create event goes before all others, also
// where they do not name it.
func causes(create string) func(*wire.PDU) []string {
	return func(pdu *wire.PDU) []string {
		if create == "" || pdu.EventID == create {
			return pdu.AuthEvents
		}
		return append(slices.Clone(pdu.AuthEvents), create)
	}
}

// createOf is the create event of a room whose ID names it, "" in older rooms.
func (p *place) createOf() string {
	if !p.version.HashedRoomID {
		return ""
	}
	return "$" + p.roomID[1:]
}
