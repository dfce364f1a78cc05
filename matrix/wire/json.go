package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep JSON may nest.
const MaxDepth = 100

// maxInt is the largest integer that canonical JSON may hold.
//
// spec: MX 1.19 AP §3.1
const maxInt = 1<<53 - 1

// ErrJSON is wrapped by every error of [Canonical] and [Strict].
var ErrJSON = errors.New("not canonical JSON")

// Canonical returns raw in canonical form: shortest encoding, keys sorted by
// code point, integers only. Numbers with an integral value in another
// spelling (1.0, 1e3, -0) are respelled; others are an error, as are repeated
// keys, invalid UTF-8, lone surrogates and nesting beyond [MaxDepth].
//
// spec: MX 1.19 AP §3.1
func Canonical(raw []byte) ([]byte, error) { return canonical(raw, false) }

// Strict is [Canonical] for what other servers send, who must not have spelled
// a number in another way.
//
// spec: MX 1.19 RV v6
func Strict(raw []byte) ([]byte, error) { return canonical(raw, true) }

// Loose is [Strict] but for numbers, which may be any that JSON knows and stay
// as they were written. A request is signed over its body whole, and the parts
// of it that clients wrote, such as a to-device message, were never events.
func Loose(raw []byte) ([]byte, error) { return encode(parser{in: raw, loose: true}) }

func canonical(raw []byte, strict bool) ([]byte, error) {
	return encode(parser{in: raw, strict: strict})
}

