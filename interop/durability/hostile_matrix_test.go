package durability

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// attack is one hostile request and what it must come to.
type attack struct {
	name   string
	method string
	path   string // SECRET, OPEN and EVENT stand for what scene has of those
	body   string
	kind   string   // content type; application/json if empty
	as     *matrix  // milo if nil
	want   []int    // any of these
	err    []string // any of these error codes; none is looked at if empty
}

// scene is a server with a room that milo is in and one that he is not.
type scene struct {
	*process
	t            *testing.T
	mona, milo   *matrix
	open, secret string // room IDs
	event        string // in the secret room
	file         string // of mona's, as SERVER/ID
	said         int
	watch        *stream // a good XMPP client
}

func newScene(t *testing.T) *scene {
	t.Helper()
	// Little room and time for those who are not logged in, so that the tests of that are short.
	p := newProcess(t, "", `upload_size = "1MiB"
handshake_timeout = "3s"`)
	s := &scene{process: p, t: t}
	var err error
	must := func() {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	s.mona, err = matrixAs(t.Context(), &p.target, "mona")
	must()
	s.milo, err = matrixAs(t.Context(), &p.target, "milo")
	must()
	s.open, err = s.mona.create(t.Context(), object{"preset": "public_chat", "room_alias_name": "garden"}, s.milo)
	must()
	s.secret, err = s.mona.create(t.Context(), object{"preset": "private_chat", "room_alias_name": "secret"})
	must()
	s.event, err = s.mona.say(t.Context(), s.secret, "first", "a secret")
	must()
	_, b, err := s.mona.raw(t.Context(), http.MethodPost, "/_matrix/media/v3/upload", "text/html", strings.NewReader("<script>alert(1)</script>"))
	must()
	_, after, _ := strings.Cut(string(b), "mxc://")
	s.file, _, _ = strings.Cut(after, `"`)
	s.watch, err = dialXMPP(t.Context(), &p.target, "xena", "watch", nil)
	must()
	must()
	if err = s.watch.enter(t.Context(), "xena"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.watch.drop)
	return s
}

// well fails the test unless the server lives and serves good clients of both protocols: what one says the other hears.
func (s *scene) well(t *testing.T) {
	t.Helper()
	s.alive()
	s.said++
	body := fmt.Sprintf("mona/good %d", s.said)
	if _, err := s.mona.say(t.Context(), s.open, fmt.Sprintf("good%d", s.said), body); err != nil {
		t.Fatalf("a good Matrix client is not served: %v", err)
	}
	if _, err := s.watch.until(func(n *node) bool {
		b := n.one(name("body"))
		return b != nil && b.Text == body
	}); err != nil {
		t.Fatalf("a good XMPP client is not served: %v", err)
	}
}

// fill puts what the scene has into a path or body.
func (s *scene) fill(text string) string {
	return strings.NewReplacer("SECRET", url.PathEscape(s.secret), "OPEN", url.PathEscape(s.open), "EVENT", url.PathEscape(s.event)).Replace(text)
}

const (
	cs   = "/_matrix/client/v3"
	room = cs + "/rooms/OPEN"
	sect = cs + "/rooms/SECRET"
)

// deepJSON is an object that nests n levels deep.
func deepJSON(n int) string {
	return `{"msgtype":"m.text","body":"x","a":` + strings.Repeat(`[`, n) + strings.Repeat(`]`, n) + `}`
}

// message is the body of a message with one more member.
func message(more string) string { return `{"msgtype":"m.text","body":"hostile",` + more + `}` }

var (
	bad       = []int{http.StatusBadRequest}
	forbidden = []int{http.StatusForbidden}
	hidden    = []int{http.StatusForbidden, http.StatusNotFound}
	unknown   = []int{http.StatusUnauthorized}
	refused   = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusRequestEntityTooLarge}
)

