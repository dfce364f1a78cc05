package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

func TestAccountData(t *testing.T) {
	s := serve(t)
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	path := "/user/" + alice.id + "/account_data/"
	alice.put(path+"org.example.thing", object{"a": 1}).ok()
	alice.get(path+"org.example.thing").want("1", "a")
	alice.get(path+"org.example.none").fails(404, client.NotFound)
	bob.get(path+"org.example.thing").fails(403, client.Forbidden)
	bob.put(path+"org.example.thing", object{}).fails(403, client.Forbidden)
	alice.put(path+"m.push_rules", object{}).fails(405, client.BadJSON)
	alice.put(path+"m.fully_read", object{}).fails(405, client.BadJSON)
	alice.put(path+"xmpp:bookmarks", object{}).fails(400, client.InvalidParam)
	if err := s.hub.PutDatum(t.Context(), hub.Datum{
		Account: alice.account(), Type: "xmpp:vcard-temp", Data: []byte("<vCard/>"),
	}, ""); err != nil {
		t.Fatal(err)
	}
	alice.get(path+"xmpp:vcard-temp").fails(404, client.NotFound)
	alice.get(path + "m.push_rules").ok()
	alice.put(path+"big", object{"x": strings.Repeat("x", 300<<10)}).fails(413, client.TooLarge)
	nowhere := "/user/" + alice.id + "/rooms/" + esc("!none:example.org")
	alice.put(nowhere+"/account_data/x", object{}).fails(404, client.NotFound)
	alice.get(nowhere+"/tags").fails(404, client.NotFound)
}

// The block list is one, whoever changes it.
func TestIgnored(t *testing.T) {
	s := serve(t)
	ctx := context.Background()
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	path := "/user/" + alice.id + "/account_data/m.ignored_user_list"
	blocks := func() string {
		t.Helper()
		var list []core.Address
		if err := s.hub.Read(ctx, func(v hub.View) (err error) { list, err = v.Blocks(alice.account()); return err }); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(list)
	}
	server := core.Address{Network: core.XMPP, Domain: "spam.example"}
	if err := s.hub.Block(ctx, alice.account(), server); err != nil {
		t.Fatal(err)
	}
	alice.put(path, object{"ignored_users": object{bob.id: object{}}}).ok()
	if got := blocks(); got != "[local:bob@example.org xmpp:@spam.example]" {
		t.Errorf("blocked: %s", got)
	}
	alice.put(path, object{"ignored_users": object{alice.id: object{}}}).ok()
	if got := blocks(); got != "[xmpp:@spam.example]" {
		t.Errorf("after taking bob off: %s", got)
	}
	alice.put(path, object{"ignored_users": object{"nobody": object{}}}).fails(400, client.InvalidParam)
	alice.put(path, object{"ignored_users": 1}).fails(400, client.BadJSON)
}

func TestDirectData(t *testing.T) { each(t, testDirectData) }

