package translate

import (
	"slices"
	"strings"
	"unicode/utf8"

	"parley/core"
	"parley/matrix/wire"
)

// roomFor is how large a content may be so that the whole event stays below
// [wire.MaxPDU].
const roomFor = wire.MaxPDU - 4096

// msgtypes are the types of text messages, by tone.
var msgtypes = map[core.Tone]string{core.Plainly: "m.text", core.Emote: "m.emote", core.Notice: "m.notice"}

// relation writes m.relates_to.
func (t *out) relation(w *writer, b core.Body) {
	find := func(f core.Feature, id core.EventID) string {
		if id == "" {
			return ""
		}
		s, ok := t.EventID(id)
		if !ok {
			t.lose(f, "", "the event it refers to has no event ID")
		}
		return s
	}
	thread, reply := find(core.FeatureThread, b.Thread), find(core.FeatureReply, b.ReplyTo)
	if thread == "" && reply == "" {
		return
	}
	w.obj("m.relates_to", func(w *writer) {
		if thread != "" {
			w.str("rel_type", "m.thread")
			w.str("event_id", thread)
			if reply == "" { // for clients that know replies and not threads
				w.yes("is_falling_back", true)
				reply = thread
			}
		}
		w.obj("m.in_reply_to", func(w *writer) { w.str("event_id", reply) })
	})
}

// message writes a message.
//
// spec: MX 1.19 CS §10.2.1
func (t *out) message(b core.Body) (Event, error) {
	if w, ok := encrypted(b); ok {
		t.relation(&w, b)
		return Event{Type: typeEncrypted, Content: w.json()}, nil
	}
	b = t.readable(b)
	w := t.body(b, roomFor)
	t.relation(&w, b)
	return Event{Type: typeMessage, Content: w.json()}, nil
}

// edit writes a replacement, with the new text after an asterisk for those who
// do not know edits.
//
// spec: MX 1.19 CS §10.39
func (t *out) edit(c core.Edit) (Event, error) {
	id, err := t.target(c.Target)
	if err != nil {
		return Event{}, err
	}
	replaces := func(w *writer) {
		w.obj("m.relates_to", func(w *writer) {
			w.str("rel_type", "m.replace")
			w.str("event_id", id)
		})
	}
	if w, ok := encrypted(c.Body); ok {
		replaces(&w)
		return Event{Type: typeEncrypted, Content: w.json()}, nil
	}
	c.Body = t.readable(c.Body)
	next := t.body(c.Body, roomFor-fallbackRoom).json()
	fallback := c.Body
	fallback.Mentions, fallback.MentionsAll = nil, false
	quiet := &out{Resolver: t.Resolver}
	w := quiet.body(starred(fallback), fallbackRoom)
	if len(next)+len(w.json()) > roomFor-256 {
		w = quiet.body(core.Body{Tone: c.Body.Tone, Root: core.TextBody("* " + firstWords(c.Body.Plain())).Root}, fallbackRoom)
	}
	w.raw("m.new_content", next)
	replaces(&w)
	return Event{Type: typeMessage, Content: w.json()}, nil
}

// fallbackRoom is how much of an edit may be its fallback.
const fallbackRoom = 8192

// starred is a body with an asterisk before each of its texts.
func starred(b core.Body) core.Body {
	var star func(p core.Part) core.Part
	star = func(p core.Part) core.Part {
		if p.File == nil && p.Text != "" {
			p.Text = "* " + p.Text
		}
		p.Parts = slices.Clone(p.Parts)
		for i := range p.Parts {
			p.Parts[i] = star(p.Parts[i])
		}
		return p
	}
	b.Root = star(b.Root)
	return b
}

