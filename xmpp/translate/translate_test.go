package translate

import (
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/xmpp/element"
)

var (
	alice = core.LocalAddress("alice", "example.org")
	carol = core.Address{Network: core.XMPP, Name: "carol", Domain: "a.net"}
	names = Names{Home: "example.org", Hosts: func(d string) bool { return d == "example.org" }}
	now   = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)
)

func parse(t testing.TB, s string) *element.Element {
	t.Helper()
	e, err := element.Parse([]byte(s), element.DefaultLimits)
	if err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return e
}

// message parses a stanza with these children.
func message(t testing.TB, attrs, children string) *element.Element {
	return parse(t, "<message xmlns='jabber:client' "+attrs+">"+children+"</message>")
}

func reading(ids ...string) Reading {
	r := Reading{Sender: alice, Scope: Scope(alice, "", carol), Names: names, Now: now, Messages: map[string]core.EventID{}}
	for _, id := range ids {
		r.Messages[id] = core.EventID("event-" + id)
	}
	return r
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		a    core.Address
		room bool
		jid  string
	}{
		{alice, false, "alice@example.org"},
		{carol, false, "carol@a.net"},
		{core.Address{Network: core.Matrix, Name: "Dave", Domain: "b.net"}, false, "_matrix_=44ave=40b.net@example.org"},
		{core.LocalAddress("garden", "example.org"), true, "garden@rooms.example.org"},
		{core.Address{Network: core.XMPP, Name: "club", Domain: "muc.a.net"}, true, "club@muc.a.net"},
		{core.Address{Network: core.Matrix, Name: "#hq", Domain: "b.net"}, true, "_matrix_=23hq=40b.net@rooms.example.org"},
	} {
		to, from := names.JID, names.Address
		if c.room {
			to, from = names.RoomJID, names.RoomAddress
		}
		if got := to(c.a).String(); got != c.jid {
			t.Errorf("%v is %q, want %q", c.a, got, c.jid)
		}
		j, err := ParseJID(c.jid)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := from(j); err != nil || got != c.a {
			t.Errorf("%q is %v, %v, want %v", c.jid, got, err, c.a)
		}
	}
	if a, err := names.Address(JID{Local: "_xmpp_x=40y", Domain: "example.org"}); err == nil {
		t.Errorf("an XMPP address spelled as a foreign one was read as %v", a)
	}
}

func TestIn(t *testing.T) {
	plain := core.TextBody
	for _, c := range []struct {
		name, attrs, children string
		want                  core.Content
		losses                int
	}{
		{"plain", "id='1'", "<body>hi</body>", core.Message{Body: plain("hi")}, 0},
		{"nothing", "id='1'", "<subject>s</subject>", nil, 0},
		{"empty body", "", "<body/>", nil, 0},
		{"emote", "", "<body>/me waves</body>", core.Message{Body: func() core.Body { b := plain("waves"); b.Tone = core.Emote; return b }()}, 0},
		{"correction", "", "<body>ho</body><replace xmlns='urn:xmpp:message-correct:0' id='a'/>",
			core.Edit{Target: "event-a", Body: plain("ho")}, 0},
		{"correction of the unknown", "", "<body>ho</body><replace xmlns='urn:xmpp:message-correct:0' id='zz'/>",
			core.Message{Body: plain("ho")}, 1},
		{"retraction", "", "<retract xmlns='urn:xmpp:message-retract:1' id='a'/><body>fallback</body>", core.Retract{Target: "event-a"}, 0},
		{"old retraction", "", "<apply-to xmlns='urn:xmpp:fasten:0' id='a'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to>",
			core.Retract{Target: "event-a"}, 0},
		{"retraction of the unknown", "", "<retract xmlns='urn:xmpp:message-retract:1' id='zz'/><body>fallback</body>", nil, 1},
		{"reply", "", "<body>&gt; é\nyes</body><reply xmlns='urn:xmpp:reply:0' id='a' to='carol@a.net'/>" +
			"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='4'/></fallback>",
			core.Message{Body: func() core.Body { b := plain("yes"); b.ReplyTo = "event-a"; return b }()}, 0},
		{"fallback out of range", "", "<body>yes</body><reply xmlns='urn:xmpp:reply:0' id='a'/>" +
			"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='-3' end='99999999999'/></fallback>",
			core.Message{Body: func() core.Body { b := plain("yes"); b.ReplyTo = "event-a"; return b }()}, 0},
		{"a thread of its own", "", "<body>x</body><thread>123</thread>", core.Message{Body: plain("x")}, 0},
		{"kept payload", "", "<thing xmlns='urn:x'/><store xmlns='urn:xmpp:hints'/>", core.Extension{Type: "urn:x#thing"}, 0},
		{"link", "", "<body>https://a.net/p.png</body><x xmlns='jabber:x:oob'><url>https://a.net/p.png</url></x>",
			core.Message{Body: core.FileBody(core.File{URL: "https://a.net/p.png", Name: "p.png", Type: "image/png"}, "")}, 0},
		{"a link of no known kind", "", "<body>x</body><x xmlns='jabber:x:oob'><url>javascript:alert(1)</url></x>", core.Message{Body: plain("x")}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := message(t, c.attrs, c.children)
			s, losses := In(m, reading("a"))
			if got, want := encode(t, s.Content), encode(t, c.want); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if len(losses) != c.losses {
				t.Errorf("losses: %v", losses)
			}
		})
	}
}

