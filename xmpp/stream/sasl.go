package stream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"parley/xmpp/element"
)

// maxSASL is how long one message of a SASL exchange may be, decoded.
const maxSASL = 4 << 10

// maxAuthAttempts is how often a peer may fail on one stream. Clients that know only older channel bindings (slixmpp 1.8) work their
// way down the list to PLAIN with the fifth attempt.
//
// spec: RFC 6120 §6.4.5
const maxAuthAttempts = 5

// saslFailure is a defined condition of a failure, and why, which the peer is not told.
//
// spec: RFC 6120 §6.5
type saslFailure struct {
	condition string
	err       error
}

func (f *saslFailure) Error() string {
	if f.err == nil {
		return "SASL: " + f.condition
	}
	return "SASL: " + f.condition + ": " + f.err.Error()
}

func (f *saslFailure) Unwrap() error { return f.err }

func refuse(condition, format string, args ...any) *saslFailure {
	return &saslFailure{condition: condition, err: fmt.Errorf(format, args...)}
}

// mechanism is the server's side of one SASL exchange. step gets what the peer sent and returns what it is to be sent; with done
// the exchange has succeeded and out, if not nil, goes with the success.
type mechanism interface {
	step(ctx context.Context, in []byte) (out []byte, done bool, err error)
}

// authenticate runs one exchange, from <auth/> to success or failure. A *saslFailure means that the peer was told and may try
// again; other errors end the stream.
//
// spec: RFC 6120 §6.4
func (c *Conn) authenticate(ctx context.Context, auth *element.Element, find func(name string) mechanism) error {
	fail := func(f *saslFailure) error {
		el := element.New(NSSASL, "failure")
		el.Add("", f.condition)
		if err := c.Send(el); err != nil {
			return err
		}
		return f
	}
	name := auth.Attr("mechanism")
	m := find(name)
	if m == nil {
		return fail(refuse("invalid-mechanism", "not offered"))
	}
	el, first := auth, true
	for {
		text := el.Text()
		in, err := decodeSASL(text)
		if err != nil {
			return fail(&saslFailure{condition: "incorrect-encoding", err: err})
		}
		var out []byte
		var done bool
		if !first || text != "" {
			out, done, err = m.step(ctx, in)
		}
		first = false
		if err != nil {
			if f, ok := errors.AsType[*saslFailure](err); ok {
				return fail(f)
			}
			return fail(&saslFailure{condition: "temporary-auth-failure", err: err})
		}
		if done {
			c.mu.Lock()
			c.mechanism = name
			c.mu.Unlock()
			return c.Send(saslElement("success", out))
		}
		if err := c.Send(saslElement("challenge", out)); err != nil {
			return err
		}
		if el, err = c.read(ctx); err != nil {
			return err
		}
		switch {
		case el.Is(NSSASL, "response"):
		case el.Is(NSSASL, "abort"):
			return fail(refuse("aborted", "by the peer"))
		default:
			return Errorf(NotAuthorized, "expected a SASL response")
		}
	}
}

// decodeSASL reads the text of auth or response; "=" is an empty message.
//
// spec: RFC 6120 §6.4.2
func decodeSASL(text string) ([]byte, error) {
	if text == "=" {
		return nil, nil
	}
	if len(text) > base64.StdEncoding.EncodedLen(maxSASL) {
		return nil, errors.New("message is too long")
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

// saslElement makes an element with a message, nil for none.
func saslElement(local string, msg []byte) *element.Element {
	el := element.New(NSSASL, local)
	if msg != nil && len(msg) == 0 {
		return el.SetText("=")
	}
	return el.SetText(base64.StdEncoding.EncodeToString(msg))
}
