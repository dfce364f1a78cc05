package sync_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/rooms/roomstest"
)

// find is the first event of a type.
func find(events []object, typ string) object {
	for _, e := range events {
		if e.Text("type") == typ {
			return e
		}
	}
	return nil
}

func ids(events []object) (out []string) {
	for _, e := range events {
		out = append(out, e.Text("event_id"))
	}
	return out
}

func filter(f string) string { return "filter=" + url.QueryEscape(f) }

func TestInviteJoinLeave(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	start := bob.Sync("", "").Text("next_batch")
	room := alice.Create(object{"name": "Garden", "preset": "private_chat"})
	for range 3 {
		alice.Say(room, "before")
	}
	alice.Invite(room, bob)

	got := bob.Sync(start, "timeout=10000")
	invite := got.List("rooms", "invite", room, "invite_state", "events")
	if find(invite, "m.room.create") == nil || find(invite, "m.room.name").Text("content", "name") != "Garden" {
		t.Errorf("the invitation shows %s", got.Raw)
	}
	if own := invite[len(invite)-1]; own.Text("state_key") != bob.ID || own["event_id"] != nil {
		t.Errorf("the invitation itself is %v", own)
	}
	bob.Join(room)
	got = bob.Sync(got.Text("next_batch"), "timeout=10000")
	join := got.Obj("rooms", "join", room)
	if join.Get("timeline", "limited") != true || len(join.List("timeline", "events")) != 10 || len(join.List("state", "events")) == 0 {
		t.Errorf("joined: %s", got.Raw)
	}
	if join.Get("summary", "m.joined_member_count") != 2.0 {
		t.Errorf("summary: %v", join.Obj("summary"))
	}
	kicked := got.Text("next_batch")
	alice.Say(room, "bye")
	alice.Do("POST", roomstest.Room(room, "/kick"), object{"user_id": bob.ID})
	alice.Say(room, "after")
	got = bob.Sync(kicked, "timeout=10000")
	leave := got.Obj("rooms", "leave", room)
	if l := leave.List("timeline", "events"); len(l) != 2 || l[1].Text("content", "membership") != "leave" || got.Get("rooms", "join") != nil {
		t.Errorf("kicked: %s", got.Raw)
	}
	if got = bob.Sync(got.Text("next_batch"), ""); got.Get("rooms") != nil {
		t.Errorf("after the kick: %s", got.Raw)
	}
	withLeft := filter(`{"room":{"include_leave":true}}`)
	if got = bob.Sync("", withLeft); got.Obj("rooms", "leave", room) == nil {
		t.Errorf("left rooms: %s", got.Raw)
	}
	bob.Do("POST", roomstest.Room(room, "/forget"), nil)
	if got = bob.Sync("", withLeft); got.Get("rooms") != nil {
		t.Errorf("forgotten rooms: %s", got.Raw)
	}
	alice.Invite(room, bob)
	bob.Do("POST", roomstest.Room(room, "/leave"), nil)
	got = bob.Sync(got.Text("next_batch"), "")
	if l := got.List("rooms", "leave", room, "timeline", "events"); len(l) == 0 || l[len(l)-1].Text("content", "membership") != "leave" {
		t.Errorf("a declined invitation: %s", got.Raw)
	}
}

func TestTransactionEchoAndRestart(t *testing.T) {
	s := roomstest.New(t)
	alice := s.User("alice")
	other := s.LogIn("alice", "OTHER")
	room := alice.Create(object{})
	token := alice.Sync("", "").Text("next_batch")
	alice.Say(room, "x")
	if e := find(alice.Sync(token, "").List("rooms", "join", room, "timeline", "events"), "m.room.message"); e.Text("unsigned", "transaction_id") == "" {
		t.Errorf("the sender's own device gets no transaction ID: %v", e)
	}
	if e := find(other.Sync(token, "").List("rooms", "join", room, "timeline", "events"), "m.room.message"); e.Text("unsigned", "transaction_id") != "" {
		t.Errorf("another device gets a transaction ID: %v", e)
	}
	s.Restart()
	got := alice.Sync(token, "")
	if len(got.List("rooms", "join", room, "timeline", "events")) != 1 {
		t.Errorf("with a token of before the restart: %s", got.Raw)
	}
	for _, token := range []string{"nonsense", "s1_zz", "s1_-1_0_0", "t1_5"} {
		if r := alice.Try("GET", "/v3/sync?since="+token, nil); r.Status != 400 || r.Code() != "M_INVALID_PARAM" {
			t.Errorf("%s: %d %s", token, r.Status, r.Raw)
		}
	}
	if r := alice.Try("GET", "/v3/sync?since=s1_zzzzzzz_0_0", nil); r.Code() != "M_UNKNOWN_POS" {
		t.Errorf("a token of the future: %s", r.Raw)
	}
}

