package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/fclient"
	"github.com/matrix-org/gomatrixserverlib/spec"

	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
)

// TestParseAuthorization reads good and hostile headers.
//
// spec: MX 1.19 SS §3.1
func TestParseAuthorization(t *testing.T) {
	want := Authorization{Origin: "origin.test:8448", Destination: "dest.test", Key: "ed25519:key_1", Signature: "ABC+/d"}
	for _, good := range []string{
		want.String(),
		`X-Matrix origin="origin.test:8448",destination="dest.test",key="ed25519:key_1",sig="ABC+/d"`,
		`x-matrix    ORIGIN=origin.test:8448 , destination=dest.test,	Key=ed25519:key_1,sig="ABC+/d"`,
		`X-Matrix sig="ABC\+\/\d",key="ed25519:\key_1",destination="dest.test",origin="origin.test:8448"`,
		`X-Matrix ,, origin = "origin.test:8448",destination="dest.test",key="ed25519:key_1",sig="ABC+/d",`,
		`X-Matrix origin="origin.test:8448",destination="dest.test",x="a, b=\"c\"",y=z,key="ed25519:key_1",sig="ABC+/d"`,
	} {
		if got, err := ParseAuthorization(good); err != nil || got != want {
			t.Errorf("%s: %+v, %v", good, got, err)
		}
	}
	old := `X-Matrix origin=a.test,key="ed25519:1",sig="AA"`
	if got, err := ParseAuthorization(old); err != nil || got.Destination != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "X-Matrix", "X-Matrix ", "Bearer abc", `X-Matrixorigin=a.test,key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test,key="ed25519:1"`,
		`X-Matrix key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test,sig="AA"`,
		`X-Matrix origin=a.test,origin=b.test,key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test,Origin=a.test,key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test;key="ed25519:1";sig="AA"`,
		`X-Matrix origin="a.test,key="ed25519:1",sig="AA"`,
		`X-Matrix origin="a.test",key="ed25519:1",sig="AA`,
		`X-Matrix origin="a.test",key="ed25519:1",sig="AA\`,
		`X-Matrix origin="a.test"x,key="ed25519:1",sig="AA"`,
		`X-Matrix origin=,key="ed25519:1",sig="AA"`,
		`X-Matrix origin,key="ed25519:1",sig="AA"`,
		`X-Matrix origin="",key="ed25519:1",sig="AA"`,
		`X-Matrix origin="a.test/b",key="ed25519:1",sig="AA"`,
		`X-Matrix origin="a.test?x",key="ed25519:1",sig="AA"`,
		`X-Matrix origin="user@a.test",key="ed25519:1",sig="AA"`,
		"X-Matrix origin=\"a.test\n\",key=\"ed25519:1\",sig=\"AA\"",
		"X-Matrix origin=\"a.test\\\x00\",key=\"ed25519:1\",sig=\"AA\"",
		`X-Matrix origin=a.test,destination="",key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test,destination="a b",key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test,key="1",sig="AA"`,
		`X-Matrix origin=a.test,key="ed25519:",sig="AA"`,
		`X-Matrix origin=a.test,key="ed25519:a/b",sig="AA"`,
		`X-Matrix origin=a.test,key="ed25519:1",sig=""`,
		`X-Matrix origin=a.test,key="ed25519:1",sig=A/A`,
		`X-Matrix =a.test,key="ed25519:1",sig="AA"`,
		`X-Matrix origin=a.test,key="ed25519:1",sig="` + strings.Repeat("A", maxHeader) + `"`,
	} {
		if got, err := ParseAuthorization(bad); !errors.Is(err, ErrHeader) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add(`X-Matrix origin="a.test",destination="b.test",key="ed25519:1",sig="AA"`)
	f.Add(`x-matrix sig="\"",key=a:b , origin=[::1]:8448`)
	f.Fuzz(func(t *testing.T, header string) {
		a, err := ParseAuthorization(header)
		if err != nil {
			return
		}
		if wire.ParseServerName(a.Origin) != nil || a.Signature == "" {
			t.Errorf("%q gave %+v", header, a)
		}
		if strings.ContainsAny(a.Signature, `"\`) {
			return // is no base64, and will be found to be none
		}
		if again, err := ParseAuthorization(a.String()); a.Destination != "" && len(a.String()) <= maxHeader && (err != nil || again != a) {
			t.Errorf("%+v written and read is %+v, %v", a, again, err)
		}
	})
}