// attacksJSON are bodies that must not become events.
func attacksJSON() []attack {
	send := room + "/send/m.room.message/hostile"
	both := []string{"M_BAD_JSON", "M_NOT_JSON"}
	var out []attack
	for name, body := range map[string]string{
		"deep":            deepJSON(200),
		"very deep":       deepJSON(200_000),
		"float":           message(`"x":1.5`),
		"exponent":        message(`"x":1e400`),
		"float overflow":  message(`"x":9007199254740993`),
		"negative":        message(`"x":-9007199254740993`),
		"array":           `[]`,
		"string":          `"x"`,
		"null":            `null`,
		"cut off":         `{"msgtype":"m.text","body":"x"`,
		"trailing":        `{"msgtype":"m.text","body":"x"}{}`,
		"raw NUL":         "{\"msgtype\":\"m.text\",\"body\":\"\x00\"}",
		"invalid UTF-8":   "{\"msgtype\":\"m.text\",\"body\":\"\xff\xfe\"}",
		"overlong UTF-8":  "{\"msgtype\":\"m.text\",\"body\":\"\xc0\xaf\"}",
		"UTF-16":          "\xff\xfe{\x00}\x00",
		"comment":         `{/**/"msgtype":"m.text","body":"x"}`,
		"NaN":             message(`"x":NaN`),
		"leading zero":    message(`"x":01`),
		"body of a type":  `{"msgtype":"m.text","body":{}}`,
		"msgtype number":  `{"msgtype":7,"body":"x"}`,
		"lone surrogate":  message(`"x":"\ud800"`),
		"duplicate keys":  message(`"body":"another"`),
		"duplicate depth": message(`"x":{"y":1,"y":2}`),
	} {
		out = append(out, attack{name: "JSON/" + name, method: "PUT", path: send, body: body, want: bad, err: both})
	}
	out = append(out,
		attack{name: "JSON/huge", method: "PUT", path: send, body: message(`"x":"` + strings.Repeat("x", 2<<20) + `"`), want: []int{413}, err: []string{"M_TOO_LARGE"}},
		attack{name: "JSON/many keys", method: "PUT", path: send, body: `{"x":[` + strings.Repeat(`{},`, 300_000) + `{}]}`, want: []int{413}, err: []string{"M_TOO_LARGE"}},
		attack{name: "event/oversize", method: "PUT", path: send, body: message(`"x":"` + strings.Repeat("x", 70_000) + `"`), want: []int{413}, err: []string{"M_TOO_LARGE"}},
		attack{name: "event/long type", method: "PUT", path: room + "/send/" + strings.Repeat("t", 300) + "/x", body: `{}`, want: refused},
		attack{name: "event/long state key", method: "PUT", path: room + "/state/org.example.x/" + strings.Repeat("k", 300), body: `{}`, want: refused, as: nil},
		attack{name: "event/no type", method: "PUT", path: room + "/send//x", body: `{}`, want: refused},
		attack{name: "event/state without key", method: "PUT", path: room + "/send/m.room.create/x", body: `{}`, want: refused},
		attack{name: "event/second creation", method: "PUT", path: room + "/state/m.room.create", body: `{"room_version":"12"}`, want: refused},
		attack{name: "event/member of nobody", method: "PUT", path: room + "/state/m.room.member/nobody", body: `{"membership":"join"}`, want: refused},
		attack{name: "event/member of another", method: "PUT", path: room + "/state/m.room.member/@xavi:" + domain, body: `{"membership":"join"}`, want: refused},
		attack{name: "event/membership of a new kind", method: "PUT", path: room + "/state/m.room.member/@milo:" + domain, body: `{"membership":"king"}`, want: refused},
		attack{name: "event/levels", method: "PUT", path: room + "/state/m.room.power_levels", body: `{"users":{"@milo:` + domain + `":100}}`, want: refused},
		attack{name: "event/levels of strings", method: "PUT", path: room + "/state/m.room.power_levels", body: `{"users":{"@milo:` + domain + `":"100"}}`, want: refused},
		attack{name: "event/redacts nothing", method: "PUT", path: room + "/redact/$nothing/x", body: `{}`, want: refused},
		attack{name: "event/redacts the secret", method: "PUT", path: room + "/redact/EVENT/x", body: `{}`, want: refused},
		attack{name: "event/kicks the owner", method: "POST", path: room + "/kick", body: `{"user_id":"@mona:` + domain + `"}`, want: forbidden, err: []string{"M_FORBIDDEN"}},
		attack{name: "event/bans the owner", method: "POST", path: room + "/ban", body: `{"user_id":"@mona:` + domain + `"}`, want: forbidden, err: []string{"M_FORBIDDEN"}},
	)
	return out
}

