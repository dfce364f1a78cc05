package element

import (
	"strconv"
	"unicode/utf8"
)

// Encoder serialises elements as they stand inside an enclosing tag that has already been written, such as a stream header. The
// zero value is for an element that stands alone. An Encoder is only read, so many goroutines may share one.
type Encoder struct {
	// Default is the namespace URI that an unprefixed name has at this place: the content namespace of the stream.
	Default string
	// Prefixes maps namespace URIs to prefixes which the enclosing tag has declared ("stream", "db"). Other namespaces of elements
	// are declared as the default one where they begin.
	Prefixes map[string]string
}

// Marshal serialises an element that stands alone.
func Marshal(e *Element) []byte { return Encoder{}.Append(nil, e) }

// String is the serialisation of an element that stands alone. It holds what the user wrote: it is not for logs.
func (e *Element) String() string {
	if e == nil {
		return ""
	}
	return string(Marshal(e))
}

// Append serialises e at the end of dst. The output depends on nothing but e and the Encoder. Characters that XML 1.0 cannot carry
// become U+FFFD, and those that a name cannot carry become '_'.
func (enc Encoder) Append(dst []byte, e *Element) []byte {
	return enc.append(dst, e, enc.Default)
}

func (enc Encoder) append(dst []byte, e *Element, def string) []byte {
	dst = append(dst, '<')
	start := len(dst)
	if prefix, ok := enc.Prefixes[e.Name.Space]; ok && e.Name.Space != "" && e.Name.Space != def {
		dst = append(append(dst, prefix...), ':')
	}
	dst = appendName(dst, e.Name.Local)
	end := len(dst)
	if prefixed := enc.Prefixes[e.Name.Space] != "" && e.Name.Space != ""; e.Name.Space != def && !prefixed {
		def = e.Name.Space
		dst = append(dst, " xmlns='"...)
		dst = appendEscaped(dst, def, true)
		dst = append(dst, '\'')
	}
	dst = enc.appendAttrs(dst, e)
	if len(e.Children) == 0 {
		return append(dst, "/>"...)
	}
	dst = append(dst, '>')
	for _, n := range e.Children {
		switch n := n.(type) {
		case *Element:
			dst = enc.append(dst, n, def)
		case CharData:
			dst = appendEscaped(dst, string(n), false)
		}
	}
	dst = append(dst, "</"...)
	dst = append(dst, dst[start:end]...)
	return append(dst, '>')
}

// appendAttrs writes the attributes. A namespace other than XML's own gets a prefix made here and declared on this very element:
// ns1, ns2 and so on, which cannot collide with those of Encoder.Prefixes as long as these are not called so.
func (enc Encoder) appendAttrs(dst []byte, e *Element) []byte {
	var made []string
	for _, a := range e.Attrs {
		dst = append(dst, ' ')
		switch a.Name.Space {
		case "":
		case XMLNamespace:
			dst = append(dst, "xml:"...)
		default:
			i := 0
			for i < len(made) && made[i] != a.Name.Space {
				i++
			}
			if i == len(made) {
				made = append(made, a.Name.Space)
				dst = strconv.AppendInt(append(dst, "xmlns:ns"...), int64(i+1), 10)
				dst = append(appendEscaped(append(dst, "='"...), a.Name.Space, true), "' "...)
			}
			dst = append(strconv.AppendInt(append(dst, "ns"...), int64(i+1), 10), ':')
		}
		dst = append(appendName(dst, a.Name.Local), "='"...)
		dst = append(appendEscaped(dst, a.Value, true), '\'')
	}
	return dst
}

// Escape returns s as it may stand in text or between single quotes.
func Escape(s string) string { return string(appendEscaped(nil, s, true)) }

// appendEscaped writes text or, with attr, an attribute's value. What a parser would normalise away is written as a reference.
func appendEscaped(dst []byte, s string, attr bool) []byte {
	last := 0
	for i := 0; i < len(s); {
		r, width := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, width = utf8.DecodeRuneInString(s[i:])
		}
		if sub, ok := escape(r, width, attr); ok {
			dst = append(append(dst, s[last:i]...), sub...)
			last = i + width
		}
		i += width
	}
	return append(dst, s[last:]...)
}

func escape(r rune, width int, attr bool) (string, bool) {
	switch r {
	case '<':
		return "&lt;", true
	case '>':
		return "&gt;", true
	case '&':
		return "&amp;", true
	case '\'':
		return "&apos;", attr
	case '"':
		return "&quot;", attr
	case '\r':
		return "&#xD;", true
	case '\n':
		return "&#xA;", attr
	case '\t':
		return "&#x9;", attr
	}
	if r == utf8.RuneError && width == 1 || !validChar(r) {
		return "\uFFFD", true
	}
	return "", false
}

// validChar says whether XML 1.0 can carry the character at all, even as a reference.
func validChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

// appendName writes a local name. Names come from code or from the reader, which lets only valid ones pass; the check keeps an
// error elsewhere from making ill-formed output. The characters are those of XML 1.0, fifth edition, without the colon.
func appendName(dst []byte, name string) []byte {
	if name == "" {
		return append(dst, '_')
	}
	for i, r := range name {
		if nameStart(r) || i > 0 && nameFollow(r) {
			dst = utf8.AppendRune(dst, r)
		} else {
			dst = append(dst, '_')
		}
	}
	return dst
}

func nameStart(r rune) bool {
	switch {
	case r < 0x80:
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
	case r == 0xD7 || r == 0xF7 || r == utf8.RuneError:
		return false
	}
	return r >= 0xC0 && r <= 0x2FF || r >= 0x370 && r <= 0x37D || r >= 0x37F && r <= 0x1FFF || r == 0x200C || r == 0x200D ||
		r >= 0x2070 && r <= 0x218F || r >= 0x2C00 && r <= 0x2FEF || r >= 0x3001 && r <= 0xD7FF ||
		r >= 0xF900 && r <= 0xFDCF || r >= 0xFDF0 && r <= 0xFFFD || r >= 0x10000 && r <= 0xEFFFF
}

func nameFollow(r rune) bool {
	return r == '-' || r == '.' || r >= '0' && r <= '9' || r == 0xB7 ||
		r >= 0x300 && r <= 0x36F || r == 0x203F || r == 0x2040
}