func TestLazyMembers(t *testing.T) {
	s := roomstest.New(t)
	alice, bob, carol := s.User("alice"), s.User("bob"), s.User("carol")
	room := alice.Create(object{"preset": "public_chat", "name": "n"})
	bob.Join(room)
	carol.Join(room)
	alice.Say(room, "one")
	lazy := filter(`{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}`)
	members := func(a roomstest.Answer) (out []string) {
		for _, e := range a.List("rooms", "join", room, "state", "events") {
			if e.Text("type") == "m.room.member" {
				out = append(out, e.Text("state_key"))
			}
		}
		slices.Sort(out)
		return out
	}
	got := bob.Sync("", lazy)
	if have := members(got); !slices.Equal(have, []string{alice.ID, bob.ID}) {
		t.Errorf("at first: %q", have)
	}
	carol.Say(room, "two")
	again := got.Text("next_batch")
	got = bob.Sync(again, lazy)
	if have := members(got); !slices.Equal(have, []string{carol.ID}) {
		t.Errorf("a new speaker: %q", have)
	}
	if have := members(bob.Sync(again, lazy)); !slices.Equal(have, []string{carol.ID}) {
		t.Errorf("an answer that was lost: %q", have)
	}
	carol.Say(room, "three")
	got = bob.Sync(got.Text("next_batch"), lazy)
	if have := members(got); len(have) != 0 {
		t.Errorf("a known speaker: %q", have)
	}
	carol.Say(room, "four")
	redundant := filter(`{"room":{"state":{"lazy_load_members":true,"include_redundant_members":true}}}`)
	if have := members(bob.Sync(got.Text("next_batch"), redundant)); !slices.Equal(have, []string{carol.ID}) {
		t.Errorf("redundant members: %q", have)
	}
	token := got.Text("next_batch")
	alice.SetState(room, "m.room.member", alice.ID, object{"membership": "join", "displayname": "Alicia"})
	for range 3 {
		carol.Say(room, "five")
	}
	if have := members(bob.Sync(token, lazy)); !slices.Equal(have, []string{alice.ID}) {
		t.Errorf("in the gap: %q", have)
	}
}

// counted are the unread counts of a room.
func counted(a roomstest.Answer, room string) string {
	r := a.Obj("rooms", "join", room)
	return fmt.Sprint(r.Get("unread_notifications", "notification_count"), r.Get("unread_notifications", "highlight_count"))
}

func TestReceiptsAndUnread(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	bob.Join(room)
	token := bob.Sync("", "").Text("next_batch")
	step := func(what, want string) roomstest.Answer {
		t.Helper()
		got := bob.Sync(token, "timeout=10000")
		token = got.Text("next_batch")
		if have := counted(got, room); have != want {
			t.Errorf("%s: %s, want %s", what, have, want)
		}
		return got
	}
	one := alice.Say(room, "one")
	step("a message", "1 0")
	two := alice.Send(room, "m.room.message", object{"msgtype": "m.text", "body": "hey", "m.mentions": object{"user_ids": []string{bob.ID}}})
	step("a mention", "2 1")
	alice.Send(room, "m.room.message", object{
		"msgtype": "m.text", "body": "* x", "m.new_content": object{"msgtype": "m.text", "body": "x"},
		"m.relates_to": object{"rel_type": "m.replace", "event_id": one},
	})
	step("an edit", "2 1")
	bob.Do("POST", roomstest.Room(room, "/receipt/m.read.private/%s", one), object{})
	step("a private receipt", "1 1")
	alice.Do("PUT", roomstest.Room(room, "/redact/%s/r", two), object{})
	step("a redaction", "0 0")
	three := alice.Say(room, "three")
	step("another", "1 0")
	s.Restart()
	if have := counted(bob.Sync("", ""), room); have != "1 0" {
		t.Errorf("after a restart: %s", have)
	}
	bob.Do("POST", roomstest.Room(room, "/read_markers"), object{"m.fully_read": three, "m.read": three})
	got := step("read", "0 0")
	if e := find(got.List("rooms", "join", room, "account_data", "events"), "m.fully_read"); e.Text("content", "event_id") != three {
		t.Errorf("fully read: %s", got.Raw)
	}
	seen := alice.Sync("", "")
	receipt := find(seen.List("rooms", "join", room, "ephemeral", "events"), "m.receipt")
	if receipt.Obj("content", three, "m.read", bob.ID) == nil || receipt.Obj("content", one) != nil {
		t.Errorf("alice sees the receipts %v", receipt)
	}
	alice.Say(room, "four")
	step("one more", "1 0")
	bob.Say(room, "I have seen it")
	step("speaking is reading", "0 0")
}