// attacksSecret are what one who is not in a room must not see of it or do to it.
func attacksSecret() []attack {
	var out []attack
	for _, path := range []string{
		"/state", "/state/m.room.name", "/state/m.room.create", "/members", "/joined_members", "/messages?dir=b", "/messages?dir=f",
		"/event/EVENT", "/context/EVENT", "/aliases", "/timestamp_to_event?ts=0&dir=f",
	} {
		out = append(out, attack{name: "secret/GET " + path, method: "GET", path: sect + path, want: hidden})
	}
	const v1 = "/_matrix/client/v1/rooms/SECRET"
	for _, path := range []string{"/relations/EVENT", "/threads", "/hierarchy"} {
		out = append(out, attack{name: "secret/GET v1" + path, method: "GET", path: v1 + path, want: hidden})
	}
	for _, a := range []struct{ method, path, body string }{
		{"PUT", "/send/m.room.message/x", message(`"x":1`)},
		{"PUT", "/state/m.room.name", `{"name":"mine"}`},
		{"PUT", "/redact/EVENT/x", `{}`},
		{"POST", "/invite", `{"user_id":"@milo:` + domain + `"}`},
		{"POST", "/join", `{}`},
		{"POST", "/receipt/m.read/EVENT", `{}`},
		{"POST", "/read_markers", `{"m.read":"EVENT"}`},
		{"PUT", "/typing/@milo:" + domain, `{"typing":true,"timeout":1000}`},
		{"POST", "/kick", `{"user_id":"@mona:` + domain + `"}`},
		{"POST", "/ban", `{"user_id":"@mona:` + domain + `"}`},
		{"POST", "/upgrade", `{"new_version":"12"}`},
	} {
		out = append(out, attack{name: "secret/" + a.method + " " + a.path, method: a.method, path: sect + a.path, body: a.body, want: hidden})
	}
	out = append(out,
		attack{name: "secret/by the open room", method: "GET", path: room + "/event/EVENT", want: hidden},
		attack{name: "secret/context by the open room", method: "GET", path: room + "/context/EVENT", want: hidden},
		attack{name: "secret/relations by the open room", method: "GET", path: "/_matrix/client/v1/rooms/OPEN/relations/EVENT", want: hidden},
		attack{name: "secret/join by alias", method: "POST", path: cs + "/join/%23secret:" + domain, body: `{}`, want: forbidden},
		attack{name: "secret/takes its alias away", method: "DELETE", path: cs + "/directory/room/%23secret:" + domain, want: hidden},
		attack{name: "secret/takes the alias", method: "PUT", path: cs + "/directory/room/%23secret:" + domain, body: `{"room_id":"OPEN"}`, want: []int{403, 409}},
		attack{name: "secret/lists it", method: "PUT", path: cs + "/directory/list/room/SECRET", body: `{"visibility":"public"}`, want: hidden},
		attack{name: "secret/a room of nothing", method: "GET", path: cs + "/rooms/!x/state", want: hidden},
	)
	return out
}

