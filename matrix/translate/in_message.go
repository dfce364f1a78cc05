package translate

import (
	"mime"
	"path"
	"strings"
	"time"

	"parley/core"
	"parley/matrix/wire"
)

const (
	htmlFormat = "org.matrix.custom.html"
	// A text in several languages stands beside the body in the blocks that
	// rich topics have, with the languages of MSC3554. Keys of proposals that
	// clients use: voice from MSC3245, expiry from MSC2228.
	textKey       = "m.text"
	textKeyDraft  = "org.matrix.msc1767.text"
	langKey       = "lang"
	langKeyDraft  = "org.matrix.msc3554.lang"
	voiceKey      = "org.matrix.msc3245.voice"
	voiceKeyDraft = "org.matrix.msc3245.voice.v2"
	expiryKey     = "org.matrix.self_destruct_after"
	blurhashKey   = "xyz.amorgan.blurhash"
	// FileScheme is the scheme of [core.File.Key] for files of this network.
	// Its payload is the EncryptedFile without its URL.
	//
	// spec: MX 1.19 CS §10.12.2.7.1
	FileScheme = "m.encrypted_file.v2"
)

// maxMentions bounds who one message can mention.
const maxMentions = 200

// tones and fileTypes are the msgtypes that mean something to the core.
var tones = map[string]core.Tone{
	"m.text": core.Plainly, "m.emote": core.Emote, "m.notice": core.Notice, "m.server_notice": core.Notice,
}

var fileTypes = map[string]string{"m.image": "image", "m.audio": "audio", "m.video": "video", "m.file": "file"}

// message reads m.room.message.
//
// spec: MX 1.19 CS §10.2.1
func (t *in) message() (core.Content, error) {
	rel := t.c.obj("m.relates_to")
	if rel.str("rel_type") != "m.replace" {
		body, err := t.body(t.c)
		t.relate(&body, rel)
		return core.Message{Body: body}, err
	}
	if !t.c.has("m.new_content") {
		return nil, bad("an edit needs m.new_content")
	}
	target, ok := t.CoreID(rel.need("event_id"))
	if !ok {
		return nil, bad("the event that this edits is unknown")
	}
	body, err := t.body(t.c.obj("m.new_content"))
	return core.Edit{Target: target, Body: body}, err
}

// relate reads what a message stands in relation to. What is unknown is left
// out: the message makes sense without it.
//
// spec: MX 1.19 CS §10.3
// spec: MX 1.19 CS §10.43
func (t *in) relate(b *core.Body, rel *content) {
	find := func(f core.Feature, id string) core.EventID {
		if id == "" {
			return ""
		}
		found, ok := t.CoreID(id)
		if !ok {
			t.lose(f, "", "the event it refers to is unknown")
		}
		return found
	}
	reply := rel.obj("m.in_reply_to").str("event_id")
	switch kind := rel.str("rel_type"); kind {
	case "":
	case "m.thread":
		b.Thread = find(core.FeatureThread, rel.need("event_id"))
		if rel.bool("is_falling_back") && b.Thread != "" {
			return
		}
	default:
		t.lose(core.FeatureExtension, "a message", "rel_type "+kind)
	}
	b.ReplyTo = find(core.FeatureReply, reply)
}

// body reads what a message says from c, which is its content or its new one.
func (t *in) body(c *content) (core.Body, error) {
	kind := c.need("msgtype")
	var b core.Body
	if class, ok := fileTypes[kind]; ok {
		b.Root = t.file(c, class)
	} else {
		tone, known := tones[kind]
		b.Tone, b.Root = tone, t.text(c)
		if !known {
			t.lose(core.FeatureExtension, "text", kind)
		}
		if uri := c.quiet().str("geo_uri"); kind == "m.location" && !strings.Contains(c.str("body"), uri) {
			b.Root = core.TextBody(strings.TrimSpace(c.str("body") + " " + uri)).Root
		}
	}
	t.mentions(&b, c.obj("m.mentions"))
	if ms := c.quiet().int(expiryKey, 0); ms > 0 {
		b.Expires = time.UnixMilli(ms).UTC()
	}
	return b, *c.err
}

// mentions reads whom a message names on purpose.
//
// spec: MX 1.19 CS §10.33
func (t *in) mentions(b *core.Body, c *content) {
	b.MentionsAll = c.bool("room")
	ids := c.strs("user_ids")
	if len(ids) > maxMentions {
		t.lose(core.FeatureMentions, "", "more than 200 people")
		ids = ids[:maxMentions]
	}
	for _, id := range ids {
		a, err := t.Address(id)
		if err != nil {
			t.lose(core.FeatureMentions, "", "there can be no user "+id)
			continue
		}
		b.Mentions = append(b.Mentions, a)
	}
}

// text reads the text of c: plain, formatted, and in several languages.
func (t *in) text(c *content) core.Part {
	plain := c.need("body")
	formatted := t.formatted(c)
	if c.obj("m.relates_to").has("m.in_reply_to") && strings.Contains(c.quiet().str("formatted_body"), "<mx-reply>") {
		plain = stripReply(plain)
	}
	if parts := t.alternatives(c); len(parts) > 0 {
		return core.Part{Disposition: core.Render, Join: core.ChooseOne, Parts: withBody(parts, plain, formatted)}
	}
	if formatted != "" {
		return core.HTMLBody(plain, formatted).Root
	}
	return core.TextBody(plain).Root
}

func (t *in) formatted(c *content) string {
	if c.quiet().str("format") != htmlFormat {
		return ""
	}
	raw := c.str("formatted_body")
	clean := SanitizeHTML(raw)
	if raw != "" && clean == "" {
		t.lose(core.FeatureFormatting, "plain text", "nothing of it is allowed")
	}
	return clean
}