// oneKey is the keys of one server.
type oneKey struct {
	server string
	key    *wire.SigningKey
}

func (k oneKey) Key(_ context.Context, server, id string, _ time.Time) (ed25519.PublicKey, error) {
	if server != k.server || id != k.key.ID() {
		return nil, keyring.ErrUnknownKey
	}
	return k.key.Public(), nil
}

func newKey(t testing.TB) *wire.SigningKey {
	t.Helper()
	_, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestVerify changes one thing of a signed request at a time.
//
// spec: MX 1.19 SS §3.1
func TestVerify(t *testing.T) {
	key := newKey(t)
	const uri, body = "/_matrix/federation/v1/send/1?a=%2F&b", `{"pdus": [], "edus":[{"content":{"x":1}}]}`
	auth, err := Sign(wire.Signer{Server: "a.test", Key: key}, "b.test", "PUT", uri, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	type given struct{ method, uri, body, header string }
	good := given{"PUT", uri, body, auth.String()}
	check := func(g given) error {
		r := httptest.NewRequest(g.method, g.uri, strings.NewReader(g.body))
		r.Header.Set("Authorization", g.header)
		got, err := Verify(t.Context(), oneKey{"a.test", key}, r, []byte(g.body), "b.test", func(d string) bool { return d == "b.test" || d == "c.test" })
		if err == nil && (got.Origin != "a.test" || got.Destination != "b.test") {
			t.Errorf("%+v is from %+v", g, got)
		}
		return err
	}
	with := func(f func(*given)) given { g := good; f(&g); return g }
	for name, g := range map[string]given{
		"as it was":              good,
		"spelled in another way": with(func(g *given) { g.body = `{"edus":[{"content":{"\u0078":1}}],"pdus":[]}` }),
		"without destination":    with(func(g *given) { g.header = strings.Replace(g.header, `destination="b.test",`, "", 1) }),
		"padded":                 with(func(g *given) { g.header = strings.TrimSuffix(g.header, `"`) + `=="` }),
	} {
		if err := check(g); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, g := range map[string]given{
		"method":            with(func(g *given) { g.method = "POST" }),
		"path":              with(func(g *given) { g.uri = strings.Replace(g.uri, "/1?", "/2?", 1) }),
		"escapes":           with(func(g *given) { g.uri = strings.Replace(g.uri, "%2F", "/", 1) }),
		"query":             with(func(g *given) { g.uri += "=" }),
		"body":              with(func(g *given) { g.body = strings.Replace(g.body, "1", "2", 1) }),
		"number":            with(func(g *given) { g.body = strings.Replace(g.body, "1", "1.0", 1) }),
		"no body":           with(func(g *given) { g.body = "" }),
		"other domain here": with(func(g *given) { g.header = strings.Replace(g.header, "b.test", "c.test", 1) }),
		"not here":          with(func(g *given) { g.header = strings.Replace(g.header, "b.test", "d.test", 1) }),
		"other origin":      with(func(g *given) { g.header = strings.Replace(g.header, "a.test", "x.test", 1) }),
		"our own name":      with(func(g *given) { g.header = strings.Replace(g.header, "a.test", "c.test", 1) }),
		"other key":         with(func(g *given) { g.header = strings.Replace(g.header, key.ID(), "ed25519:x", 1) }),
		"no signature":      with(func(g *given) { g.header = strings.Replace(g.header, auth.Signature, "AAAA", 1) }),
		"no base64":         with(func(g *given) { g.header = strings.Replace(g.header, auth.Signature, "****", 1) }),
		"a token":           with(func(g *given) { g.header = "Bearer abc" }),
		"a key twice":       with(func(g *given) { g.body = `{"pdus":[],"pdus":[]}` }),
		"no JSON":           with(func(g *given) { g.body = `{` }),
	} {
		if check(g) == nil {
			t.Errorf("%s may be another", name)
		}
	}
}

// TestRequestsAgainstLibrary lets gomatrixserverlib check what we sign, and
// checks what it signs.
func TestRequestsAgainstLibrary(t *testing.T) {
	file, key, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := base64.RawStdEncoding.DecodeString(strings.Fields(string(file))[2])
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	ring := libraryKeys{public: key.Public()}
	for _, c := range []struct{ method, uri, body string }{
		{"GET", "/_matrix/federation/v1/event/$abc", ""},
		{"GET", "/_matrix/federation/v1/state_ids/%21a%3Ab?event_id=%24x%2F", ""},
		{"PUT", "/_matrix/federation/v1/send/16", `{"edus":[{"content":{"x":1.5,"y":2e3}}]}`},
		{"PUT", "/_matrix/federation/v1/send/17", `{"b":[1,"\u00e9\n\ud83d\ude00"],"a":{"z":null,"y":-5}}`},
	} {
		req := fclient.NewFederationRequest(c.method, "a.test", "b.test", c.uri)
		if c.body != "" {
			if err := req.SetContent(json.RawMessage(c.body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := req.Sign("a.test", gomatrixserverlib.KeyID(key.ID()), private); err != nil {
			t.Fatal(err)
		}
		theirs, err := req.HTTPRequest()
		if err != nil {
			t.Fatal(err)
		}
		in := httptest.NewRequest(c.method, c.uri, strings.NewReader(c.body))
		in.Header = theirs.Header
		if _, err := Verify(t.Context(), oneKey{"a.test", key}, in, []byte(c.body), "b.test", func(d string) bool { return d == "b.test" }); err != nil {
			t.Errorf("theirs, %s %s: %v", c.method, c.uri, err)
		}
		if strings.Contains(c.body, "1.5") {
			continue // we would not send it
		}

		ours, err := Sign(wire.Signer{Server: "a.test", Key: key}, "b.test", c.method, c.uri, []byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		out := httptest.NewRequest(c.method, c.uri, strings.NewReader(c.body))
		out.Header.Set("Authorization", ours.String())
		out.Header.Set("Content-Type", "application/json")
		checked, res := fclient.VerifyHTTPRequest(out, time.Now(), "b.test", nil, ring)
		if checked == nil || res.Code != http.StatusOK {
			t.Errorf("ours, %s %s: %+v", c.method, c.uri, res)
		}
		if theirs.Header.Get("Authorization") != "" && !strings.Contains(theirs.Header.Get("Authorization"), ours.Signature) {
			t.Errorf("%s %s: the signatures differ:\n%s\n%s", c.method, c.uri, theirs.Header.Get("Authorization"), ours)
		}
	}
}

// libraryKeys checks signatures for gomatrixserverlib with one key.
type libraryKeys struct{ public ed25519.PublicKey }

func (k libraryKeys) VerifyJSONs(_ context.Context, requests []gomatrixserverlib.VerifyJSONRequest) ([]gomatrixserverlib.VerifyJSONResult, error) {
	out := make([]gomatrixserverlib.VerifyJSONResult, len(requests))
	for i, r := range requests {
		ids, err := gomatrixserverlib.ListKeyIDs(string(r.ServerName), r.Message)
		if err != nil || len(ids) == 0 {
			out[i].Error = errors.New("not signed")
			continue
		}
		out[i].Error = gomatrixserverlib.VerifyJSON(string(r.ServerName), ids[0], k.public, r.Message)
	}
	return out, nil
}

// TestAnswerAgainstLibrary lets gomatrixserverlib check what we publish.
func TestAnswerAgainstLibrary(t *testing.T) {
	key, old := newKey(t), newKey(t)
	now := time.Now()
	raw, err := keyring.Own{Domain: "a.test", Key: key, Old: map[string]keyring.OldKey{old.ID(): {Public: old.Public(), Expired: now.Add(-time.Hour)}}}.Answer(now)
	if err != nil {
		t.Fatal(err)
	}
	var keys gomatrixserverlib.ServerKeys
	if err := json.Unmarshal(raw, &keys); err != nil {
		t.Fatal(err)
	}
	checks, _ := gomatrixserverlib.CheckKeys(spec.ServerName("a.test"), now, keys)
	if !checks.AllChecksOK {
		t.Errorf("%+v", checks)
	}
	if keys.OldVerifyKeys[gomatrixserverlib.KeyID(old.ID())].ExpiredTS != spec.AsTimestamp(now.Add(-time.Hour)) {
		t.Errorf("%+v", keys.OldVerifyKeys)
	}
}