// attacksAccount are what one must not do as another, or with a bad token.
func attacksAccount(s *scene) []attack {
	with := func(token string) *matrix {
		m := *s.milo
		m.token = token
		return &m
	}
	const mona, filter = "/user/@mona:" + domain, `{"room":{}}`
	return []attack{
		{name: "token/none", method: "GET", path: cs + "/account/whoami", as: with(""), want: unknown, err: []string{"M_MISSING_TOKEN"}},
		{name: "token/wrong", method: "GET", path: cs + "/account/whoami", as: with("nonsense"), want: unknown, err: []string{"M_UNKNOWN_TOKEN"}},
		{name: "token/long", method: "GET", path: cs + "/account/whoami", as: with(strings.Repeat("x", 20_000)), want: unknown, err: []string{"M_UNKNOWN_TOKEN"}},
		{name: "token/cut", method: "GET", path: cs + "/account/whoami", as: with(s.milo.token[:len(s.milo.token)-1]), want: unknown, err: []string{"M_UNKNOWN_TOKEN"}},
		{name: "token/SQL", method: "GET", path: cs + "/account/whoami", as: with("' OR '1'='1"), want: unknown, err: []string{"M_UNKNOWN_TOKEN"}},
		{name: "as another/profile", method: "PUT", path: cs + "/profile/@mona:" + domain + "/displayname", body: `{"displayname":"x"}`, want: forbidden},
		{name: "as another/account data", method: "PUT", path: cs + mona + "/account_data/m.x", body: `{}`, want: forbidden},
		{name: "as another/reads account data", method: "GET", path: cs + mona + "/account_data/m.direct", want: hidden},
		{name: "as another/filter", method: "POST", path: cs + mona + "/filter", body: filter, want: forbidden},
		{name: "as another/tags", method: "GET", path: cs + mona + "/rooms/SECRET/tags", want: hidden},
		{name: "as another/presence", method: "PUT", path: cs + "/presence/@mona:" + domain + "/status", body: `{"presence":"online"}`, want: forbidden},
		{name: "as another/typing", method: "PUT", path: room + "/typing/@mona:" + domain, body: `{"typing":true}`, want: forbidden},
		{name: "as another/device", method: "GET", path: cs + "/devices/NOBODYS", want: []int{404}},
		{name: "as another/keys", method: "POST", path: cs + "/keys/upload", body: `{"device_keys":{"user_id":"@mona:` + domain + `","device_id":"X","algorithms":[],"keys":{},"signatures":{}}}`, want: refused},
		{name: "login/wrong", method: "POST", path: cs + "/login", body: `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"mona"},"password":"guess"}`, want: forbidden, err: []string{"M_FORBIDDEN"}},
		{name: "login/nobody", method: "POST", path: cs + "/login", body: `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"nobody"},"password":"guess"}`, want: forbidden, err: []string{"M_FORBIDDEN"}},
		{name: "login/types", method: "POST", path: cs + "/login", body: `{"type":7}`, want: bad},
		{name: "login/long password", method: "POST", path: cs + "/login", body: `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"mona"},"password":"` + strings.Repeat("x", 500_000) + `"}`, want: refused},
		{name: "login/NUL", method: "POST", path: cs + "/login", body: `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"mo\u0000na"},"password":"x"}`, want: refused},
		{name: "NUL/invite", method: "POST", path: room + "/invite", body: `{"user_id":"@a\u0000b:` + domain + `"}`, want: refused},
		{name: "NUL/to-device", method: "PUT", path: cs + "/sendToDevice/m.x/nul", body: `{"messages":{"@a\u0000b:` + domain + `":{"*":{}}}}`, want: []int{200, 400}},
		{name: "NUL/to-device device", method: "PUT", path: cs + "/sendToDevice/m.x/nul2", body: `{"messages":{"@mona:` + domain + `":{"a\u0000b":{}}}}`, want: []int{200, 400}},
		{name: "NUL/keys query", method: "POST", path: cs + "/keys/query", body: `{"device_keys":{"@a\u0000b:` + domain + `":["x\u0000"]}}`, want: []int{200, 400}},
		{name: "NUL/keys claim", method: "POST", path: cs + "/keys/claim", body: `{"one_time_keys":{"@mona:` + domain + `":{"D\u0000":"signed_curve25519"}}}`, want: []int{200, 400}},
		{name: "NUL/user directory", method: "POST", path: cs + "/user_directory/search", body: `{"search_term":"a\u0000b"}`, want: []int{200, 400}},
		{name: "NUL/public rooms", method: "POST", path: cs + "/publicRooms", body: `{"filter":{"generic_search_term":"a\u0000b"}}`, want: []int{200, 400}},
		{name: "NUL/search", method: "POST", path: cs + "/search", body: `{"search_categories":{"room_events":{"search_term":"a\u0000b"}}}`, want: refused},
		{name: "NUL/alias", method: "PUT", path: room + "/state/m.room.canonical_alias", body: `{"alias":"#a\u0000b:` + domain + `"}`, want: refused},
		{name: "NUL/reply", method: "PUT", path: room + "/send/m.reaction/nul", body: `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a\u0000b","key":"x"}}`, want: refused},
		{name: "NUL/device name", method: "PUT", path: cs + "/devices/" + "D", body: `{"display_name":"a\u0000b"}`, want: refused},
		{name: "NUL/push rule", method: "PUT", path: cs + "/pushrules/global/content/x", body: `{"actions":[],"pattern":"a\u0000b"}`, want: []int{200, 400}},
		{name: "NUL/pusher", method: "POST", path: cs + "/pushers/set", body: `{"pushkey":"a\u0000b","kind":null,"app_id":"x\u0000"}`, want: []int{200, 400}},
		{name: "NUL/refresh", method: "POST", path: cs + "/refresh", body: `{"refresh_token":"a\u0000b"}`, want: unknown},
		{name: "NUL/login type", method: "POST", path: cs + "/login", body: `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"mona"},"password":"a\u0000b"}`, want: forbidden},
		{name: "NUL/device in login", method: "POST", path: cs + "/login", body: `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"mona"},"password":"` + password + `","device_id":"a\u0000b"}`, want: bad},
		{name: "NUL/backup", method: "POST", path: cs + "/room_keys/version", body: `{"algorithm":"a\u0000b","auth_data":{}}`, want: []int{200, 400}},
		{name: "NUL/filter", method: "POST", path: cs + "/user/@milo:" + domain + "/filter", body: `{"room":{"rooms":["!a\u0000b"],"timeline":{"senders":["@\u0000"],"types":["\u0000"]}}}`, want: []int{200, 400}},
		{name: "NUL/read markers", method: "POST", path: room + "/read_markers", body: `{"m.fully_read":"$a\u0000b"}`, want: []int{200, 400, 404}},
		{name: "NUL/receipt thread", method: "POST", path: room + "/receipt/m.read/$x", body: `{"thread_id":"a\u0000b"}`, want: []int{200, 400, 404}},
		{name: "register/closed", method: "POST", path: cs + "/register", body: `{"username":"eve","password":"x"}`, want: []int{401, 403}},
		{name: "createRoom/version", method: "POST", path: cs + "/createRoom", body: `{"room_version":"99"}`, want: bad, err: []string{"M_UNSUPPORTED_ROOM_VERSION"}},
		{name: "createRoom/preset", method: "POST", path: cs + "/createRoom", body: `{"preset":"palace"}`, want: bad},
		{name: "createRoom/invites nonsense", method: "POST", path: cs + "/createRoom", body: `{"invite":["nonsense"]}`, want: bad},
		{name: "createRoom/levels", method: "POST", path: cs + "/createRoom", body: `{"power_level_content_override":{"users":"all"}}`, want: bad},
		{name: "createRoom/another's alias", method: "POST", path: cs + "/createRoom", body: `{"room_alias_name":"secret"}`, want: []int{400, 409}, err: []string{"M_ROOM_IN_USE"}},
		{name: "createRoom/creation in the initial state", method: "POST", path: cs + "/createRoom", body: `{"initial_state":[{"type":"m.room.create","content":{}}]}`, want: bad},
		{name: "createRoom/alias of a bad form", method: "POST", path: cs + "/createRoom", body: `{"room_alias_name":"a:b c\u0000"}`, want: bad},
		{name: "to-device/nonsense", method: "PUT", path: cs + "/sendToDevice/m.x/1", body: `{"messages":[]}`, want: bad},
		{name: "keys/claim", method: "POST", path: cs + "/keys/claim", body: `{"one_time_keys":{"x":7}}`, want: bad},
		{name: "keys/query", method: "POST", path: cs + "/keys/query", body: `{"device_keys":[]}`, want: bad},
	}
}

