package bench

import (
	"bytes"
	"errors"
)

// maxStanza is the longest stanza that a client takes from a server, in bytes.
const maxStanza = 1 << 20

var errLong = errors.New("bench: the server sent a stanza that is too long")

// splitter cuts a server's side of an XMPP stream into stanzas without building them. It
// trusts the server to be well-formed: it looks at tags and quotes, not at names.
type splitter struct {
	buf   []byte // read and not yet dropped
	start int    // of the current stanza, if depth is more than 1
	pos   int    // how far buf was looked at, outside of any tag
	depth int    // of pos; 1 is between stanzas
}

// reset begins a new stream.
func (s *splitter) reset() { s.start, s.pos, s.depth = 0, 0, 0 }

// feed adds what was read.
func (s *splitter) feed(data []byte) error {
	if len(s.buf)+len(data) > maxStanza {
		return errLong
	}
	s.buf = append(s.buf, data...)
	return nil
}

// next returns the next whole stanza, valid until feed or drop is called, or nil if it has
// not come yet. The stream's own header and end are skipped.
func (s *splitter) next() []byte {
	b, pos := s.buf, s.pos
	for {
		i := bytes.IndexByte(b[pos:], '<')
		if i < 0 {
			break
		}
		pos += i
		if s.depth == 1 {
			s.start = pos
		}
		n := tagEnd(b[pos:])
		if n < 0 {
			break
		}
		tag := b[pos : pos+n]
		pos += n
		switch {
		case tag[1] == '?':
			continue
		case tag[1] == '/':
			s.depth--
		case tag[n-2] == '/':
		default:
			s.depth++
			if s.depth == 1 {
				continue // the stream's header
			}
		}
		if s.depth == 1 {
			s.pos = pos
			return b[s.start:pos]
		}
	}
	s.pos = pos
	return nil
}

// drop forgets what next has returned.
func (s *splitter) drop() {
	n := s.pos
	if s.depth > 1 {
		n = s.start
	}
	s.buf = append(s.buf[:0], s.buf[n:]...)
	s.start, s.pos = s.start-n, s.pos-n
}

// tagEnd is the length of the tag that b begins with, or -1.
func tagEnd(b []byte) int {
	var quote byte
	for i, c := range b {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '>':
			return i + 1
		case c == '"' || c == '\'':
			quote = c
		}
	}
	return -1
}

// attr returns the value of an attribute in a stanza's first tag, as it is written.
func attr(stanza []byte, name string) []byte {
	tag := stanza[:max(tagEnd(stanza), 0)]
	for {
		i := bytes.Index(tag, []byte(name))
		if i < 1 {
			return nil
		}
		rest := tag[i+len(name):]
		if (tag[i-1] == ' ' || tag[i-1] == '\n') && len(rest) > 1 && rest[0] == '=' {
			value := rest[2:]
			if end := bytes.IndexByte(value, rest[1]); end >= 0 {
				return value[:end]
			}
			return nil
		}
		tag = rest
	}
}

// between returns what stands between the first before and the next after it.
func between(b []byte, before, after string) []byte {
	_, rest, ok := bytes.Cut(b, []byte(before))
	if !ok {
		return nil
	}
	value, _, ok := bytes.Cut(rest, []byte(after))
	if !ok {
		return nil
	}
	return value
}
