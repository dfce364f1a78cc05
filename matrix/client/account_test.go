package client_test

import (
	"context"
	"testing"

	"parley/hub/hubtest"
	"parley/matrix/client"
)

func TestLogin(t *testing.T) {
	s := serve(t)
	s.login("alice", "A")
	for _, c := range []struct {
		name   string
		body   object
		status int
		code   client.Errcode
	}{
		{"local part", object{"identifier": object{"type": "m.id.user", "user": "alice"}, "password": hubtest.Password}, 200, ""},
		{"upper case", object{"identifier": object{"type": "m.id.user", "user": "Alice"}, "password": hubtest.Password}, 200, ""},
		{"user ID", object{"identifier": object{"type": "m.id.user", "user": "@alice:example.org"}, "password": hubtest.Password}, 200, ""},
		{"address", object{"identifier": object{"type": "m.id.user", "user": "alice@example.org"}, "password": hubtest.Password}, 200, ""},
		{"mail", object{"identifier": object{"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"}, "password": hubtest.Password}, 200, ""},
		{"old form", object{"user": "alice", "password": hubtest.Password}, 200, ""},
		{"wrong password", object{"user": "alice", "password": "no"}, 403, client.Forbidden},
		{"nobody", object{"user": "mallory", "password": "no"}, 403, client.Forbidden},
		{"other server", object{"user": "@alice:example.net", "password": hubtest.Password}, 403, client.Forbidden},
		{"no user", object{"password": "no"}, 400, client.MissingParam},
		{"no password", object{"user": "alice"}, 400, client.MissingParam},
		{"telephone", object{"identifier": object{"type": "m.id.phone"}, "password": "x"}, 400, client.Unknown},
		{"other type", object{"type": "m.login.token", "token": "x"}, 400, client.Unknown},
		{"NUL in the device", object{"user": "alice", "password": hubtest.Password, "device_id": "a\x00"}, 400, client.InvalidParam},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.body["type"] == nil {
				c.body["type"] = "m.login.password"
			}
			a := s.nobody().post("/login", c.body)
			if c.code != "" {
				a.fails(c.status, c.code)
				return
			}
			a.want(`"@alice:example.org"`, "user_id")
		})
	}
	// The first device's token works still; logging in again as that device ends it.
	alice := s.login("alice", "B")
	again := s.login("alice", "B")
	alice.get("/account/whoami").fails(401, client.UnknownToken)
	again.get("/account/whoami").want(`"B"`, "device_id")
}

func TestLogout(t *testing.T) { each(t, testLogout) }

func testLogout(t *testing.T, s *server) {
	a, b, bob := s.login("alice", "A"), s.login("alice", "B"), s.login("bob", "A")
	a.get("/account/whoami").ok() // into the cache
	a.post("/logout", nil).ok()
	a.get("/account/whoami").fails(401, client.UnknownToken)
	b.get("/account/whoami").ok()
	b.post("/logout/all", nil).ok()
	b.get("/account/whoami").fails(401, client.UnknownToken)
	bob.get("/account/whoami").ok()
}

func TestLocked(t *testing.T) {
	s := serve(t)
	a := s.login("alice", "A")
	if err := s.hub.Disable(context.Background(), a.account(), true); err != nil {
		t.Fatal(err)
	}
	if o := a.get("/account/whoami").fails(401, client.UserLocked); o["soft_logout"] != true {
		t.Error("a locked account is not told that it may come back")
	}
	a.post("/logout", nil).ok()
}

func TestRefresh(t *testing.T) { each(t, testRefresh) }

func testRefresh(t *testing.T, s *server) {
	s.login("alice", "A")
	first := s.nobody().post("/login", object{"type": "m.login.password", "user": "alice", "password": hubtest.Password, "refresh_token": true, "device_id": "R"}).ok()
	refresh := func(token any) *answer { return s.nobody().post("/refresh", object{"refresh_token": token}) }
	use := func(token any) *answer { return (&user{server: s, token: token.(string)}).get("/account/whoami") }

	lost := refresh(first["refresh_token"]).ok()
	// The answer got lost: the old token works once more, and so does the old access token.
	second := refresh(first["refresh_token"]).ok()
	use(first["access_token"]).ok()
	use(lost["access_token"]).fails(401, client.UnknownToken)
	// With the first use of the new one the old ones end.
	use(second["access_token"]).want(`"R"`, "device_id")
	use(first["access_token"]).fails(401, client.UnknownToken)
	refresh(first["refresh_token"]).fails(401, client.UnknownToken)
	// Refresh tokens are no access tokens, nor the other way round.
	use(second["refresh_token"]).fails(401, client.UnknownToken)
	refresh(second["access_token"]).fails(401, client.UnknownToken)
	// The next refresh token settles as well as an access token does.
	third := refresh(second["refresh_token"]).ok()
	refresh(third["refresh_token"]).ok()
	refresh(second["refresh_token"]).fails(401, client.UnknownToken)
}

