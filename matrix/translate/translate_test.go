package translate

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"parley/core"
	"parley/matrix/wire"
)

const home = "example.org"

// testResolver knows every core event "e…" as the event ID that spells it.
func testResolver(version string) Resolver {
	v, err := wire.VersionOf(version)
	if err != nil {
		panic(err)
	}
	return Resolver{
		Names:   Names{Home: home, Hosts: func(d string) bool { return d == home || d == "example.com" }},
		Version: v,
		CoreID: func(id string) (core.EventID, bool) {
			s, ok := strings.CutPrefix(id, "$")
			return core.EventID(s), ok && strings.HasPrefix(s, "e")
		},
		EventID: func(id core.EventID) (string, bool) { return "$" + string(id), strings.HasPrefix(string(id), "e") },
		Conv:    func(room string) (core.ConvID, bool) { return core.ConvID("c" + room), room != "" },
		RoomID:  func(id core.ConvID) (string, bool) { return strings.CutPrefix(string(id), "c") },
	}
}

var (
	alice = core.LocalAddress("alice", home)
	bob   = core.LocalAddress("bob", "example.com")
	carol = core.Address{Network: core.XMPP, Name: "Carol", Domain: "a.net"}
	dave  = core.Address{Network: core.Matrix, Name: "Dave", Domain: "b.net"}
)

func read(t *testing.T, eventType string, key *string, content string) (core.Content, []core.Loss) {
	t.Helper()
	c, losses, err := In(testResolver("12"), Event{Type: eventType, StateKey: key, Sender: "@alice:example.org", Content: []byte(content)})
	if err != nil {
		t.Fatalf("%s %s: %v", eventType, content, err)
	}
	return c, losses
}

