package translate

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"parley/core"
	"parley/xmpp/element"
)

// readBody reads everything that makes up a body. has is false where there is none to keep.
func readBody(m *element.Element, r Reading) (body core.Body, has bool, losses []core.Loss) {
	texts := readTexts(m)
	if enc := readEncrypted(m); enc != nil {
		body.Encrypted = enc
		body.Root = textPart(texts)
		return body, true, nil
	}
	files := readFiles(m)
	if len(texts) == 0 && len(files) == 0 {
		return body, false, nil
	}
	var spare []span // of the text, for clients that know less than we
	if reply := m.Child(NSReply, "reply"); reply != nil {
		if body.ReplyTo = r.Messages[reply.Attr("id")]; body.ReplyTo == "" {
			losses = append(losses, core.Loss{Feature: core.FeatureReply, Detail: "the message that it answers is not known here"})
		} else {
			spare = ranges(m, NSReply)
		}
	}
	if len(files) > 0 {
		spare = append(append(append(spare, ranges(m, NSSFS)...), ranges(m, NSOOB)...), ranges(m, NSSIMS)...)
	}
	texts = captions(without(texts, spare), files)
	texts, body.Tone = readTone(texts)
	body.Root = assemble(texts, files, r)
	if thread := m.ChildText("", "thread"); thread != "" {
		// Most clients put a thread on everything that they say in a chat window; it is one for others only if it names a message.
		body.Thread = r.Messages[thread]
	}
	body.Mentions = readMentions(m, r)
	if m.Child(NSXHTML, "html") != nil {
		losses = append(losses, core.Loss{Feature: core.FeatureFormatting, Fallback: "plain text"})
	}
	return body, true, losses
}

// text is one body of a message.
type text struct{ lang, text string }

func readTexts(m *element.Element) []text {
	var out []text
	seen := map[string]bool{}
	inherited := m.Lang()
	for _, b := range m.ChildrenNamed("", "body") {
		t := text{b.Lang(), b.Text()}
		if t.lang == "" {
			t.lang = inherited
		}
		if t.text != "" && !seen[t.lang] && len(out) < maxLanguages {
			seen[t.lang] = true
			out = append(out, t)
		}
	}
	// One body needs no language: clients put their own on the stream and it says nothing.
	if len(out) == 1 {
		out[0].lang = m.Child("", "body").Lang()
	}
	return out
}

func textPart(texts []text) core.Part {
	leaf := func(t text) core.Part {
		return core.Part{Disposition: core.Render, Type: core.TypePlain, Language: t.lang, Text: t.text}
	}
	switch len(texts) {
	case 0:
		return core.Part{}
	case 1:
		return leaf(texts[0])
	}
	p := core.Part{Disposition: core.Render, Join: core.ChooseOne}
	for _, t := range texts {
		p.Parts = append(p.Parts, leaf(t))
	}
	return p
}

