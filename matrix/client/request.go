package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"parley/core"
)

// Login is what an access token stands for.
type Login struct {
	Account core.Address
	Device  string
	// Token names the token, for logging it out: its hash.
	Token []byte
}

// Request is one request of a client, authenticated as its route asks.
type Request struct {
	HTTP *http.Request
	API  *API
	// Account and Device are who asks; zero where nobody is logged in.
	Account core.Address
	UserID  string
	Device  string
	Token   []byte
	IP      netip.Addr

	route *Route
	vars  map[string]string
	query url.Values
	body  []byte
	read  bool
	w     http.ResponseWriter
}

// Context ends when the client goes away.
func (r *Request) Context() context.Context { return r.HTTP.Context() }

// Var is a variable of the path, unescaped.
func (r *Request) Var(name string) string { return r.vars[name] }

// Query is a parameter of the query, "" where it is missing.
func (r *Request) Query(name string) string { return r.query.Get(name) }

// QueryAll are all values of a parameter.
func (r *Request) QueryAll(name string) []string { return r.query[name] }

// QueryInt is a number, fallback where it is missing; it is held to lowest
// and highest.
func (r *Request) QueryInt(name string, fallback, lowest, highest int) (int, error) {
	s := r.Query(name)
	if s == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, Errorf(http.StatusBadRequest, InvalidParam, "The parameter %s is not a whole number.", name)
	}
	return min(max(n, lowest), highest), nil
}

// QueryBool is a truth, fallback where it is missing.
func (r *Request) QueryBool(name string, fallback bool) (bool, error) {
	switch r.Query(name) {
	case "":
		return fallback, nil
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, Errorf(http.StatusBadRequest, InvalidParam, "The parameter %s is neither true nor false.", name)
}

// QueryTime is a moment in milliseconds since 1970, zero where it is missing.
func (r *Request) QueryTime(name string) (time.Time, error) {
	s := r.Query(name)
	if s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return time.Time{}, Errorf(http.StatusBadRequest, InvalidParam, "The parameter %s is not a time in milliseconds.", name)
	}
	return time.UnixMilli(n).UTC(), nil
}

// TxnScope is what a transaction ID is unique in: the device, and the path
// without the ID. It is the Scope of a core.Alias of kind "txn".
//
// spec: MX 1.19 CS §1.2
func (r *Request) TxnScope() string {
	var b strings.Builder
	b.WriteString(r.UserID + " " + url.PathEscape(r.Device) + " " + r.route.Method + " ")
	for _, s := range segments(r.route.Path) {
		b.WriteByte('/')
		name, ok := strings.CutPrefix(s, "{")
		switch name = strings.TrimSuffix(name, "}"); {
		case !ok:
			b.WriteString(s)
		case name != "txnId":
			b.WriteString(url.PathEscape(r.vars[name]))
		}
	}
	return b.String()
}

// maxDepth is how deep a JSON body may nest.
const maxDepth = 100

// Body is the request's JSON, which is an object of valid UTF-8 within the
// limits of size and depth; an empty body is {}.
func (r *Request) Body() ([]byte, error) {
	if r.read {
		return r.body, nil
	}
	most := r.route.MaxBody
	if most == 0 {
		most = r.API.config.RequestSize
	}
	b, err := io.ReadAll(http.MaxBytesReader(r.w, r.HTTP.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, Errorf(http.StatusRequestEntityTooLarge, TooLarge, "The request is larger than %d bytes.", most)
	}
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, NotJSON, "The request did not arrive whole.")
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		b = []byte("{}")
	}
	if err := checkJSON(b); err != nil {
		return nil, err
	}
	r.body, r.read = b, true
	return b, nil
}

// JSON reads the request's JSON object into v.
func (r *Request) JSON(v any) error {
	b, err := r.Body()
	if err != nil {
		return err
	}
	return DecodeJSON(b, v)
}

// DecodeJSON is json.Unmarshal with the errors of Matrix.
func DecodeJSON(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return Errorf(http.StatusBadRequest, BadJSON, "The value of %q is of the wrong type: %s.", t.Field, t.Value)
	}
	if err != nil {
		return Errorf(http.StatusBadRequest, BadJSON, "The JSON has a value of a wrong form.")
	}
	return nil
}

// checkJSON holds a body to what every endpoint asks.
func checkJSON(b []byte) error {
	if !utf8.Valid(b) {
		return Errorf(http.StatusBadRequest, NotJSON, "The request is not valid UTF-8.")
	}
	if depth(b) > maxDepth {
		return Errorf(http.StatusBadRequest, BadJSON, "The JSON nests deeper than %d levels.", maxDepth)
	}
	if !json.Valid(b) {
		return Errorf(http.StatusBadRequest, NotJSON, "The request is not valid JSON.")
	}
	if strings.TrimSpace(string(b))[0] != '{' {
		return Errorf(http.StatusBadRequest, BadJSON, "The request is not a JSON object.")
	}
	return nil
}

// depth is how deep the brackets of a JSON text nest.
func depth(b []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