// attacksReading are bad tokens, pages and paths.
func attacksReading() []attack {
	ok := []int{200, 400}
	return []attack{
		{name: "sync/token", method: "GET", path: cs + "/sync?since=nonsense", want: bad},
		{name: "sync/negative token", method: "GET", path: cs + "/sync?since=s1_-1_0_0", want: bad},
		{name: "sync/a token to come", method: "GET", path: cs + "/sync?timeout=0&since=s1_1y2p0ij32e8e7_0_0", want: ok},
		{name: "sync/overflow", method: "GET", path: cs + "/sync?since=s1_zzzzzzzzzzzzzzzzzzzz_0_0", want: bad},
		{name: "sync/NUL", method: "GET", path: cs + "/sync?since=%00", want: bad},
		{name: "sync/filter", method: "GET", path: cs + "/sync?filter=%7B", want: bad},
		{name: "sync/filter of another type", method: "GET", path: cs + "/sync?filter=%7B%22room%22%3A7%7D", want: bad},
		{name: "sync/filter that is none", method: "GET", path: cs + "/sync?filter=777", want: []int{400, 404}},
		{name: "sync/timeout", method: "GET", path: cs + "/sync?timeout=abc", want: bad},
		{name: "messages/token", method: "GET", path: room + "/messages?dir=b&from=nonsense", want: bad},
		{name: "messages/overflow", method: "GET", path: room + "/messages?dir=b&from=t1_zzzzzzzzzzzzzzzz", want: bad},
		{name: "messages/lowest", method: "GET", path: room + "/messages?dir=b&from=t1_-1y2p0ij32e8e8", want: ok},
		{name: "messages/highest", method: "GET", path: room + "/messages?dir=f&from=t1_1y2p0ij32e8e7", want: ok},
		{name: "messages/limit", method: "GET", path: room + "/messages?dir=b&limit=99999999999999999999", want: ok},
		{name: "messages/negative limit", method: "GET", path: room + "/messages?dir=b&limit=-5", want: ok},
		{name: "messages/direction", method: "GET", path: room + "/messages?dir=x", want: bad},
		{name: "messages/filter", method: "GET", path: room + "/messages?dir=b&filter=%5B", want: bad},
		{name: "path/NUL", method: "GET", path: cs + "/rooms/%00/state", want: refused},
		{name: "path/invalid UTF-8", method: "GET", path: cs + "/rooms/%ff/state", want: refused},
		{name: "path/no endpoint", method: "GET", path: cs + "/nonsense", want: []int{404}, err: []string{"M_UNRECOGNIZED"}},
		{name: "path/no method", method: "DELETE", path: cs + "/sync", want: []int{405}, err: []string{"M_UNRECOGNIZED"}},
		{name: "search/nonsense", method: "POST", path: cs + "/search", body: `{"search_categories":7}`, want: refused},
		{name: "users/limit", method: "POST", path: cs + "/user_directory/search", body: `{"search_term":"` + strings.Repeat("x", 100_000) + `","limit":99999999999}`, want: []int{200, 400}},
		{name: "rooms/page", method: "GET", path: cs + "/publicRooms?since=nonsense&limit=-1", want: ok},
		{name: "push rules/nonsense", method: "PUT", path: cs + "/pushrules/global/override/x", body: `{"actions":7}`, want: bad},
		{name: "push rules/deep name", method: "PUT", path: cs + "/pushrules/global/override/.m.rule.mine", body: `{"actions":[]}`, want: bad},
		{name: "account data/number", method: "PUT", path: cs + "/user/@milo:" + domain + "/account_data/m.x", body: `7`, want: bad},
		{name: "account data/huge", method: "PUT", path: cs + "/user/@milo:" + domain + "/account_data/m.x", body: `{"x":"` + strings.Repeat("x", 900_000) + `"}`, want: []int{413}, err: []string{"M_TOO_LARGE"}},
		{name: "account data/server's own", method: "PUT", path: cs + "/user/@milo:" + domain + "/account_data/m.fully_read", body: `{}`, want: []int{400, 405}},
	}
}