// alternatives reads the texts beside the body: the same in other languages or
// formats. One that only repeats the body without a language is none.
func (t *in) alternatives(c *content) []core.Part {
	key := textKey
	if !c.has(key) {
		key = textKeyDraft
	}
	v := c.get(key)
	if len(v) == 0 || v[0] != '[' { // older clients: a string, the same as body
		return nil
	}
	var parts []core.Part
	languages := false
	for _, e := range c.list(key) {
		o, err := wire.ParseObject(e)
		if err != nil {
			c.fail(key, "a list of objects")
			return nil
		}
		p := core.Part{Disposition: core.Render, Type: core.TypePlain}
		p.Text, _ = o.String("body")
		if m, ok := o.String("mimetype"); ok {
			p.Type = m
		}
		for _, k := range []string{langKey, langKeyDraft} {
			if l, ok := o.String(k); ok && len(l) <= 35 {
				p.Language = l
			}
		}
		if p.Type == core.TypeHTML {
			p.Text = SanitizeHTML(p.Text)
		}
		if p.Text != "" {
			parts = append(parts, p)
			languages = languages || p.Language != ""
		}
	}
	if !languages {
		return nil
	}
	return parts
}

// withBody puts the body before the alternatives, unless it is one of them.
func withBody(parts []core.Part, plain, formatted string) []core.Part {
	has := func(mediaType, text string) bool {
		for _, p := range parts {
			if p.Type == mediaType && p.Text == text {
				return true
			}
		}
		return text == ""
	}
	var first []core.Part
	if !has(core.TypeHTML, formatted) {
		first = append(first, core.Part{Disposition: core.Render, Type: core.TypeHTML, Text: formatted})
	}
	if !has(core.TypePlain, plain) {
		first = append(first, core.Part{Disposition: core.Render, Type: core.TypePlain, Text: plain})
	}
	return append(first, parts...)
}

// file reads a file with its caption.
//
// spec: MX 1.19 CS §10.2.2.7
func (t *in) file(c *content, class string) core.Part {
	f := t.reference(c)
	f.Name = c.str("filename")
	body := c.need("body")
	caption := ""
	if f.Name == "" {
		f.Name = body
	} else if f.Name != body {
		caption = body
	}
	t.info(&f, c.obj("info").quiet())
	if f.Type == "" {
		f.Type = mime.TypeByExtension(path.Ext(f.Name))
		f.Type, _, _ = strings.Cut(f.Type, ";")
	}
	if class != "file" && f.Class() != class {
		f.Type = class + "/*"
	}
	f.Voice = class == "audio" && (c.has(voiceKey) || c.has(voiceKeyDraft))
	root := core.FileBody(f, "").Root
	if class == "file" {
		root.Disposition = core.AsFile
	}
	if caption == "" {
		return root
	}
	text := core.TextBody(caption).Root
	if formatted := t.formatted(c); formatted != "" {
		text = core.HTMLBody(caption, formatted).Root
	}
	return core.Part{Disposition: core.Render, Join: core.ProcessAll, Parts: []core.Part{root, text}}
}

// reference reads url, or file where it is encrypted.
//
// spec: MX 1.19 CS §10.12.2.7.1
func (t *in) reference(c *content) core.File {
	uri := c.str("url")
	var key *core.Encrypted
	if c.has("file") {
		enc := c.obj("file")
		uri = enc.need("url")
		key = &core.Encrypted{Scheme: FileScheme, Payload: enc.o.Without("url").JSON()}
	}
	f, err := t.File(uri)
	if err != nil {
		c.fail("url", "an mxc URI")
	}
	f.Key = key
	return f
}

// info reads what is known of a file. It is from the sender's client and none
// of it matters, so what is malformed is passed over.
func (t *in) info(f *core.File, c *content) {
	f.Type = c.str("mimetype")
	f.Size = max(c.int("size", 0), 0)
	f.Width, f.Height = dimension(c.int("w", 0)), dimension(c.int("h", 0))
	f.Duration = time.Duration(min(max(c.int("duration", 0), 0), 1<<40)) * time.Millisecond
	f.Blurhash = c.str(blurhashKey)
	thumb := c.str("thumbnail_url")
	var key *core.Encrypted
	if c.has("thumbnail_file") {
		enc := c.obj("thumbnail_file")
		thumb = enc.str("url")
		key = &core.Encrypted{Scheme: FileScheme, Payload: enc.o.Without("url").JSON()}
	}
	if p, err := t.File(thumb); err == nil {
		p.Key = key
		t.info(&p, c.obj("thumbnail_info").quiet())
		p.Preview = nil
		f.Preview = &p
	}
}

func dimension(n int64) int { return int(min(max(n, 0), 1<<20)) }

// sticker reads a sticker as an image in the text.
//
// spec: MX 1.19 CS §10.28.1
func (t *in) sticker() (core.Content, error) {
	b := core.Body{Root: t.file(t.c, "image")}
	t.relate(&b, t.c.obj("m.relates_to"))
	return core.Message{Body: b}, nil
}

// encrypted reads what only other clients can read. What it relates to is in
// the clear.
//
// spec: MX 1.19 CS §10.12.7.1
func (t *in) encrypted() (core.Content, error) {
	b := core.Body{Encrypted: &core.Encrypted{
		Scheme: t.c.need("algorithm"), Payload: t.c.o.Without("m.relates_to").JSON(),
	}}
	rel := t.c.obj("m.relates_to")
	if rel.str("rel_type") == "m.replace" {
		target, ok := t.CoreID(rel.need("event_id"))
		if !ok {
			return nil, bad("the event that this edits is unknown")
		}
		return core.Edit{Target: target, Body: b}, nil
	}
	t.relate(&b, rel)
	return core.Message{Body: b}, nil
}