// assemble builds the tree: files, with the text as their caption.
func assemble(texts []text, files []core.File, r Reading) core.Part {
	var parts []core.Part
	for _, f := range files {
		if stored, ok := r.Files[f.URL]; ok {
			f = known(f, stored)
		}
		p := core.Part{Disposition: core.AsFile, Type: f.Type, File: &f}
		if f.Class() != "file" {
			p.Disposition = core.Inline
		}
		parts = append(parts, p)
	}
	if len(texts) > 0 {
		parts = append(parts, textPart(texts))
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return core.Part{Disposition: core.Render, Join: core.ProcessAll, Parts: parts}
}

// known is a file of ours as the message names it: what it is, the store knows better.
func known(said, stored core.File) core.File {
	said.Media, said.URL, said.Preview = stored.Media, "", nil
	if !webURL(stored.URL) {
		said.URL = stored.URL // its name on another network, which that network's people go by
	}
	said.Size = stored.Size
	if stored.SHA256 != "" {
		said.SHA256 = stored.SHA256
	}
	if stored.Type != "" {
		said.Type = stored.Type
	}
	if said.Name == "" {
		said.Name = stored.Name
	}
	if said.Width == 0 && said.Height == 0 {
		said.Width, said.Height = stored.Width, stored.Height
	}
	if said.Duration == 0 {
		said.Duration = stored.Duration
	}
	if said.Blurhash == "" {
		said.Blurhash = stored.Blurhash
	}
	return said
}

// readTone takes "/me " off every text if it is on every text.
//
// spec: XEP-0245 §2
func readTone(texts []text) ([]text, core.Tone) {
	const me = "/me "
	if len(texts) == 0 || slices.ContainsFunc(texts, func(t text) bool { return !strings.HasPrefix(t.text, me) }) {
		return texts, core.Plainly
	}
	out := slices.Clone(texts)
	for i := range out {
		out[i].text = out[i].text[len(me):]
	}
	return out, core.Emote
}

// span is a part of a body, in characters; end below zero is its end.
type span struct{ begin, end int }

// ranges are the parts of the body that are there only for clients without the feature.
//
// spec: XEP-0428 §2
func ranges(m *element.Element, feature string) []span {
	var out []span
	for _, f := range m.ChildrenNamed(NSFallback, "fallback") {
		if f.Attr("for") != feature {
			continue
		}
		bodies := f.ChildrenNamed("", "body")
		if len(bodies) == 0 && len(f.Elements()) == 0 {
			return []span{{0, -1}}
		}
		for _, b := range bodies {
			s := span{0, -1}
			start, err1 := strconv.Atoi(b.Attr("start"))
			end, err2 := strconv.Atoi(b.Attr("end"))
			if err1 == nil {
				s.begin = start
			}
			if err2 == nil {
				s.end = end
			}
			if (err1 == nil) == (err2 == nil) && s.begin >= 0 && len(out) < maxRanges {
				out = append(out, s)
			}
		}
	}
	return out
}

// without cuts the spans out of every text and drops texts of which nothing is left.
func without(texts []text, spans []span) []text {
	if len(spans) == 0 {
		return texts
	}
	var out []text
	for _, t := range texts {
		var b strings.Builder
		i := 0
		for _, c := range t.text {
			cut := slices.ContainsFunc(spans, func(s span) bool { return i >= s.begin && (s.end < 0 || i < s.end) })
			if !cut {
				b.WriteRune(c)
			}
			i++
		}
		if t.text = b.String(); t.text != "" {
			out = append(out, t)
		}
	}
	return out
}

// captions leaves of the texts what is not a mere link to the files.
func captions(texts []text, files []core.File) []text {
	return slices.DeleteFunc(slices.Clone(texts), func(t text) bool {
		s := strings.TrimSpace(t.text)
		return slices.ContainsFunc(files, func(f core.File) bool { return s == f.URL })
	})
}

// readEncrypted finds an encrypted payload. The message's plain body is a notice for those who cannot read it.
//
// spec: XEP-0380 §3
func readEncrypted(m *element.Element) *core.Encrypted {
	for _, c := range m.Elements() {
		switch c.Name.Space {
		case nsOMEMO, nsOMEMO2, nsOpenPGP, nsLegacyPGP:
			if c.Name.Space != nsOMEMO || c.Name.Local == "encrypted" {
				return &core.Encrypted{Scheme: c.Name.Space, Payload: element.Marshal(c)}
			}
		}
	}
	if eme := m.Child(NSEME, "encryption"); eme != nil {
		ns := eme.Attr("namespace")
		for _, c := range m.Elements() {
			if ns != "" && c.Name.Space == ns && c.Name.Space != m.Name.Space {
				return &core.Encrypted{Scheme: ns, Payload: element.Marshal(c)}
			}
		}
		if ns == nsOTRScheme {
			return &core.Encrypted{Scheme: ns, Payload: []byte(m.ChildText("", "body"))}
		}
	}
	return nil
}

func readMentions(m *element.Element, r Reading) []core.Address {
	var out []core.Address
	for _, ref := range m.ChildrenNamed(NSReference, "reference") {
		if ref.Attr("type") != "mention" || len(out) == maxMentions {
			continue
		}
		uri, ok := strings.CutPrefix(ref.Attr("uri"), "xmpp:")
		if !ok {
			continue
		}
		uri, _, _ = strings.Cut(uri, "?")
		if plain, err := url.PathUnescape(uri); err == nil {
			uri = plain
		}
		j, err := ParseJID(uri)
		if err != nil || j.Local == "" {
			continue
		}
		var a core.Address
		if r.Group && j.Resource != "" && r.Occupant != nil {
			a, ok = r.Occupant(j.Resource)
		} else {
			a, err = r.Names.Address(j.Bare())
			ok = err == nil
		}
		if ok && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// readFiles finds the files that a message shares, each once: the richest form first.
func readFiles(m *element.Element) []core.File {
	var out []core.File
	add := func(f core.File, ok bool) {
		if ok && len(out) < maxFiles && !slices.ContainsFunc(out, func(g core.File) bool { return g.URL == f.URL }) {
			out = append(out, f)
		}
	}
	for _, s := range m.ChildrenNamed(NSSFS, "file-sharing") {
		f := readMeta(s.Child(NSFileMeta, "file"))
		f.URL = s.Child("", "sources").Child(NSURLData, "url-data").Attr("target")
		add(f, webURL(f.URL))
	}
	for _, ref := range m.ChildrenNamed(NSReference, "reference") {
		share := ref.Child(NSSIMS, "media-sharing")
		if share == nil {
			continue
		}
		f := readMeta(share.Child(NSJingleFile, "file"))
		for _, src := range share.Child("", "sources").ChildrenNamed(NSReference, "reference") {
			if f.URL == "" && webURL(src.Attr("uri")) {
				f.URL = src.Attr("uri")
			}
		}
		add(f, f.URL != "")
	}
	for _, x := range m.ChildrenNamed(NSOOB, "x") {
		u := strings.TrimSpace(x.ChildText("", "url"))
		if !webURL(u) || m.ChildText("", "body") != "" && !strings.Contains(m.ChildText("", "body"), u) {
			continue
		}
		add(core.File{URL: u, Name: baseName(u), Type: guessType(u)}, true)
	}
	return out
}

// readMeta reads a description of a file, in the form of XEP-0446 or XEP-0234.
func readMeta(el *element.Element) core.File {
	num := func(name string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(el.ChildText("", name)), 10, 64)
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	f := core.File{
		Type: clip(strings.ToLower(strings.TrimSpace(el.ChildText("", "media-type"))), 127),
		Name: clip(el.ChildText("", "name"), 255),
		Size: num("size"),
	}
	if w, h := num("width"), num("height"); w < 1<<20 && h < 1<<20 {
		f.Width, f.Height = int(w), int(h)
	}
	if ms := num("length"); ms < 1<<40 {
		f.Duration = time.Duration(ms) * time.Millisecond
	}
	for _, h := range el.ChildrenNamed(NSHashes, "hash") {
		sum, err := base64.StdEncoding.DecodeString(strings.TrimSpace(h.Text()))
		if err == nil && h.Attr("algo") == "sha-256" && len(sum) == 32 {
			f.SHA256 = hex.EncodeToString(sum)
		}
	}
	for _, t := range el.ChildrenNamed(NSThumbs, "thumbnail") {
		if hash, ok := strings.CutPrefix(t.Attr("uri"), "data:image/blurhash,"); ok && len(hash) < 200 {
			if plain, err := url.PathUnescape(hash); err == nil && utf8.ValidString(plain) {
				f.Blurhash = plain
			}
		}
	}
	return f
}

// webURL says whether a link is one that clients can follow without more knowledge.
func webURL(s string) bool {
	if len(s) > 2048 {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http" || u.Scheme == "aesgcm") && u.Host != "" && u.User == nil
}

func baseName(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	name := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	if !utf8.ValidString(name) {
		return ""
	}
	return clip(name, 255)
}

// guessType goes by the name's ending, for links that say nothing else. The list is short on purpose: these are what clients show
// in place.
func guessType(s string) string {
	name := strings.ToLower(baseName(s))
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "jpg", "jpeg":
		return "image/jpeg"
	case "png":
		return "image/png"
	case "gif":
		return "image/gif"
	case "webp":
		return "image/webp"
	case "mp4":
		return "video/mp4"
	case "webm":
		return "video/webm"
	case "ogg", "oga", "opus":
		return "audio/ogg"
	case "mp3":
		return "audio/mpeg"
	case "m4a":
		return "audio/mp4"
	case "pdf":
		return "application/pdf"
	case "txt":
		return "text/plain"
	}
	return ""
}