func testDirectData(t *testing.T, s *server) {
	ctx := context.Background()
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	conv := s.direct(alice, bob)
	// The Matrix package names the room when it mints it.
	err := s.hub.Write(ctx, func(tx hub.Tx) error {
		c, err := tx.Conversation(conv)
		if err != nil {
			return err
		}
		c.Native = map[core.Network]string{core.Matrix: "!direct"}
		return tx.PutConversation(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	path := "/user/" + alice.id + "/account_data/m.direct"
	alice.get(path).want(`["!direct"]`, bob.id)
	alice.put(path, object{bob.id: []string{"!old"}, "@x:example.org": []string{"!x"}}).ok()
	alice.get(path).want(`["!old","!direct"]`, bob.id)
	alice.get(path).want(`["!x"]`, "@x:example.org")
	alice.put(path, object{bob.id: "no list"}).ok()
	alice.get(path).want(`"no list"`, bob.id)

	room := "/user/" + alice.id + "/rooms/" + esc("!direct")
	alice.put(room+"/account_data/org.example.x", object{"a": true}).ok()
	alice.get(room+"/account_data/org.example.x").want("true", "a")
	alice.get("/user/"+alice.id+"/account_data/org.example.x").fails(404, client.NotFound)
	alice.put(room+"/tags/m.favourite", object{"order": 0.25}).ok()
	alice.put(room+"/tags/u.work", object{}).ok()
	alice.put(room+"/tags/u.bad", object{"order": 2}).fails(400, client.InvalidParam)
	alice.get(room+"/tags").want(`{"m.favourite":{"order":0.25},"u.work":{}}`, "tags")
	alice.del(room + "/tags/u.work").ok()
	alice.get(room+"/account_data/m.tag").want(`{"m.favourite":{"order":0.25}}`, "tags")
}

func TestFilters(t *testing.T) {
	s := serve(t, func(c *client.Config) {
		c.CheckFilter = func(b []byte) error {
			var v struct{ Room struct{} }
			return client.DecodeJSON(b, &v)
		}
	})
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	path := "/user/" + alice.id + "/filter"
	id := alice.post(path, object{"room": object{"timeline": object{"limit": 5}}}).ok()["filter_id"].(string)
	alice.get(path+"/"+id).want("5", "room", "timeline", "limit")
	if again := alice.post(path, object{"room": object{"timeline": object{"limit": 5}}}).ok()["filter_id"]; again != id {
		t.Errorf("the same filter twice: %v and %v", id, again)
	}
	alice.get(path+"/99").fails(404, client.NotFound)
	alice.get(path+"/x").fails(404, client.NotFound)
	bob.get(path+"/"+id).fails(403, client.Forbidden)
	alice.post(path, object{"room": 1}).fails(400, client.BadJSON)
	alice.post(path, object{"room": strings.Repeat("x", 40<<10)}).fails(413, client.TooLarge)
}

func TestProfile(t *testing.T) { each(t, testProfile) }

func testProfile(t *testing.T, s *server) {
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	path := "/profile/" + alice.id
	alice.put(path+"/displayname", object{"displayname": "Alice"}).ok()
	alice.put(path+"/m.tz", object{"m.tz": "Europe/Berlin"}).ok()
	bob.get(path).want(`"Alice"`, "displayname")
	bob.get(path+"/m.tz").want(`"Europe/Berlin"`, "m.tz")
	bob.get(path+"/avatar_url").fails(404, client.NotFound)
	bob.get("/profile/@nobody:example.org").fails(404, client.NotFound)
	bob.get("/profile/nobody").fails(400, client.InvalidParam)
	bob.put(path+"/displayname", object{"displayname": "Not Alice"}).fails(403, client.Forbidden)
	s.nobody().get(path).fails(403, client.Forbidden)
	alice.put(path+"/displayname", object{"name": "x"}).fails(400, client.MissingParam)
	alice.put(path+"/Bad", object{"Bad": 1}).fails(400, client.InvalidParam)
	alice.put(path+"/a."+strings.Repeat("x", 300), object{}).fails(400, client.KeyTooLarge)
	alice.put(path+"/a.b", object{"a.b": strings.Repeat("x", 40<<10)}).ok()
	alice.put(path+"/a.c", object{"a.c": strings.Repeat("x", 40<<10)}).fails(400, client.ProfileTooLarge)
	bob.get(path+"/a.c").fails(404, client.NotFound)
	alice.put(path+"/avatar_url", object{"avatar_url": "https://example.org/x.png"}).fails(400, client.InvalidParam)
	alice.del(path + "/a.b").ok()
	alice.del(path + "/displayname").ok()
	bob.get(path).want(`{"m.tz":"Europe/Berlin"}`)
}

func TestPresence(t *testing.T) {
	s := serve(t)
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	alice.put("/presence/"+alice.id+"/status", object{"presence": "unavailable", "status_msg": "lunch"}).ok()
	alice.get("/presence/"+alice.id+"/status").want(`"unavailable"`, "presence")
	alice.get("/presence/"+alice.id+"/status").want(`"lunch"`, "status_msg")
	// Without consent one cannot tell her from nobody.
	bob.get("/presence/" + alice.id + "/status").want(`{"presence":"offline"}`)
	bob.get("/presence/@nobody:example.org/status").want(`{"presence":"offline"}`)
	bob.put("/presence/"+alice.id+"/status", object{"presence": "online"}).fails(403, client.Forbidden)
	alice.put("/presence/"+alice.id+"/status", object{"presence": "busy"}).fails(400, client.InvalidParam)
}

func TestUserSearch(t *testing.T) {
	s := serve(t)
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	s.login("bobby", "C") // a stranger
	s.direct(alice, bob)
	a := alice.post("/user_directory/search", object{"search_term": "BOB"}).ok()
	if r := a["results"].([]any); len(r) != 1 || r[0].(object)["user_id"] != bob.id {
		t.Errorf("found %v", r)
	}
}

func TestOpenID(t *testing.T) { each(t, testOpenID) }

func testOpenID(t *testing.T, s *server) {
	alice := s.login("alice", "A")
	a := alice.post("/user/"+alice.id+"/openid/request_token", object{}).ok()
	if who, err := s.api.OpenIDUser(t.Context(), a["access_token"].(string)); err != nil || who != "@alice:example.org" {
		t.Errorf("%q, %v", who, err)
	}
	if who, err := s.api.OpenIDUser(t.Context(), "x"); err == nil {
		t.Errorf("a token that was never given is %q", who)
	}
	// It opens nothing else.
	(&user{server: s, token: a["access_token"].(string)}).get("/account/whoami").fails(401, client.UnknownToken)
}

func TestPushRules(t *testing.T) {
	s := serve(t)
	alice := s.login("alice", "A")
	const rules = "/pushrules/global/"
	ids := func(kind string) string {
		t.Helper()
		var out []string
		for _, r := range alice.get("/pushrules/").ok()["global"].(object)[kind].([]any) {
			id := r.(object)["rule_id"].(string)
			if !strings.HasPrefix(id, ".") || id == ".m.rule.master" {
				out = append(out, id)
			}
		}
		return strings.Join(out, " ")
	}
	alice.get(rules+"override/.m.rule.master/enabled").want("false", "enabled")
	alice.put(rules+"override/first", object{"actions": []any{"notify"}, "conditions": []any{object{"kind": "event_match", "key": "type", "pattern": ""}}}).ok()
	alice.put(rules+"override/second", object{"actions": []any{}}).ok()
	alice.put(rules+"override/third?after=second", object{"actions": []any{}}).ok()
	alice.put(rules+"override/fourth?before=second", object{"actions": []any{}}).ok()
	if got := ids("override"); got != ".m.rule.master fourth second third first" {
		t.Errorf("order: %s", got)
	}
	alice.get(rules+"override/first").want(`[{"key":"type","kind":"event_match","pattern":""}]`, "conditions")
	alice.put(rules+"override/third/enabled", object{"enabled": false}).ok()
	alice.put(rules+"override/third", object{"actions": []any{"notify"}}).ok() // keeps its place, and its being disabled
	alice.get(rules+"override/third").want("false", "enabled")
	alice.put(rules+"override/third?before=fourth", object{"actions": []any{}}).ok()
	if got := ids("override"); got != ".m.rule.master third fourth second first" {
		t.Errorf("after moving: %s", got)
	}
	alice.put(rules+"override/.m.rule.master/enabled", object{"enabled": true}).ok()
	alice.put(rules+"underride/.m.rule.message/actions", object{"actions": []any{}}).ok()
	alice.get(rules+"underride/.m.rule.message/actions").want("[]", "actions")
	alice.del(rules + "override/first").ok()
	alice.get(rules+"override/first").fails(404, client.NotFound)
	alice.del(rules+"override/first").fails(404, client.NotFound)

	for name, c := range map[string]struct {
		path string
		body object
		code client.Errcode
	}{
		"a server's name":     {"override/.mine", object{"actions": []any{}}, client.InvalidParam},
		"a slash":             {"override/a%2Fb", object{"actions": []any{}}, client.InvalidParam},
		"no actions":          {"override/x", object{}, client.MissingParam},
		"unknown action":      {"override/x", object{"actions": []any{"explode"}}, client.InvalidParam},
		"action of no form":   {"override/x", object{"actions": []any{1}}, client.BadJSON},
		"unknown kind":        {"sideride/x", object{"actions": []any{}}, client.InvalidParam},
		"no pattern":          {"content/x", object{"actions": []any{}}, client.InvalidParam},
		"before nothing":      {"room/x?before=none", object{"actions": []any{}}, client.Unknown},
		"before the server's": {"underride/x?before=.m.rule.message", object{"actions": []any{}}, client.Unknown},
	} {
		t.Run(name, func(t *testing.T) { alice.put(rules+c.path, c.body).fails(400, c.code) })
	}
	alice.del(rules+"underride/.m.rule.message").fails(400, client.InvalidParam)
	// What /sync shows is the same.
	err := s.hub.Read(context.Background(), func(v hub.View) error {
		data, err := s.api.AccountData(v, alice.account(), "", 0)
		if len(data) == 0 || data[len(data)-1].Type != "m.push_rules" || !strings.Contains(string(data[len(data)-1].Content), `"third"`) {
			t.Errorf("account data: %v", data)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEvaluate(t *testing.T) {
	s := serve(t)
	alice := s.login("alice", "A")
	const rules = "/pushrules/global/"
	alice.put(rules+"content/cake", object{"pattern": "ca?e*lie", "actions": []any{"notify", object{"set_tweak": "highlight"}}}).ok()
	alice.put(rules+"room/"+esc("!quiet"), object{"actions": []any{}}).ok()
	alice.put(rules+"sender/"+esc("@spam:example.org"), object{"actions": []any{}}).ok()
	var ev *client.Evaluator
	err := s.hub.Read(context.Background(), func(v hub.View) error {
		set, err := s.api.PushRules(v, alice.account())
		if err == nil {
			ev = set.Evaluator(alice.id)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	group := client.PushContext{Members: 5, MayNotify: func(sender, key string) bool { return sender == "@boss:example.org" && key == "room" }}
	two := client.PushContext{Members: 2}
	say := func(more string) string {
		return `{"type":"m.room.message","sender":"@bob:example.org","room_id":"!r",` + more + `}`
	}
	body := func(text string) string { return say(`"content":{"msgtype":"m.text","body":"` + text + `"}`) }
	for _, c := range []struct {
		name, event string
		in          client.PushContext
		notify, hl  bool
		rule        string
	}{
		{"message", body("hello"), group, true, false, ".m.rule.message"},
		{"to me alone", body("hello"), two, true, false, ".m.rule.room_one_to_one"},
		{"my own", `{"type":"m.room.message","sender":"@alice:example.org","content":{"body":"x"}}`, group, false, false, ""},
		{"notice", say(`"content":{"msgtype":"m.notice","body":"x"}`), two, false, false, ".m.rule.suppress_notices"},
		{"mention", say(`"content":{"body":"x","m.mentions":{"user_ids":["@bob:example.org","@alice:example.org"]}}`), group, true, true, ".m.rule.is_user_mention"},
		{"mention of others", say(`"content":{"body":"x","m.mentions":{"user_ids":["@bob:example.org"]}}`), group, true, false, ".m.rule.message"},
		{"mentions of no form", say(`"content":{"body":"x","m.mentions":{"user_ids":"@alice:example.org"}}`), group, true, false, ".m.rule.message"},
		{"all, by whom may not", say(`"content":{"body":"x","m.mentions":{"room":true}}`), group, true, false, ".m.rule.message"},
		{"all, by whom may", `{"type":"m.room.message","sender":"@boss:example.org","content":{"body":"x","m.mentions":{"room":true}}}`, group, true, true, ".m.rule.is_room_mention"},
		{"all, as text", `{"type":"m.room.message","sender":"@boss:example.org","content":{"body":"x","m.mentions":{"room":"true"}}}`, group, true, false, ".m.rule.message"},
		{"edit", say(`"content":{"body":"x","m.relates_to":{"rel_type":"m.replace","event_id":"$x"}}`), group, false, false, ".m.rule.suppress_edits"},
		{"reaction", `{"type":"m.reaction","sender":"@bob:example.org","content":{}}`, group, false, false, ".m.rule.reaction"},
		{"encrypted", `{"type":"m.room.encrypted","sender":"@bob:example.org","content":{}}`, two, true, false, ".m.rule.encrypted_room_one_to_one"},
		{"invitation", `{"type":"m.room.member","state_key":"@alice:example.org","sender":"@bob:example.org","content":{"membership":"invite"}}`, group, true, false, ".m.rule.invite_for_me"},
		{"another's invitation", `{"type":"m.room.member","state_key":"@carol:example.org","sender":"@bob:example.org","content":{"membership":"invite"}}`, group, false, false, ".m.rule.member_event"},
		{"topic", `{"type":"m.room.topic","state_key":"","sender":"@bob:example.org","content":{}}`, group, false, false, ""},
		{"tombstone", `{"type":"m.room.tombstone","state_key":"","sender":"@bob:example.org","content":{}}`, group, true, true, ".m.rule.tombstone"},
		{"no state", `{"type":"m.room.tombstone","sender":"@bob:example.org","content":{}}`, group, false, false, ""},
		{"word", body("The CAKE is a lie!"), group, true, true, "cake"},
		{"part of a word", body("pancake is a lie"), group, true, false, ".m.rule.message"},
		{"quiet room", `{"type":"m.room.message","sender":"@bob:example.org","room_id":"!quiet","content":{"body":"x"}}`, group, false, false, "!quiet"},
		{"quiet sender", `{"type":"m.room.message","sender":"@spam:example.org","room_id":"!r","content":{"body":"x"}}`, group, false, false, "@spam:example.org"},
		{"nothing in it", `{}`, group, false, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e map[string]any
			if err := json.Unmarshal([]byte(c.event), &e); err != nil {
				t.Fatal(err)
			}
			got := ev.Evaluate(e, c.in)
			if want := (client.Verdict{Notify: c.notify, Highlight: c.hl, Rule: c.rule}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

func TestPushers(t *testing.T) { each(t, testPushers) }

func testPushers(t *testing.T, s *server) {
	alice, other := s.login("alice", "A"), s.login("bob", "B")
	p := object{"app_id": "app", "pushkey": "key", "kind": "http", "app_display_name": "App", "device_display_name": "Phone", "lang": "en",
		"data": object{"url": "https://push.example.org/_matrix/push/v1/notify"}}
	with := func(k string, v any) object {
		o := object{}
		for k, v := range p {
			o[k] = v
		}
		o[k] = v
		return o
	}
	count := func(u *user) int { return len(u.get("/pushers").ok()["pushers"].([]any)) }
	alice.post("/pushers/set", p).ok()
	alice.post("/pushers/set", with("lang", "de")).ok()
	if n := count(alice); n != 1 {
		t.Errorf("%d pushers", n)
	}
	other.post("/pushers/set", p).ok() // takes the key over
	if count(alice) != 0 || count(other) != 1 {
		t.Error("one push key of two accounts")
	}
	alice.post("/pushers/set", with("append", true)).ok()
	if count(alice) != 1 || count(other) != 1 {
		t.Error("append did not leave the other's")
	}
	alice.post("/pushers/set", with("data", object{"url": "http://push.example.org/_matrix/push/v1/notify"})).fails(400, client.InvalidParam)
	alice.post("/pushers/set", with("lang", "")).fails(400, client.MissingParam)
	alice.post("/pushers/set", with("kind", nil)).ok()
	if count(alice) != 0 {
		t.Error("not deleted")
	}
	other.post("/logout", nil).ok()
	if again := s.login("bob", "B2"); count(again) != 0 {
		t.Error("the pusher outlived its device")
	}
}
