package client

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Auth says who may call a route.
type Auth int

// The kinds of authentication. Optional lets anybody in, and refuses a token
// that is wrong. EvenLocked is User, and lets in accounts that the operator has
// disabled.
const (
	User Auth = iota
	Optional
	None
	EvenLocked
)

// Handler does a request. What it returns is the JSON of a 200 answer, nil
// being {}; a [Reply] answers for itself. An error becomes an answer by
// [AsError].
type Handler func(*Request) (any, error)

// Reply is an answer that is not JSON with status 200.
type Reply interface {
	WriteReply(w http.ResponseWriter, r *http.Request)
}

// Route is one line of a table: what answers to a method on a path.
type Route struct {
	Method string
	// Path has segments in braces, {roomId}, which match one non-empty
	// segment. Say v3 where it is one of the versions r0 and v3: both match.
	// A slash at the end of a request's path counts for nothing.
	Path    string
	Auth    Auth
	Limit   Class
	Handler Handler
	// MaxBody is the most bytes of a JSON body, zero for the configured limit.
	MaxBody int64

	vars []string
}

// router finds routes by the escaped path, so that a slash or colon within an
// identifier is part of it.
//
// spec: MX 1.19 CS §1
type router struct{ root node }

type node struct {
	literal map[string]*node
	any     *node
	methods map[string]*Route
}

// add puts a route in; two for one method and path are a mistake of ours.
func (t *router) add(r Route) {
	n := &t.root
	for _, s := range segments(r.Path) {
		if name, ok := strings.CutPrefix(s, "{"); ok {
			r.vars = append(r.vars, strings.TrimSuffix(name, "}"))
			if n.any == nil {
				n.any = &node{}
			}
			n = n.any
			continue
		}
		if n.literal == nil {
			n.literal = map[string]*node{}
		}
		if n.literal[s] == nil {
			n.literal[s] = &node{}
		}
		n = n.literal[s]
	}
	if n.methods == nil {
		n.methods = map[string]*Route{}
	}
	if n.methods[r.Method] != nil {
		panic(fmt.Sprintf("two routes for %s %s", r.Method, r.Path))
	}
	n.methods[r.Method] = &r
}

// find returns the route and its path's variables. A nil route with allowed
// methods means that the path is known for those.
func (t *router) find(method, escaped string) (r *Route, vars map[string]string, allowed []string, err error) {
	raw := segments(escaped)
	plain := make([]string, len(raw))
	for i, s := range raw {
		if plain[i], err = url.PathUnescape(s); err != nil || !utf8.ValidString(plain[i]) || strings.ContainsRune(plain[i], 0) {
			return nil, nil, nil, Errorf(http.StatusBadRequest, InvalidParam, "The path is not properly encoded.")
		}
	}
	if len(plain) > 2 && plain[0] == "_matrix" && plain[2] == "r0" {
		plain[2] = "v3"
	}
	n, values := t.root.walk(plain, nil)
	if n == nil {
		return nil, nil, nil, nil
	}
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if r = n.methods[method]; r == nil {
		for m := range n.methods {
			allowed = append(allowed, m)
		}
		slices.Sort(allowed)
		return nil, nil, allowed, nil
	}
	vars = make(map[string]string, len(values))
	for i, name := range r.vars {
		vars[name] = values[i]
	}
	return r, vars, nil, nil
}

// walk goes down by the segments, a literal before a variable.
func (n *node) walk(path, values []string) (*node, []string) {
	if len(path) == 0 {
		if n.methods == nil {
			return nil, nil
		}
		return n, values
	}
	if next := n.literal[path[0]]; next != nil {
		if found, v := next.walk(path[1:], values); found != nil {
			return found, v
		}
	}
	if n.any == nil || path[0] == "" {
		return nil, nil
	}
	return n.any.walk(path[1:], append(values, path[0]))
}

func segments(path string) []string {
	return strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
}