func encode(p parser) ([]byte, error) {
	raw := p.in
	out, err := p.value(make([]byte, 0, len(raw)), 0)
	if err == nil {
		if p.space(); p.i < len(p.in) {
			err = errors.New("data after the value")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: at byte %d: %w", ErrJSON, p.i, err)
	}
	return out, nil
}

// parser reads JSON and writes it canonically.
//
// spec: RFC 8259 §2
type parser struct {
	in     []byte
	i      int
	strict bool
	loose  bool // numbers are copied
}

var errEnd = errors.New("unexpected end")

func (p *parser) space() {
	for p.i < len(p.in) {
		switch p.in[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

// next skips space and returns the byte there, which must exist.
func (p *parser) next() (byte, error) {
	p.space()
	if p.i >= len(p.in) {
		return 0, errEnd
	}
	return p.in[p.i], nil
}

func (p *parser) value(dst []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, errors.New("nested too deep")
	}
	c, err := p.next()
	if err != nil {
		return nil, err
	}
	switch {
	case c == '{':
		return p.object(dst, depth)
	case c == '[':
		return p.array(dst, depth)
	case c == '"':
		s, err := p.str()
		if err != nil {
			return nil, err
		}
		return appendString(dst, s), nil
	case c == '-' || '0' <= c && c <= '9':
		return p.number(dst)
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(p.in[p.i:], []byte(word)) {
			p.i += len(word)
			return append(dst, word...), nil
		}
	}
	return nil, fmt.Errorf("unexpected %q", c)
}

// field is one member of an object, as a stretch of what was written.
type field struct {
	key      string
	from, to int
}

func (p *parser) object(dst []byte, depth int) ([]byte, error) {
	p.i++ // the brace
	dst = append(dst, '{')
	start := len(dst)
	var buf [16]field
	fields, sorted := buf[:0], true
	for first := true; ; first = false {
		c, err := p.next()
		if err != nil {
			return nil, err
		}
		if c == '}' && first {
			break
		}
		if c != '"' {
			return nil, fmt.Errorf("%q instead of a key", c)
		}
		f := field{from: len(dst)}
		if f.key, err = p.str(); err != nil {
			return nil, err
		}
		dst = append(appendString(dst, f.key), ':')
		if c, err = p.next(); err != nil || c != ':' {
			return nil, errors.Join(err, errors.New("no ':' after a key"))
		}
		p.i++
		if dst, err = p.value(dst, depth+1); err != nil {
			return nil, err
		}
		f.to = len(dst)
		if n := len(fields); n > 0 && fields[n-1].key >= f.key {
			sorted = false
		}
		fields = append(fields, f)
		if c, err = p.next(); err != nil {
			return nil, err
		}
		if c == '}' {
			break
		}
		if c != ',' {
			return nil, fmt.Errorf("%q after a member", c)
		}
		p.i++
		dst = append(dst, ',')
	}
	p.i++
	if !sorted {
		var err error
		if dst, err = sortFields(dst, start, fields); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// sortFields rewrites the members that follow start in the order of their keys.
func sortFields(dst []byte, start int, fields []field) ([]byte, error) {
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.key, b.key) })
	was := bytes.Clone(dst[start:])
	dst = dst[:start]
	for i, f := range fields {
		if i > 0 {
			if f.key == fields[i-1].key {
				return nil, fmt.Errorf("key %.40q twice", f.key)
			}
			dst = append(dst, ',')
		}
		dst = append(dst, was[f.from-start:f.to-start]...)
	}
	return dst, nil
}

func (p *parser) array(dst []byte, depth int) ([]byte, error) {
	p.i++
	dst = append(dst, '[')
	for first := true; ; first = false {
		c, err := p.next()
		if err != nil {
			return nil, err
		}
		if c == ']' && first {
			break
		}
		if dst, err = p.value(dst, depth+1); err != nil {
			return nil, err
		}
		if c, err = p.next(); err != nil {
			return nil, err
		}
		if c == ']' {
			break
		}
		if c != ',' {
			return nil, fmt.Errorf("%q after an element", c)
		}
		p.i++
		dst = append(dst, ',')
	}
	p.i++
	return append(dst, ']'), nil
}

func (p *parser) number(dst []byte) ([]byte, error) {
	start := p.i
	for p.i < len(p.in) && strings.IndexByte("+-.eE0123456789", p.in[p.i]) >= 0 {
		p.i++
	}
	s := string(p.in[start:p.i])
	if p.loose {
		if !json.Valid([]byte(s)) {
			return nil, fmt.Errorf("malformed number %.30s", s)
		}
		return append(dst, s...), nil
	}
	n, err := integer(s)
	if err != nil {
		return nil, err
	}
	if out := strconv.FormatInt(n, 10); out == s || !p.strict {
		return append(dst, out...), nil
	}
	return nil, fmt.Errorf("number %.30s is not spelled canonically", s)
}

// integer reads a JSON number that has an integral value in the safe range.
func integer(s string) (int64, error) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' ||
		len(digits) > 1 && digits[0] == '0' && '0' <= digits[1] && digits[1] <= '9' {
		return 0, fmt.Errorf("malformed number %.30s", s)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(s, 64)
		if ferr != nil || strings.HasSuffix(digits, ".") || strings.Contains(digits, ".e") || strings.Contains(digits, ".E") {
			return 0, fmt.Errorf("malformed number %.30s, or out of range", s)
		}
		if f < -maxInt || f > maxInt {
			return 0, fmt.Errorf("number %.30s is out of range", s)
		}
		if n = int64(f); float64(n) != f {
			return 0, fmt.Errorf("number %.30s is no integer", s)
		}
	}
	if n < -maxInt || n > maxInt {
		return 0, fmt.Errorf("number %.30s is out of range", s)
	}
	return n, nil
}

// str reads a string whose opening quote is at p.i.
func (p *parser) str() (string, error) {
	p.i++
	start := p.i
	for p.i < len(p.in) {
		switch c := p.in[p.i]; {
		case c == '"':
			s := p.in[start:p.i]
			p.i++
			if !utf8.Valid(s) {
				return "", errors.New("invalid UTF-8")
			}
			return string(s), nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", errors.New("control character in a string")
		}
		p.i++
	}
	return "", errEnd
}

// escaped goes on with a string that began at start, from its first escape.
func (p *parser) escaped(start int) (string, error) {
	b := bytes.Clone(p.in[start:p.i])
	for p.i < len(p.in) {
		c := p.in[p.i]
		p.i++
		switch {
		case c == '"':
			if !utf8.Valid(b) {
				return "", errors.New("invalid UTF-8")
			}
			return string(b), nil
		case c < ' ':
			return "", errors.New("control character in a string")
		case c != '\\':
			b = append(b, c)
		default:
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		}
	}
	return "", errEnd
}

// escape reads what follows a backslash.
func (p *parser) escape() (rune, error) {
	if p.i >= len(p.in) {
		return 0, errEnd
	}
	c := p.in[p.i]
	p.i++
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return 0, fmt.Errorf("unknown escape \\%c", c)
	}
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if !bytes.HasPrefix(p.in[p.i:], []byte(`\u`)) {
		return 0, errors.New("lone surrogate")
	}
	p.i += 2
	low, err := p.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, errors.New("lone surrogate")
	}
	return r, nil
}

func (p *parser) hex4() (rune, error) {
	if p.i+4 > len(p.in) {
		return 0, errEnd
	}
	n, err := strconv.ParseUint(string(p.in[p.i:p.i+4]), 16, 16)
	if err != nil {
		return 0, errors.New("malformed \\u escape")
	}
	p.i += 4
	return rune(n), nil
}

