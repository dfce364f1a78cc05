package federation

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"parley/matrix/wire"
)

// Scheme is the authentication scheme of requests between servers.
//
// spec: MX 1.19 SS §3.1
const Scheme = "X-Matrix"

// maxHeader bounds one Authorization header, in bytes.
const maxHeader = 2048

// ErrHeader is wrapped by every error about an Authorization header.
var ErrHeader = errors.New("malformed Authorization header")

// Authorization is who signed a request, to whom, and how.
//
// spec: MX 1.19 SS §3.1
type Authorization struct {
	Origin string
	// Destination is empty where an old server leaves it out.
	Destination string
	Key         string // key ID, "ed25519:…"
	Signature   string // unpadded base64
}

// String is the header's value, in the form that the oldest servers read.
//
// spec: MX 1.19 SS §3.1
func (a Authorization) String() string {
	return fmt.Sprintf(`%s origin="%s",destination="%s",key="%s",sig="%s"`, Scheme, a.Origin, a.Destination, a.Key, a.Signature)
}

// ParseAuthorization reads the value of an Authorization header. Parameters of
// other names are passed over; none may be there twice.
//
// spec: MX 1.19 SS §3.1
// spec: RFC 9110 §11.4
func ParseAuthorization(header string) (Authorization, error) {
	if len(header) > maxHeader {
		return Authorization{}, fmt.Errorf("%w: %d bytes", ErrHeader, len(header))
	}
	scheme, rest, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, Scheme) {
		return Authorization{}, fmt.Errorf("%w: not %s", ErrHeader, Scheme)
	}
	p := params{rest: strings.TrimLeft(rest, " ")}
	all, err := p.list()
	if err != nil {
		return Authorization{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	a := Authorization{Origin: all["origin"], Destination: all["destination"], Key: all["key"], Signature: all["sig"]}
	if _, named := all["destination"]; named {
		if err := wire.ParseServerName(a.Destination); err != nil {
			return Authorization{}, fmt.Errorf("%w: destination: %w", ErrHeader, err)
		}
	}
	if err := wire.ParseServerName(a.Origin); err != nil {
		return Authorization{}, fmt.Errorf("%w: origin: %w", ErrHeader, err)
	}
	if !keyForm.MatchString(a.Key) {
		return Authorization{}, fmt.Errorf("%w: key %.80q", ErrHeader, a.Key)
	}
	if a.Signature == "" {
		return Authorization{}, fmt.Errorf("%w: no sig", ErrHeader)
	}
	return a, nil
}

// keyForm is the form of a key ID of any algorithm.
//
// spec: MX 1.19 AP §3.2
var keyForm = regexp.MustCompile(`^[a-z0-9_]{1,32}:[a-zA-Z0-9_]{1,64}$`)

// params reads the parameters of a header.
type params struct{ rest string }

const blanks = " \t"

func (p *params) skip(set string) { p.rest = strings.TrimLeft(p.rest, set) }

// list reads "name=value, name=value". Names become lower case. Empty elements
// are passed over.
//
// spec: RFC 9110 §5.6.1
func (p *params) list() (map[string]string, error) {
	all := map[string]string{}
	for {
		p.skip(blanks + ",")
		if p.rest == "" {
			return all, nil
		}
		name := strings.ToLower(p.run(isToken))
		if name == "" {
			return nil, fmt.Errorf("%q instead of a name", p.rest[0])
		}
		p.skip(blanks)
		if !strings.HasPrefix(p.rest, "=") {
			return nil, fmt.Errorf("no '=' after %q", name)
		}
		p.rest = p.rest[1:]
		p.skip(blanks)
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		all[name] = value
		p.skip(blanks)
		if p.rest != "" && p.rest[0] != ',' {
			return nil, fmt.Errorf("%q after a value", p.rest[0])
		}
	}
}

// run takes the bytes for which is holds.
func (p *params) run(is func(byte) bool) string {
	i := 0
	for i < len(p.rest) && is(p.rest[i]) {
		i++
	}
	out := p.rest[:i]
	p.rest = p.rest[i:]
	return out
}

// value reads a token, in which a colon is let pass for the sake of older
// servers, or a quoted string.
//
// spec: MX 1.19 SS §3.1
// spec: RFC 9110 §5.6.4
func (p *params) value() (string, error) {
	if !strings.HasPrefix(p.rest, `"`) {
		v := p.run(func(c byte) bool { return isToken(c) || c == ':' })
		if v == "" {
			return "", errors.New("a parameter without a value")
		}
		return v, nil
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\':
			if i++; i == len(p.rest) {
				return "", errors.New("a quoted string without an end")
			}
			c = p.rest[i]
		}
		if c < ' ' && c != '\t' || c == 0x7f {
			return "", errors.New("a control character")
		}
		b.WriteByte(c)
	}
	return "", errors.New("a quoted string without an end")
}

// isToken reports whether a byte may be in a token.
//
// spec: RFC 9110 §5.6.2
func isToken(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