func TestInMessages(t *testing.T) {
	part := func(mediaType, lang, text string) core.Part {
		return core.Part{Disposition: core.Render, Type: mediaType, Language: lang, Text: text}
	}
	body := func(b core.Body) core.Content { return core.Message{Body: b} }
	image := core.File{Media: "abc", Type: "image/png", Name: "a.png", Size: 3, Width: 4, Height: 5}
	for name, c := range map[string]struct {
		content string
		want    core.Content
	}{
		"text":  {`{"msgtype":"m.text","body":"a\u0000b"}`, body(core.TextBody("a\x00b"))},
		"emote": {`{"msgtype":"m.emote","body":"waves"}`, body(core.Body{Tone: core.Emote, Root: core.TextBody("waves").Root})},
		"html": {`{"msgtype":"m.text","body":"b","format":"org.matrix.custom.html","formatted_body":"<b onclick=x>b</b><script>x</script>"}`,
			body(core.HTMLBody("b", "<b>b</b>"))},
		"old reply": {`{"msgtype":"m.text","body":"> <@bob:x> hi\n\nyes","format":"org.matrix.custom.html",
			"formatted_body":"<mx-reply><blockquote>hi</blockquote></mx-reply><i>yes</i>","m.relates_to":{"m.in_reply_to":{"event_id":"$e1"}}}`,
			body(core.Body{ReplyTo: "e1", Root: core.HTMLBody("yes", "<i>yes</i>").Root})},
		"thread": {`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.thread","event_id":"$e1","is_falling_back":true,"m.in_reply_to":{"event_id":"$e2"}}}`,
			body(core.Body{Thread: "e1", Root: core.TextBody("x").Root})},
		"reply in thread": {`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.thread","event_id":"$e1","m.in_reply_to":{"event_id":"$e2"}}}`,
			body(core.Body{Thread: "e1", ReplyTo: "e2", Root: core.TextBody("x").Root})},
		"mentions": {`{"msgtype":"m.text","body":"x","m.mentions":{"room":true,"user_ids":["@_xmpp_=43arol=40a.net:example.org","@bob:example.com"]}}`,
			body(core.Body{MentionsAll: true, Mentions: []core.Address{carol, bob}, Root: core.TextBody("x").Root})},
		"languages": {`{"msgtype":"m.text","body":"house","org.matrix.msc1767.text":[{"body":"house","lang":"en"},{"body":"Haus","lang":"de"}]}`,
			body(core.Body{Root: core.Part{Disposition: core.Render, Join: core.ChooseOne, Parts: []core.Part{
				part(core.TypePlain, "en", "house"), part(core.TypePlain, "de", "Haus")}}})},
		"same twice": {`{"msgtype":"m.text","body":"house","m.text":[{"body":"house"}]}`, body(core.TextBody("house"))},
		"image": {`{"msgtype":"m.image","body":"a.png","url":"mxc://example.org/abc","info":{"mimetype":"image/png","size":3,"w":4,"h":5}}`,
			body(core.FileBody(image, ""))},
		"caption": {`{"msgtype":"m.image","body":"look","filename":"a.png","url":"mxc://example.org/abc","info":{"mimetype":"image/png","size":3,"w":4,"h":5}}`,
			body(core.FileBody(image, "look"))},
		"voice": {`{"msgtype":"m.audio","body":"v.ogg","url":"mxc://b.net/v","info":{"mimetype":"audio/ogg","duration":1500},"org.matrix.msc3245.voice":{}}`,
			body(core.FileBody(core.File{URL: "mxc://b.net/v", Type: "audio/ogg", Name: "v.ogg", Duration: 1500 * time.Millisecond, Voice: true}, ""))},
		"encrypted file": {`{"msgtype":"m.file","body":"x.pdf","file":{"url":"mxc://example.org/x","iv":"i","v":"v2"},"info":{"mimetype":"application/pdf"}}`,
			body(core.FileBody(core.File{Media: "x", Type: "application/pdf", Name: "x.pdf",
				Key: &core.Encrypted{Scheme: FileScheme, Payload: []byte(`{"iv":"i","v":"v2"}`)}}, ""))},
		"location": {`{"msgtype":"m.location","body":"here","geo_uri":"geo:1,2"}`, body(core.TextBody("here geo:1,2"))},
		"unknown":  {`{"msgtype":"org.example.new","body":"what it is"}`, body(core.TextBody("what it is"))},
		"edit": {`{"msgtype":"m.text","body":"* b","m.new_content":{"msgtype":"m.text","body":"b"},"m.relates_to":{"rel_type":"m.replace","event_id":"$e1"}}`,
			core.Edit{Target: "e1", Body: core.TextBody("b")}},
	} {
		got, _ := read(t, typeMessage, nil, c.content)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

func TestInOthers(t *testing.T) {
	empty := ""
	user := "@_xmpp_=43arol=40a.net:example.org"
	for _, c := range []struct {
		eventType string
		key       *string
		content   string
		want      core.Content
	}{
		{typeReaction, nil, `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$e1","key":"👍"}}`, core.Reaction{Target: "e1", Key: "👍"}},
		{typeRedaction, nil, `{"redacts":"$e1","reason":"r"}`, core.Retract{Target: "e1", Reason: "r"}},
		{typeEncrypted, nil, `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"x","m.relates_to":{"m.in_reply_to":{"event_id":"$e1"}}}`,
			core.Message{Body: core.Body{ReplyTo: "e1", Encrypted: &core.Encrypted{Scheme: "m.megolm.v1.aes-sha2",
				Payload: []byte(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"x"}`)}}}},
		{typeMember, &user, `{"membership":"invite","is_direct":true,"displayname":"C","avatar_url":"mxc://b.net/a","join_authorised_via_users_server":"@x:y"}`,
			core.Membership{Target: carol, Standing: core.Invited, Direct: true, Name: "C", Avatar: &core.File{URL: "mxc://b.net/a"}}},
		{typeName, &empty, `{"name":"n"}`, core.Change{Aspect: core.AspectName, Text: "n"}},
		{typeTopic, &empty, `{"m.topic":{"m.text":[{"mimetype":"text/html","body":"<b>"},{"body":"t"}]}}`, core.Change{Aspect: core.AspectTopic, Text: "t"}},
		{typeJoinRules, &empty, `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!a:b"}]}`,
			core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinRestricted, Allow: []string{"!a:b"}}},
		{typeAddresses, &empty, `{"alias":"#garden:example.org","alt_aliases":["#g:b.net"]}`, core.Change{Aspect: core.AspectAddresses,
			Main: core.LocalAddress("garden", home), Others: []core.Address{{Network: core.Matrix, Name: "g", Domain: "b.net"}}}},
		{"m.room.pinned_events", &empty, `{"pinned":[]}`, core.Extension{Type: "m.room.pinned_events", StateKey: &empty, Data: []byte(`{"pinned":[]}`)}},
		{"m.poll.response", nil, `{"m.relates_to":{"rel_type":"m.reference","event_id":"$e1"}}`,
			core.Extension{Type: "m.poll.response", Target: "e1", Data: []byte(`{"m.relates_to":{"event_id":"$e1","rel_type":"m.reference"}}`)}},
	} {
		got, _ := read(t, c.eventType, c.key, c.content)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.eventType, got, c.want)
		}
	}
}

// What does not fit is an error in words for the client, and nothing panics.
func TestInRefuses(t *testing.T) {
	empty, other := "", "@bob:example.com"
	deep := strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 500)
	for _, e := range []Event{
		{Type: typeMessage, Content: []byte(`{`)},
		{Type: typeMessage, Content: []byte(`[]`)},
		{Type: typeMessage, Content: []byte(`{}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":1}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"x","n":1.5}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"x","n":1e300}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"x","m.relates_to":"e"}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"x","m.mentions":{"user_ids":"all"}}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.image","body":"x","url":"http://b.net/x"}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"x","m.relates_to":{"rel_type":"m.replace","event_id":"$e1"}}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"x","x":` + deep + `}`)},
		{Type: typeMessage, Content: []byte(`{"msgtype":"m.text","body":"` + strings.Repeat("x", 70000) + `"}`)},
		{Type: typeMessage, StateKey: &empty, Content: []byte(`{"msgtype":"m.text","body":"x"}`)},
		{Type: typeReaction, Content: []byte(`{"m.relates_to":{"rel_type":"m.annotation","event_id":"$x","key":"a"}}`)},
		{Type: typeReaction, Content: []byte(`{"m.relates_to":{"rel_type":"m.annotation","event_id":"$e1","key":""}}`)},
		{Type: typeRedaction, Content: []byte(`{}`)},
		{Type: typeRedaction, Redacts: "$e1", Content: []byte(`{"redacts":"$e2"}`)},
		{Type: typeName, Content: []byte(`{"name":"x"}`)},
		{Type: typeName, StateKey: &other, Content: []byte(`{"name":"x"}`)},
		{Type: typeMember, StateKey: &empty, Content: []byte(`{"membership":"join"}`)},
		{Type: typeMember, StateKey: &other, Content: []byte(`{"membership":"dance"}`)},
		{Type: typeMember, StateKey: &other, Content: []byte(`{"membership":"invite","third_party_invite":{}}`)},
		{Type: typeLevels, StateKey: &empty, Content: []byte(`{"ban":"50"}`)},
		{Type: typeLevels, StateKey: &empty, Content: []byte(`{"users":{"bob":50}}`)},
		{Type: typeLevels, StateKey: &empty, Content: []byte(`{"events":{"message":50}}`)},
		{Type: typeJoinRules, StateKey: &empty, Content: []byte(`{"join_rule":"private"}`)},
		{Type: typeVisibility, StateKey: &empty, Content: []byte(`{"history_visibility":"none"}`)},
		{Type: typeThirdParty, StateKey: &empty, Content: []byte(`{}`)},
		{Type: "message", Content: []byte(`{}`)},
		{Type: "", Content: []byte(`{}`)},
		{Type: strings.Repeat("x", 256), Content: []byte(`{}`)},
		{Type: "org.example.x", StateKey: &other, Content: []byte(`{}`)},
	} {
		e.Sender = "@alice:example.org"
		c, _, err := In(testResolver("12"), e)
		if !errors.Is(err, ErrContent) {
			t.Errorf("%s %.60s became %+v, %v", e.Type, e.Content, c, err)
		}
	}
}

// example draws a content that Matrix can carry whole.
func example(t *rapid.T) core.Content {
	text := rapid.StringN(1, 20, 80)
	event := rapid.StringMatching(`e[0-9]{1,3}`)
	who := rapid.SampledFrom([]core.Address{alice, bob, carol, dave})
	level := rapid.Int64Range(-100, 1<<50)
	switch rapid.IntRange(0, 16).Draw(t, "kind") {
	case 0:
		return core.Reaction{Target: core.EventID(event.Draw(t, "target")), Key: text.Draw(t, "key")}
	case 1:
		return core.Retract{Target: core.EventID(event.Draw(t, "target")), Reason: text.Draw(t, "reason")}
	case 2:
		m := core.Membership{
			Target:   who.Draw(t, "target"),
			Standing: rapid.SampledFrom([]core.Standing{core.Joined, core.Invited, core.Knocked, core.Left, core.Banned}).Draw(t, "standing"),
			Reason:   text.Draw(t, "reason"), Name: text.Draw(t, "name"), Direct: rapid.Bool().Draw(t, "direct"),
		}
		if rapid.Bool().Draw(t, "avatar") {
			m.Avatar = &core.File{Media: "abc"}
		}
		return m
	case 3:
		return core.Change{Aspect: core.AspectName, Text: text.Draw(t, "name")}
	case 4:
		return core.Change{Aspect: core.AspectTopic, Text: rapid.StringN(0, 20, 80).Draw(t, "topic")}
	case 5:
		l := core.Levels{
			Ban: level.Draw(t, "ban"), Kick: level.Draw(t, "kick"), Invite: level.Draw(t, "invite"), Redact: level.Draw(t, "redact"),
			Message: level.Draw(t, "message"), State: level.Draw(t, "state"), Default: level.Draw(t, "default"), Notify: level.Draw(t, "notify"),
			Actions: rapid.MapOf(rapid.SampledFrom([]string{"message", "name", "levels", "m.room.server_acl", "org.example.x", "retract"}), level).Draw(t, "actions"),
			Users:   rapid.MapOf(who, level).Draw(t, "users"),
		}
		return core.Change{Aspect: core.AspectLevels, Levels: &l}
	case 6:
		return core.Change{Aspect: core.AspectJoinRule, JoinRule: core.JoinRestricted, Allow: rapid.SliceOfN(text, 1, 3).Draw(t, "allow")}
	case 7:
		return core.Change{Aspect: core.AspectVisibility, Visibility: rapid.SampledFrom([]core.Visibility{core.VisibleWorld, core.VisibleShared, core.VisibleInvited, core.VisibleJoined}).Draw(t, "v")}
	case 8:
		return core.Change{Aspect: core.AspectAddresses, Main: core.LocalAddress("garden", home), Others: []core.Address{{Network: core.XMPP, Name: "G", Domain: "muc.a.net"}}}
	case 9:
		return core.Change{Aspect: core.AspectEncryption, Encryption: &core.Encryption{Scheme: text.Draw(t, "scheme")}}
	case 10:
		room := text.Draw(t, "room")
		return core.Change{Aspect: core.AspectMovedTo, MovedTo: &core.Move{Native: room, Conv: core.ConvID("c" + room), Reason: text.Draw(t, "reason")}}
	case 11:
		creation := core.Creation{Shape: core.Group, Creators: []core.Address{alice, carol}, Supreme: true, Version: "12", Type: rapid.SampledFrom([]string{"", "m.space"}).Draw(t, "type")}
		return core.Change{Aspect: core.AspectCreated, Creation: &creation}
	case 12:
		x := core.Extension{Type: "org.example." + event.Draw(t, "type"), Data: rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "data")}
		if rapid.Bool().Draw(t, "json") {
			x.Data = []byte(`{"a":1}`)
		}
		if rapid.Bool().Draw(t, "state") {
			key := strings.TrimLeft(text.Draw(t, "key"), "@")
			x.StateKey = &key
		}
		return x
	case 13:
		return core.Edit{Target: core.EventID(event.Draw(t, "target")), Body: exampleBody(t)}
	}
	b := exampleBody(t)
	if rapid.Bool().Draw(t, "reply") {
		b.ReplyTo = core.EventID(event.Draw(t, "reply to"))
	}
	if rapid.Bool().Draw(t, "thread") {
		b.Thread = core.EventID(event.Draw(t, "root"))
	}
	return core.Message{Body: b}
}