func encode(t testing.TB, c core.Content) string {
	t.Helper()
	k, b, err := core.EncodeContent(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(k) + " " + string(b)
}

func TestReceiptsAndStates(t *testing.T) {
	s, _ := In(message(t, "type='chat'", `<received xmlns='urn:xmpp:receipts' id='a'/><displayed xmlns='urn:xmpp:chat-markers:0' id='b'/>
		<composing xmlns='http://jabber.org/protocol/chatstates'/>`), reading("a", "b"))
	if len(s.Receipts) != 2 || s.Receipts[0].Stage != core.StageDelivered || s.Receipts[1].Target != "event-b" {
		t.Errorf("receipts: %+v", s.Receipts)
	}
	if s.Typing == nil || !*s.Typing || s.Content != nil || s.Native != nil {
		t.Errorf("%+v", s)
	}
	if s, _ = In(message(t, "", `<displayed xmlns='urn:xmpp:chat-markers:0' id='zz'/>`), reading()); len(s.Receipts) != 0 {
		t.Error("a marker for an unknown message was taken")
	}
}

func TestForgedServerElementsAreStripped(t *testing.T) {
	m := message(t, "id='1' from='mallory@evil.net/x'", `<body>hi</body><keep xmlns='urn:x'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='forged'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='garden@rooms.example.org' id='forged'/>
		<stanza-id xmlns='urn:xmpp:sid:0' by='evil.net' id='own'/>
		<delay xmlns='urn:xmpp:delay' from='rooms.example.org' stamp='2020-01-01T00:00:00Z'/>
		<sent xmlns='urn:xmpp:carbons:2'/><result xmlns='urn:xmpp:mam:2'/>`)
	r := reading()
	r.Sender = core.Address{Network: core.XMPP, Name: "mallory", Domain: "evil.net"}
	s, _ := In(m, r)
	data := string(s.Native.Data)
	for _, bad := range []string{"forged", "delay", "carbons", "mam:2"} {
		if strings.Contains(data, bad) {
			t.Errorf("%q was let through in %s", bad, data)
		}
	}
	for _, good := range []string{"urn:x", "own", "<body>hi</body>"} {
		if !strings.Contains(data, good) {
			t.Errorf("%q is missing in %s", good, data)
		}
	}
	if len(s.Aliases) != 2 || s.Aliases[1].Kind != AliasStanza || s.Aliases[1].Scope != "evil.net" {
		t.Errorf("aliases: %+v", s.Aliases)
	}
	r.Sender = alice
	if s, _ := In(m, r); strings.Contains(string(s.Native.Data), "stanza-id") {
		t.Error("a local client set a stanza-id")
	}
}

func TestXMPPToXMPPIsUntouched(t *testing.T) {
	in := message(t, "id='m1' type='chat' from='alice@example.org/r' to='bob@example.org/s' xml:lang='de'", `<body>hi</body><body xml:lang='fr'>salut</body><thread>t</thread>
		<odd xmlns='urn:x' a='1'><b>c</b></odd><request xmlns='urn:xmpp:receipts'/><origin-id xmlns='urn:xmpp:sid:0' id='m1'/>`)
	s, _ := In(in, reading())
	e := core.Event{ID: "e1", Sender: alice, Content: s.Content, Native: s.Native, Aliases: s.Aliases}
	out, losses := Out(&e, Writing{Names: names, From: "alice@example.org", To: "bob@example.org",
		StanzaIDs: []StanzaID{{"bob@example.org", "e1"}}})
	if len(losses) > 0 {
		t.Error(losses)
	}
	want := in.Copy().SetAttr("from", "alice@example.org/r").SetAttr("to", "bob@example.org")
	want.Append(element.New(NSSID, "stanza-id").SetAttr("by", "bob@example.org").SetAttr("id", "e1"))
	if !element.Equal(out, want) {
		t.Errorf("got %v\nwant %v", out, want)
	}
}

func TestEncrypted(t *testing.T) {
	payload := `<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>`
	s, _ := In(message(t, "id='1'", payload+`<body>[This message is OMEMO encrypted]</body><encryption xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl'/>`), reading())
	b, _ := core.BodyOf(s.Content)
	if b.Encrypted == nil || b.Encrypted.Scheme != nsOMEMO || !strings.Contains(string(b.Encrypted.Payload), "sid='1'") {
		t.Fatalf("%+v", b)
	}
	out, losses := Out(&core.Event{ID: "e", Content: s.Content}, Writing{Names: names, Type: "chat"})
	if len(losses) != 0 || out.Child(nsOMEMO, "encrypted") == nil {
		t.Errorf("%v %v", out, losses)
	}
	megolm := core.Message{Body: core.Body{Encrypted: &core.Encrypted{Scheme: "m.megolm.v1.aes-sha2", Payload: []byte(`{}`)}}}
	out, losses = Out(&core.Event{ID: "e", Content: megolm}, Writing{Names: names, Type: "chat"})
	if len(losses) != 1 || !strings.Contains(out.ChildText("", "body"), "megolm") {
		t.Errorf("%v %v", out, losses)
	}
}

// A file that is known by an address of another network goes out under the link that this server has for it, and comes back as what it is.
func TestFileOfAnotherNetwork(t *testing.T) {
	const link = "https://example.org/_parley/media/secret/p.png"
	f := core.File{Media: "m", URL: "mxc://other.test/m", Name: "p.png", Type: "image/png"}
	w := Writing{Names: names, Type: "chat", Links: map[core.MediaID]string{"m": link}}
	out, losses := Out(&core.Event{ID: "e", Content: core.Message{Body: core.FileBody(f, "")}}, w)
	if len(losses) != 0 || out.ChildText("", "body") != link || out.Child(NSOOB, "x").ChildText("", "url") != link {
		t.Fatalf("%v %v", out, losses)
	}
	if strings.Contains(out.String(), "mxc:") {
		t.Errorf("its clients are shown an address that they cannot follow: %v", out)
	}
	r := reading()
	r.Files = map[string]core.File{link: f}
	s, _ := In(out, r)
	b, _ := core.BodyOf(s.Content)
	if files := b.Files(); len(files) != 1 || files[0].Media != f.Media || files[0].URL != f.URL {
		t.Errorf("came back as %+v", files)
	}
	// A copy of a file that is on the web is shared by our link alone.
	r.Files = map[string]core.File{link: {Media: "m", URL: "https://a.net/p.png"}}
	s, _ = In(out, r)
	b, _ = core.BodyOf(s.Content)
	if files := b.Files(); len(files) != 1 || files[0].URL != "" {
		t.Errorf("came back as %+v", files)
	}
}

func TestTombstoneAndModeration(t *testing.T) {
	e := core.Event{ID: "e1", Sender: carol, Retracted: "e2", Content: core.Message{}}
	by := core.Event{ID: "e2", Sender: alice, Time: now, Content: core.Retract{Target: "e1", Reason: "spam"}}
	w := Writing{Names: names, Type: "groupchat", Messages: map[core.EventID]core.Event{"e1": e, "e2": by},
		Occupant: func(a core.Address) string { return "garden@rooms.example.org/" + a.Name }}
	got, _ := Out(&e, w)
	want := message(t, "id='e1' type='groupchat'", `<retracted xmlns='urn:xmpp:message-retract:1' id='e2' stamp='2026-11-23T20:00:00.000Z'>`+
		`<moderated xmlns='urn:xmpp:message-moderate:1' by='garden@rooms.example.org/alice'/></retracted>`)
	if !element.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	got, _ = Out(&by, w)
	if r := got.Child(NSRetract, "retract"); r.Child(NSModerate, "moderated") == nil || r.ChildText("", "reason") != "spam" || r.Attr("id") != "e1" {
		t.Errorf("got %v", got)
	}
}

func TestReactionSet(t *testing.T) {
	s, _ := In(message(t, "id='1'", `<reactions xmlns='urn:xmpp:reactions:0' id='a'><reaction>👋</reaction><reaction>👋</reaction><reaction>🐢</reaction></reactions>`), reading("a"))
	if s.Reactions == nil || s.Reactions.Target != "event-a" || strings.Join(s.Reactions.Keys, "") != "👋🐢" {
		t.Fatalf("%+v", s)
	}
	target := core.Event{ID: "event-a", Aliases: []core.Alias{{Network: core.XMPP, Kind: AliasOrigin, Key: "a"}}}
	w := Writing{Names: names, Type: "chat", Messages: map[core.EventID]core.Event{"event-a": target}, Reacted: []string{"🐢"}, ReactedTo: "event-a"}
	for _, c := range []core.Content{core.Reaction{Target: "event-a", Key: "🐢"}, core.Retract{Target: "r0"}} {
		out, _ := Out(&core.Event{ID: "e", Content: c}, w)
		if r := out.Child(NSReactions, "reactions"); r.Attr("id") != "a" || r.ChildText("", "reaction") != "🐢" {
			t.Errorf("%v", out)
		}
	}
}

func TestStyled(t *testing.T) {
	for in, want := range map[string]string{
		"a <b>bold</b> and <i>it</i>":                  "a *bold* and _it_",
		"<p>one</p><p>two</p>":                         "one\n\ntwo",
		"<blockquote><p>q</p></blockquote><p>r</p>":    "> q\n\nr",
		"<pre><code>x\n  y</code></pre>":               "```\nx\n  y\n```",
		"<ol><li>a</li><li>b</li></ol>":                "1. a\n2. b",
		"<ul><li>a<ul><li>b</li></ul></li></ul>":       "• a\n  • b",
		`see <a href="https://a.net/">this</a>`:        "see this <https://a.net/>",
		`<a href="https://matrix.to/#/@a:b">A</a>: hi`: "A: hi",
		"<script>alert(1)</script>x":                   "x",
		"a<br>b":                                       "a\nb",
		"<mx-reply>q</mx-reply>x &amp; y":              "x & y",
		"</ul></li></pre></a></blockquote>":            "",
	} {
		if got := Styled(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestBounceAndReadError(t *testing.T) {
	m := message(t, "id='1' from='a@b/c' to='d@e'", "<body>x</body>")
	b := Bounce(m, Fail(ItemNotFound, "no such thing"))
	if b.Attr("to") != "a@b/c" || b.Attr("from") != "d@e" || b.Attr("id") != "1" || b.Attr("type") != "error" {
		t.Errorf("%v", b)
	}
	if e := ReadError(b); e.Name != "item-not-found" || e.Text != "no such thing" || !e.Permanent() {
		t.Errorf("%+v", e)
	}
}