func firstWords(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// encrypted writes a body that Matrix clients encrypted for others.
//
// spec: MX 1.19 CS §10.12.7.1
func encrypted(b core.Body) (w writer, ok bool) {
	if b.Encrypted == nil {
		return w, false
	}
	o, err := wire.ParseObject(b.Encrypted.Payload)
	if err != nil {
		return w, false
	}
	scheme, ok := o.String("algorithm")
	return writer{o.Without("m.relates_to")}, ok && scheme == b.Encrypted.Scheme
}

// readable is b, or where that is encrypted by a scheme of another network, a
// notice that says so.
func (t *out) readable(b core.Body) core.Body {
	if b.Encrypted == nil {
		return b
	}
	words := b.Plain()
	if words == "" {
		words = "[encrypted with " + b.Encrypted.Scheme + ": your client cannot read this]"
	}
	t.lose(core.FeatureEncrypted, "a notice", b.Encrypted.Scheme)
	b.Root, b.Tone, b.Encrypted = core.TextBody(words).Root, core.Notice, nil
	return b
}

// body writes what a body says, in at most most bytes if that can be had by
// leaving out formats and further languages.
func (t *out) body(b core.Body, most int) writer {
	for reduce := range 3 {
		n := len(t.losses)
		w := t.bodyAt(b, reduce)
		if size := len(w.json()); size <= most || reduce == 2 {
			return w
		}
		t.losses = t.losses[:n]
	}
	return writer{}
}

// bodyAt writes a body whole (0), without further languages (1), or without
// formatting too (2).
func (t *out) bodyAt(b core.Body, reduce int) writer {
	var w writer
	files, texts := b.Files(), textsOf(b)
	plain, formatted := b.Plain(), ""
	if h := b.HTML(); h != "" && reduce < 2 {
		if formatted = SanitizeHTML(h); formatted == "" {
			t.lose(core.FeatureFormatting, "plain text", "nothing of it is allowed")
		}
	}
	if reduce > 0 {
		t.lose(core.FeatureLanguages, "the first language", "too long")
	}
	if reduce > 1 {
		t.lose(core.FeatureFormatting, "plain text", "too long")
	}
	sent := 0
	if len(files) > 0 {
		sent = t.file(&w, b, files[0], plain)
	}
	if rest := files[sent:]; len(rest) > 0 {
		plain, formatted = t.links(plain, rest), ""
	}
	if sent == 0 {
		w.str("msgtype", msgtypes[b.Tone])
		w.str("body", plain)
	} else if plain != "" {
		w.str("body", plain)
		if b.Tone == core.Emote {
			t.lose(core.FeatureEmote, "a caption", "")
		}
	}
	if formatted != "" {
		w.str("format", htmlFormat)
		w.str("formatted_body", formatted)
	}
	if reduce == 0 {
		t.alternatives(&w, texts)
	}
	t.mentions(&w, b)
	if !b.Expires.IsZero() {
		w.int(expiryKey, b.Expires.UnixMilli())
	}
	return w
}

// mentions writes whom a message names on purpose; without any it says so, so
// that clients do not guess.
//
// spec: MX 1.19 CS §10.33
func (t *out) mentions(w *writer, b core.Body) {
	w.obj("m.mentions", func(w *writer) {
		w.yes("room", b.MentionsAll)
		if len(b.Mentions) > 0 {
			var ids []string
			for _, a := range b.Mentions {
				ids = append(ids, t.userID(a))
			}
			w.strs("user_ids", ids)
		}
	})
}

func textsOf(b core.Body) []core.Part {
	var out []core.Part
	b.Walk(func(p core.Part) {
		if p.File == nil && p.Text != "" {
			out = append(out, p)
		}
	})
	return out
}

// alternatives writes the same text in several languages beside the body.
func (t *out) alternatives(w *writer, texts []core.Part) {
	if !slices.ContainsFunc(texts, func(p core.Part) bool { return p.Language != "" }) {
		return
	}
	w.list(textKey, len(texts), func(i int, w *writer) {
		text := texts[i].Text
		if texts[i].Type == core.TypeHTML {
			text = SanitizeHTML(text)
		}
		w.str("body", text)
		if texts[i].Type != core.TypePlain {
			w.str("mimetype", texts[i].Type)
		}
		w.opt(langKey, texts[i].Language)
	})
}

// links names files in the text that a message has no place for.
func (t *out) links(plain string, files []core.File) string {
	lines := []string{plain}
	if plain == "" {
		lines = nil
	}
	for _, f := range files {
		line := f.Name
		if f.URL != "" {
			line = strings.TrimSpace(line + " " + f.URL)
		} else if f.Media != "" {
			line = strings.TrimSpace(line + " " + t.MXC(f.Media))
		}
		lines = append(lines, line)
		t.lose(core.FeatureFile, "its address in the text", f.Name)
	}
	return strings.Join(lines, "\n")
}

// file writes the first file of a body and returns how many it wrote: none
// where Matrix has no address for it.
//
// spec: MX 1.19 CS §10.2.2.7
func (t *out) file(w *writer, b core.Body, f core.File, caption string) int {
	uri, ok := t.URI(f)
	if !ok {
		return 0
	}
	if f.Key != nil {
		o, err := wire.ParseObject(f.Key.Payload)
		if f.Key.Scheme != FileScheme || err != nil {
			return 0
		}
		w.raw("file", o.With("url", wire.Quote(uri)).JSON())
	} else {
		w.str("url", uri)
	}
	class := f.Class()
	b.Walk(func(p core.Part) {
		if p.File != nil && p.Disposition == core.AsFile && *p.File == f && !f.Voice {
			class = "file"
		}
	})
	w.str("msgtype", "m."+class)
	name := f.Name
	if name == "" {
		name = class
	}
	w.str("filename", name)
	w.str("body", name)
	if caption == name {
		t.lose(core.FeatureFile, "the file alone", "its caption is its name")
	}
	w.obj("info", func(w *writer) { t.info(w, f) })
	if f.Voice && class == "audio" {
		w.obj(voiceKey, func(*writer) {})
	}
	return 1
}

func (t *out) info(w *writer, f core.File) {
	if !strings.HasSuffix(f.Type, "/*") {
		w.opt("mimetype", f.Type)
	}
	w.positive("size", f.Size)
	w.positive("w", int64(f.Width))
	w.positive("h", int64(f.Height))
	w.positive("duration", f.Duration.Milliseconds())
	if utf8.ValidString(f.Blurhash) {
		w.opt(blurhashKey, f.Blurhash)
	}
	if f.Preview == nil {
		return
	}
	uri, ok := t.URI(*f.Preview)
	if !ok {
		return
	}
	if k := f.Preview.Key; k == nil {
		w.str("thumbnail_url", uri)
	} else if o, err := wire.ParseObject(k.Payload); err == nil && k.Scheme == FileScheme {
		w.raw("thumbnail_file", o.With("url", wire.Quote(uri)).JSON())
	} else {
		return
	}
	thumb := *f.Preview
	thumb.Preview = nil
	w.obj("thumbnail_info", func(w *writer) { t.info(w, thumb) })
}
