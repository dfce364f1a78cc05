package devices_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// toDevice is an m.direct_to_device of bob's.
func toDevice(id string, messages object) object {
	return object{"sender": bobID, "type": "m.test", "message_id": id, "messages": map[string]any(messages)}
}

// inbox are the contents that wait for a device, which are then taken.
func inbox(u *user) string {
	u.Server.T.Helper()
	o := u.Sync("", "")
	var out []string
	for _, e := range o.List("to_device", "events") {
		raw, err := json.Marshal(e["content"])
		if err != nil {
			u.Server.T.Fatal(err)
		}
		if e.Text("sender") != bobID || e.Text("type") != "m.test" {
			u.Server.T.Errorf("a message %v", e)
		}
		out = append(out, string(raw))
	}
	u.Sync(o.Text("next_batch"), "")
	return strings.Join(out, " ")
}

// Messages of other servers come to the devices that they are for, once, also
// over a restart, and none from one who is blocked.
//
// spec: MX 1.19 SS §24
func TestToDeviceIn(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	a := w.Server("a.test")
	first := toDevice("one", object{alice.ID: object{"ALICE": object{"n": 1}, "GONE": object{"n": 2}}, "@nobody:a.test": object{"*": object{}}})
	b.must("a.test", "m.direct_to_device", first)
	b.must("a.test", "m.direct_to_device", first)
	b.must("a.test", "m.direct_to_device", toDevice("two", object{alice.ID: object{"*": object{"n": 3}}}))
	if got := inbox(alice); got != `{"n":1} {"n":3}` {
		t.Errorf("got %s", got)
	}
	a.Restart()
	alice = a.On(alice)
	b.must("a.test", "m.direct_to_device", first)
	if got := inbox(alice); got != "" {
		t.Errorf("after a restart: %s", got)
	}
	// Another server may call its message the same.
	c := w.scripted("c.test")
	other := toDevice("one", object{alice.ID: object{"*": object{"n": 4}}})
	other["sender"] = "@carol:c.test"
	c.must("a.test", "m.direct_to_device", other)
	if got := alice.Sync("", "").List("to_device", "events"); len(got) != 1 || got[0].Text("sender") != "@carol:c.test" {
		t.Errorf("carol's: %v", got)
	}
	inboxOf := alice.Sync("", "")
	alice.Sync(inboxOf.Text("next_batch"), "")
	// What is no message, or for none of ours, is left out; the rest arrives.
	b.must("a.test", "m.direct_to_device", toDevice("three", object{
		alice.ID: object{"ALICE": "text", "*": object{"n": 5}}, bobID: object{"*": object{}}, "no ID": object{"*": object{}},
		"@nobody:a.test": object{"\x00": object{}, strings.Repeat("x", 300): object{}},
	}))
	if got := inbox(alice); got != `{"n":5}` {
		t.Errorf("got %s", got)
	}
	if n := w.counts.of("matrix_to_device_dropped malformed"); n != 5 {
		t.Errorf("%d were malformed", n)
	}
	if err := a.Hub.Block(context.Background(), alice.Address, remote(bobID)); err != nil {
		t.Fatal(err)
	}
	b.must("a.test", "m.direct_to_device", toDevice("four", object{alice.ID: object{"*": object{"n": 6}}}))
	if got := inbox(alice); got != "" {
		t.Errorf("from one who is blocked: %s", got)
	}
	if n := w.counts.of("matrix_to_device_dropped blocked"); n != 1 {
		t.Errorf("%d were blocked", n)
	}
	if n := w.counts.of("matrix_to_device_dropped repeated"); n == 0 {
		t.Error("no repetition was counted")
	}
}

