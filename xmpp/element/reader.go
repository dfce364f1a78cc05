package element

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// Condition is a defined condition of a stream error which the reader can find.
type Condition string

// Conditions which the reader finds; package stream has the others.
const (
	BadFormat           Condition = "bad-format"
	NotWellFormed       Condition = "not-well-formed"
	PolicyViolation     Condition = "policy-violation"
	RestrictedXML       Condition = "restricted-xml"
	UnsupportedEncoding Condition = "unsupported-encoding"
)

// Limit names the limit that was overstepped, in a ParseError with the condition policy-violation.
type Limit string

// The limits of a Reader.
const (
	LimitBytes      Limit = "stanza bytes"
	LimitDepth      Limit = "element depth"
	LimitElements   Limit = "elements in a stanza"
	LimitAttrs      Limit = "attributes of an element"
	LimitNames      Limit = "bytes of a name"
	LimitNamespaces Limit = "namespace declarations in scope"
)

// ParseError says why what was read cannot be used. After one, the stream is lost: the reader cannot find the next stanza.
type ParseError struct {
	// Condition is what the sender is to be told.
	//
	// spec: RFC 6120 §4.9.3
	Condition Condition
	// Limit is set if and only if Condition is PolicyViolation.
	Limit Limit
	// Detail says more. It never holds content of the stanza beyond one name.
	Detail string
}

func (e *ParseError) Error() string {
	if e.Limit != "" {
		return fmt.Sprintf("xml: %s: more than the allowed %s", e.Condition, e.Limit)
	}
	return fmt.Sprintf("xml: %s: %s", e.Condition, e.Detail)
}

func illFormed(format string, args ...any) error {
	return &ParseError{Condition: NotWellFormed, Detail: fmt.Sprintf(format, args...)}
}

func over(l Limit) error { return &ParseError{Condition: PolicyViolation, Limit: l} }

// Limits bound what one stanza (or stream header) may cost.
type Limits struct {
	// Bytes on the wire, from the first '<' on. A prefixed name counts with its namespace, so that prefixes cannot make the
	// serialisation much longer than what was read.
	Bytes int
	// Depth of nesting; the stanza itself has depth 1.
	Depth int
	// Elements in the whole stanza, itself included.
	Elements int
	// Attrs of one element, namespace declarations included.
	Attrs int
	// Names is the length in bytes of an element's or attribute's name, or of a namespace URI.
	Names int
	// Namespaces is how many declarations may be in scope at any place.
	Namespaces int
}

// DefaultLimits suit authenticated streams; the bytes are those that RFC 6120 §13.12 asks for at least, and 25 times more.
var DefaultLimits = Limits{Bytes: 256 << 10, Depth: 64, Elements: 4096, Attrs: 64, Names: 512, Namespaces: 128}

// NegotiationLimits suit a peer that has yet to authenticate.
//
// spec: RFC 6120 §13.12
var NegotiationLimits = Limits{Bytes: 16 << 10, Depth: 8, Elements: 64, Attrs: 24, Names: 256, Namespaces: 32}

// Reader reads a stream header and then one top-level element at a time. It reads no further than the source gives, never blocks
// with a whole element in hand, and holds no buffer while it waits between elements, so that idle streams are cheap.
//
// Errors: io.EOF after the closing tag of the stream, io.ErrUnexpectedEOF when the source ended without it, *ParseError, or the
// source's own error. All but a source's time-out between elements are final.
type Reader struct {
	limits atomic.Pointer[Limits]
	src    io.Reader

	buf    *[]byte // from buffers, or nil when there is nothing to keep
	unread []byte  // the part of *buf, or of one, that is still to be parsed
	one    [1]byte
	srcErr error // what ended src; told when unread is empty

	left   int   // bytes which the element being read may still use
	broken error // what ended the source inside the element being read
	header *xml.Name
	root   string // the raw name in the header's tag, which its end tag must repeat
	scope  []binding
	base   int // how many of scope the header declared
}

// binding is one namespace declaration; prefix "" is the default namespace.
type binding struct{ prefix, uri string }

const bufferSize = 4096

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// NewReader reads from src, which must not be read by others meanwhile.
func NewReader(src io.Reader, limits Limits) *Reader {
	r := &Reader{src: src}
	r.limits.Store(&limits)
	return r
}

// SetLimits changes the limits for every element whose first byte has not been read. Unlike all else of a Reader it may be called
// while another goroutine reads.
func (r *Reader) SetLimits(l Limits) { r.limits.Store(&l) }

// Buffered is the number of bytes taken from the source and not yet parsed. Before TLS begins it must be 0: anything more was
// written by who can write into the plain connection.
func (r *Reader) Buffered() int { return len(r.unread) }

// Restart forgets the stream header and all it declared, so that Header can be called again; bytes already read are kept.
//
// spec: RFC 6120 §4.3.3
func (r *Reader) Restart() {
	r.header, r.scope, r.base, r.root = nil, nil, 0, ""
}

// Reset is Restart on another source, with nothing kept.
func (r *Reader) Reset(src io.Reader) {
	r.Restart()
	r.release()
	r.src, r.srcErr = src, nil
}

