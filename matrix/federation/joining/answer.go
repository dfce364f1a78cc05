package joining

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"parley/matrix/federation/keyring"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// readObject reads an object member by member, so that none has to be in memory
// whole; members that nobody asks for are passed over.
func readObject(r io.Reader, fields map[string]func(*json.Decoder) error) error {
	dec := json.NewDecoder(r)
	if err := opening(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return unusable("%v", err)
		}
		name, _ := key.(string)
		f := fields[name]
		if f == nil {
			f = func(dec *json.Decoder) error {
				var passed json.RawMessage
				return dec.Decode(&passed)
			}
		}
		if err := f(dec); errors.Is(err, errAnswer) {
			return err
		} else if err != nil {
			return unusable("%s: %v", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return unusable("%v", err)
	}
	return nil
}

func opening(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return unusable("%v", err)
	}
	if t != want {
		return unusable("there is no %v where it has to be", want)
	}
	return nil
}

// intake reads the events of an answer.
type intake struct {
	version *wire.Version
	left    int // how many may still come
	dropped int // that cannot be read
}

// into reads a list of events.
func (in *intake) into(out *[]*wire.PDU) func(*json.Decoder) error {
	return func(dec *json.Decoder) error {
		if err := opening(dec, '['); err != nil {
			return err
		}
		for dec.More() {
			if in.left--; in.left < 0 {
				return unusable("the room has too many events")
			}
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				return err
			}
			pdu, err := wire.Parse(in.version, raw)
			if err != nil {
				in.dropped++
				continue
			}
			*out = append(*out, pdu)
		}
		_, err := dec.Token()
		return err
	}
}

// verifyBatch is how many events are checked before it is looked whether anybody
// still waits for them.
const verifyBatch = 500

// genuine are those of some events that are of the room, signed, and state, by
// their IDs. What has a wrong hash is redacted. Those of servers that do not answer
// are tried again for as long as patience says; silent is how many are left out
// even so.
//
// spec: MX 1.19 SS §5.1
func (j *Joining) genuine(ctx context.Context, patience time.Duration, roomID string, lists ...[]*wire.PDU) (out map[string]*wire.PDU, silent int, err error) {
	out = map[string]*wire.PDU{}
	var todo []*wire.PDU
	for _, list := range lists {
		for _, pdu := range list {
			if pdu.RoomID != roomID || pdu.StateKey == nil || out[pdu.EventID] != nil {
				continue
			}
			out[pdu.EventID] = pdu
			todo = append(todo, pdu)
		}
	}
	todo, err = j.sift(ctx, out, todo)
	until := time.Now().Add(patience)
	for wait := j.cfg.FirstRetry; err == nil && len(todo) > 0 && time.Now().Add(wait).Before(until); wait *= 2 {
		if !pause(ctx, wait) {
			return nil, 0, ctx.Err()
		}
		todo, err = j.sift(ctx, out, todo)
	}
	for _, pdu := range todo {
		delete(out, pdu.EventID)
		j.count("event", "unreachable")
	}
	return out, len(todo), err
}

