package devices_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"parley/core"
	"parley/matrix/federation/federationtest"
)

// A server can say nothing of users of others, nor anything that clients could
// not read.
//
// spec: MX 1.19 SS §23
func TestHostileAnswers(t *testing.T) {
	w, alice, b, conv := onBob(t, nil)
	a := w.Server("a.test")
	victim := a.User("victim")
	upload(victim, "right")
	const otherID = "@other:b.test"
	move(a, conv, otherID, core.Joined)
	good := deviceKeys(bobID, "GOOD", "good")
	with := func(change func(object)) object {
		o := deviceKeys(bobID, "BAD", "bad")
		change(o)
		return o
	}
	bad := map[string]any{
		"of another user":   with(func(o object) { o["user_id"] = victim.ID }),
		"of another device": with(func(o object) { o["device_id"] = "OTHER" }),
		"no keys":           with(func(o object) { delete(o, "keys") }),
		"keys as a list":    with(func(o object) { o["keys"] = []any{"x"} }),
		"signatures":        with(func(o object) { o["signatures"] = map[string]any{bobID: "x"} }),
		"a number":          with(func(o object) { o["x"] = 1.5 }),
		"too long":          with(func(o object) { o["x"] = strings.Repeat("x", 70<<10) }),
		"no object":         "text",
		"nothing":           nil,
	}
	for name, dev := range bad {
		if o, ok := dev.(object); ok {
			dev = map[string]any(o)
		}
		answer := queried(bobID, good)
		answer.Obj("device_keys", bobID)["BAD"] = dev
		answer.Obj("device_keys")[victim.ID] = map[string]any{"VICTIM": map[string]any(deviceKeys(victim.ID, "VICTIM", "forged"))}
		answer["master_keys"] = map[string]any{bobID: newCross(t, victim.ID).body["master_key"], victim.ID: newCross(t, victim.ID).body["master_key"]}
		answer["self_signing_keys"] = map[string]any{bobID: []any{}}
		b.answer(queryPath, answer)
		move(a, conv, bobID, core.Left) // so that he is asked for anew
		move(a, conv, bobID, core.Joined)
		got := query(alice, bobID, victim.ID, otherID)
		if n := len(got.Obj("device_keys", bobID)); n != 1 || curve(got, bobID, "GOOD") != "good" {
			t.Errorf("%s: %v", name, got)
		}
		if curve(got, victim.ID, "VICTIM") != "right" || len(got.Obj("master_keys")) != 0 || len(got.Obj("self_signing_keys")) != 0 {
			t.Errorf("%s: forged: %v", name, got)
		}
		// The same when the list is fetched.
		l := list(bobID, 5, good)
		l["devices"] = append(l["devices"].([]any), map[string]any{"device_id": "BAD", "keys": dev})
		l["master_key"] = newCross(t, victim.ID).body["master_key"]
		b.answer(listPath(bobID), l)
		b.must("a.test", "m.device_list_update", update(bobID, 5, []int{4}, good))
		if got := query(alice, bobID); len(got.Obj("device_keys", bobID)) != 1 || len(got.Obj("master_keys")) != 0 {
			t.Errorf("%s in a list: %v", name, got)
		}
	}
}

