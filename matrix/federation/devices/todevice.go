package devices

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/sending"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// directToDevice is an m.direct_to_device.
//
// spec: MX 1.19 SS §24
type directToDevice struct {
	Sender   string                                `json:"sender"`
	Type     string                                `json:"type"`
	ID       string                                `json:"message_id"`
	Messages map[string]map[string]json.RawMessage `json:"messages"`
}

// partSize is how many bytes of messages are in one EDU, but for a message that
// is longer by itself.
const partSize = 48 << 10

// Send implements [client.Others].
//
// spec: MX 1.19 SS §24
func (d *Devices) Send(tx hub.Tx, from core.Address, typ string, messages map[core.Address]map[string]json.RawMessage) error {
	byServer := map[string][]core.Address{}
	for to := range messages {
		byServer[to.Domain] = append(byServer[to.Domain], to)
	}
	for _, server := range slices.Sorted(maps.Keys(byServer)) {
		part, size := map[string]map[string]json.RawMessage{}, 0
		flush := func() error {
			defer clear(part)
			if len(part) == 0 {
				return nil
			}
			size = 0
			return d.sendPart(tx, from, server, typ, part)
		}
		users := byServer[server]
		slices.SortFunc(users, func(a, b core.Address) int { return strings.Compare(a.Name, b.Name) })
		for _, to := range users {
			user := d.userID(to)
			for _, device := range slices.Sorted(maps.Keys(messages[to])) {
				content := messages[to][device]
				one := len(user) + len(device) + len(content)
				if size+one > partSize {
					if err := flush(); err != nil {
						return err
					}
				}
				size += one
				if part[user] == nil {
					part[user] = map[string]json.RawMessage{}
				}
				part[user][device] = content
			}
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return nil
}

// sendPart owes one EDU to a server. What could not be signed in a transaction
// is refused here: it would stand in the way of all that comes after it.
func (d *Devices) sendPart(tx hub.Tx, from core.Address, server, typ string, messages map[string]map[string]json.RawMessage) error {
	raw, err := json.Marshal(directToDevice{d.userID(from), typ, core.NewToken(), messages})
	if err != nil {
		return err
	}
	canon, err := wire.Canonical(raw)
	if err == nil {
		_, err = wire.Strict(slices.Concat([]byte(`{"edus":[{"content":`), canon, []byte(`}]}`)))
	}
	if err != nil {
		return hub.Refuse(hub.Bad, "a message to %s is no JSON that servers exchange", server)
	}
	return d.cfg.Sender.OweEDU(tx, from.Domain, server, sending.EDU{Type: eduToDevice, Content: canon})
}

// takeToDevice takes an m.direct_to_device, once.
//
// spec: MX 1.19 SS §24
func (d *Devices) takeToDevice(ctx context.Context, origin string, content json.RawMessage) error {
	var m directToDevice
	err := decode(content, &m)
	var from core.Address
	if err == nil {
		from, err = d.sender(origin, m.Sender)
	}
	if err == nil && !textual(m.Type, m.ID) {
		err = fmt.Errorf("%w: the type %.255q, the ID %.255q", errEDU, m.Type, m.ID)
	}
	if err != nil {
		d.dropped("malformed", 1)
		return err
	}
	to, bad := d.recipients(m.Messages)
	reasons := map[string]int{}
	err = d.hub.Write(ctx, func(tx hub.Tx) error {
		clear(reasons)
		fresh := map[string]bool{}
		for _, who := range slices.SortedFunc(maps.Keys(to), func(a, b core.Address) int { return strings.Compare(a.String(), b.String()) }) {
			if _, known := fresh[who.Domain]; !known {
				first, err := d.first(tx, origin, who.Domain, m.ID)
				if err != nil {
					return err
				}
				fresh[who.Domain] = first
			}
			if !fresh[who.Domain] {
				reasons["repeated"] += len(to[who])
				continue
			}
			became, err := d.api.Deliver(tx, from, who, m.Type, to[who])
			if err != nil {
				return err
			}
			if became.Blocked {
				reasons["blocked"] += len(to[who])
			}
			reasons["full"] += became.Full
		}
		return nil
	})
	if err != nil {
		return err
	}
	reasons["malformed"] += bad
	for why, n := range reasons {
		d.dropped(why, n)
	}
	return nil
}

func (d *Devices) dropped(why string, n int) {
	for range n {
		d.cfg.Count.Count("matrix_to_device_dropped", why)
	}
}

// recipients are the accounts here for whom there are messages, and how many
// messages are not as they must be, or too many.
func (d *Devices) recipients(messages map[string]map[string]json.RawMessage) (to map[core.Address]map[string]json.RawMessage, bad int) {
	to = map[core.Address]map[string]json.RawMessage{}
	n := 0
	for _, user := range slices.Sorted(maps.Keys(messages)) {
		who, err := d.names.Address(user)
		if err != nil || !who.IsLocal() {
			bad += len(messages[user])
			continue
		}
		to[who] = map[string]json.RawMessage{}
		for device, content := range messages[user] {
			if n++; n > maxMessages || len(content) == 0 || len(content) > maxContent || content[0] != '{' || !textual(device) {
				bad++
				continue
			}
			to[who][device] = content
		}
	}
	return to, bad
}

// How long and how many of a server's messages are remembered by their IDs.
const (
	idsKept    = 7 * 24 * time.Hour
	idsOfOne   = 20_000
	pruneAfter = 1000 // messages
)

// pruning counts the messages of servers since the IDs were cleared away.
type pruning struct {
	mu sync.Mutex
	n  map[string]int
}

// due counts a message of a server, and reports whether it is time.
func (p *pruning) due(origin string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == nil || len(p.n) > 10_000 {
		p.n = map[string]int{}
	}
	p.n[origin]++
	return p.n[origin]%pruneAfter == 1
}

// first notes what a server calls messages, and reports whether they come for
// the first time. Some servers call what they send to several others the same.
func (d *Devices) first(tx hub.Tx, origin, domain, id string) (bool, error) {
	at := now()
	if d.pruning.due(origin) {
		if _, err := hubstore.Exec(tx, `DELETE FROM mxd_messages WHERE origin = $1 AND made < $2`, origin, at.Add(-idsKept).UnixMilli()); err != nil {
			return false, err
		}
		if _, err := hubstore.Exec(tx, `DELETE FROM mxd_messages WHERE origin = $1 AND made < (
			SELECT COALESCE(MIN(made), 0) FROM (SELECT made FROM mxd_messages WHERE origin = $1 ORDER BY made DESC LIMIT $2) AS latest)`,
			origin, idsOfOne); err != nil {
			return false, err
		}
	}
	n, err := hubstore.Exec(tx, `INSERT INTO mxd_messages (origin, domain, id, made) VALUES ($1, $2, $3, $4) ON CONFLICT (origin, domain, id) DO NOTHING`,
		origin, domain, id, at.UnixMilli())
	return n == 1, err
}