// sift takes from out those of its events that are not what they seem, and
// returns those of which that cannot be told now.
func (j *Joining) sift(ctx context.Context, out map[string]*wire.PDU, todo []*wire.PDU) (silent []*wire.PDU, err error) {
	for batch := range slices.Chunk(todo, verifyBatch) {
		for i, err := range j.cfg.Keys.VerifyPDUs(ctx, batch) {
			pdu := batch[i]
			if errors.Is(err, keyring.ErrUnreachable) {
				silent = append(silent, pdu)
				continue
			}
			if err != nil {
				delete(out, pdu.EventID)
				j.count("event", "unsigned")
				j.cfg.Log.Debug("an event of a room's state is not authentic", "event", pdu.EventID, "err", err)
				continue
			}
			if !pdu.CheckHash() {
				redacted, err := pdu.Redact()
				if err != nil {
					delete(out, pdu.EventID)
					continue
				}
				out[pdu.EventID] = redacted
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return silent, nil
}

// inOrder are events such that each comes after those that it cites, the create
// event first. What cites something that is not there is left out, and so is what
// cites that.
func inOrder(events map[string]*wire.PDU) []*wire.PDU {
	waits := make(map[string]int, len(events))
	cited := map[string][]*wire.PDU{}
	var ready []*wire.PDU
	for _, pdu := range events {
		n := 0
		for _, id := range unique(pdu.AuthEvents) {
			n++
			cited[id] = append(cited[id], pdu)
		}
		if waits[pdu.EventID] = n; n == 0 {
			ready = append(ready, pdu)
		}
	}
	slices.SortFunc(ready, func(a, b *wire.PDU) int {
		if c := isCreate(b) - isCreate(a); c != 0 {
			return c
		}
		return strings.Compare(a.EventID, b.EventID)
	})
	out := make([]*wire.PDU, 0, len(events))
	for len(ready) > 0 {
		pdu := ready[0]
		ready = ready[1:]
		out = append(out, pdu)
		for _, next := range cited[pdu.EventID] {
			if waits[next.EventID]--; waits[next.EventID] == 0 {
				ready = append(ready, next)
			}
		}
	}
	return out
}

func isCreate(pdu *wire.PDU) int {
	if pdu.Type == wire.TypeCreate && *pdu.StateKey == "" {
		return 1
	}
	return 0
}

func unique(ids []string) []string {
	if len(ids) < 2 {
		return ids
	}
	out := slices.Clone(ids)
	slices.Sort(out)
	return slices.Compact(out)
}

// incoming is an event whose signatures were checked.
func incoming(pdu *wire.PDU) shared.Incoming { return shared.Incoming{PDU: pdu, ViaSigned: true} }

// found is a room as a server tells it, checked and in order.
type found struct {
	version *wire.Version
	// all are the state and what it follows from; state says of which of them
	// it consists, by their IDs.
	all     []*wire.PDU
	state   map[string]bool
	omitted bool
	silent  int // events that are left out, as their servers do not answer
	servers []string
	join    *wire.PDU
}

// ruling are the types of events without which nobody knows who may do what.
var ruling = []string{wire.TypeCreate, wire.TypePowerLevels, wire.TypeJoinRules}

// check holds what a server told of a room's state to what can be checked
// without judging it. Patience is for servers that do not answer.
func (j *Joining) check(ctx context.Context, patience time.Duration, roomID string, v *wire.Version, state, auth []*wire.PDU) (*found, error) {
	genuine, silent, err := j.genuine(ctx, patience, roomID, state, auth)
	if err != nil {
		return nil, err
	}
	f := &found{version: v, silent: silent, all: inOrder(genuine), state: make(map[string]bool, len(state))}
	has := make(map[string]bool, len(f.all))
	for _, pdu := range f.all {
		has[pdu.EventID] = true
	}
	keys := make(map[wire.StateKey]string, len(state))
	for _, pdu := range state {
		if pdu.StateKey == nil {
			return nil, unusable("%s is no state event", pdu.EventID)
		}
		k := wire.StateKey{Type: pdu.Type, Key: *pdu.StateKey}
		if other := keys[k]; other != "" && other != pdu.EventID {
			return nil, unusable("two events are the room's %.80s %.80q", k.Type, k.Key)
		}
		keys[k] = pdu.EventID
		if !has[pdu.EventID] {
			if slices.Contains(ruling, pdu.Type) && *pdu.StateKey == "" {
				return nil, unusable("the room's %s cannot be checked", pdu.Type)
			}
			continue
		}
		f.state[pdu.EventID] = true
	}
	return f, f.checkCreate(keys[wire.StateKey{Type: wire.TypeCreate}])
}

// checkCreate looks whether the room was made in the version that is said.
func (f *found) checkCreate(id string) error {
	if id == "" || !f.state[id] {
		return unusable("there is no create event")
	}
	for _, pdu := range f.all {
		if pdu.EventID != id {
			continue
		}
		o, err := wire.ParseObject(pdu.Content)
		if err != nil {
			return unusable("%v", err)
		}
		if got, _ := o.String("room_version"); got != f.version.ID {
			return unusable("the room was made in version %.40q and not %s", got, f.version.ID)
		}
	}
	return nil
}

// closure are the events of all from which some follow, and these, in order.
func (f *found) closure(from []string) []*wire.PDU {
	by := make(map[string]*wire.PDU, len(f.all))
	for _, pdu := range f.all {
		by[pdu.EventID] = pdu
	}
	want := map[string]bool{}
	for todo := from; len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if want[id] || by[id] == nil {
			continue
		}
		want[id] = true
		todo = append(todo, by[id].AuthEvents...)
	}
	var out []*wire.PDU
	for _, pdu := range f.all {
		if want[pdu.EventID] {
			out = append(out, pdu)
		}
	}
	return out
}

// readWelcome reads what a server answers to a join.
func (j *Joining) readWelcome(ctx context.Context, r io.Reader, a *asking, v *wire.Version, sent *wire.PDU) (*found, error) {
	var state, auth []*wire.PDU
	var event json.RawMessage
	var omitted bool
	var servers []string
	in := &intake{version: v, left: j.cfg.MaxEvents}
	err := readObject(r, map[string]func(*json.Decoder) error{
		"state":           in.into(&state),
		"auth_chain":      in.into(&auth),
		"event":           func(dec *json.Decoder) error { return dec.Decode(&event) },
		"members_omitted": func(dec *json.Decoder) error { return dec.Decode(&omitted) },
		"servers_in_room": func(dec *json.Decoder) error { return dec.Decode(&servers) },
	})
	if err != nil {
		return nil, err
	}
	f, err := j.check(ctx, 0, a.roomID, v, state, auth)
	if err != nil {
		return nil, err
	}
	if in.dropped > 0 {
		j.cfg.Log.Info("events of a room's state could not be read", "room", a.roomID, "events", in.dropped)
	}
	if f.silent > 0 && !omitted {
		servers = serversOf(state)
	}
	f.omitted, f.servers = omitted, validServers(servers)
	if f.join, err = j.returned(ctx, sent, event); err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, pdu := range f.all {
		has[pdu.EventID] = true
	}
	for _, id := range f.join.AuthEvents {
		if !has[id] {
			return nil, unusable("%s, which the join cites, is not there", id)
		}
	}
	return f, nil
}

// serversOf are the servers of those whom a state says to be in the room, whether that can be
// checked or not.
func serversOf(state []*wire.PDU) (out []string) {
	for _, pdu := range state {
		if pdu.Type != wire.TypeMember || pdu.StateKey == nil {
			continue
		}
		if o, err := wire.ParseObject(pdu.Content); err == nil {
			if membership, _ := o.String("membership"); membership == "join" {
				_, server, _ := strings.Cut(*pdu.StateKey, ":")
				out = append(out, server)
			}
		}
	}
	return out
}

// maxServersIn is how many servers of a room are believed to be in it.
const maxServersIn = 20_000

func validServers(list []string) []string {
	out := slices.DeleteFunc(list, func(s string) bool { return wire.ParseServerName(s) != nil })
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxServersIn)]
}

// returned is the join as it was taken: with the signature of the server that let
// one in, where it has to have one.
//
// spec: MX 1.19 SS §10.1
func (j *Joining) returned(ctx context.Context, sent *wire.PDU, raw []byte) (*wire.PDU, error) {
	if len(raw) == 0 {
		raw = sent.JSON
	}
	event, err := wire.Parse(sent.Version, raw)
	if err != nil {
		return nil, unusable("the join came back as something else: %v", err)
	}
	if event.EventID != sent.EventID || !event.CheckHash() {
		return nil, unusable("another join came back than was sent")
	}
	if err := j.cfg.Keys.VerifyPDUs(ctx, []*wire.PDU{event})[0]; err != nil {
		return nil, fmt.Errorf("%w: the join is not signed as it must be: %w", errAnswer, err)
	}
	return event, nil
}
