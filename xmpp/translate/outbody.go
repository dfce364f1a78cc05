package translate

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley/core"
	"parley/xmpp/element"
)

// maxQuote is how much of the answered message is quoted for clients without replies, in characters.
const maxQuote = 200

// body writes the body of a message that no XMPP client wrote.
func (w Writing) body(m *element.Element, b core.Body) []core.Loss {
	var losses []core.Loss
	lose := func(f core.Feature, as, detail string) {
		losses = append(losses, core.Loss{Feature: f, Fallback: as, Detail: detail})
	}
	if b.Encrypted != nil {
		return w.encrypted(m, b)
	}
	texts := outTexts(b)
	if b.HTML() != "" {
		lose(core.FeatureFormatting, "message styling", "")
	}
	if b.Tone == core.Emote {
		for i := range texts {
			texts[i].text = "/me " + texts[i].text
		}
	}
	quote := ""
	if b.ReplyTo != "" {
		quote = w.reply(m, b.ReplyTo)
	}
	texts, lost := w.attach(m, texts, b.Files(), utf8.RuneCountInString(quote))
	losses = append(losses, lost...)
	if quote != "" && len(texts) > 0 {
		m.Append(spare(NSReply, 0, utf8.RuneCountInString(quote)))
		for i := range texts {
			texts[i].text = quote + texts[i].text
		}
	}
	for _, t := range texts {
		m.Append(element.NewText(NSClient, "body", t.text).SetLang(t.lang))
	}
	if b.Thread != "" {
		m.Append(element.NewText(NSClient, "thread", string(b.Thread))) // spec: XEP-0201 §3
	}
	for _, a := range b.Mentions {
		m.Append(element.New(NSReference, "reference").SetAttr("type", "mention").SetAttr("uri", w.uri(a)))
	}
	if b.MentionsAll {
		lose(core.FeatureMentions, "", "everybody")
	}
	if !b.Expires.IsZero() {
		lose(core.FeatureExpiry, "", "")
	}
	if w.Ask && !w.group() {
		m.Append(element.New(NSReceipts, "request"))
	}
	if w.Ask {
		m.Append(element.New(NSMarkers, "markable"))
	}
	return losses
}

// outTexts are the texts to send: formatted text as styled text, else the plain texts.
func outTexts(b core.Body) []text {
	plain := b.Texts(core.TypePlain)
	if h := b.HTML(); h != "" && len(plain) < 2 {
		if s := Styled(h); s != "" {
			return []text{{text: s}}
		}
	}
	var out []text
	seen := map[string]bool{}
	for _, p := range plain {
		if !seen[p.Language] {
			seen[p.Language] = true
			out = append(out, text{p.Language, p.Text})
		}
	}
	return out
}

// uri is how a mention names a person: the bare JID, or the occupant where real addresses do not show.
//
// spec: XEP-0372 §3.2
func (w Writing) uri(a core.Address) string {
	j := w.Names.JID(a).String()
	if w.Occupant != nil {
		if o := w.Occupant(a); o != "" {
			j = o
		}
	}
	return "xmpp:" + (&url.URL{Path: j}).EscapedPath()
}

// reply marks the message as an answer and returns the quotation of what it answers, for clients without replies.
//
// spec: XEP-0461 §3
func (w Writing) reply(m *element.Element, id core.EventID) string {
	r := element.New(NSReply, "reply").SetAttr("id", w.refer(id))
	m.Append(r)
	target, known := w.Messages[id]
	if !known {
		return ""
	}
	to := w.Names.JID(target.Sender).String()
	if w.Occupant != nil {
		to = w.Occupant(target.Sender)
	}
	if to != "" {
		r.SetAttr("to", to)
	}
	b, ok := core.BodyOf(target.Content)
	quote := strings.TrimSpace(b.Plain())
	if !ok || quote == "" || target.Retracted != "" {
		return ""
	}
	if cs := []rune(quote); len(cs) > maxQuote {
		quote = string(cs[:maxQuote]) + "…"
	}
	return "> " + strings.ReplaceAll(quote, "\n", "\n> ") + "\n"
}

// spare marks a part of the body as there only for clients without a feature.
//
// spec: XEP-0428 §2
func spare(feature string, start, end int) *element.Element {
	f := element.New(NSFallback, "fallback").SetAttr("for", feature)
	f.Add("", "body").SetAttr("start", strconv.Itoa(start)).SetAttr("end", strconv.Itoa(end))
	return f
}

