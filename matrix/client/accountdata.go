package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"parley/core"
	"parley/hub"
)

// The types of account data that this server looks into.
const (
	typePushRules = "m.push_rules"
	typeFullyRead = "m.fully_read"
	typeDirect    = "m.direct"
	typeIgnored   = "m.ignored_user_list"
	typeTags      = "m.tag"
)

// DataEvent is one piece of account data, as /sync shows it.
type DataEvent struct {
	Type    string          `json:"type"`
	Content json.RawMessage `json:"content"`
}

// isDataType reports whether a type is one of Matrix clients: the hub's private
// data has those of other protocols as well, with the protocol before a colon.
func isDataType(t string) bool {
	network, _, ok := strings.Cut(t, ":")
	return !ok || !slices.Contains(core.Networks, core.Network(network))
}

// AccountData is what changed after since in an account's data, for one
// conversation or (with an empty conv) for all, as a client is to see it: with
// the server's own part of m.direct and the push rules that nobody changed.
//
// spec: MX 1.19 CS §10.21
func (a *API) AccountData(v hub.View, account core.Address, conv core.ConvID, since core.Feed) ([]DataEvent, error) {
	data, err := v.Data(account, since)
	if err != nil {
		return nil, err
	}
	changed := map[string]json.RawMessage{}
	for _, d := range data {
		if d.Conv != conv || !isDataType(d.Type) {
			continue
		}
		if changed[d.Type] = d.Data; d.Data == nil {
			changed[d.Type] = json.RawMessage("{}")
		}
	}
	if conv == "" {
		if err := a.ownData(v, account, since, changed); err != nil {
			return nil, err
		}
	}
	out := []DataEvent{}
	for _, t := range slices.Sorted(maps.Keys(changed)) {
		out = append(out, DataEvent{t, changed[t]})
	}
	return out, nil
}

// ownData puts in what this server knows better than the client's last word.
func (a *API) ownData(v hub.View, account core.Address, since core.Feed, changed map[string]json.RawMessage) error {
	if _, ok := changed[typePushRules]; ok || since == 0 {
		rules, err := a.PushRules(v, account)
		if err != nil {
			return err
		}
		if changed[typePushRules], err = json.Marshal(map[string]any{"global": rules}); err != nil {
			return err
		}
	}
	places, err := v.Places(account)
	if err != nil {
		return err
	}
	newDirect := slices.ContainsFunc(places, func(p hub.Place) bool { return !p.Peer.IsZero() && p.Feed > since })
	if _, ok := changed[typeDirect]; ok || newDirect {
		if changed[typeDirect], err = a.directData(v, account, places); err != nil {
			return err
		}
	}
	return nil
}

// directData is the account's m.direct: what its clients said, and the directs
// that the hub knows.
//
// spec: MX 1.19 CS §10.25
func (a *API) directData(v hub.View, account core.Address, places []hub.Place) (json.RawMessage, error) {
	stored, err := datum(v, account, "", typeDirect)
	if err != nil {
		return nil, err
	}
	m := map[string]json.RawMessage{}
	// What a client wrote may be anything; what is no object is not merged into.
	if stored != nil && json.Unmarshal(stored, &m) != nil {
		return stored, nil
	}
	for _, p := range places {
		if p.Peer.IsZero() || p.Standing != core.Joined {
			continue
		}
		c, err := v.Conversation(p.Conv)
		if err != nil {
			return nil, err
		}
		id, user := c.Native[core.Matrix], a.UserID(p.Peer)
		var ids []string
		if id == "" || m[user] != nil && json.Unmarshal(m[user], &ids) != nil || slices.Contains(ids, id) {
			continue
		}
		if m[user], err = json.Marshal(append(ids, id)); err != nil {
			return nil, err
		}
	}
	return json.Marshal(m)
}