// A queue does not grow without end, whatever names a server uses.
func TestToDeviceFull(t *testing.T) {
	w, alice, b, _ := onBob(t, nil)
	atOnce := func(n int, f func(i int)) {
		var wg sync.WaitGroup
		for worker := range 30 {
			wg.Go(func() {
				for i := worker; i < n; i += 30 {
					f(i)
				}
			})
		}
		wg.Wait()
	}
	atOnce(2100, func(i int) {
		b.must("a.test", "m.direct_to_device", toDevice(fmt.Sprint(i), object{alice.ID: object{"ALICE": object{}}}))
	})
	if n := w.counts.of("matrix_to_device_dropped full"); n != 100 {
		t.Errorf("of one sender %d were dropped", n)
	}
	big := strings.Repeat("x", 250<<10)
	atOnce(300, func(i int) {
		m := toDevice(fmt.Sprint("big", i), object{alice.ID: object{"ALICE": object{"x": big}}})
		m["sender"] = fmt.Sprintf("@s%d:b.test", i)
		b.must("a.test", "m.direct_to_device", m)
	})
	// 64 MiB of 250 KiB each, beside those of 2 bytes.
	if n := w.counts.of("matrix_to_device_dropped full"); n != 100+300-263 {
		t.Errorf("of one server %d were dropped", n)
	}
	// Others are not in the way of that.
	c := w.scripted("c.test")
	m := toDevice("1", object{alice.ID: object{"ALICE": object{}}})
	m["sender"] = "@carol:c.test"
	before := w.counts.of("matrix_to_device_dropped full")
	c.must("a.test", "m.direct_to_device", m)
	if n := w.counts.of("matrix_to_device_dropped full"); n != before {
		t.Error("another server's message was dropped")
	}
}

// Messages to other servers are owed in parts of a sensible size, one server's
// apart from another's, in the turn of the request: once, and over a restart.
//
// spec: MX 1.19 SS §24
func TestToDeviceOut(t *testing.T) {
	w := newWorld(t, nil, "a.test")
	a := w.Server("a.test")
	alice, victor := a.User("alice"), a.User("victor")
	w.scripted("b.test")
	w.scripted("c.test")
	w.Cut("b.test", true)
	long := strings.Repeat("x", 10<<10)
	devices := object{}
	for i := range 12 {
		devices[fmt.Sprintf("D%02d", i)] = object{"x": long}
	}
	body := object{"messages": object{bobID: devices, "@carol:c.test": object{"*": object{"n": 1}}, victor.ID: object{"*": object{"n": 2}}}}
	for range 2 {
		alice.Do("PUT", "/v3/sendToDevice/m.test/1", body)
	}
	w.await(1) // c.test's
	if got := victor.Sync("", "").List("to_device", "events"); len(got) != 1 {
		t.Errorf("here: %v", got)
	}
	a.Restart(func() { w.Cut("b.test", false) })
	alice = a.On(alice)
	got := map[string]int{}
	ids := map[string]bool{}
	for _, e := range w.await(4) {
		var m struct {
			Sender   string                                `json:"sender"`
			Type     string                                `json:"type"`
			ID       string                                `json:"message_id"`
			Messages map[string]map[string]json.RawMessage `json:"messages"`
		}
		if err := json.Unmarshal(e.Content, &m); err != nil {
			t.Fatal(err)
		}
		if m.Sender != alice.ID || m.Type != "m.test" || len(m.ID) == 0 || len(m.ID) > 32 || ids[m.ID] || e.Type != "m.direct_to_device" || len(e.Content) > 60<<10 {
			t.Errorf("to %s: %.200s", e.dest, e.Content)
		}
		ids[m.ID] = true
		for user, devices := range m.Messages {
			for device := range devices {
				got[e.dest+" "+user+" "+device]++
			}
		}
	}
	if len(got) != 13 || got["c.test @carol:c.test *"] != 1 || got["b.test "+bobID+" D11"] != 1 {
		t.Errorf("sent: %v", got)
	}
	// What servers could not exchange is refused at once, with all that came
	// with it.
	deep := strings.Repeat(`{"a":`, 97) + "1" + strings.Repeat("}", 97)
	for name, content := range map[string]string{
		"too deep": deep, "half a character": `{"x":"\ud800"}`, "a key twice": `{"x":1,"x":2}`, "a fraction": `{"x":1.5}`, "too long": `{"x":"` + strings.Repeat("x", 70<<10) + `"}`,
	} {
		answer := alice.Try("PUT", "/v3/sendToDevice/m.test/"+strings.ReplaceAll(name, " ", ""),
			`{"messages":{"`+bobID+`":{"D":`+content+`},"`+victor.ID+`":{"*":{"n":3}}}}`)
		if answer.Status != 400 && answer.Status != 413 {
			t.Errorf("%s: %d %s", name, answer.Status, answer.Raw)
		}
	}
	alice.Do("PUT", "/v3/sendToDevice/m.test/last", `{"messages":{"`+bobID+`":{"D":{"x":1.0}}}}`)
	w.await(5)
	if got := a.On(victor).Sync("", "").List("to_device", "events"); len(got) != 1 {
		t.Errorf("here: %v", got)
	}
}