// Header reads the XML declaration, if there is one, and the opening tag of the stream. The element returned has no children.
func (r *Reader) Header() (*Element, error) {
	if r.header != nil {
		return nil, errors.New("xml: the stream header was already read")
	}
	if err := r.skipSpace(); err != nil {
		return nil, err
	}
	if r.unread[0] != '<' {
		return nil, illFormed("text before the stream header")
	}
	p := r.newParser()
	tok, err := p.token()
	if pi, ok := tok.(xml.ProcInst); ok && err == nil {
		if pi.Target != "xml" {
			return nil, &ParseError{Condition: RestrictedXML, Detail: "processing instruction"}
		}
		if err := r.skipSpace(); err != nil {
			return nil, err
		}
		tok, err = p.token()
	}
	if err != nil {
		return nil, err
	}
	start, ok := tok.(xml.StartElement)
	if !ok {
		return nil, p.refuse(tok)
	}
	el, raw, err := p.open(start)
	if err != nil {
		return nil, err
	}
	if r.selfClosed(p) {
		return nil, &ParseError{Condition: BadFormat, Detail: "the stream was closed in its own opening tag"}
	}
	r.header, r.root, r.base = &el.Name, raw, len(r.scope)
	return el, nil
}

// Namespace returns what the stream header has declared for a prefix, or for "" as the default namespace.
func (r *Reader) Namespace(prefix string) string {
	for i := r.base - 1; i >= 0; i-- {
		if r.scope[i].prefix == prefix {
			return r.scope[i].uri
		}
	}
	return ""
}

// selfClosed finds out whether the decoder has an end tag waiting that it made up for "/>".
func (r *Reader) selfClosed(p *parser) bool {
	p.r.left = 0 // nothing may be read
	tok, err := p.dec.RawToken()
	_, end := tok.(xml.EndElement)
	return err == nil && end
}

// Await waits until the next element begins, as Next does first. When the source's time-out has ended it, it may be called again.
func (r *Reader) Await() error { return r.skipSpace() }

// Next reads the next element at the top level of the stream.
func (r *Reader) Next() (*Element, error) {
	if r.header == nil {
		return nil, errors.New("xml: no stream header was read")
	}
	return r.element()
}

// Parse reads one element that stands alone and must be all that b holds, but for white space around it.
func Parse(b []byte, limits Limits) (*Element, error) {
	r := &Reader{unread: b, srcErr: io.EOF}
	r.limits.Store(&limits)
	el, err := r.element()
	if err != nil {
		return nil, err
	}
	if err := r.skipSpace(); err == nil {
		return nil, illFormed("something follows the element")
	}
	return el, nil
}

func (r *Reader) element() (*Element, error) {
	if err := r.skipSpace(); err != nil {
		return nil, err
	}
	if r.unread[0] != '<' {
		return nil, &ParseError{Condition: BadFormat, Detail: "text between stanzas"}
	}
	el, err := r.newParser().element()
	r.scope = r.scope[:r.base]
	if len(r.unread) == 0 {
		r.release()
	}
	return el, err
}

func (r *Reader) newParser() *parser {
	p := &parser{r: r, limits: r.limits.Load()}
	r.left, r.broken = p.limits.Bytes, nil
	p.dec = xml.NewDecoder((*source)(r))
	p.dec.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil, &ParseError{Condition: UnsupportedEncoding, Detail: "another encoding than UTF-8"}
	}
	return p
}

// skipSpace passes over white space, which is how peers keep a connection open, and returns with at least one byte unread.
//
// spec: RFC 6120 §4.6.1
func (r *Reader) skipSpace() error {
	for {
		for len(r.unread) > 0 {
			if !strings.ContainsRune(" \t\r\n", rune(r.unread[0])) {
				return nil
			}
			r.unread = r.unread[1:]
		}
		r.release()
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// fill reads more. Without a buffer it waits with one byte of its own and takes a buffer only when there is something to keep.
func (r *Reader) fill() error {
	if r.srcErr != nil {
		return r.sourceErr()
	}
	into := r.one[:]
	if r.buf != nil {
		into = *r.buf
	}
	for range 100 {
		n, err := r.src.Read(into)
		if err != nil && !isTimeout(err) {
			r.srcErr = err
		}
		if n > 0 {
			r.unread = into[:n]
			return nil
		}
		if err != nil {
			if r.srcErr == nil {
				return err
			}
			return r.sourceErr()
		}
	}
	r.srcErr = io.ErrNoProgress
	return r.srcErr
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

func (r *Reader) sourceErr() error {
	if r.srcErr == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return r.srcErr
}

// release gives the buffer back. What is unread is lost.
func (r *Reader) release() {
	r.unread = nil
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf = nil
	}
}

// source is the Reader as the decoder sees it: byte by byte, within the limit.
type source Reader

// ReadByte gives one byte to the decoder.
func (s *source) ReadByte() (byte, error) {
	r := (*Reader)(s)
	if r.left <= 0 {
		return 0, over(LimitBytes)
	}
	if len(r.unread) == 0 {
		if r.buf == nil {
			r.buf = buffers.Get().(*[]byte)
		}
		if err := r.fill(); err != nil {
			r.srcErr, r.broken = err, err // half an element is lost: a time-out is final too
			return 0, err
		}
	}
	b := r.unread[0]
	r.unread = r.unread[1:]
	r.left--
	return b, nil
}

// Read makes source an io.Reader, which xml.NewDecoder asks for; the decoder uses ReadByte.
func (s *source) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := s.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}
