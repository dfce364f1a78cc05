package core

import (
	"html"
	"strings"
	"time"
)

// Body is what a message says: a tree of parts, and what it stands in relation
// to. Its semantics are those of the MIMI content draft.
//
// spec: MIMI-content §3
type Body struct {
	Root Part `json:"root"`
	// Tone tells an ordinary message from an emote ("/me waves") and from a
	// notice that no bot may answer.
	Tone     Tone      `json:"tone,omitempty"`
	ReplyTo  EventID   `json:"reply_to,omitempty"`
	Thread   EventID   `json:"thread,omitempty"` // the event at the thread's root
	Mentions []Address `json:"mentions,omitempty"`
	// MentionsAll addresses everybody in the conversation.
	MentionsAll bool      `json:"mentions_all,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	// Encrypted, where set, is all that there is to say: Root is empty but
	// for a plain notice for those who cannot read it.
	Encrypted *Encrypted `json:"encrypted,omitempty"`
}

// Tone is how a message is meant.
type Tone string

// The tones.
const (
	Plainly Tone = ""
	Emote   Tone = "emote"
	Notice  Tone = "notice"
)

// Encrypted is a body that only its recipients' clients can read.
type Encrypted struct {
	Scheme  string `json:"scheme"`
	Payload []byte `json:"payload"`
}

// Disposition says what a part is for.
//
// spec: MIMI-content §3.3
type Disposition string

// The dispositions that Parley acts on.
const (
	Render     Disposition = "render"
	Inline     Disposition = "inline"
	AsFile     Disposition = "attachment"
	PreviewFor Disposition = "preview"
)

// Join says how the parts of a multi-part belong together.
//
// spec: MIMI-content §3.3
type Join string

// The joins: one part; the receiver picks one (languages, formats); all as one
// unit; each for itself.
const (
	Single     Join = ""
	ChooseOne  Join = "choose-one"
	SingleUnit Join = "single-unit"
	ProcessAll Join = "process-all"
)

// Part is one node of a body: text, or a file, or a list of further parts.
type Part struct {
	Disposition Disposition `json:"disposition,omitempty"`
	Language    string      `json:"language,omitempty"` // BCP 47
	Type        string      `json:"type,omitempty"`     // media type of Text
	Text        string      `json:"text,omitempty"`
	File        *File       `json:"file,omitempty"`
	Join        Join        `json:"join,omitempty"`
	Parts       []Part      `json:"parts,omitempty"`
}

// The media types of text.
const (
	TypePlain = "text/plain"
	TypeHTML  = "text/html"
)

// MaxDepth is how deep a body may nest.
const MaxDepth = 8

// File is a reference to a file that is stored here (Media) or elsewhere (URL).
type File struct {
	Media    MediaID       `json:"media,omitempty"`
	URL      string        `json:"url,omitempty"`
	Type     string        `json:"type,omitempty"`
	Name     string        `json:"name,omitempty"`
	Size     int64         `json:"size,omitempty"`
	SHA256   string        `json:"sha256,omitempty"` // lower-case hexadecimal
	Width    int           `json:"width,omitempty"`
	Height   int           `json:"height,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`
	Blurhash string        `json:"blurhash,omitempty"`
	Voice    bool          `json:"voice,omitempty"` // a spoken message
	Preview  *File         `json:"preview,omitempty"`
	// Key decrypts the file; Scheme says how it is to be read.
	Key *Encrypted `json:"key,omitempty"`
}

// Class is the first half of the file's media type: image, audio, video, or
// file for all others.
func (f *File) Class() string {
	class, _, _ := strings.Cut(f.Type, "/")
	switch class {
	case "image", "audio", "video":
		return class
	}
	return "file"
}

// TextBody is a body of plain text.
func TextBody(text string) Body {
	return Body{Root: Part{Disposition: Render, Type: TypePlain, Text: text}}
}

// HTMLBody is a body of plain text with its formatted alternative.
func HTMLBody(plain, formatted string) Body {
	return Body{Root: Part{Disposition: Render, Join: ChooseOne, Parts: []Part{
		{Disposition: Render, Type: TypeHTML, Text: formatted},
		{Disposition: Render, Type: TypePlain, Text: plain},
	}}}
}

// FileBody is a body of one file, with a caption if that is not empty.
func FileBody(f File, caption string) Body {
	file := Part{Disposition: AsFile, Type: f.Type, File: &f}
	if f.Class() != "file" {
		file.Disposition = Inline
	}
	if caption == "" {
		return Body{Root: file}
	}
	return Body{Root: Part{Disposition: Render, Join: ProcessAll, Parts: []Part{
		file, {Disposition: Render, Type: TypePlain, Text: caption},
	}}}
}

// Walk calls f for every leaf of the body, in order.
func (b Body) Walk(f func(Part)) { b.Root.walk(f, 0) }

func (p Part) walk(f func(Part), depth int) {
	if depth > MaxDepth {
		return
	}
	if len(p.Parts) == 0 {
		f(p)
		return
	}
	for _, c := range p.Parts {
		c.walk(f, depth+1)
	}
}

// Texts returns every text of the given media type, with its language.
func (b Body) Texts(mediaType string) []Part {
	var out []Part
	b.Walk(func(p Part) {
		if p.File == nil && p.Text != "" && p.Type == mediaType {
			out = append(out, p)
		}
	})
	return out
}

// Files returns the files of the body, previews not counted.
func (b Body) Files() []File {
	var out []File
	b.Walk(func(p Part) {
		if p.File != nil {
			out = append(out, *p.File)
		}
	})
	return out
}

// MapFiles returns the body with every file as f gives it, previews too. b is
// left as it is.
func (b Body) MapFiles(f func(File) File) Body {
	b.Root = b.Root.mapFiles(f, 0)
	return b
}

func (p Part) mapFiles(f func(File) File, depth int) Part {
	if p.File != nil {
		file := f(*p.File)
		if file.Preview != nil {
			preview := f(*file.Preview)
			file.Preview = &preview
		}
		p.File = &file
	}
	if len(p.Parts) > 0 && depth < MaxDepth {
		parts := make([]Part, len(p.Parts))
		for i, c := range p.Parts {
			parts[i] = c.mapFiles(f, depth+1)
		}
		p.Parts = parts
	}
	return p
}

// Plain is the body as plain text in one language: the first of langs for
// which there is one, else the first text. Where there is HTML only, its tags
// are left out.
func (b Body) Plain(langs ...string) string {
	texts := b.Texts(TypePlain)
	for _, l := range langs {
		for _, t := range texts {
			if strings.EqualFold(t.Language, l) {
				return t.Text
			}
		}
	}
	if len(texts) > 0 {
		return texts[0].Text
	}
	if h := b.HTML(); h != "" {
		return stripTags(h)
	}
	return ""
}

// HTML is the body's formatted text, or "" where it has none. It comes from
// outside: protocols sanitise it before they show it to a client.
func (b Body) HTML() string {
	if t := b.Texts(TypeHTML); len(t) > 0 {
		return t[0].Text
	}
	return ""
}

// stripTags is a last resort for bodies without plain text; what it returns is
// shown as text and never as markup.
func stripTags(s string) string {
	var b strings.Builder
	in := false
	for _, r := range s {
		switch {
		case r == '<':
			in = true
		case r == '>' && in:
			in = false
		case !in:
			b.WriteRune(r)
		}
	}
	return strings.TrimSpace(html.UnescapeString(b.String()))
}