// attacksMedia are bombs and tricks with the IDs of files.
func attacksMedia(s *scene) []attack {
	const media = "/_matrix/client/v1/media"
	download := media + "/download/" + domain + "/"
	out := []attack{
		{name: "media/too large", method: "POST", path: "/_matrix/media/v3/upload", kind: "text/plain", body: strings.Repeat("x", 2<<20), want: []int{413}, err: []string{"M_TOO_LARGE"}},
		{name: "media/without a token", method: "GET", path: media + "/download/" + s.file, as: &matrix{target: &s.target, http: s.milo.http}, want: unknown, err: []string{"M_MISSING_TOKEN"}},
		{name: "media/another server", method: "GET", path: media + "/download/127.0.0.1:1/x", want: []int{400, 404, 502, 504}},
		{name: "media/a private address", method: "GET", path: media + "/download/169.254.169.254/latest", want: []int{400, 404, 502, 504}},
		{name: "media/preview of a private address", method: "GET", path: media + "/preview_url?url=http%3A%2F%2F127.0.0.1%3A1%2F", want: []int{400, 403, 404, 502}},
		{name: "media/thumbnail without size", method: "GET", path: media + "/thumbnail/" + s.file, want: bad},
		{name: "media/thumbnail of a text", method: "GET", path: media + "/thumbnail/" + s.file + "?width=10&height=10", want: []int{400, 404}},
		{name: "media/thumbnail negative", method: "GET", path: media + "/thumbnail/" + s.file + "?width=-1&height=-1", want: bad},
		{name: "media/thumbnail overflow", method: "GET", path: media + "/thumbnail/" + s.file + "?width=99999999999999999999&height=1", want: bad},
	}
	for _, id := range []string{
		"..", "%2e%2e", "..%2f..%2fparley.toml", "%2e%2e%2f%2e%2e%2fparley.toml", "..%5c..%5cparley.toml", "%00", "x%00y", "a/../../parley.toml",
		strings.Repeat("x", 5000), "%ff", "con", "-", "%20",
	} {
		out = append(out, attack{name: "media/ID " + id[:min(len(id), 40)], method: "GET", path: download + id, want: []int{400, 404, 301, 307}})
	}
	return out
}

