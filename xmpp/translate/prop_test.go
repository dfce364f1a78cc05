package translate

import (
	"reflect"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"parley/core"
	"parley/xmpp/element"
)

// word is text that means nothing to XMPP.
var word = rapid.StringMatching(`[a-zA-Zäß漢🐢 .!?'"<&>\n]{0,20}[a-zäß漢🐢]`)

func genText(t *rapid.T, lang string) core.Part {
	return core.Part{Disposition: core.Render, Type: core.TypePlain, Language: lang, Text: word.Draw(t, "text")}
}

func genFile(t *rapid.T) core.File {
	f := core.File{
		Type: rapid.SampledFrom([]string{"image/png", "video/mp4", "application/pdf", "audio/ogg", ""}).Draw(t, "type"),
		Name: rapid.StringMatching(`[a-z]{1,8}\.[a-z]{3}`).Draw(t, "name"),
		Size: rapid.Int64Range(0, 1<<40).Draw(t, "size"),
	}
	if rapid.Bool().Draw(t, "measured") {
		f.Width, f.Height = rapid.IntRange(1, 9999).Draw(t, "w"), rapid.IntRange(1, 9999).Draw(t, "h")
		f.SHA256 = rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "hash")
		f.Duration = time.Duration(rapid.IntRange(0, 1e6).Draw(t, "ms")) * time.Millisecond
		f.Blurhash = rapid.StringMatching(`[A-Za-z0-9#$%*+,\-.:;=?@\[\]^_{|}~]{6,28}`).Draw(t, "blur")
	}
	if rapid.Bool().Draw(t, "here") {
		f.Media = core.MediaID(rapid.StringMatching(`[a-z]{8}`).Draw(t, "media"))
	} else {
		f.URL = "https://files.a.net/" + rapid.StringMatching(`[a-z]{8}`).Draw(t, "path") + "/" + f.Name
	}
	return f
}

// genBody makes bodies of what XMPP carries whole.
func genBody(t *rapid.T) core.Body {
	var b core.Body
	switch rapid.IntRange(0, 4).Draw(t, "form") {
	case 0:
		b.Root = genText(t, "")
	case 1:
		b.Root = genText(t, "de")
	case 2:
		b.Root = core.Part{Disposition: core.Render, Join: core.ChooseOne, Parts: []core.Part{genText(t, ""), genText(t, "de"), genText(t, "fr")}}
	case 3:
		b = core.FileBody(genFile(t), "")
	case 4:
		b = core.FileBody(genFile(t), word.Draw(t, "caption"))
	}
	if len(b.Texts(core.TypePlain)) > 0 && rapid.Bool().Draw(t, "emote") {
		b.Tone = core.Emote
	}
	if rapid.Bool().Draw(t, "reply") {
		b.ReplyTo = "answered"
	}
	if rapid.Bool().Draw(t, "thread") {
		b.Thread = "root"
	}
	if rapid.Bool().Draw(t, "mention") {
		b.Mentions = []core.Address{carol, {Network: core.Matrix, Name: "Dave", Domain: "b.net"}}
	}
	return b
}

func genContent(t *rapid.T) core.Content {
	switch rapid.IntRange(0, 3).Draw(t, "content") {
	case 0:
		return core.Edit{Target: "target", Body: genBody(t)}
	case 1:
		return core.Retract{Target: "target"}
	case 2:
		return core.Reaction{Target: "target", Key: "🐢"}
	}
	return core.Message{Body: genBody(t)}
}