func exampleBody(t *rapid.T) core.Body {
	text := rapid.StringN(1, 30, 120)
	html := rapid.SampledFrom([]string{"<b>bold</b>", "<p>a</p><ul><li>b</li></ul>", `<a href="https://a.net/">x</a>`, "1 &lt; 2"})
	var b core.Body
	switch rapid.IntRange(0, 5).Draw(t, "body") {
	case 0:
		b = core.TextBody(text.Draw(t, "text"))
	case 1:
		b = core.HTMLBody(text.Draw(t, "text"), html.Draw(t, "html"))
	case 2:
		parts := []core.Part{}
		for i := range rapid.IntRange(1, 4).Draw(t, "languages") {
			parts = append(parts, core.Part{Disposition: core.Render, Type: core.TypePlain, Language: []string{"en", "de", "ja", "pt-BR"}[i],
				Text: fmt.Sprint(i) + text.Draw(t, "text")})
		}
		b.Root = core.Part{Disposition: core.Render, Join: core.ChooseOne, Parts: parts}
	case 3:
		b.Encrypted = &core.Encrypted{Scheme: "m.megolm.v1.aes-sha2", Payload: []byte(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"x"}`)}
		return b
	default:
		f := core.File{
			Media: "abc", Type: rapid.SampledFrom([]string{"image/png", "audio/ogg", "video/mp4", "application/pdf"}).Draw(t, "type"),
			Name: "name-" + rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "name"), Size: rapid.Int64Range(0, 1<<40).Draw(t, "size"),
			Width: rapid.IntRange(0, 5000).Draw(t, "w"), Height: rapid.IntRange(0, 5000).Draw(t, "h"),
			Duration: time.Duration(rapid.IntRange(0, 1<<20).Draw(t, "ms")) * time.Millisecond, Blurhash: rapid.StringMatching(`[A-Z#]{0,5}`).Draw(t, "hash"),
		}
		f.Voice = f.Class() == "audio" && rapid.Bool().Draw(t, "voice")
		if rapid.Bool().Draw(t, "elsewhere") {
			f.Media, f.URL = "", "mxc://b.net/abc"
		}
		if rapid.Bool().Draw(t, "key") {
			f.Key = &core.Encrypted{Scheme: FileScheme, Payload: []byte(`{"iv":"x","v":"v2"}`)}
		}
		if rapid.Bool().Draw(t, "preview") {
			f.Preview = &core.File{Media: "prev", Type: "image/jpeg", Width: 3}
		}
		caption := rapid.StringN(0, 10, 40).Draw(t, "caption")
		b = core.FileBody(f, caption)
		if rapid.Bool().Draw(t, "as file") && !f.Voice {
			if len(b.Root.Parts) > 0 {
				b.Root.Parts[0].Disposition = core.AsFile
			} else {
				b.Root.Disposition = core.AsFile
			}
		}
		return b
	}
	b.Tone = rapid.SampledFrom([]core.Tone{core.Plainly, core.Emote, core.Notice}).Draw(t, "tone")
	if rapid.Bool().Draw(t, "mentions") {
		b.Mentions = []core.Address{carol, dave}
		b.MentionsAll = rapid.Bool().Draw(t, "all")
	}
	if rapid.Bool().Draw(t, "expires") {
		b.Expires = time.UnixMilli(1800000000000).UTC()
	}
	return b
}

// What Matrix can carry comes back as it was, without a loss.
func TestRoundTrip(t *testing.T) {
	r := testResolver("12")
	rapid.Check(t, func(t *rapid.T) {
		want := example(t)
		e, losses, err := Out(r, want)
		if err != nil || len(losses) > 0 {
			t.Fatalf("Out(%+v): %v, losses %v", want, err, losses)
		}
		if canon, err := wire.Strict(e.Content); err != nil || string(canon) != string(e.Content) {
			t.Fatalf("not canonical: %s, %v", e.Content, err)
		}
		e.Sender = "@alice:example.org"
		got, losses, err := In(r, e)
		if err != nil || len(losses) > 0 {
			t.Fatalf("In(%s): %v, losses %v", e.Content, err, losses)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("\nsent %+v\n got %+v\n  by %s", want, got, e.Content)
		}
		// A native form says the same.
		n, err := Native(e)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := OutNative(r, want, n)
		if err != nil || again.Type != e.Type || string(again.Content) != string(e.Content) {
			t.Fatalf("OutNative: %s %s, %v\nOut: %s %s", again.Type, again.Content, err, e.Type, e.Content)
		}
	})
}

// What Matrix cannot carry has a fallback that people can read, and says so.
func TestFallbacks(t *testing.T) {
	link := core.File{URL: "https://a.net/cat.png", Type: "image/png", Name: "cat.png"}
	two := core.Body{Root: core.Part{Join: core.ProcessAll, Parts: []core.Part{
		{Disposition: core.Inline, File: &core.File{Media: "a", Type: "image/png", Name: "a.png"}},
		{Disposition: core.AsFile, File: &core.File{Media: "b", Type: "application/pdf", Name: "b.pdf"}},
		{Disposition: core.Render, Type: core.TypePlain, Text: "both"},
	}}}
	for name, c := range map[string]struct {
		body    core.Body
		feature core.Feature
		want    string
	}{
		"link":      {core.FileBody(link, "a cat"), core.FeatureFile, "a cat\ncat.png https://a.net/cat.png"},
		"two files": {two, core.FeatureFile, "both\nb.pdf mxc://example.org/b"},
		"omemo":     {core.Body{Encrypted: &core.Encrypted{Scheme: "omemo", Payload: []byte("x")}}, core.FeatureEncrypted, "[encrypted with omemo: your client cannot read this]"},
		"unsafe":    {core.HTMLBody("x", "<script>x</script>"), core.FeatureFormatting, "x"},
		"reply":     {core.Body{ReplyTo: "unknown", Root: core.TextBody("x").Root}, core.FeatureReply, "x"},
	} {
		e, losses, err := Out(testResolver("12"), core.Message{Body: c.body})
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Body string }
		if err := json.Unmarshal(e.Content, &got); err != nil {
			t.Fatal(err)
		}
		if got.Body != c.want || len(losses) == 0 || losses[0].Feature != c.feature {
			t.Errorf("%s: %q, losses %v", name, got.Body, losses)
		}
	}
}