func TestRegister(t *testing.T) {
	s := serve(t)
	n := s.nobody()
	body := func(name string, more object) object {
		b := object{"username": name, "password": hubtest.Password}
		for k, v := range more {
			b[k] = v
		}
		return b
	}
	dummy := object{"auth": object{"type": "m.login.dummy"}}

	first := n.post("/register", body("carol", nil))
	if first.status != 401 || first.object["session"] == nil {
		t.Fatalf("no stages asked for: %d %s", first.status, first.body)
	}
	first.want(`[{"stages":["m.login.dummy"]}]`, "flows")
	done := n.post("/register", body("carol", object{"auth": object{"type": "m.login.dummy", "session": first.object["session"]}})).ok()
	(&user{server: s, token: done["access_token"].(string)}).get("/account/whoami").want(`"@carol:example.org"`, "user_id")
	// The session is spent.
	if a := n.post("/register", body("carla", object{"auth": object{"session": first.object["session"]}})); a.status != 401 {
		t.Errorf("a spent session was good once more: %d %s", a.status, a.body)
	}

	n.post("/register", body("carol", dummy)).fails(400, client.UserInUse)
	n.post("/register", body("Carol", dummy)).fails(400, client.UserInUse)
	n.post("/register", body("postmaster", dummy)).fails(400, client.Exclusive)
	n.post("/register", body("a b", dummy)).fails(400, client.InvalidUsername)
	n.post("/register", body("_xmpp_x", dummy)).fails(400, client.InvalidUsername)
	n.post("/register", object{"username": "dave", "password": "short", "auth": dummy["auth"]}).fails(400, client.WeakPassword)
	n.post("/register?kind=guest", object{}).fails(403, client.GuestForbidden)
	if a := n.post("/register", body("erin", object{"inhibit_login": true, "auth": dummy["auth"]})).ok(); a["access_token"] != nil {
		t.Error("logged in although not wanted")
	}
	if a := n.post("/register", object{"password": hubtest.Password, "auth": dummy["auth"]}).ok(); a["user_id"] == nil {
		t.Error("no name was given")
	}
	n.get("/register/available?username=frank").want("true", "available")
	n.get("/register/available?username=carol").fails(400, client.UserInUse)
	// A session whose request failed because of the name is good for another name.
	a := n.post("/register", object{"password": hubtest.Password})
	session := object{"session": a.object["session"], "type": "m.login.dummy"}
	n.post("/register", object{"username": "gina", "password": "short", "auth": session}).fails(400, client.WeakPassword)
	n.post("/register", body("gina", object{"auth": object{"session": a.object["session"]}})).ok()
}

func TestRegisterModes(t *testing.T) {
	closed := serve(t, func(c *client.Config) { c.Registration = "closed" })
	closed.nobody().post("/register", object{"username": "a"}).fails(403, client.Forbidden)
	closed.nobody().get("/register/available?username=a").fails(403, client.Forbidden)

	s := serve(t, func(c *client.Config) { c.Registration, c.Tokens = "token", []string{"abracadabra"} })
	n := s.nobody()
	try := func(stage object) *answer {
		return n.post("/register", object{"username": "carol", "password": hubtest.Password, "auth": stage})
	}
	try(object{"type": "m.login.registration_token", "token": "simsalabim"}).fails(401, client.Forbidden)
	try(object{"type": "m.login.dummy"}).fails(401, client.Forbidden)
	try(object{"type": "m.login.registration_token", "token": "abracadabra"}).ok()
	const validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
	n.do("GET", validity+"abracadabra", nil).want("true", "valid")
	n.do("GET", validity+"x", nil).want("false", "valid")
}