// Answers that are wrong as a whole are failures, and change nothing.
func TestUselessAnswers(t *testing.T) {
	_, alice, b, _ := onBob(t, nil)
	sees(t, alice, map[string]string{"B": "one"})
	b.must("a.test", "m.device_list_update", update(bobID, 5, []int{4}, deviceKeys(bobID, "B", "two")))
	many := list(bobID, 5)
	for i := range 1001 {
		many["devices"] = append(many["devices"].([]any), map[string]any{"device_id": fmt.Sprint(i)})
	}
	huge := list(bobID, 5)
	huge["x"] = strings.Repeat("x", 5<<20)
	for name, answer := range map[string]any{
		"another user": list("@carol:b.test", 5), "no object": "[]", "no JSON": "{", "a stream of text": `{"user_id":"@bob:b.test","stream_id":"5","devices":[]}`,
		"devices as an object": `{"user_id":"@bob:b.test","stream_id":5,"devices":{}}`, "a negative stream": list(bobID, -1),
		"too many": many, "too much": huge, "nothing": "",
	} {
		b.answer(listPath(bobID), answer)
		got := query(alice, bobID)
		if curve(got, bobID, "B") != "one" || got.Get("failures", "b.test") == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	b.answer(listPath(bobID), list(bobID, 5, deviceKeys(bobID, "B", "two")))
	sees(t, alice, map[string]string{"B": "two"})
}

// Of claimed keys only those that were asked for are passed on.
func TestHostileClaims(t *testing.T) {
	_, alice, b, _ := onBob(t, nil)
	claim := func(answer string) object {
		t.Helper()
		b.answer(claimPath, answer)
		return alice.Do("POST", "/v3/keys/claim", object{"one_time_keys": object{bobID: object{"B": "signed_curve25519"}}}).Obj("one_time_keys")
	}
	if got := claim(`{"one_time_keys":{"@bob:b.test":{"B":{"signed_curve25519:x":{"key":"k"}},"C":{"signed_curve25519:y":{}}},"@carol:b.test":{"B":{"signed_curve25519:x":{}}}}}`); len(got) != 1 || len(got.Obj(bobID)) != 1 || got.Text(bobID, "B", "signed_curve25519:x", "key") != "k" {
		t.Errorf("good: %v", got)
	}
	for _, bad := range []string{
		`{"other:x":{"key":"k"}}`, `{"signed_curve25519:x":{},"signed_curve25519:y":{}}`, `{"signed_curve25519:x":5}`, `[]`, `null`, `{}`,
		`{"signed_curve25519:x":{"key":1.5}}`, `{"signed_curve25519:x":"` + strings.Repeat("x", 70<<10) + `"}`,
	} {
		if got := claim(`{"one_time_keys":{"@bob:b.test":{"B":` + bad + `}}}`); len(got) != 0 {
			t.Errorf("%.60s: %v", bad, got)
		}
	}
}

// What a server says of users that are not its own, or in a wrong form, is an
// error and changes nothing.
func TestHostileEDUs(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	mallory := w.scripted("mallory.test")
	b.answer(listPath(bobID), list(bobID, 5, deviceKeys(bobID, "B", "one")))
	sees(t, alice, map[string]string{"B": "one"})
	start := token(alice)
	good := update(bobID, 6, []int{5}, deviceKeys(bobID, "B", "forged"))
	keys := newCross(t, bobID)
	signing := object{"user_id": bobID, "master_key": keys.body["master_key"]}
	message := object{"sender": bobID, "type": "m.x", "message_id": "1", "messages": object{alice.ID: object{"*": object{}}}}
	for typ, content := range map[string]object{
		"m.device_list_update": good, "m.signing_key_update": signing, "org.matrix.signing_key_update": signing, "m.direct_to_device": message,
	} {
		if mallory.says("a.test", typ, content) == nil {
			t.Errorf("%s of another server's user", typ)
		}
		for key := range content {
			if key == "prev_id" || key == "keys" || key == "master_key" {
				continue
			}
			for _, bad := range []any{nil, 5.5, []any{}, "\x00", strings.Repeat("x", 300), true} {
				o := object{}
				for k, v := range content {
					o[k] = v
				}
				if o[key] = bad; b.says("a.test", typ, o) == nil && (key != "messages" || bad != nil) && (key != "stream_id" || bad != nil) {
					t.Errorf("%s with %v for %s", typ, bad, key)
				}
			}
		}
		for _, text := range []string{`[]`, `null`, `5`, `{}`, `{"user_id":{}}`} {
			if w.dev("a.test").EDUs()[typ](t.Context(), "b.test", json.RawMessage(text)) == nil {
				t.Errorf("%s: %s", typ, text)
			}
		}
	}
	local := update(alice.ID, 6, []int{5}, deviceKeys(alice.ID, "ALICE", "forged"))
	if b.says("a.test", "m.device_list_update", local) == nil {
		t.Error("an update of a user here")
	}
	if got := changes(alice, start); !strings.HasPrefix(got, "[@bob:b.test]") && got != "[] []" {
		t.Errorf("changed: %s", got)
	}
	if got := query(alice, bobID); len(got.Obj("master_keys")) != 0 || curve(got, bobID, "B") == "forged" {
		t.Errorf("forged: %v", got)
	}
	if got := alice.Sync("", "").List("to_device", "events"); len(got) > 0 {
		t.Errorf("messages: %v", got)
	}
}

// A user cannot have devices without end.
func TestDevicesWithoutEnd(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	var all []object
	for i := range 1000 {
		all = append(all, deviceKeys(bobID, fmt.Sprint(i), "x"))
	}
	b.answer(queryPath, queried(bobID))
	b.answer(listPath(bobID), list(bobID, 1, all...))
	query(alice, bobID)
	b.must("a.test", "m.device_list_update", update(bobID, 1, nil, all[0]))
	federationtest.Eventually(t, "the list", func() bool { return w.counts.of("matrix_device_lists fetched") > 0 })
	if b.says("a.test", "m.device_list_update", update(bobID, 2, []int{1}, deviceKeys(bobID, "more", "x"))) == nil {
		t.Error("one device more")
	}
	b.must("a.test", "m.device_list_update", update(bobID, 2, []int{1}, deviceKeys(bobID, "7", "y")))
	if got := query(alice, bobID); len(got.Obj("device_keys", bobID)) != 1000 || curve(got, bobID, "7") != "y" {
		t.Errorf("%d devices", len(got.Obj("device_keys", bobID)))
	}
}