// TestInUndoesOut: what XMPP carries, it carries whole.
func TestInUndoesOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genContent(t)
		group := rapid.Bool().Draw(t, "group")
		w := Writing{Names: names, From: "alice@example.org/x", To: "carol@a.net", Type: "chat", Links: map[core.MediaID]string{}, Ask: rapid.Bool().Draw(t, "ask")}
		if group {
			w.Type = "groupchat"
		}
		r := reading()
		r.Group, r.Files = group, map[string]core.File{}
		w.Messages = map[core.EventID]core.Event{}
		for _, id := range []core.EventID{"target", "answered", "root"} {
			e := core.Event{ID: id, Sender: alice, Content: core.Message{Body: core.TextBody(word.Draw(t, "quoted"))}}
			if id != "root" && rapid.Bool().Draw(t, "aliased") {
				e.Aliases = []core.Alias{{Network: core.XMPP, Kind: AliasID, Key: "id-" + string(id)}, {Network: core.XMPP, Kind: AliasOrigin, Key: "origin-" + string(id)}}
			}
			w.Messages[id] = e
			r.Messages[ReferenceID(&e, group, false)], r.Messages[MessageID(&e)] = id, id
		}
		if b, ok := core.BodyOf(c); ok {
			for _, f := range b.Files() {
				if f.Media != "" {
					link := "https://example.org/_parley/media/" + string(f.Media) + "/" + f.Name
					w.Links[f.Media], r.Files[link] = link, f
				}
			}
		}
		if re, ok := c.(core.Reaction); ok {
			w.Reacted, w.ReactedTo = []string{re.Key}, re.Target
		}
		e := core.Event{ID: "e", Sender: alice, Content: c}
		m, losses := Out(&e, w)
		if len(losses) > 0 {
			t.Fatalf("losses: %v", losses)
		}
		wire, err := element.Parse(element.Marshal(m), element.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		s, losses := In(wire, r)
		if len(losses) > 0 {
			t.Fatalf("losses: %v of %v", losses, m)
		}
		if re, ok := c.(core.Reaction); ok {
			if s.Reactions == nil || !reflect.DeepEqual(*s.Reactions, Reactions{re.Target, []string{re.Key}}) {
				t.Fatalf("got %+v", s.Reactions)
			}
			return
		}
		if !reflect.DeepEqual(s.Content, c) {
			t.Fatalf("of %v\ngot  %#v\nwant %#v", m, s.Content, c)
		}
	})
}

// FuzzIn: whatever the stanza, In ends, keeps its limits, and what it kept can be written again.
func FuzzIn(f *testing.F) {
	for _, s := range []string{
		`<body>hi</body>`,
		`<body>x</body><reply xmlns='urn:xmpp:reply:0' id='a'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='1'/></fallback>`,
		`<reactions xmlns='urn:xmpp:reactions:0' id='a'><reaction>x</reaction></reactions>`,
		`<retract xmlns='urn:xmpp:message-retract:1' id='a'/>`,
		`<x xmlns='jabber:x:oob'><url>https://a.net/%zz</url></x>`,
		`<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><size>-1</size></file><sources><url-data xmlns='http://jabber.org/protocol/url-data' target='https://a.net/x'/></sources></file-sharing>`,
		`<encryption xmlns='urn:xmpp:eme:0' namespace='urn:x'/><p xmlns='urn:x'/>`,
		`<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:%ff@x'/><body>x</body>`,
		`<x xmlns='jabber:x:conference' jid='@@'/>`,
		`<delay xmlns='urn:xmpp:delay' stamp='9999-99-99'/><body>x</body>`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, children string) {
		m, err := element.Parse([]byte("<message xmlns='jabber:client' id='1'>"+children+"</message>"), element.DefaultLimits)
		if err != nil {
			return
		}
		refs := References(m)
		r := reading("a")
		r.Group = len(children)%2 == 0
		s, _ := In(m, r)
		if len(refs.Messages) > 16 || len(refs.URLs) > maxFiles || len(s.Aliases) > 3 {
			t.Fatalf("too much: %+v %+v", refs, s.Aliases)
		}
		if s.Content == nil {
			return
		}
		for _, native := range []*core.Native{nil, s.Native} {
			out, _ := Out(&core.Event{ID: "e", Sender: alice, Content: s.Content, Native: native}, Writing{Names: names, Type: "chat"})
			if out == nil {
				continue
			}
			b := element.Marshal(out)
			if !utf8.Valid(b) {
				t.Fatalf("not UTF-8: %q", b)
			}
			if _, err := element.Parse(b, element.Limits{Bytes: 4 << 20, Depth: 99, Elements: 1 << 16, Attrs: 99, Names: 1 << 12, Namespaces: 999}); err != nil {
				t.Fatalf("%v in %s", err, b)
			}
		}
	})
}