func TestThreadCounts(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	bob.Join(room)
	root := alice.Say(room, "root")
	inThread := alice.Send(room, "m.room.message", object{
		"msgtype": "m.text", "body": "x", "m.relates_to": object{"rel_type": "m.thread", "event_id": root},
	})
	threads := filter(`{"room":{"timeline":{"unread_thread_notifications":true}}}`)
	got := bob.Sync("", threads)
	if counted(got, room) != "1 0" || got.Get("rooms", "join", room, "unread_thread_notifications", root, "notification_count") != 1.0 {
		t.Errorf("by thread: %s", got.Raw)
	}
	if have := counted(bob.Sync("", ""), room); have != "2 0" {
		t.Errorf("all in one: %s", have)
	}
	bob.Do("POST", roomstest.Room(room, "/receipt/m.read/%s", inThread), object{"thread_id": root})
	got = bob.Sync(got.Text("next_batch"), threads)
	if counted(got, room) != "1 0" || got.Get("rooms", "join", room, "unread_thread_notifications") != nil {
		t.Errorf("the thread is read: %s", got.Raw)
	}
	receipt := find(got.List("rooms", "join", room, "ephemeral", "events"), "m.receipt")
	if receipt.Text("content", inThread, "m.read", bob.ID, "thread_id") != root {
		t.Errorf("receipt: %v", receipt)
	}
	bob.Do("POST", roomstest.Room(room, "/receipt/m.read/%s", root), object{"thread_id": "main"})
	if got = bob.Sync(got.Text("next_batch"), threads); counted(got, room) != "0 0" {
		t.Errorf("the main timeline is read: %s", got.Raw)
	}
}

func TestTypingWakes(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	bob.Join(room)
	token := bob.Sync("", "").Text("next_batch")
	answer := make(chan roomstest.Answer)
	go func() { answer <- bob.Sync(token, "timeout=60000") }()
	alice.Do("PUT", roomstest.Room(room, "/typing/%s", alice.ID), object{"typing": true, "timeout": 30000})
	got := <-answer
	e := find(got.List("rooms", "join", room, "ephemeral", "events"), "m.typing")
	if u, _ := e.Get("content", "user_ids").([]any); len(u) != 1 || u[0] != alice.ID {
		t.Errorf("typing: %s", got.Raw)
	}
	if got = bob.Sync(got.Text("next_batch"), ""); got.Get("rooms") != nil {
		t.Errorf("typing is told again: %s", got.Raw)
	}
	alice.Do("PUT", roomstest.Room(room, "/typing/%s", alice.ID), object{"typing": false})
	got = bob.Sync(got.Text("next_batch"), "timeout=60000")
	e = find(got.List("rooms", "join", room, "ephemeral", "events"), "m.typing")
	if u, ok := e.Get("content", "user_ids").([]any); !ok || len(u) != 0 {
		t.Errorf("stopped: %s", got.Raw)
	}
	if r := alice.Try("PUT", roomstest.Room(room, "/typing/%s", bob.ID), object{"typing": true}); r.Status != 403 {
		t.Errorf("typing for another: %s", r.Raw)
	}
}

func TestIgnoredSenders(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat", "power_level_content_override": object{"state_default": 0}})
	bob.Join(room)
	token := alice.Sync("", "").Text("next_batch")
	ignored := "/v3/user/" + url.PathEscape(alice.ID) + "/account_data/m.ignored_user_list"
	alice.Do("PUT", ignored, object{"ignored_users": object{bob.ID: object{}}})
	bob.Say(room, "noise")
	topic := bob.SetState(room, "m.room.topic", "", object{"topic": "x"})
	got := alice.Sync(token, "")
	if have := ids(got.List("rooms", "join", room, "timeline", "events")); !slices.Equal(have, []string{topic}) {
		t.Errorf("of one who is ignored: %q, want %q", have, topic)
	}
	if find(got.List("account_data", "events"), "m.ignored_user_list") == nil {
		t.Errorf("account data: %s", got.Raw)
	}
	mine := bob.Create(object{})
	if r := bob.Try("POST", roomstest.Room(mine, "/invite"), object{"user_id": alice.ID}); r.Status != 403 {
		t.Errorf("inviting one who ignores: %s", r.Raw)
	}
}