// datum is a piece of private data, nil where there is none.
func datum(v hub.View, account core.Address, conv core.ConvID, typ string) (json.RawMessage, error) {
	d, err := v.Datum(account, conv, typ)
	if errors.Is(err, hub.ErrNone) {
		return nil, nil
	}
	return d.Data, err
}

// RefreshIgnored brings the account's m.ignored_user_list up to the block list,
// which every protocol's clients can change. /sync calls it before it reads the
// account's data.
func (a *API) RefreshIgnored(ctx context.Context, account core.Address) error {
	var stored, want json.RawMessage
	err := a.hub.Read(ctx, func(v hub.View) (err error) {
		if stored, err = datum(v, account, "", typeIgnored); err != nil {
			return err
		}
		want, err = a.ignored(v, account, stored)
		return err
	})
	if err != nil || want == nil {
		return err
	}
	return a.hub.PutDatum(ctx, hub.Datum{Account: account, Type: typeIgnored, Data: want}, "")
}

// ignoredList is the content of m.ignored_user_list.
type ignoredList struct {
	Users map[string]json.RawMessage `json:"ignored_users"`
}

// ignored is what m.ignored_user_list should be, nil if it is that.
func (a *API) ignored(v hub.View, account core.Address, stored json.RawMessage) (json.RawMessage, error) {
	blocks, err := v.Blocks(account)
	if err != nil {
		return nil, err
	}
	var old ignoredList
	broken := stored != nil && json.Unmarshal(stored, &old) != nil
	want := ignoredList{map[string]json.RawMessage{}}
	for _, b := range blocks {
		if b.Name == "" {
			continue // a whole server: Matrix has no word for that
		}
		id := a.UserID(b)
		if want.Users[id] = old.Users[id]; want.Users[id] == nil {
			want.Users[id] = json.RawMessage("{}")
		}
	}
	same := len(want.Users) == len(old.Users)
	for id := range want.Users {
		same = same && old.Users[id] != nil
	}
	if same && !broken {
		return nil, nil
	}
	return json.Marshal(want)
}

// ignore makes the account's one block list what a client put into
// m.ignored_user_list. Servers on it stay.
//
// spec: MX 1.19 CS §10.26
func (a *API) ignore(r *Request, content []byte) error {
	var list ignoredList
	if err := DecodeJSON(content, &list); err != nil {
		return err
	}
	wanted := map[core.Address]bool{}
	for id := range list.Users {
		who, err := a.Address(id)
		if err != nil {
			return err
		}
		wanted[who] = who != r.Account
	}
	var gone []core.Address
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		blocks, err := v.Blocks(r.Account)
		for _, b := range blocks {
			if !wanted[b] && b.Name != "" {
				gone = append(gone, b)
			}
			wanted[b] = false
		}
		return err
	})
	if err != nil {
		return err
	}
	var added []core.Address
	for who, add := range wanted {
		if add {
			added = append(added, who)
		}
	}
	if len(added) > 0 {
		if err := a.hub.Block(r.Context(), r.Account, added...); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		return a.hub.Unblock(r.Context(), r.Account, gone...)
	}
	return nil
}

// locks serialise what reads a piece of data, changes it and writes it back.
type locks struct {
	seed maphash.Seed
	m    [64]sync.Mutex
}

func (l *locks) of(a core.Address) *sync.Mutex {
	return &l.m[maphash.String(l.seed, a.String())%uint64(len(l.m))]
}

// own refuses who asks for another's private things.
func (r *Request) own() error {
	if r.Var("userId") != r.UserID {
		return Errorf(http.StatusForbidden, Forbidden, "These are not your own.")
	}
	return nil
}

// conversation finds the room of the path. It need not be one that the account
// is in: what one notes down about a room, one may keep.
func (r *Request) conversation(v hub.View) (core.ConvID, error) {
	if r.Var("roomId") == "" {
		return "", nil
	}
	id, err := v.ConversationNative(core.Matrix, r.Var("roomId"))
	if err != nil {
		return "", err
	}
	_, err = v.Place(r.Account, id)
	return id, err
}