// Hostile requests each get a Matrix error, change nothing, and leave the server as it was.
func TestHostileMatrix(t *testing.T) {
	s := newScene(t)
	slow := s.slowly(t)
	before := s.state(t)
	for _, a := range slices.Concat(attacksJSON(), attacksSecret(), attacksAccount(s), attacksReading(), attacksMedia(s)) {
		t.Run(a.name, func(t *testing.T) {
			s.attack(t, a)
			s.well(t)
		})
	}
	t.Run("transactions", s.transactions)
	t.Run("files", s.files)
	t.Run("HTTP", s.smuggling)
	if after := s.state(t); after != before {
		t.Errorf("the state has changed:\n%s\n%s", before, after)
	}
	s.onlyGood(t)
	slow()
	s.well(t)
}

func (s *scene) attack(t *testing.T, a attack) {
	t.Helper()
	who := a.as
	if who == nil {
		who = s.milo
	}
	if a.kind == "" {
		a.kind = "application/json"
	}
	var body io.Reader
	if a.body != "" {
		body = strings.NewReader(s.fill(a.body))
	}
	code, b, err := who.raw(t.Context(), a.method, s.fill(a.path), a.kind, body)
	if err != nil && code == 0 {
		t.Fatal(err)
	}
	if !slices.Contains(a.want, code) {
		t.Errorf("%d %.300s; want %v %v", code, b, a.want, a.err)
	}
	if code < 400 {
		return
	}
	var e struct{ Errcode, Error string }
	if err := json.Unmarshal(b, &e); err != nil || e.Errcode == "" || e.Error == "" {
		t.Errorf("%d %.300s is no Matrix error", code, b)
	}
	if len(a.err) > 0 && !slices.Contains(a.err, e.Errcode) {
		t.Errorf("%s: %s; want %v", e.Errcode, e.Error, a.err)
	}
}

// state is all state of both rooms, as their owner sees it.
func (s *scene) state(t *testing.T) string {
	t.Helper()
	var all []string
	for _, path := range []string{room + "/state", sect + "/state", sect + "/messages?dir=f&limit=100"} {
		code, b, err := s.mona.raw(t.Context(), http.MethodGet, s.fill(path), "", nil)
		if err != nil || code != http.StatusOK {
			t.Fatalf("%d %s %v", code, b, err)
		}
		if strings.Contains(path, "/messages") {
			var page struct {
				Chunk []struct {
					ID string `json:"event_id"`
				} `json:"chunk"`
			}
			if err := json.Unmarshal(b, &page); err != nil {
				t.Fatal(err)
			}
			b = []byte(fmt.Sprint(page.Chunk))
		} else {
			b = withoutAge(t, b)
		}
		all = append(all, string(b))
	}
	return strings.Join(all, "\n")
}

// withoutAge makes a state comparable: its events' order and age mean nothing.
func withoutAge(t *testing.T, b []byte) []byte {
	t.Helper()
	var events []object
	if err := json.Unmarshal(b, &events); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		delete(e, "unsigned")
		delete(e, "age")
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(line))
	}
	slices.Sort(out)
	return []byte(strings.Join(out, "\n"))
}

// onlyGood fails the test if anything was said in the open room but by the good client and by transactions.
func (s *scene) onlyGood(t *testing.T) {
	t.Helper()
	lines, err := s.mona.history(t.Context(), s.open, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if !strings.HasPrefix(l.body, "mona/good ") && !strings.HasPrefix(l.body, "milo/txn ") {
			t.Errorf("this was said in spite of all: %q", l.body)
		}
	}
}

