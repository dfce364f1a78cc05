package xmpptest

import (
	"fmt"
	"regexp"
	"strings"

	"parley/xmpp/element"
	"parley/xmpp/stream"
)

// Run plays a script. A line says who does what; what is indented below it is XML. Empty lines and those that begin with '#' mean
// nothing. Clients are called by the account's name, or by name/resource where an account has several.
//
//	alice connects              an account alice is made if there is none; alice/phone binds the resource phone
//	alice is available          sends initial presence and waits until the server has dealt with it
//	alice sends:                elements, as they stand below
//	alice receives:             waits for each of the elements; others that come meanwhile stay for later
//	alice does not receive:     none of the elements has come once everybody's server has dealt with everything
//	alice disconnects           breaks the connection
//	alice closes                ends the stream in good order
//
// In what is received, an element matches that has at least the attributes, text and children of the pattern. A value "*" matches
// anything, "alice@example.org/*" anything that begins so; {x} is what it matched when it was first met, or a name set with
// [Server.Run]'s values, also in what is sent. Clients and what was matched stay from one script to the next.
func (s *Server) Run(script string, values map[string]string) {
	s.t.Helper()
	if s.clients == nil {
		s.clients, s.values = map[string]*Client{}, map[string]string{}
	}
	r := &runner{s: s, clients: s.clients, values: s.values}
	for k, v := range values {
		r.values[k] = v
	}
	lines := strings.Split(script, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := i + 1
		var xml []string
		for strings.HasSuffix(line, ":") && i+1 < len(lines) && deeper(lines[i+1], lines[at-1]) {
			i++
			xml = append(xml, lines[i])
		}
		if err := r.do(line, strings.Join(xml, "\n")); err != nil {
			s.t.Fatalf("line %d of the script, %q: %v", at, line, err)
		}
	}
}

func deeper(line, than string) bool {
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " \t")) }
	return strings.TrimSpace(line) == "" || indent(line) > indent(than)
}

type runner struct {
	s       *Server
	clients map[string]*Client
	values  map[string]string
}

func (r *runner) do(line, xml string) error {
	who, what, _ := strings.Cut(line, " ")
	c := r.clients[who]
	if what == "connects" {
		name, resource, _ := strings.Cut(who, "/")
		r.clients[who] = r.s.Connect(name, resource)
		return nil
	}
	if c == nil {
		return fmt.Errorf("%s is not connected", who)
	}
	els, err := r.parse(xml, what == "sends:")
	if err != nil {
		return err
	}
	switch what {
	case "is available":
		c.Send(element.New(stream.NSClient, "presence"))
		c.Sync()
	case "sends:":
		for _, el := range els {
			c.Send(el)
		}
	case "receives:":
		for _, want := range els {
			if el, rest := c.wait(func(el *element.Element) bool { return r.match(want, el, false) }); el == nil {
				return fmt.Errorf("%s did not receive\n%s\nIt received\n%s", who, want, rest)
			} else {
				r.match(want, el, true)
			}
		}
	case "does not receive:":
		r.sync()
		for _, not := range els {
			if el := c.Has(func(el *element.Element) bool { return r.match(not, el, false) }); el != nil {
				return fmt.Errorf("%s received\n%s", who, el)
			}
		}
	case "disconnects":
		c.Drop()
		delete(r.clients, who)
	case "closes":
		c.SendRaw("</stream:stream>")
		c.Ended()
		delete(r.clients, who)
	default:
		return fmt.Errorf("nobody knows how to do that")
	}
	return nil
}

// sync is twice, because what one client's stanza does reaches the other's session before it is answered, and that session tells its
// client before it answers.
func (r *runner) sync() {
	for range 2 {
		for _, c := range r.clients {
			c.Sync()
		}
	}
}

var placeholder = regexp.MustCompile(`\{[a-z][a-z0-9]*\}`)

// parse reads the elements below a line. What has no namespace is of the stream.
func (r *runner) parse(xml string, fill bool) ([]*element.Element, error) {
	if strings.TrimSpace(xml) == "" {
		return nil, nil
	}
	if fill {
		var missing string
		xml = placeholder.ReplaceAllStringFunc(xml, func(p string) string {
			v, ok := r.values[p[1:len(p)-1]]
			if !ok {
				missing = p
			}
			return element.Escape(v)
		})
		if missing != "" {
			return nil, fmt.Errorf("%s has no value", missing)
		}
	}
	root, err := element.Parse([]byte("<all xmlns='jabber:client'>"+xml+"</all>"), element.DefaultLimits)
	if err != nil {
		return nil, err
	}
	els := root.Elements()
	if !fill {
		return els, nil
	}
	for _, el := range els {
		trim(el)
	}
	return els, nil
}

// trim takes out the white space that only makes a script readable.
func trim(el *element.Element) {
	if len(el.Elements()) == 0 {
		return
	}
	kept := el.Children[:0]
	for _, n := range el.Children {
		if t, ok := n.(element.CharData); ok && strings.TrimSpace(string(t)) == "" {
			continue
		}
		if c, ok := n.(*element.Element); ok {
			trim(c)
		}
		kept = append(kept, n)
	}
	el.Children = kept
}

// match compares an element with a pattern; set keeps what placeholders stand for.
func (r *runner) match(want, el *element.Element, set bool) bool {
	if want.Name != el.Name {
		return false
	}
	for _, a := range want.Attrs {
		v, ok := el.LookupAttr(a.Name.Space, a.Name.Local)
		if !ok || !r.value(a.Value, v, set) {
			return false
		}
	}
	if t := strings.TrimSpace(want.Text()); t != "" && !r.value(t, strings.TrimSpace(el.Text()), set) {
		return false
	}
	used := map[*element.Element]bool{}
	for _, wc := range want.Elements() {
		found := false
		for _, c := range el.Elements() {
			if !used[c] && r.match(wc, c, false) {
				r.match(wc, c, set)
				used[c], found = true, true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

func (r *runner) value(want, got string, set bool) bool {
	if p := placeholder.FindString(want); p != "" && p == want {
		name := p[1 : len(p)-1]
		if v, known := r.values[name]; known {
			return v == got
		}
		if set {
			r.values[name] = got
		}
		return true
	}
	if begin, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(got, begin)
	}
	return want == got
}

// Client is one of the scripts' clients, nil if it is not connected.
func (s *Server) Client(who string) *Client { return s.clients[who] }