// getData answers with a piece of account data.
func (a *API) getData(r *Request) (any, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	var found json.RawMessage
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		conv, err := r.conversation(v)
		if err != nil {
			return err
		}
		typ := r.Var("type")
		all, err := a.AccountData(v, r.Account, conv, 0)
		for _, d := range all {
			if d.Type == typ {
				found = d.Content
			}
		}
		return err
	})
	if err == nil && found == nil {
		return nil, Errorf(http.StatusNotFound, NotFound, "There is no such data.")
	}
	return found, err
}

// putData keeps a piece of account data.
//
// spec: MX 1.19 CS §10.21
func (a *API) putData(r *Request) (any, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	typ := r.Var("type")
	switch {
	case typ == typePushRules || typ == typeFullyRead:
		return nil, Errorf(http.StatusMethodNotAllowed, BadJSON, "%s is not set in this way.", typ)
	case !isDataType(typ) || !textual(typ):
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "That is not a type of account data.")
	}
	content, err := r.Body()
	if err != nil {
		return nil, err
	}
	if typ == typeIgnored && r.Var("roomId") == "" {
		if err := a.ignore(r, content); err != nil {
			return nil, err
		}
	}
	return nil, a.keep(r, typ, content)
}

// keep writes a piece of data for the room of the path.
func (a *API) keep(r *Request, typ string, content []byte) error {
	var conv core.ConvID
	err := a.hub.Read(r.Context(), func(v hub.View) (err error) {
		conv, err = r.conversation(v)
		return err
	})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, content); err != nil {
		return err
	}
	return a.hub.PutDatum(r.Context(), hub.Datum{Account: r.Account, Conv: conv, Type: typ, Data: b.Bytes()}, r.Device)
}

// maxTags is the most tags of one room.
const maxTags = 100

// tags reads the tags of the path's room.
//
// spec: MX 1.19 CS §10.20
func (a *API) tags(r *Request) (map[string]json.RawMessage, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	var raw json.RawMessage
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		conv, err := r.conversation(v)
		if err != nil {
			return err
		}
		raw, err = datum(v, r.Account, conv, typeTags)
		return err
	})
	var t struct {
		Tags map[string]json.RawMessage `json:"tags"`
	}
	if raw != nil && json.Unmarshal(raw, &t) != nil || t.Tags == nil {
		t.Tags = map[string]json.RawMessage{}
	}
	return t.Tags, err
}

func (a *API) getTags(r *Request) (any, error) {
	t, err := a.tags(r)
	return map[string]any{"tags": t}, err
}

func (a *API) putTag(r *Request) (any, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	var in struct {
		Order *float64 `json:"order"`
	}
	if err := DecodeJSON(body, &in); err != nil {
		return nil, err
	}
	if !textual(r.Var("tag")) || in.Order != nil && (*in.Order < 0 || *in.Order > 1) {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "A tag has at most 255 bytes, its order is from 0 to 1.")
	}
	return nil, a.changeTags(r, func(t map[string]json.RawMessage) error {
		if t[r.Var("tag")] = body; len(t) > maxTags {
			return Errorf(http.StatusForbidden, Forbidden, "A room has at most %d tags.", maxTags)
		}
		return nil
	})
}

func (a *API) deleteTag(r *Request) (any, error) {
	return nil, a.changeTags(r, func(t map[string]json.RawMessage) error {
		delete(t, r.Var("tag"))
		return nil
	})
}

func (a *API) changeTags(r *Request, f func(map[string]json.RawMessage) error) error {
	l := a.locks.of(r.Account)
	l.Lock()
	defer l.Unlock()
	t, err := a.tags(r)
	if err != nil {
		return err
	}
	if err := f(t); err != nil {
		return err
	}
	content, err := json.Marshal(map[string]any{"tags": t})
	if err != nil {
		return err
	}
	return a.keep(r, typeTags, content)
}
