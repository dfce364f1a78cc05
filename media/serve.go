package media

import (
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// inlineTypes may be shown by a browser without leave to run anything.
//
// spec: MX 1.19 CS §10.9.3.1
var inlineTypes = map[string]bool{
	"text/css": true, "text/plain": true, "text/csv": true,
	"application/json": true, "application/ld+json": true,
	"image/jpeg": true, "image/gif": true, "image/png": true,
	"image/apng": true, "image/webp": true, "image/avif": true,
	"video/mp4": true, "video/webm": true, "video/ogg": true, "video/quicktime": true,
	"audio/mp4": true, "audio/webm": true, "audio/aac": true, "audio/mpeg": true,
	"audio/ogg": true, "audio/wave": true, "audio/wav": true, "audio/x-wav": true,
	"audio/x-pn-wav": true, "audio/flac": true, "audio/x-flac": true,
}

// contentPolicy forbids a document everything but to look like something.
//
// spec: MX 1.19 CS §10.9
const contentPolicy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; " +
	"style-src 'unsafe-inline'; object-src 'self';"

// maxName is how many bytes of a file name are passed on.
const maxName = 255

// Presentation is how a file is offered to the one who downloads it.
type Presentation struct {
	Type   string // Content-Type, usually Blob.Declared; "" for Blob.Type or unknown
	Name   string // file name as the sender gave it; any string
	Attach bool   // never show inline
	// MaxAge is how long a cache may keep it, 0 for not at all. What needs a
	// login is cached privately.
	MaxAge time.Duration
	Public bool // a shared cache may keep it
}

// Serve answers a GET or HEAD request with content, with ranges and
// conditions. h is the entity tag; the content under it never changes.
func Serve(w http.ResponseWriter, r *http.Request, h Hash, content io.ReadSeeker, p Presentation) {
	SetHeaders(w.Header(), p)
	w.Header().Set("ETag", `"`+h.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, content)
}

// SetHeaders sets what untrusted content is always served with, also by who
// does not use [Serve].
func SetHeaders(hd http.Header, p Presentation) {
	typ := cleanType(p.Type)
	if typ == "" {
		typ = "application/octet-stream"
	}
	hd.Set("Content-Type", typ)
	hd.Set("Content-Disposition", disposition(typ, p))
	hd.Set("Content-Security-Policy", contentPolicy)
	hd.Set("Cross-Origin-Resource-Policy", "cross-origin") // spec: MX 1.19 CS §10.9
	hd.Set("X-Content-Type-Options", "nosniff")
	hd.Set("Referrer-Policy", "no-referrer")
	switch secs := int64(p.MaxAge / time.Second); {
	case secs <= 0:
		hd.Set("Cache-Control", "private, no-store")
	case p.Public:
		hd.Set("Cache-Control", "public, immutable, max-age="+itoa(secs))
	default:
		hd.Set("Cache-Control", "private, immutable, max-age="+itoa(secs))
	}
}

// disposition is inline for the listed types and attachment for all others,
// with the file name as far as it is one.
//
// spec: RFC 6266 §4
func disposition(typ string, p Presentation) string {
	kind := "attachment"
	base, _, _ := strings.Cut(typ, ";")
	if inlineTypes[base] && !p.Attach {
		kind = "inline"
	}
	name := cleanName(p.Name)
	if name == "" {
		return kind
	}
	if s := mime.FormatMediaType(kind, map[string]string{"filename": name}); s != "" {
		return s
	}
	return kind
}

// cleanName keeps the last element of a name, without what could deceive a
// reader or a shell: controls, the marks that turn the direction of writing,
// and leading dots.
func cleanName(name string) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return -1
		}
		return r
	}, name)
	name = strings.TrimLeft(strings.TrimSpace(name), ".")
	for len(name) > maxName {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return name
}

// cleanType is a media type from outside in its usual spelling, or "". Only
// the parameters that change how text is read are kept.
func cleanType(s string) string {
	if len(s) > maxName {
		return ""
	}
	typ, params, err := mime.ParseMediaType(s)
	major, minor, ok := strings.Cut(typ, "/")
	if err != nil || !ok || major == "" || minor == "" || strings.Contains(minor, "/") {
		return ""
	}
	keep := map[string]string{}
	for _, k := range []string{"charset", "codecs"} {
		if v := params[k]; v != "" {
			keep[k] = v
		}
	}
	return mime.FormatMediaType(typ, keep)
}