// Long bodies shed what can be shed and stay below the limit of an event.
func TestLongBodies(t *testing.T) {
	long := strings.Repeat("long text ", 5500)
	for name, c := range map[string]core.Content{
		"html": core.Message{Body: core.HTMLBody(long, "<b>"+long+"</b>")},
		"edit": core.Edit{Target: "e1", Body: core.HTMLBody(long[:50000], "<b>x</b>")},
		"languages": core.Message{Body: core.Body{Root: core.Part{Join: core.ChooseOne, Parts: []core.Part{
			{Type: core.TypePlain, Language: "en", Text: long}, {Type: core.TypePlain, Language: "de", Text: long}}}}},
	} {
		e, _, err := Out(testResolver("12"), c)
		if err != nil || len(e.Content) > wire.MaxPDU-2048 {
			t.Errorf("%s: %d bytes, %v", name, len(e.Content), err)
		}
	}
}

func TestActionsAndTypes(t *testing.T) {
	for action, eventType := range types {
		if EventType(action) != eventType || ActionOf(eventType) != action || !Reserved(action) || Reserved(eventType) {
			t.Errorf("%s and %s are no pair", action, eventType)
		}
	}
	for _, x := range []string{"m.sticker", "m.room.server_acl", "org.example.x"} {
		if EventType(x) != x || ActionOf(x) != x || Reserved(x) {
			t.Errorf("%s does not stand for itself", x)
		}
	}
	for _, c := range []core.Content{
		core.Message{}, core.Message{Body: core.Body{Encrypted: &core.Encrypted{}}}, core.Reaction{}, core.Retract{}, core.Membership{},
	} {
		action, _ := core.Action(c)
		if EventType(action) == action {
			t.Errorf("the action %s has no event type", action)
		}
	}
}

