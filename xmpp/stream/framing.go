package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"parley/xmpp/element"
)

// NSFraming is the namespace of the elements that open and close a stream on a WebSocket.
//
// spec: RFC 7395 §3.3.2
const NSFraming = "urn:ietf:params:xml:ns:xmpp-framing"

// reader takes the elements of a stream off its transport: *element.Reader from one long document, *messageReader from messages.
// Errors are as those of element.Reader.
type reader interface {
	Header() (*element.Element, error)
	Next() (*element.Element, error)
	// Namespace is what the header has declared for a prefix.
	Namespace(prefix string) string
	Restart()
	SetLimits(element.Limits)
}

// framing puts a stream on its transport. Each method appends to the bytes that wait to be written.
type framing interface {
	// raw adds what put appends, as it is.
	raw(b []byte, put func([]byte) []byte) []byte
	element(b []byte, el *element.Element) []byte
	open(b []byte, from, to, id string) []byte
	close(b []byte) []byte
	// check judges by its name what the peer opened its stream with.
	check(header *element.Element, r reader) error
}

// document is a stream as one XML document, which TCP carries.
//
// spec: RFC 6120 §4.2
type document struct{ enc element.Encoder }

func (document) raw(b []byte, put func([]byte) []byte) []byte { return put(b) }

func (d document) element(b []byte, el *element.Element) []byte {
	if d.enc.Default != NSClient && el.Name.Space == NSClient {
		el = el.Copy().Rename(NSClient, d.enc.Default)
	}
	return d.enc.Append(b, el)
}

func (d document) open(b []byte, from, to, id string) []byte {
	b = append(b, "<?xml version='1.0'?><stream:stream xmlns='"+d.enc.Default+"' xmlns:stream='"+NSStream+"'"...)
	if d.enc.Default == NSServer {
		b = append(b, " xmlns:db='"+NSDialback+"'"...)
	}
	return append(appendAddresses(b, from, to, id), '>')
}

func (document) close(b []byte) []byte { return append(b, "</stream:stream>"...) }

func (d document) check(header *element.Element, r reader) error {
	if header.Name.Space != NSStream {
		return Errorf(InvalidNamespace, "not a stream")
	}
	if header.Name.Local != "stream" {
		return Errorf(BadFormat, "not a stream")
	}
	if got := r.Namespace(""); got != d.enc.Default {
		return Errorf(InvalidNamespace, "the content namespace must be %s", d.enc.Default)
	}
	return nil
}

// appendAddresses writes the attributes that a header has on any transport.
func appendAddresses(b []byte, from, to, id string) []byte {
	for _, a := range [...]struct{ name, value string }{{"from", from}, {"to", to}, {"id", id}} {
		if a.value != "" {
			b = fmt.Appendf(b, " %s='%s'", a.name, element.Escape(a.value))
		}
	}
	return append(b, " version='1.0' xml:lang='en'"...)
}

// messages is a stream as messages, each of which is a document. What waits to be written has the length of each message, in
// messageHead bytes, before it: see frames.Write.
//
// spec: RFC 7395 §3.3.3
type messages struct{}

const messageHead = 4

func (messages) raw(b []byte, put func([]byte) []byte) []byte {
	head := len(b)
	b = put(append(b, make([]byte, messageHead)...))
	binary.BigEndian.PutUint32(b[head:], uint32(len(b)-head-messageHead))
	return b
}

// element gives stream features and errors the prefix that the examples of the RFC show and that clients look for; all else is
// unprefixed.
func (m messages) element(b []byte, el *element.Element) []byte {
	return m.raw(b, func(b []byte) []byte {
		if el.Name.Space != NSStream {
			return element.Encoder{}.Append(b, el)
		}
		start := len(b)
		b = element.Encoder{Prefixes: map[string]string{NSStream: "stream"}}.Append(b, el)
		after := start + len("<stream:") + len(el.Name.Local)
		rest := string(b[after:])
		return append(append(b[:after], " xmlns:stream='"+NSStream+"'"...), rest...)
	})
}

// open opens a stream, for the first time or again.
//
// spec: RFC 7395 §3.4
// spec: RFC 7395 §3.7
func (m messages) open(b []byte, from, to, id string) []byte {
	return m.raw(b, func(b []byte) []byte {
		return append(appendAddresses(append(b, "<open xmlns='"+NSFraming+"'"...), from, to, id), "/>"...)
	})
}

// close closes a stream.
//
// spec: RFC 7395 §3.6
func (m messages) close(b []byte) []byte {
	return m.raw(b, func(b []byte) []byte { return append(b, "<close xmlns='"+NSFraming+"'/>"...) })
}

func (messages) check(header *element.Element, _ reader) error {
	switch {
	case header.Is(NSFraming, "open"):
		return nil
	case header.Name.Space != NSFraming:
		return Errorf(InvalidNamespace, "not a framed stream")
	}
	return Errorf(BadFormat, "not a framed stream")
}

// messageReader reads a stream from messages.
type messageReader struct {
	wire   *wire
	frames *frames
	limits atomic.Pointer[element.Limits]
}

func newMessageReader(w *wire, f *frames, limits element.Limits) *messageReader {
	r := &messageReader{wire: w, frames: f}
	r.SetLimits(limits)
	return r
}

// SetLimits changes the limits for every message whose first byte has not been read.
func (r *messageReader) SetLimits(l element.Limits) {
	r.limits.Store(&l)
	r.frames.limit.Store(int64(l.Bytes))
}

// Restart is for documents: a message declares nothing for the next.
func (*messageReader) Restart() {}

// Namespace is for documents, too.
func (*messageReader) Namespace(string) string { return "" }

// Header reads the message that opens a stream.
func (r *messageReader) Header() (*element.Element, error) { return r.read() }

// Next reads the next element, or io.EOF for the message that closes the stream.
func (r *messageReader) Next() (*element.Element, error) {
	el, err := r.read()
	if err == nil && el.Name.Space == NSFraming {
		return nil, Errorf(BadFormat, "the stream is open")
	}
	return el, err
}

// read reads one message, which must begin with its element or an XML declaration. What that says is of no account, because messages
// are UTF-8 in any case.
//
// spec: RFC 7395 §3.3.3
func (r *messageReader) read() (*element.Element, error) {
	if err := r.wire.arm(); err != nil {
		return nil, err
	}
	b, err := r.frames.next()
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] != '<' {
		return nil, Errorf(BadFormat, "a message must begin with an element")
	}
	if bytes.HasPrefix(b, []byte("<?xml ")) {
		_, b, _ = bytes.Cut(b, []byte("?>"))
	}
	el, err := element.Parse(b, *r.limits.Load())
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &element.ParseError{Condition: NotWellFormed, Detail: "the message ends within its element"}
	case err != nil:
		return nil, err
	case el.Is(NSFraming, "close"):
		return nil, io.EOF
	}
	return el, nil
}
