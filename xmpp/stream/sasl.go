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
	// unproven says that it failed before the peer showed what it knows: no guess was made.
	unproven bool
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
	name := auth.Attr("mechanism")
	m := find(name)
	var out []byte
	err := error(refuse("invalid-mechanism", "not offered"))
	if m != nil {
		text := auth.Text()
		out, err = c.converse(ctx, NSSASL, m, text, text != "")
	}
	if f, ok := errors.AsType[*saslFailure](err); ok {
		if err := c.Send(element.New(NSSASL, "failure").Append(element.New(NSSASL, f.condition))); err != nil {
			return err
		}
		return f
	}
	if err != nil {
		return err
	}
	c.setMechanism(name)
	return c.Send(saslElement(NSSASL, "success", out))
}

func (c *Conn) setMechanism(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mechanism = name
}

// converse exchanges challenges and responses, elements of the namespace, until the mechanism has done; text is the initial response,
// if there is one. It returns what goes with the success. A *saslFailure has not been told; other errors end the stream.
func (c *Conn) converse(ctx context.Context, space string, m mechanism, text string, initial bool) ([]byte, error) {
	for {
		in, err := decodeSASL(text)
		if err != nil {
			return nil, &saslFailure{condition: "incorrect-encoding", err: err}
		}
		var out []byte
		var done bool
		if initial {
			out, done, err = m.step(ctx, in)
		}
		initial = true
		if _, ok := errors.AsType[*saslFailure](err); err != nil && !ok {
			err = &saslFailure{condition: "temporary-auth-failure", err: err}
		}
		if err != nil || done {
			return out, err
		}
		if err := c.Send(saslElement(space, "challenge", out)); err != nil {
			return nil, err
		}
		el, err := c.read(ctx)
		switch {
		case err != nil:
			return nil, err
		case el.Is(space, "response"):
			text = el.Text()
		case el.Is(space, "abort"):
			return nil, refuse("aborted", "by the peer")
		default:
			return nil, Errorf(NotAuthorized, "expected a SASL response")
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

// saslElement makes an element of a namespace with a message, nil for none.
func saslElement(space, local string, msg []byte) *element.Element {
	el := element.New(space, local)
	if msg != nil && len(msg) == 0 {
		return el.SetText("=")
	}
	return el.SetText(base64.StdEncoding.EncodeToString(msg))
}
