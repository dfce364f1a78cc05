package wire

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	gmsl "github.com/matrix-org/gomatrixserverlib"
	"github.com/matrix-org/gomatrixserverlib/spec"
	"pgregory.net/rapid"
)

// The specification's examples of canonical JSON.
//
// spec: MX 1.19 AP §3.1
func TestCanonicalVectors(t *testing.T) {
	for in, want := range map[string]string{
		`{}`:                       `{}`,
		`{"one": 1, "two": "Two"}`: `{"one":1,"two":"Two"}`,
		`{"b": "2", "a": "1"}`:     `{"a":"1","b":"2"}`,
		`{"b":"2","a":"1"}`:        `{"a":"1","b":"2"}`,
		`{"a": "日本語"}`:             `{"a":"日本語"}`,
		`{"本": 2, "日": 1}`:         `{"日":1,"本":2}`,
		`{"a": "\u65E5"}`:          `{"a":"日"}`,
		`{"a": null}`:              `{"a":null}`,
		`{"a": -0, "b": 1e10}`:     `{"a":0,"b":10000000000}`,
		`{"a":[1 , {"c":1,"b":true}],"A":"\/\u0041\u001f\u000a\u0000"}`: `{"A":"/A\u001f\n\u0000","a":[1,{"b":true,"c":1}]}`,
		`{"\"":1,"!":2}`:       `{"!":2,"\"":1}`,
		`{"a":"\ud83d\ude00"}`: `{"a":"😀"}`,
		`{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
			"three_pids": [{"medium": "email", "address": "john.doe@example.org"},
			{"medium": "msisdn", "address": "123456789"}]}}}`: `{"auth":{"mxid":"@john.doe:example.com","profile":` +
			`{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},` +
			`{"address":"123456789","medium":"msisdn"}]},"success":true}}`,
	} {
		got, err := Canonical([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("Canonical(%s) = %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, in := range []string{
		``, `{`, `{"a":1.5}`, `{"a":9007199254740992}`, `{"a":-9007199254740992}`, `{"a":1,"a":2}`,
		`{"b":1,"a":1,"b":1}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, "{\"a\":\"\xff\"}", "{\"a\":\"\n\"}",
		`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":NaN}`, `{"a":1e400}`, `[1,]`, `{"a":1,}`, `{a:1}`,
		`{"a" 1}`, `{} {}`, `"\x"`, `"\u00`, `1-1`, `nul`,
		strings.Repeat("[", 200) + strings.Repeat("]", 200), strings.Repeat(`{"a":`, 100000),
	} {
		if got, err := Canonical([]byte(in)); !errors.Is(err, ErrJSON) {
			t.Errorf("Canonical(%.40s) = %.40s, %v; want ErrJSON", in, got, err)
		}
	}
	for _, in := range []string{`[-0]`, `[1e3]`, `[1.0]`} {
		if got, err := Strict([]byte(in)); !errors.Is(err, ErrJSON) {
			t.Errorf("Strict(%s) = %s, %v; want ErrJSON", in, got, err)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{"b":[1,2,{"x":"\u0000"}],"a":-0}`, `"\ud83d\ude00"`, `[1e2,1.0,true,null]`, `{"\\":"\""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Canonical(in)
		if err != nil {
			return
		}
		again, err := Strict(out)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("%q is not canonical: %q, %v", out, again, err)
		}
		var a, b any
		if err := json.Unmarshal(in, &a); err != nil {
			t.Fatalf("took %q, which encoding/json refuses: %v", in, err)
		}
		if err := json.Unmarshal(out, &b); err != nil {
			t.Fatalf("wrote %q: %v", out, err)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if !bytes.Equal(bytes.ReplaceAll(x, []byte("-0"), []byte("0")), bytes.ReplaceAll(y, []byte("-0"), []byte("0"))) {
			t.Fatalf("%q became %q", x, y)
		}
		if o, err := members(out); err == nil && !bytes.Equal(o.JSON(), out) {
			t.Fatalf("taken apart and put together, %q became %q", out, o.JSON())
		}
	})
}

// vectorKey is the key of the specification's examples.
//
// spec: MX 1.19 AP §10.1
func vectorKey(t testing.TB) Signer {
	t.Helper()
	// The last letter stands for four bits of which two are no part of the seed.
	key, err := ParseSigningKey([]byte("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n"))
	if err != nil {
		t.Fatal(err)
	}
	return Signer{"domain", key}
}

// spec: MX 1.19 AP §10.2
func TestSigningVectors(t *testing.T) {
	s := vectorKey(t)
	for in, want := range map[string]string{
		`{}`:                       `{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}`,
		`{"one": 1, "two": "Two"}`: `{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}`,
	} {
		got, err := s.Sign([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("Sign(%s) = %s, %v", in, got, err)
		}
		if err := VerifyJSON("domain", "ed25519:1", s.Key.Public(), got); err != nil {
			t.Error(err)
		}
		bad := bytes.Replace(got, []byte(`{`), []byte(`{"a":1,`), 1)
		if err := VerifyJSON("domain", "ed25519:1", s.Key.Public(), bad); !errors.Is(err, ErrSignature) {
			t.Errorf("changed object: %v", err)
		}
	}
}

// The specification's signed events, which are of room version 1; in what they
// have, version 6 redacts in the same way.
//
// spec: MX 1.19 AP §10.3
func TestEventSigningVectors(t *testing.T) {
	v, err := VersionOf("6")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ in, hash, sig string }{
		{`{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},
			"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}`,
			"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
			"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"},
		{`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","origin":"domain",
			"origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain",
			"signatures":{},"unsigned":{"age_ts":1000000}}`,
			"onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
			"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"},
	} {
		got, err := v.SignEvent([]byte(c.in), vectorKey(t))
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Hashes     struct{ SHA256 string }
			Signatures map[string]map[string]string
		}
		if err := json.Unmarshal(got, &e); err != nil {
			t.Fatal(err)
		}
		if e.Hashes.SHA256 != c.hash || e.Signatures["domain"]["ed25519:1"] != c.sig {
			t.Errorf("hash %s, signatures %v", e.Hashes.SHA256, e.Signatures)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	file, key, err := NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseSigningKey(file)
	if err != nil || !again.Public().Equal(key.Public()) || again.ID() != key.ID() {
		t.Fatalf("%v, %v", again, err)
	}
	if seed := strings.Fields(string(file))[2]; strings.Contains(fmt.Sprintf("%v %+v %#v", key, key, key), seed) {
		t.Error("a key shows its seed")
	}
	for _, bad := range []string{"", "ed25519 1", "rsa 1 AAAA", "ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "ed25519 1 AAAA"} {
		if _, err := ParseSigningKey([]byte(bad)); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

// example draws an event that a server could send.
func example(t *rapid.T, v *Version) Proto {
	p := Proto{
		RoomID:     "!room:domain",
		Type:       rapid.SampledFrom([]string{TypeMember, TypePowerLevels, TypeJoinRules, TypeRedaction, TypeVisibility, "m.room.message", "a.b\"c"}).Draw(t, "type"),
		Sender:     "@alice:domain",
		PrevEvents: []string{"$" + strings.Repeat("p", 43)},
		AuthEvents: []string{"$" + strings.Repeat("q", 43)},
		Depth:      rapid.Int64Range(0, maxInt).Draw(t, "depth"),
		Time:       rapid.Int64Range(0, maxInt).Draw(t, "time"),
	}
	if v.HashedRoomID {
		p.RoomID = "!" + strings.Repeat("r", 43)
	}
	if rapid.Bool().Draw(t, "state") {
		key := rapid.StringN(0, 20, 60).Draw(t, "key")
		p.StateKey = &key
	}
	content := map[string]any{}
	keys := []string{"membership", "users", "ban", "invite", "join_rule", "allow", "body", "redacts", "history_visibility", viaKey, "x\\y\"\n", "日"}
	for _, k := range keys {
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			content[k] = rapid.StringN(0, 10, 40).Draw(t, "string")
		case 1:
			content[k] = rapid.Int64Range(-maxInt, maxInt).Draw(t, "int")
		case 2:
			content[k] = map[string]any{"signed": []any{true, nil, "x"}, "other": 1}
		}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if p.Content, err = Canonical(raw); err != nil {
		t.Fatal(err)
	}
	return p
}

// buildSigned is what another server gets.
func buildSigned(v *Version, p Proto, s Signer) (*PDU, error) {
	built, err := Build(v, p)
	if err != nil {
		return nil, err
	}
	built.JSON, err = built.Sign(s)
	return built, err
}

// What we build reads back as the same event, and every signature and hash
// holds.
func TestBuildRoundTrip(t *testing.T) {
	s := vectorKey(t)
	rapid.Check(t, func(t *rapid.T) {
		v := versions[rapid.SampledFrom(Versions()).Draw(t, "version")]
		p := example(t, v)
		built, err := buildSigned(v, p, s)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := Parse(v, built.JSON)
		if err != nil || parsed.EventID != built.EventID || !bytes.Equal(parsed.JSON, built.JSON) {
			t.Fatalf("parsed %+v, %v\nbuilt  %+v", parsed, err, built)
		}
		signed, err := v.SignEvent(p.encode(v, p.Content, "", false), s)
		if err != nil || !bytes.Equal(signed, built.JSON) {
			t.Fatalf("SignEvent: %s, %v\nBuild: %s", signed, err, built.JSON)
		}
		if !parsed.CheckHash() {
			t.Fatal("wrong content hash")
		}
		if err := parsed.Verify(s.Server, s.Key.ID(), s.Key.Public()); err != nil {
			t.Fatal(err)
		}
		redacted, err := parsed.Redact()
		if err != nil {
			t.Fatal(err)
		}
		if err := redacted.Verify(s.Server, s.Key.ID(), s.Key.Public()); err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(v, redacted.JSON); err != nil || again.EventID != built.EventID {
			t.Fatalf("redaction changed the ID from %s to %s, %v", built.EventID, again.EventID, err)
		}
	})
}

// Redactions say beside the content what they are about where it is meant, and in
// version 11 for those who look there all the same. What another server put there
// in vain is not read.
//
// spec: MX 1.19 RV v11
func TestRedactsBeside(t *testing.T) {
	for _, c := range []struct {
		version, written, read string
	}{
		{"10", `"$here"`, "$here"},
		{"11", `"$here"`, ""},
		{"12", "", ""},
	} {
		v := versions[c.version]
		p := Proto{
			RoomID: "!r:a.test", Type: TypeRedaction, Sender: "@a:a.test", Redacts: "$here",
			Content: []byte(`{"redacts":"$there"}`), PrevEvents: []string{}, AuthEvents: []string{}, Depth: 1,
		}
		built, err := Build(v, p)
		if err != nil {
			t.Fatal(err)
		}
		o, err := ParseObject(built.JSON)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := Parse(v, built.JSON)
		if err != nil || string(o.Get("redacts")) != c.written || parsed.Redacts != c.read || parsed.EventID != built.EventID || !parsed.CheckHash() {
			t.Errorf("version %s: %s, %+v, %v", c.version, built.JSON, parsed, err)
		}
	}
}

type oneKey struct {
	s      Signer
	public ed25519.PublicKey
}

func (k oneKey) VerifyJSONs(_ context.Context, reqs []gmsl.VerifyJSONRequest) ([]gmsl.VerifyJSONResult, error) {
	out := make([]gmsl.VerifyJSONResult, len(reqs))
	for i, r := range reqs {
		out[i].Error = gmsl.VerifyJSON(string(r.ServerName), gmsl.KeyID(k.s.Key.ID()), k.public, r.Message)
	}
	return out, nil
}

// A library takes our events as genuine and gives them the same IDs. Object
// keys that need escaping are left out, because its canonical JSON does not
// escape them; so are third_party_invite, of which it keeps nothing, and
// numbers in redacted contents, which it passes through floats.
func TestAgainstLibrary(t *testing.T) {
	s := vectorKey(t)
	key := oneKey{s, s.Key.Public()}
	byID := func(_ spec.RoomID, id spec.SenderID) (*spec.UserID, error) { return spec.NewUserID(string(id), true) }
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"6", "7", "8", "9", "10", "11", "12"}).Draw(t, "version")
		v := versions[name]
		p := example(t, v)
		p.Depth %= 1 << 40
		p.Content = []byte(`{"body":"\"\\\n","invite":3,"join_rule":"public","membership":"join","users":{"@a:b":3}}`)
		if p.Type == "a.b\"c" {
			p.Type = "m.other"
		}
		if p.StateKey != nil || p.Type == TypeMember {
			p.StateKey = &p.Sender
		}
		built, err := buildSigned(v, p, s)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := gmsl.MustGetRoomVersion(gmsl.RoomVersion(name)).NewEventFromUntrustedJSON(built.JSON)
		if err != nil {
			t.Fatalf("%v: %s", err, built.JSON)
		}
		if theirs.EventID() != built.EventID || theirs.Redacted() {
			t.Fatalf("event ID %s, redacted %v; ours %s: %s", theirs.EventID(), theirs.Redacted(), built.EventID, built.JSON)
		}
		if err := gmsl.VerifyEventSignatures(context.Background(), theirs, key, byID); err != nil {
			t.Fatalf("%v: %s", err, built.JSON)
		}
	})
}

func TestLimits(t *testing.T) {
	v := versions["12"]
	s := vectorKey(t)
	ok := Proto{RoomID: "!" + strings.Repeat("r", 43), Type: "t", Sender: "@a:domain", Content: []byte(`{}`)}
	if _, err := buildSigned(v, ok, s); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 256)
	for name, change := range map[string]func(*Proto){
		"type":      func(p *Proto) { p.Type = long },
		"state key": func(p *Proto) { p.StateKey = &long },
		"no type":   func(p *Proto) { p.Type = "" },
		"sender":    func(p *Proto) { p.Sender = "@a" },
		"no room":   func(p *Proto) { p.RoomID = "" },
		"content":   func(p *Proto) { p.Content = []byte(`[]`) },
		"size": func(p *Proto) {
			p.Content = []byte(`{"a":"` + strings.Repeat("x", 65000) + `","b":"` + long + long + `"}`)
		},
		"prev":   func(p *Proto) { p.PrevEvents = make([]string, 21) },
		"create": func(p *Proto) { p.Type = TypeCreate },
	} {
		p := ok
		change(&p)
		if _, err := buildSigned(v, p, s); err == nil {
			t.Errorf("%s: built", name)
		}
	}
}

func TestIdentifiers(t *testing.T) {
	for _, id := range []string{"@alice:example.org", "@:a", "@A b:[::1]:80", "@_xmpp_c=40a.net:1.2.3.4:8448"} {
		if _, _, err := ParseUserID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"", "@", "@a", "@a:", "a:b", "@a:b c", "@a:b:x", "@a:b:99999", "@a:[::1", "@a\x00:b", "@\xff:b", "@" + strings.Repeat("a", 255) + ":b"} {
		if _, _, err := ParseUserID(id); !errors.Is(err, ErrID) {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, l := range []string{"", "A", "a b", "ä", "a:b"} {
		if err := CheckLocalpart(l); !errors.Is(err, ErrID) {
			t.Errorf("%q: %v", l, err)
		}
	}
	if err := CheckLocalpart("_xmpp_carol=40a.net"); err != nil {
		t.Error(err)
	}
	if _, _, err := ParseMXC("mxc://example.org/abc_-Z"); err != nil {
		t.Error(err)
	}
	for _, u := range []string{"", "http://a/b", "mxc://a", "mxc://a/", "mxc://a/../b", "mxc://a/b/c"} {
		if _, _, err := ParseMXC(u); !errors.Is(err, ErrID) {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, id := range []string{"!abc:example.org", "!" + strings.Repeat("A", 43)} {
		if err := CheckRoomID(id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"!", "!abc", "#a:b", "!" + strings.Repeat("/", 43)} {
		if err := CheckRoomID(id); !errors.Is(err, ErrID) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := vectorKey(f)
	for _, name := range Versions() {
		v := versions[name]
		p := Proto{RoomID: "!a:b", Type: "m.room.message", Sender: "@a:domain", Content: []byte(`{"body":"x"}`)}
		if v.HashedRoomID {
			p.RoomID = "!" + strings.Repeat("r", 43)
		}
		if built, err := buildSigned(v, p, s); err == nil {
			f.Add(name, built.JSON)
		}
	}
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		v, err := VersionOf(name)
		if err != nil {
			return
		}
		p, err := Parse(v, raw)
		if err != nil {
			return
		}
		p.CheckHash()
		if _, err := p.Redact(); err != nil {
			t.Fatalf("cannot redact what was parsed: %v", err)
		}
		if _, err := Restore(v, p.EventID, p.JSON); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	s, v := vectorKey(b), versions["12"]
	content, err := Canonical([]byte(`{"msgtype":"m.text","body":"` + strings.Repeat("hello ", 20) + `","m.mentions":{}}`))
	if err != nil {
		b.Fatal(err)
	}
	p := Proto{
		RoomID: "!" + strings.Repeat("r", 43), Type: "m.room.message", Sender: "@alice:domain", Content: content,
		PrevEvents: []string{"$" + strings.Repeat("p", 43)},
		AuthEvents: []string{"$" + strings.Repeat("q", 43), "$" + strings.Repeat("s", 43)}, Depth: 1234, Time: 1700000000000,
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Build(v, p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ours-signed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := buildSigned(v, p, s); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		builder := gmsl.MustGetRoomVersion("12").NewEventBuilder()
		builder.SenderID, builder.RoomID, builder.Type = p.Sender, p.RoomID, p.Type
		builder.PrevEvents, builder.AuthEvents, builder.Depth, builder.Content = p.PrevEvents, p.AuthEvents, p.Depth, p.Content
		for b.Loop() {
			if _, err := builder.Build(time.UnixMilli(p.Time), "domain", gmsl.KeyID(s.Key.ID()), s.Key.private); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sign-only", func(b *testing.B) {
		for b.Loop() {
			s.Key.sign(content)
		}
	})
	b.Run("canonical", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Canonical(content); err != nil {
				b.Fatal(err)
			}
		}
	})
}