// The same transaction ID with the same body is one event; with another body it is another message, and the first stays as it is.
func (s *scene) transactions(t *testing.T) {
	ctx := t.Context()
	var ids []string
	for _, body := range []string{"milo/txn 1", "milo/txn 1", "milo/txn 2", "milo/txn 1"} {
		id, err := s.milo.say(ctx, s.open, "replayed", body)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if ids[0] != ids[1] || ids[0] == ids[2] || ids[0] != ids[3] {
		t.Errorf("events %v", ids)
	}
	lines, err := s.mona.history(ctx, s.open, false)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]int{}
	for _, l := range lines {
		said[l.body]++
	}
	if said["milo/txn 1"] != 1 || said["milo/txn 2"] != 1 {
		t.Errorf("said: %v", said)
	}
	// Another's transactions and those of another path are others.
	if id, err := s.mona.say(ctx, s.open, "replayed", "mona/good txn"); err != nil || slices.Contains(ids, id) {
		t.Errorf("another's transaction: %s, %v", id, err)
	}
}

// bomb is a PNG of a few bytes that says it is of a size that nobody has memory for.
func bomb() string {
	var b bytes.Buffer
	b.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		_ = binary.Write(&b, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		b.Write(body)
		_ = binary.Write(&b, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	chunk("IHDR", []byte{0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 16, 6, 0, 0, 0}) // 100000 by 100000, 16 bits of RGBA
	chunk("IDAT", []byte{0x78, 0x9c, 0x63, 0, 0})
	chunk("IEND", nil)
	return b.String()
}

// Files that hurt who opens them: an image bomb makes no thumbnail, and HTML is not shown as a page.
func (s *scene) files(t *testing.T) {
	ctx := t.Context()
	code, b, err := s.milo.raw(ctx, http.MethodPost, "/_matrix/media/v3/upload", "image/png", strings.NewReader(bomb()))
	if err != nil {
		t.Fatal(err)
	}
	if code == http.StatusOK {
		_, after, _ := strings.Cut(string(b), "mxc://")
		id, _, _ := strings.Cut(after, `"`)
		s.attack(t, attack{method: "GET", path: "/_matrix/client/v1/media/thumbnail/" + id + "?width=100&height=100&method=crop", want: []int{400, 404, 413}})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.target.http+"/_matrix/client/v1/media/download/"+s.file, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.milo.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if d := resp.Header.Get("Content-Disposition"); !strings.HasPrefix(d, "attachment") {
		t.Errorf("HTML is shown: %q", d)
	}
	if p := resp.Header.Get("Content-Security-Policy"); !strings.Contains(p, "sandbox") {
		t.Errorf("HTML may do what it wants: %q", p)
	}
	s.well(t)
}

// Requests that two servers would read in two ways, or that are none, are refused.
func (s *scene) smuggling(t *testing.T) {
	for name, request := range map[string]string{
		"two lengths":         "POST " + cs + "/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}",
		"length and chunks":   "POST " + cs + "/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: xchunked\r\n\r\n{}",
		"negative length":     "POST " + cs + "/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
		"no host":             "GET " + cs + "/sync HTTP/1.1\r\n\r\n",
		"header without name": "GET " + cs + "/sync HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
		"huge header":         "GET " + cs + "/sync HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 200_000) + "\r\n\r\n",
		"bad escape":          "GET " + cs + "/rooms/%zz/state HTTP/1.1\r\nHost: x\r\n\r\n",
		"no HTTP":             "<stream:stream>\r\n\r\n",
		"bad chunk":           "POST " + cs + "/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.target.http, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, request) }() // the server may answer before all of it is written
			b, _ := io.ReadAll(conn)                             // a reset may follow the answer
			if len(b) > 0 && !bytes.HasPrefix(b, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(b, []byte("HTTP/1.1 501")) {
				t.Errorf("%.200s", b)
			}
			s.well(t)
		})
	}
}

// slowly opens connections that never finish what they begin to say; the function that it returns waits until the server has hung
// up on all of them.
func (s *scene) slowly(t *testing.T) (wait func()) {
	t.Helper()
	addr := strings.TrimPrefix(s.target.http, "http://")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 100 {
		begin := "GET / HTTP/1.1\r\nHost: x\r\nX: "
		if i%2 == 0 {
			begin = "POST " + cs + "/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
		}
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, begin); err != nil {
				t.Error(err)
				return
			}
			go func() {
				for pause(ctx) {
					for range 50 {
						pause(ctx)
					}
					if _, err := io.WriteString(conn, " "); err != nil {
						return
					}
				}
			}()
			_, _ = io.ReadAll(conn) // until the server hangs up
		})
	}
	return func() { wg.Wait(); cancel() }
}
