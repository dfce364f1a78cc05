package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"parley/core"
	"parley/hub"
)

// Limits of to-device messages. maxWaiting is of one sender to one device, so
// that who writes too much to a device that is away harms nobody else.
const (
	maxMessages = 5000      // in one request
	maxContent  = 256 << 10 // bytes of one content
	maxWaiting  = 2000
	// Of all senders on another server to one device.
	maxWaitingServer      = 5000
	maxWaitingServerBytes = 64 << 20

	perSync       = 100
	txnsKeptFor   = 24 * time.Hour
	everyDevice   = "*"
	messagesBytes = 8 << 20
)

// sendToDevice sends messages to devices. Those to accounts or devices that
// there are not are for nobody; so are those to accounts that block the sender.
//
// spec: MX 1.19 CS §10.10.2
func (a *API) sendToDevice(r *Request) (any, error) {
	var body struct {
		Messages map[string]map[string]json.RawMessage `json:"messages"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	typ := r.Var("eventType")
	if body.Messages == nil || !textual(typ, r.Var("txnId")) {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "The messages are missing, or the type or transaction ID is too long.")
	}
	messages := map[core.Address]map[string]json.RawMessage{}
	n := 0
	for user, devices := range body.Messages {
		to, err := a.Address(user)
		if err != nil {
			return nil, err
		}
		for _, content := range devices {
			if n++; n > maxMessages || len(content) > maxContent || content[0] != '{' {
				return nil, Errorf(http.StatusBadRequest, InvalidParam, "There are more than %d messages, or one is no object of at most %d bytes.", maxMessages, maxContent)
			}
		}
		messages[to] = devices
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		fresh, err := r.once(tx, r.Var("txnId"))
		if err != nil || !fresh {
			return err
		}
		remote := map[core.Address]map[string]json.RawMessage{}
		for to, devices := range messages {
			switch to.Network {
			case core.Local:
				if err := a.deliver(tx, r.Account, to, typ, devices); err != nil {
					return err
				}
			case core.Matrix:
				remote[to] = devices
			}
		}
		if len(remote) == 0 {
			return nil
		}
		return a.others.Send(tx, r.Account, typ, remote)
	})
}

// once notes a transaction ID, and reports whether it is a new one.
//
// spec: MX 1.19 CS §1.2
func (r *Request) once(tx hub.Tx, txn string) (fresh bool, err error) {
	at := now()
	if _, err := exec(tx, `DELETE FROM mxc_txns WHERE made < $1`, at.Add(-txnsKeptFor).UnixMilli()); err != nil {
		return false, err
	}
	n, err := exec(tx, `INSERT INTO mxc_txns (scope, txn, account, made) VALUES ($1, $2, $3, $4) ON CONFLICT (scope, txn) DO NOTHING`,
		r.TxnScope(), txn, key(r.Account), at.UnixMilli())
	return n == 1, err
}

// deliver puts an account's messages before the devices of another.
func (a *API) deliver(tx hub.Tx, from, to core.Address, typ string, messages map[string]json.RawMessage) error {
	d, err := a.Deliver(tx, from, to, typ, messages)
	if err == nil && d.Full > 0 {
		e := Errorf(http.StatusTooManyRequests, LimitExceeded, "A device of %s has not fetched %d messages of yours yet.", a.UserID(to), maxWaiting)
		e.RetryAfter = time.Minute
		return e
	}
	return err
}

// Delivery is what became of to-device messages.
type Delivery struct {
	// Blocked says that the account does not hear the sender.
	Blocked bool
	// Full is how many devices have too many messages waiting.
	Full int
}

// Deliver puts messages before the devices of an account here, by the device's
// ID or "*" for every device that has none of its own. Each is a JSON object.
// The sender may be a user of another server.
//
// spec: MX 1.19 CS §10.10
func (a *API) Deliver(tx hub.Tx, from, to core.Address, typ string, messages map[string]json.RawMessage) (d Delivery, err error) {
	if d.Blocked, err = tx.Blocked(to, from); err != nil || d.Blocked {
		return d, err
	}
	devices, err := column(tx, `SELECT device FROM mxc_devices WHERE account = $1`, key(to))
	if err != nil {
		return d, err
	}
	for _, device := range devices {
		content, ok := messages[device]
		if !ok {
			content, ok = messages[everyDevice]
		}
		if !ok {
			continue
		}
		full, err := a.full(tx, from, to, device)
		if err != nil {
			return d, err
		}
		if full {
			d.Full++
			continue
		}
		if err := a.leave(tx, from, to, device, typ, content); err != nil {
			return d, err
		}
	}
	return d, nil
}

// full reports whether no more messages of a sender, or of her server, may wait
// for a device.
func (a *API) full(tx hub.Tx, from, to core.Address, device string) (bool, error) {
	var waiting, size int64
	_, err := row(tx, into(&waiting), `SELECT COUNT(*) FROM mxc_to_device WHERE account = $1 AND device = $2 AND sender = $3`,
		key(to), device, key(from))
	if err != nil || waiting >= maxWaiting || from.IsLocal() {
		return waiting >= maxWaiting, err
	}
	_, err = row(tx, into(&waiting, &size), `SELECT COUNT(*), COALESCE(SUM(size), 0) FROM mxc_to_device
		WHERE account = $1 AND device = $2 AND origin = $3`, key(to), device, from.Domain)
	return waiting >= maxWaitingServer || size >= maxWaitingServerBytes, err
}

// leave puts one message before one device.
func (a *API) leave(tx hub.Tx, from, to core.Address, device, typ string, content json.RawMessage) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, content); err != nil {
		return err
	}
	feed := tx.NextFeed()
	_, err := exec(tx, `INSERT INTO mxc_to_device (account, device, feed, sent, sender, type, content, origin, size) VALUES ($1, $2, $3, 0, $4, $5, $6, $7, $8)`,
		key(to), device, int64(feed), key(from), typ, compact.Bytes(), from.Domain, compact.Len())
	tx.OnCommit(func() {
		a.hub.Poke([]core.Address{to}, hub.PokeNews{Topic: TopicToDevice, Feed: feed, Data: device})
	})
	return err
}

// DeviceMessage is a to-device message as /sync shows it.
type DeviceMessage struct {
	Sender  string          `json:"sender"`
	Type    string          `json:"type"`
	Content json.RawMessage `json:"content"`
}

// TakeToDevice hands over what waits for a device that syncs from the token
// since. It deletes what was handed over with that token or before, for the
// device has it. What it returns is handed over with the token of the answer
// now being made, so /sync calls it first and then reads the snapshot from
// which it takes next_batch: a token that is older than the call would delete
// too little, which does no harm. With more, further messages wait, and the next
// /sync is answered at once.
//
// spec: MX 1.19 CS §10.10.3.1
func (a *API) TakeToDevice(ctx context.Context, account core.Address, device string, since core.Feed) (list []DeviceMessage, more bool, err error) {
	waits, err := a.waiting(ctx, account, device)
	if err != nil || !waits {
		return nil, false, err
	}
	err = a.hub.Write(ctx, func(tx hub.Tx) error {
		if _, err := exec(tx, `DELETE FROM mxc_to_device WHERE account = $1 AND device = $2 AND sent > 0 AND sent <= $3`,
			key(account), device, int64(since)); err != nil {
			return err
		}
		list, more, err = a.handOver(tx, account, device)
		return err
	})
	return list, more, err
}

func (a *API) waiting(ctx context.Context, account core.Address, device string) (waits bool, err error) {
	err = a.hub.Read(ctx, func(v hub.View) error {
		var feed int64
		waits, err = row(v, into(&feed), `SELECT feed FROM mxc_to_device WHERE account = $1 AND device = $2 LIMIT 1`, key(account), device)
		return err
	})
	return waits, err
}

func (a *API) handOver(tx hub.Tx, account core.Address, device string) (list []DeviceMessage, more bool, err error) {
	var last int64
	size := 0
	err = rows(tx, func(scan func(...any) error) error {
		var m DeviceMessage
		var feed int64
		var content []byte
		if err := scan(&feed, &m.Sender, &m.Type, &content); err != nil {
			return err
		}
		if size += len(content); more || len(list) == perSync || len(list) > 0 && size > messagesBytes {
			more = true
			return nil
		}
		sender, err := core.ParseAddress(m.Sender)
		m.Sender, m.Content, last = a.UserID(sender), content, feed
		list = append(list, m)
		return err
	}, `SELECT feed, sender, type, content FROM mxc_to_device WHERE account = $1 AND device = $2 ORDER BY feed LIMIT $3`,
		key(account), device, perSync+1)
	if err != nil || len(list) == 0 {
		return list, more, err
	}
	_, err = exec(tx, `UPDATE mxc_to_device SET sent = $1 WHERE account = $2 AND device = $3 AND feed <= $4`,
		int64(tx.NextFeed()), key(account), device, last)
	return list, more, err
}