func TestUIA(t *testing.T) {
	s := serve(t)
	alice, phone, mallory := s.login("alice", "A"), s.login("alice", "PHONE"), s.login("mallory", "M")
	s.login("alice", "C")
	ask := func(u *user, path string, body object) string {
		t.Helper()
		a := u.post(path, body)
		if a.status != 401 || a.object["session"] == nil {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		return a.object["session"].(string)
	}
	session := ask(alice, "/delete_devices", object{"devices": []string{"C"}})
	with := func(auth object, devices ...string) object { return object{"devices": devices, "auth": auth} }

	wrong := password(alice, session)
	wrong["password"] = "no"
	if a := alice.post("/delete_devices", with(wrong, "C")); a.status != 401 || a.object["errcode"] != "M_FORBIDDEN" || a.object["session"] != session {
		t.Errorf("a wrong password: %d %s", a.status, a.body)
	}
	other := password(mallory, session)
	alice.post("/delete_devices", with(other, "C")).fails(401, client.Forbidden)
	// Mallory cannot use alice's session, nor can alice's other device, nor another endpoint.
	for _, u := range []*user{mallory, phone} {
		a := u.post("/delete_devices", with(password(u, session), "C"))
		if u == mallory && (a.status != 401 || a.object["session"] == session) {
			t.Errorf("%s used alice's session: %d %s", u.id, a.status, a.body)
		}
	}
	if a := alice.post("/account/deactivate", object{"auth": password(alice, session)}); a.status != 401 || a.object["session"] == session {
		t.Errorf("one session for two endpoints: %d %s", a.status, a.body)
	}

	session = ask(alice, "/delete_devices", object{"devices": []string{"C"}})
	// A client may leave its parameters to the session.
	alice.post("/delete_devices", object{"auth": password(alice, session)}).ok()
	alice.get("/devices/C").fails(404, client.NotFound)
	// A session that was used is no authentication for anything more.
	if a := alice.post("/delete_devices", with(object{"session": session}, "PHONE")); a.status != 401 {
		t.Errorf("replayed: %d %s", a.status, a.body)
	}
	if a := alice.post("/delete_devices", with(object{"session": session, "type": "m.login.dummy"}, "PHONE")); a.status != 401 {
		t.Errorf("dummy: %d %s", a.status, a.body)
	}
	alice.get("/devices/PHONE").ok()
}

func TestUIALimit(t *testing.T) {
	s := serve(t)
	alice := s.login("alice", "A")
	last := 0
	for range 30 {
		last = alice.post("/account/deactivate", object{}).status
	}
	if last != 429 {
		t.Errorf("the thirtieth session under way is answered with %d", last)
	}
}

func TestPassword(t *testing.T) {
	s := serve(t)
	a, b := s.login("alice", "A"), s.login("alice", "B")
	change := func(u *user, to string, more object) *answer {
		body := object{"new_password": to, "auth": password(u, "")}
		for k, v := range more {
			body[k] = v
		}
		return u.post("/account/password", body)
	}
	change(a, "short", nil).fails(400, client.WeakPassword)
	change(a, "another good one", object{"logout_devices": false}).ok()
	b.get("/account/whoami").ok()
	s.nobody().post("/login", object{"type": "m.login.password", "user": "alice", "password": hubtest.Password}).fails(403, client.Forbidden)
	body := object{"new_password": hubtest.Password, "auth": object{"type": "m.login.password", "password": "another good one"}}
	a.post("/account/password", body).ok()
	b.get("/account/whoami").fails(401, client.UnknownToken)
	a.get("/account/whoami").ok()
}

func TestDeactivate(t *testing.T) {
	s := serve(t)
	a := s.login("alice", "A")
	a.post("/account/deactivate", object{"auth": password(a, "")}).ok()
	a.get("/account/whoami").fails(401, client.UnknownToken)
	s.nobody().post("/login", object{"type": "m.login.password", "user": "alice", "password": hubtest.Password}).fails(403, client.Forbidden)
}

func TestDevices(t *testing.T) { each(t, testDevices) }

func testDevices(t *testing.T, s *server) {
	a, bob := s.login("alice", "A"), s.login("bob", "BOB")
	a.put("/devices/A", object{"display_name": "Telephone"}).ok()
	a.get("/devices/A").want(`"Telephone"`, "display_name")
	a.put("/devices/A", object{}).ok()
	a.get("/devices/A").want(`"Telephone"`, "display_name")
	a.put("/devices/NONE", object{"display_name": "x"}).fails(404, client.NotFound)
	// Another's device is none.
	a.get("/devices/BOB").fails(404, client.NotFound)
	a.put("/devices/BOB", object{"display_name": "x"}).fails(404, client.NotFound)
	a.do("DELETE", v3+"/devices/BOB", object{"auth": password(a, "")}).ok()
	bob.get("/account/whoami").ok()
	if list := a.get("/devices").ok()["devices"].([]any); len(list) != 1 {
		t.Errorf("devices: %v", list)
	}
	a.do("DELETE", v3+"/devices/A", object{"auth": password(a, "")}).ok()
	a.get("/account/whoami").fails(401, client.UnknownToken)
}