func TestDirects(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	token := bob.Sync("", "").Text("next_batch")
	room := alice.Create(object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{bob.ID}})
	err := s.Hub.Read(t.Context(), func(v hub.View) error {
		directs, err := v.Directs(alice.Address, bob.Address)
		if err != nil || len(directs) != 1 {
			t.Errorf("directs: %v, %v", directs, err)
		}
		c, err := v.Conversation(directs[0])
		if c.Native[core.Matrix] != room || c.Shape != core.Direct {
			t.Errorf("the direct is %+v", c)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := bob.Sync(token, "timeout=10000")
	own := got.List("rooms", "invite", room, "invite_state", "events")
	if len(own) == 0 || own[len(own)-1].Get("content", "is_direct") != true {
		t.Errorf("the invitation: %s", got.Raw)
	}
	bob.Join(room)
	for _, u := range []*roomstest.User{alice, bob} {
		peer := map[*roomstest.User]*roomstest.User{alice: bob, bob: alice}[u]
		d := find(u.Sync("", "").List("account_data", "events"), "m.direct")
		if l, _ := d.Get("content", peer.ID).([]any); len(l) != 1 || l[0] != room {
			t.Errorf("m.direct of %s is %v", u.ID, d)
		}
	}
}

func TestFailedDelivery(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "public_chat"})
	bob.Join(room)
	sent := alice.Say(room, "hello")
	token, other := alice.Sync("", "").Text("next_batch"), bob.Sync("", "").Text("next_batch")
	var id core.EventID
	err := s.Hub.Read(t.Context(), func(v hub.View) (err error) {
		id, err = s.Mirror.CoreID(v, sent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	to := core.Address{Network: core.XMPP, Name: "carol", Domain: "example.net"}
	if err := s.Hub.Report(t.Context(), hub.Report{Event: id, To: to, Stage: core.StageFailed, Reason: "no such user"}); err != nil {
		t.Fatal(err)
	}
	got := alice.Sync(token, "timeout=10000")
	e := find(got.List("rooms", "join", room, "ephemeral", "events"), "com.beeper.message_send_status")
	if e.Text("content", "m.relates_to", "event_id") != sent || e.Text("content", "status") != "FAIL_PERMANENT" {
		t.Errorf("the sender hears %s", got.Raw)
	}
	lost := []core.Loss{{Feature: core.FeatureFormatting, Fallback: "plain text"}}
	if err := s.Hub.Report(t.Context(), hub.Report{Event: id, To: to, Stage: core.StageThere, Losses: lost}); err != nil {
		t.Fatal(err)
	}
	got = alice.Sync(got.Text("next_batch"), "timeout=10000")
	e = find(got.List("rooms", "join", room, "ephemeral", "events"), "com.beeper.message_send_status")
	if e.Text("content", "status") != "SUCCESS" || !strings.Contains(e.Text("content", "message"), "formatting (as plain text)") {
		t.Errorf("of the loss the sender hears %s", got.Raw)
	}
	if got := bob.Sync(other, ""); got.Get("rooms") != nil {
		t.Errorf("another hears %s", got.Raw)
	}
}

func TestToDeviceAndKeys(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	got := bob.Sync("", "")
	if got.Get("device_one_time_keys_count", "signed_curve25519") != 0.0 || got.Get("device_unused_fallback_key_types") == nil {
		t.Errorf("keys: %s", got.Raw)
	}
	alice.Do("PUT", "/v3/sendToDevice/org.example.x/1", object{"messages": object{bob.ID: object{"*": object{"n": 1}}}})
	first := bob.Sync(got.Text("next_batch"), "timeout=10000")
	if l := first.List("to_device", "events"); len(l) != 1 || l[0].Text("sender") != alice.ID || l[0].Get("content", "n") != 1.0 {
		t.Errorf("to device: %s", first.Raw)
	}
	again := bob.Sync(got.Text("next_batch"), "")
	if len(again.List("to_device", "events")) != 1 {
		t.Errorf("after an answer that was lost: %s", again.Raw)
	}
	if after := bob.Sync(again.Text("next_batch"), ""); after.Get("to_device") != nil {
		t.Errorf("once had: %s", after.Raw)
	}
	room := alice.Create(object{"preset": "public_chat"})
	token := bob.Sync("", "").Text("next_batch")
	bob.Join(room)
	lists := bob.Sync(token, "timeout=10000")
	if l, _ := lists.Get("device_lists", "changed").([]any); !slices.Contains(l, any(alice.ID)) {
		t.Errorf("device lists: %s", lists.Raw)
	}
}

func TestPresence(t *testing.T) {
	s := roomstest.New(t)
	alice, bob := s.User("alice"), s.User("bob")
	room := alice.Create(object{"preset": "trusted_private_chat", "is_direct": true, "invite": []string{bob.ID}})
	bob.Join(room)
	token := alice.Sync("", "").Text("next_batch")
	bob.Do("GET", "/v3/sync", nil)
	got := alice.Sync(token, "timeout=10000")
	if e := find(got.List("presence", "events"), "m.presence"); e.Text("sender") != bob.ID || e.Text("content", "presence") != "online" {
		t.Errorf("presence: %s", got.Raw)
	}
}