func TestSanitizeHTML(t *testing.T) {
	for in, want := range map[string]string{
		`<b>x</b>`:                                 `<b>x</b>`,
		`<img src="https://a.net/x.png">`:          ``,
		`<img src="mxc://a.net/x" onerror="y">`:    `<img src="mxc://a.net/x">`,
		`<a href="javascript:x">y</a>`:             `y`,
		`<a href="/x">y</a>`:                       `y`,
		`<code class="language-go evil">x</code>`:  `<code>x</code>`,
		`<code class="language-go">x</code>`:       `<code class="language-go">x</code>`,
		`<span data-mx-spoiler="why">x</span>`:     `<span data-mx-spoiler="why">x</span>`,
		`<span data-mx-color="red">x</span>`:       `<span>x</span>`,
		`<iframe src=x></iframe>a<style>b</style>`: `a`,
		`<mx-reply>old</mx-reply>new`:              `new`,
		strings.Repeat("<b>", 200) + "x":           ``,
	} {
		got := SanitizeHTML(in)
		if got != want {
			t.Errorf("%.60s became %q, not %q", in, got, want)
		}
		if again := SanitizeHTML(got); again != got {
			t.Errorf("%q became %q the second time", got, again)
		}
	}
}

// FuzzIn wants of everything that is taken that it can be written again, and
// never a panic.
func FuzzIn(f *testing.F) {
	for _, s := range []string{
		`{"msgtype":"m.text","body":"x","format":"org.matrix.custom.html","formatted_body":"<b>x"}`,
		`{"msgtype":"m.image","body":"x","file":{"url":"mxc://a/b"},"info":{"thumbnail_info":{"thumbnail_url":"mxc://a/b"}}}`,
		`{"msgtype":"m.text","body":"x","m.text":[{"body":"y","lang":"de"}],"m.relates_to":{"rel_type":"m.thread","event_id":"$e1"}}`,
		`{"m.relates_to":{"rel_type":"m.annotation","event_id":"$e1","key":"k"}}`,
		`{"algorithm":"a","ciphertext":{}}`, `{"membership":"join"}`, `{"users":{"@a:b":1},"events":{"x":2}}`,
		`{"join_rule":"restricted","allow":[{}]}`, `{"room_version":"12","additional_creators":["@a:b"]}`, `{"parley.data":"eA=="}`,
	} {
		for i := range fuzzTypes {
			f.Add(uint8(i), "", false, []byte(s))
		}
	}
	r := testResolver("12")
	f.Fuzz(func(t *testing.T, which uint8, key string, state bool, content []byte) {
		e := Event{Type: fuzzTypes[int(which)%len(fuzzTypes)], Sender: "@alice:example.org", Content: content}
		if state {
			e.StateKey = &key
		}
		c, _, err := In(r, e)
		if err != nil {
			if !errors.Is(err, ErrContent) {
				t.Fatalf("an error that is not the client's: %v", err)
			}
			return
		}
		n, err := Native(e)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := OutNative(r, c, n)
		if err != nil {
			t.Fatalf("%s %s became %+v, which cannot be written: %v", e.Type, content, c, err)
		}
		if out.Type != e.Type {
			t.Fatalf("%s became %s", e.Type, out.Type)
		}
		if _, _, err := Out(r, c); err != nil {
			t.Fatal(err)
		}
	})
}

var fuzzTypes = []string{
	typeMessage, typeEncrypted, typeReaction, typeRedaction, typeSticker, typeMember, typeCreate, typeName, typeTopic,
	typeAvatar, typeLevels, typeJoinRules, typeVisibility, typeAddresses, typeEncryption, typeTombstone, "org.example.x",
}
