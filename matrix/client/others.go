package client

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"parley/core"
	"parley/hub"
)

// UserKeys are what one user's devices and cross-signing keys are to others.
type UserKeys struct {
	Devices map[string]DeviceKeys // by ID
	// Nil where there is none. User is for its owner alone.
	Master, Self, User json.RawMessage
}

// DeviceKeys are the identity keys of a device, without "unsigned".
//
// spec: MX 1.19 CS §10.12.2.3
type DeviceKeys struct {
	Name string // may be empty
	Keys json.RawMessage
}

// DeviceChange says what of an account's device is other than it was.
type DeviceChange struct {
	Device    string
	Deleted   bool
	NameAlone bool // its keys and their signatures are what they were
}

// Others are the other Matrix servers, where keys and devices are concerned.
// Package matrix/federation/devices implements it.
type Others interface {
	// Query asks for the keys of users of other servers, by their devices'
	// IDs; no IDs are all. It is over when ctx is. Who is not in keys has none,
	// or is of a server that failed, with a reason that anybody may know.
	Query(ctx context.Context, viewer core.Address, users map[core.Address][]string) (keys map[core.Address]UserKeys, failed map[string]error)
	// Claim asks for one key of each device, of the algorithm that is named. A
	// key that comes is by its own name, "<algorithm>:<id>".
	Claim(ctx context.Context, claimer core.Address, wanted Wanted) (keys map[core.Address]map[string]NamedKey, failed map[string]error)
	// Send owes messages to devices of users of other servers.
	Send(tx hub.Tx, from core.Address, typ string, messages map[core.Address]map[string]json.RawMessage) error
	// DevicesChanged and CrossKeysChanged owe the servers that share rooms with
	// an account what has become of its devices and keys.
	DevicesChanged(tx hub.Tx, account core.Address, changes []DeviceChange) error
	CrossKeysChanged(tx hub.Tx, account core.Address) error
}

// Wanted are the one-time keys that are asked for: an algorithm for each device
// of users.
type Wanted map[core.Address]map[string]string

// NamedKey is a one-time or fallback key with its name.
type NamedKey struct {
	Name string // "<algorithm>:<id>"
	Key  json.RawMessage
}

// UseOthers has the API reach other servers. Call it before it serves.
func (a *API) UseOthers(o Others) { a.others = o }

// How long other servers are waited for, where the client does not say, and at
// the most.
//
// spec: MX 1.19 CS §10.12.7.2
const (
	othersWait = 10 * time.Second
	othersMost = time.Minute
)

// othersTime is a request's context for asking other servers.
func (r *Request) othersTime(milliseconds int64) (context.Context, context.CancelFunc) {
	wait := othersWait
	if milliseconds > 0 {
		wait = time.Duration(min(milliseconds, othersMost.Milliseconds())) * time.Millisecond
	}
	return context.WithTimeout(r.Context(), wait)
}

// failures are what a client is told of servers.
func failures(failed map[string]error) map[string]any {
	out := map[string]any{}
	for server, err := range failed {
		out[server] = map[string]any{"errcode": Unknown, "error": err.Error()}
	}
	return out
}

// alone are no others: the server does not federate.
type alone struct{}

var errAlone = errors.New("this server does not speak to other Matrix servers")

func nobody[V any](users map[core.Address]V) map[string]error {
	failed := map[string]error{}
	for who := range users {
		failed[who.Domain] = errAlone
	}
	return failed
}

func (alone) Query(_ context.Context, _ core.Address, users map[core.Address][]string) (map[core.Address]UserKeys, map[string]error) {
	return nil, nobody(users)
}

func (alone) Claim(_ context.Context, _ core.Address, wanted Wanted) (map[core.Address]map[string]NamedKey, map[string]error) {
	return nil, nobody(wanted)
}

func (alone) Send(hub.Tx, core.Address, string, map[core.Address]map[string]json.RawMessage) error {
	return nil
}

func (alone) DevicesChanged(hub.Tx, core.Address, []DeviceChange) error { return nil }

func (alone) CrossKeysChanged(hub.Tx, core.Address) error { return nil }