// encrypted writes a payload of an XMPP scheme whole, and for others says only by what it is encrypted.
//
// spec: XEP-0380 §3
func (w Writing) encrypted(m *element.Element, b core.Body) []core.Loss {
	payload, err := element.Parse(b.Encrypted.Payload, element.DefaultLimits)
	eme := element.New(NSEME, "encryption").SetAttr("namespace", b.Encrypted.Scheme)
	notice := b.Plain()
	if err == nil && payload.Name.Space == b.Encrypted.Scheme {
		m.Append(payload)
		if notice != "" {
			m.Append(element.NewText(NSClient, "body", notice))
		}
		m.Append(eme, Hint("store"))
		return nil
	}
	notice = "[encrypted with " + b.Encrypted.Scheme + ": this client cannot read it]"
	m.Append(element.NewText(NSClient, "body", notice), eme.SetAttr("name", b.Encrypted.Scheme))
	return []core.Loss{{Feature: core.FeatureEncrypted, Fallback: "a notice", Detail: b.Encrypted.Scheme}}
}

// attach writes the files. A file alone is a message whose body is its link, which every client can follow; with a caption the link
// it comes after the link. offset is how many characters will be put before it all.
func (w Writing) attach(m *element.Element, texts []text, files []core.File, offset int) ([]text, []core.Loss) {
	var losses []core.Loss
	var links []string
	for _, f := range files {
		link := f.URL
		if !webURL(link) {
			link = w.Links[f.Media]
		}
		if !webURL(link) {
			losses = append(losses, core.Loss{Feature: core.FeatureFile, Fallback: "its name", Detail: f.Name})
			links = append(links, "["+f.Name+"]")
			continue
		}
		if f.Key != nil {
			losses = append(losses, core.Loss{Feature: core.FeatureFile, Detail: "the key of an encrypted file"})
		}
		if f.Voice {
			losses = append(losses, core.Loss{Feature: core.FeatureVoice, Fallback: "an audio file"})
		}
		writeFile(m, f, link)
		links = append(links, link)
	}
	if len(links) == 0 {
		return texts, losses
	}
	all := strings.Join(links, "\n")
	length := utf8.RuneCountInString(all)
	if len(texts) == 0 {
		m.Append(spare(NSSFS, offset, offset+length))
		return []text{{text: all}}, losses
	}
	// One range has to do for every language: so the links come first.
	m.Append(spare(NSSFS, offset, offset+length+1))
	for i := range texts {
		texts[i].text = all + "\n" + texts[i].text
	}
	return texts, losses
}

// writeFile describes one file in the three forms that clients read.
//
// spec: XEP-0447 §3
// spec: XEP-0385 §4.1
// spec: XEP-0066 §3
func writeFile(m *element.Element, f core.File, link string) {
	disposition := "attachment"
	if f.Class() != "file" {
		disposition = "inline"
	}
	share := m.Add(NSSFS, "file-sharing").SetAttr("disposition", disposition)
	meta := share.Add(NSFileMeta, "file")
	writeMeta(meta, f, true)
	share.Add("", "sources").Add(NSURLData, "url-data").SetAttr("target", link)

	sims := m.Add(NSReference, "reference").SetAttr("type", "data").SetAttr("uri", link).Add(NSSIMS, "media-sharing")
	writeMeta(sims.Add(NSJingleFile, "file"), f, false)
	sims.Add("", "sources").Add(NSReference, "reference").SetAttr("type", "data").SetAttr("uri", link)

	m.Add(NSOOB, "x").Append(element.NewText(NSOOB, "url", link))
}

// spec: XEP-0446 §2
func writeMeta(el *element.Element, f core.File, dimensions bool) {
	put := func(name, value string) {
		if value != "" && value != "0" {
			el.Append(element.NewText(el.Name.Space, name, value))
		}
	}
	put("media-type", f.Type)
	put("name", f.Name)
	put("size", strconv.FormatInt(f.Size, 10))
	if dimensions {
		put("width", strconv.Itoa(f.Width))
		put("height", strconv.Itoa(f.Height))
		put("length", strconv.FormatInt(f.Duration.Milliseconds(), 10))
	}
	if sum, err := hex.DecodeString(f.SHA256); err == nil && len(sum) == 32 {
		h := el.Add(NSHashes, "hash").SetAttr("algo", "sha-256")
		h.SetText(base64.StdEncoding.EncodeToString(sum))
	}
	if f.Blurhash != "" && dimensions {
		el.Add(NSThumbs, "thumbnail").SetAttr("media-type", "image/blurhash").
			SetAttr("uri", "data:image/blurhash,"+url.PathEscape(f.Blurhash))
	}
}
