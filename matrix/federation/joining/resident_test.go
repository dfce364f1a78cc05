package joining_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/matrix/federation/federationtest"
	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
)

// resident is a server of which the test says what it answers. One of its own has
// made a room there.
type resident struct {
	t       testing.TB
	domain  string
	key     *wire.SigningKey
	version *wire.Version
	room    string
	state   []*wire.PDU // in order
	last    *wire.PDU
	depth   int64

	// What is changed in answers before they go out; nil is nothing.
	template, welcome, told func(object)
	// joinable, if set, is asked before a template is given.
	joinable func() (status int, errcode string)

	mu    sync.Mutex
	joins []*wire.PDU
	asked map[string]int
}

// newResident makes a public room.
func newResident(t testing.TB, w *federationtest.World, domain, version string, members int) *resident {
	t.Helper()
	v, err := wire.VersionOf(version)
	if err != nil {
		t.Fatal(err)
	}
	_, key := federationtest.NewKey(t)
	r := &resident{t: t, domain: domain, key: key, version: v, asked: map[string]int{}}
	owner := r.user("owner")
	if !v.HashedRoomID {
		r.room = "!room:" + domain
	}
	creation := object{"room_version": version}
	if v.CreatorKey {
		creation["creator"] = owner
	}
	create := r.put(wire.TypeCreate, "", owner, creation)
	r.room = create.RoomID
	r.put(wire.TypeMember, owner, owner, object{"membership": "join"})
	levels := object{"users": object{owner: 100}}
	if v.HashedRoomID {
		levels = object{"users": object{}}
	}
	r.put(wire.TypePowerLevels, "", owner, levels)
	r.put(wire.TypeJoinRules, "", owner, object{"join_rule": "public"})
	for i := range members {
		user := r.user(fmt.Sprintf("u%d", i))
		r.put(wire.TypeMember, user, user, object{"membership": "join", "displayname": fmt.Sprintf("Number %d", i)})
	}
	w.Impostor(domain, r.handler())
	return r
}

func (r *resident) user(name string) string { return "@" + name + ":" + r.domain }

// put adds an event to the room's state.
func (r *resident) put(typ, key, sender string, content object) *wire.PDU {
	r.t.Helper()
	pdu := r.build(typ, key, sender, content)
	for i, e := range r.state {
		if e.Type == typ && *e.StateKey == key {
			r.state = append(r.state[:i:i], r.state[i+1:]...)
			break
		}
	}
	r.state = append(r.state, pdu)
	r.last, r.depth = pdu, pdu.Depth
	return pdu
}

// build makes an event that comes next.
func (r *resident) build(typ, key, sender string, content object) *wire.PDU {
	r.t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		r.t.Fatal(err)
	}
	if raw, err = wire.Canonical(raw); err != nil {
		r.t.Fatal(err)
	}
	p := wire.Proto{RoomID: r.room, Type: typ, StateKey: &key, Sender: sender, Content: raw, Depth: r.depth + 1, Time: time.Now().UnixMilli()}
	if typ != wire.TypeCreate {
		p.PrevEvents = []string{r.last.EventID}
		p.AuthEvents = r.auth(typ, &key, sender, raw)
	}
	pdu, err := wire.Build(r.version, p)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.sign(pdu)
}

func (r *resident) sign(pdu *wire.PDU) *wire.PDU {
	r.t.Helper()
	signed, err := pdu.Sign(wire.Signer{Server: r.domain, Key: r.key})
	if err != nil {
		r.t.Fatal(err)
	}
	if pdu, err = wire.Parse(r.version, signed); err != nil {
		r.t.Fatal(err)
	}
	return pdu
}

func (r *resident) auth(typ string, key *string, sender string, content []byte) []string {
	ids := []string{}
	for _, k := range wire.AuthTypes(r.version, typ, key, sender, content) {
		for _, e := range r.state {
			if e.Type == k.Type && *e.StateKey == k.Key {
				ids = append(ids, e.EventID)
			}
		}
	}
	return ids
}

// list are events as they go out.
func list(events []*wire.PDU) []any {
	out := make([]any, len(events))
	for i, e := range events {
		out[i] = json.RawMessage(e.JSON)
	}
	return out
}

// asks counts what the server is asked, by the word in the path.
func (r *resident) asks(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[what]
}

func (r *resident) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			r.t.Error(err)
		}
	}
	const fed = "/_matrix/federation/"
	handle := func(pattern, what string, f func(http.ResponseWriter, *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			r.mu.Lock()
			r.asked[what]++
			r.mu.Unlock()
			f(w, req)
		})
	}
	handle("GET /_matrix/key/v2/server", "keys", func(w http.ResponseWriter, _ *http.Request) {
		raw, err := keyring.Own{Domain: r.domain, Key: r.key}.Answer(time.Now())
		if err != nil {
			r.t.Error(err)
		}
		answer(w, 200, json.RawMessage(raw))
	})
	handle("GET "+fed+"v1/make_join/{room}/{user}", "make_join", func(w http.ResponseWriter, req *http.Request) {
		if r.joinable != nil {
			if status, code := r.joinable(); status != 200 {
				answer(w, status, object{"errcode": code, "error": "as the test\nsays"})
				return
			}
		}
		user := req.PathValue("user")
		content := object{"membership": "join"}
		raw, err := json.Marshal(content)
		if err != nil {
			r.t.Error(err)
		}
		out := object{"room_version": r.version.ID, "event": object{
			"type": wire.TypeMember, "room_id": r.room, "sender": user, "state_key": user, "content": content, "depth": r.depth + 1,
			"origin": r.domain, "origin_server_ts": 1, "prev_events": []string{r.last.EventID},
			"auth_events": r.auth(wire.TypeMember, &user, user, raw),
		}}
		if r.template != nil {
			r.template(out)
		}
		answer(w, 200, out)
	})
	handle("PUT "+fed+"v2/send_join/{room}/{event}", "send_join", func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			r.t.Error(err)
		}
		join, err := wire.Parse(r.version, raw)
		if err != nil || !join.CheckHash() || join.EventID != req.PathValue("event") {
			r.t.Errorf("a join that is none: %v %s", err, raw)
			return
		}
		r.mu.Lock()
		r.joins = append(r.joins, join)
		r.mu.Unlock()
		out := object{"state": list(r.state), "auth_chain": list(r.state), "event": json.RawMessage(join.JSON)}
		if r.welcome != nil {
			r.welcome(out)
		}
		answer(w, 200, out)
	})
	handle("GET "+fed+"v1/state/{room}", "state", func(w http.ResponseWriter, _ *http.Request) {
		out := object{"pdus": list(r.state), "auth_chain": list(r.state)}
		if r.told != nil {
			r.told(out)
		}
		answer(w, 200, out)
	})
	handle("PUT "+fed+"v1/send/{txn}", "send", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, object{"pdus": object{}}) })
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.asked[strings.Split(req.URL.Path, "/")[4]]++
		r.mu.Unlock()
		answer(w, 404, object{"errcode": "M_UNRECOGNIZED", "error": "no"})
	})
	return mux
}
