package bosh

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// fault is a terminal binding condition.
//
// spec: XEP-0124 §16.2
type fault string

func (f fault) Error() string { return string(f) }

// Some of them.
const (
	bad     fault = "bad-request"
	policy  fault = "policy-violation"
	unknown fault = "item-not-found"
)

// maxRID is the largest request ID.
//
// spec: XEP-0124 §14.1
const maxRID = 9007199254740991

// request is one body of a client.
type request struct {
	body *element.Element
	sid  string
	rid  int64
	size int // in bytes

	done chan []byte // gets the answer; has room for it
	// Of the session's lock:
	gone bool // nobody waits for the answer
	due  bool // it is to be answered, with nothing if there is nothing
}

// sidOf finds the session of a body before it is parsed, for the limits that then hold. It looks at the first tag only.
func sidOf(raw []byte) string {
	d := xml.NewDecoder(bytes.NewReader(raw[:min(len(raw), 4096)]))
	for range 4 { // an XML declaration and white space may come before it
		tok, err := d.RawToken()
		if err != nil {
			return ""
		}
		if start, ok := tok.(xml.StartElement); ok {
			for _, a := range start.Attr {
				if a.Name.Space == "" && a.Name.Local == "sid" {
					return a.Value
				}
			}
			return ""
		}
	}
	return ""
}

// wider are the limits of a body that holds what is within those of an element.
func wider(l element.Limits) element.Limits {
	l.Depth++
	l.Elements++
	return l
}

// parse reads a body.
//
// spec: XEP-0124 §6
func parse(raw []byte, limits element.Limits) (*request, error) {
	b := bytes.TrimSpace(raw)
	if bytes.HasPrefix(b, []byte("<?xml ")) {
		_, b, _ = bytes.Cut(b, []byte("?>"))
		b = bytes.TrimSpace(b)
	}
	body, err := element.Parse(b, limits)
	if err != nil {
		if pe, ok := errors.AsType[*element.ParseError](err); ok && pe.Limit != "" {
			return nil, policy
		}
		return nil, bad
	}
	rid, err := strconv.ParseInt(body.Attr("rid"), 10, 64)
	if !body.Is(nsBind, "body") || err != nil || rid < 1 || rid > maxRID {
		return nil, bad
	}
	return &request{body: body, sid: body.Attr("sid"), rid: rid, size: len(raw), done: make(chan []byte, 1)}, nil
}

// number reads an attribute that is a count of something, with a default and an upper bound.
func (q *request) number(name string, def, most int) int {
	n, err := strconv.Atoi(q.body.Attr(name))
	if err != nil || n < 0 {
		n = def
	}
	return min(n, most)
}

// writeBody writes an answer.
func writeBody(attrs [][2]string, payload [][]byte) []byte {
	b := []byte("<body xmlns='" + nsBind + "'")
	for _, a := range attrs {
		b = fmt.Appendf(b, " %s='%s'", a[0], element.Escape(a[1]))
	}
	if len(payload) == 0 {
		return append(b, "/>"...)
	}
	b = append(b, '>')
	for _, p := range payload {
		b = append(b, p...)
	}
	return append(b, "</body>"...)
}

// terminated is the answer that ends a session; without a condition, in good order.
//
// spec: XEP-0124 §13
func terminated(err error, payload [][]byte) []byte {
	attrs := [][2]string{{"type", "terminate"}}
	if err != nil {
		f, ok := errors.AsType[fault](err)
		if !ok {
			f = "internal-server-error"
		}
		attrs = append(attrs, [2]string{"condition", string(f)})
	}
	if err == fault("remote-stream-error") { //nolint:errorlint // it is one of ours
		attrs = append(attrs, [2]string{"xmlns:stream", stream.NSStream})
	}
	return writeBody(attrs, payload)
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