const hexDigits = "0123456789abcdef"

// appendString writes s, which is valid UTF-8, as canonical JSON.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		if j := strings.IndexByte("\"\\\b\f\n\r\t", c); j >= 0 {
			dst = append(dst, '\\', `"\bfnrt`[j])
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}

// A Member is one key of an object and its raw value.
type Member struct {
	Key   string
	Value []byte
}

// Object is a JSON object in canonical form, taken apart at its first level.
type Object []Member

// ParseObject takes apart the JSON object raw, made canonical by the strict
// rules. Repeated keys and anything that is not an object are errors.
func ParseObject(raw []byte) (Object, error) {
	canon, err := Strict(raw)
	if err != nil {
		return nil, err
	}
	return members(canon)
}

// members takes apart an object that is known to be canonical.
func members(canon []byte) (Object, error) {
	if len(canon) == 0 || canon[0] != '{' {
		return nil, fmt.Errorf("%w: not an object", ErrJSON)
	}
	p := parser{in: canon, i: 1}
	var o Object
	for p.i < len(canon) && canon[p.i] != '}' {
		key, err := p.str()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrJSON, err)
		}
		p.i++ // the colon
		start := p.i
		p.skip()
		o = append(o, Member{key, canon[start:p.i]})
		if p.i < len(canon) && canon[p.i] == ',' {
			p.i++
		}
	}
	return o, nil
}

// skip passes over one value of canonical JSON.
func (p *parser) skip() {
	depth := 0
	for p.i < len(p.in) {
		switch p.in[p.i] {
		case '"':
			for p.i++; p.i < len(p.in) && p.in[p.i] != '"'; p.i++ {
				if p.in[p.i] == '\\' {
					p.i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return
			}
			depth--
		case ',':
			if depth == 0 {
				return
			}
		}
		p.i++
	}
}

// Get returns the raw value of key, nil if there is none.
func (o Object) Get(key string) []byte {
	i, ok := slices.BinarySearchFunc(o, key, func(m Member, k string) int { return strings.Compare(m.Key, k) })
	if !ok {
		return nil
	}
	return o[i].Value
}

// String returns the string at key; ok says whether there is one.
func (o Object) String(key string) (s string, ok bool) { return Unquote(o.Get(key)) }

// Int returns the integer at key; ok says whether there is one.
func (o Object) Int(key string) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(o.Get(key)), 10, 64)
	return n, err == nil
}

// With returns o with key set to the canonical JSON value.
func (o Object) With(key string, value []byte) Object {
	out := o.Without(key)
	i, _ := slices.BinarySearchFunc(out, key, func(m Member, k string) int { return strings.Compare(m.Key, k) })
	return slices.Insert(out, i, Member{key, value})
}

// Without returns o without the keys.
func (o Object) Without(keys ...string) Object {
	return o.filter(func(k string) bool { return !slices.Contains(keys, k) })
}

func (o Object) filter(keep func(string) bool) Object {
	out := make(Object, 0, len(o)+1)
	for _, m := range o {
		if keep(m.Key) {
			out = append(out, m)
		}
	}
	return out
}

// JSON writes o canonically.
func (o Object) JSON() []byte {
	n := 2
	for _, m := range o {
		n += len(m.Key) + len(m.Value) + 4
	}
	dst := append(make([]byte, 0, n), '{')
	for i, m := range o {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, m.Key), ':')
		dst = append(dst, m.Value...)
	}
	return append(dst, '}')
}

// Quote writes s as a canonical JSON string. Invalid UTF-8 becomes U+FFFD.
func Quote(s string) []byte {
	return appendString(make([]byte, 0, len(s)+2), strings.ToValidUTF8(s, "\uFFFD"))
}

// Elements takes apart a canonical array.
func Elements(canon []byte) (elements [][]byte, ok bool) {
	if len(canon) < 2 || canon[0] != '[' {
		return nil, false
	}
	p := parser{in: canon, i: 1}
	for p.i < len(canon) && canon[p.i] != ']' {
		start := p.i
		p.skip()
		elements = append(elements, canon[start:p.i])
		if p.i < len(canon) && canon[p.i] == ',' {
			p.i++
		}
	}
	return elements, true
}

// Unquote reads a canonical string.
func Unquote(canon []byte) (s string, ok bool) {
	if len(canon) == 0 || canon[0] != '"' {
		return "", false
	}
	p := parser{in: canon}
	s, err := p.str()
	return s, err == nil
}
