package translate

import (
	"fmt"
	"strconv"

	"parley/matrix/wire"
)

// content reads the keys of a JSON object and remembers the first key that had
// a value of the wrong type. A null is as good as absent.
type content struct {
	o    wire.Object
	path string
	err  *error
}

// parseContent makes raw canonical and takes it apart.
func parseContent(raw []byte) (*content, error) {
	if len(raw) > wire.MaxPDU {
		return nil, fmt.Errorf("%w: %w: %d bytes", ErrContent, wire.ErrTooLarge, len(raw))
	}
	canon, err := wire.Canonical(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	o, err := wire.ParseObject(canon)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	return &content{o: o, err: new(error)}, nil
}

func (c *content) fail(key, want string) {
	if *c.err == nil {
		*c.err = fmt.Errorf("%w: %s%s is not %s", ErrContent, c.path, key, want)
	}
}

// get is the raw value at key, nil where there is none.
func (c *content) get(key string) []byte {
	v := c.o.Get(key)
	if string(v) == "null" {
		return nil
	}
	return v
}

func (c *content) has(key string) bool { return c.get(key) != nil }

// str is the string at key, "" where there is none.
func (c *content) str(key string) string {
	if !c.has(key) {
		return ""
	}
	s, ok := c.o.String(key)
	if !ok {
		c.fail(key, "a string")
	}
	return s
}

// need is the string at key, which must be there.
func (c *content) need(key string) string {
	if !c.has(key) {
		c.fail(key, "there")
	}
	return c.str(key)
}

func (c *content) int(key string, absent int64) int64 {
	if !c.has(key) {
		return absent
	}
	n, ok := c.o.Int(key)
	if !ok {
		c.fail(key, "an integer")
	}
	return n
}

func (c *content) bool(key string) bool {
	v := string(c.get(key))
	if v != "" && v != "true" && v != "false" {
		c.fail(key, "true or false")
	}
	return v == "true"
}

// obj is the object at key; an empty one where there is none.
func (c *content) obj(key string) *content {
	in := &content{path: c.path + key + ".", err: c.err}
	v := c.get(key)
	if v == nil {
		return in
	}
	o, err := wire.ParseObject(v)
	if err != nil {
		c.fail(key, "an object")
	}
	in.o = o
	return in
}

// quiet is c with an error of its own: for what may be wrong and is then
// passed over.
func (c *content) quiet() *content { return &content{o: c.o, path: c.path, err: new(error)} }

// list are the elements of the array at key.
func (c *content) list(key string) [][]byte {
	v := c.get(key)
	if v == nil {
		return nil
	}
	out, ok := wire.Elements(v)
	if !ok {
		c.fail(key, "an array")
	}
	return out
}

// strs is the array of strings at key.
func (c *content) strs(key string) []string {
	var out []string
	for _, v := range c.list(key) {
		s, ok := wire.Unquote(v)
		if !ok {
			c.fail(key, "an array of strings")
			return nil
		}
		out = append(out, s)
	}
	return out
}

// ints is the object of integers at key, in the order of its keys.
func (c *content) ints(key string) map[string]int64 {
	out := map[string]int64{}
	in := c.obj(key)
	for _, m := range in.o {
		n, err := strconv.ParseInt(string(m.Value), 10, 64)
		if err != nil {
			in.fail(m.Key, "an integer")
		}
		out[m.Key] = n
	}
	return out
}

// writer builds an object.
type writer struct{ o wire.Object }

func (w *writer) raw(key string, v []byte) { w.o = w.o.With(key, v) }

func (w *writer) str(key, v string) { w.raw(key, wire.Quote(v)) }

// opt writes v if it is not empty.
func (w *writer) opt(key, v string) {
	if v != "" {
		w.str(key, v)
	}
}

func (w *writer) int(key string, n int64) { w.raw(key, strconv.AppendInt(nil, n, 10)) }

// positive writes n if it is above zero.
func (w *writer) positive(key string, n int64) {
	if n > 0 {
		w.int(key, n)
	}
}

func (w *writer) yes(key string, v bool) {
	if v {
		w.raw(key, []byte("true"))
	}
}

func (w *writer) obj(key string, f func(*writer)) {
	var in writer
	f(&in)
	w.raw(key, in.json())
}

func (w *writer) strs(key string, list []string) {
	b := []byte{'['}
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, wire.Quote(s)...)
	}
	w.raw(key, append(b, ']'))
}

func (w *writer) list(key string, n int, f func(i int, w *writer)) {
	b := []byte{'['}
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		var in writer
		f(i, &in)
		b = append(b, in.json()...)
	}
	w.raw(key, append(b, ']'))
}

func (w *writer) ints(key string, m map[string]int64) {
	w.obj(key, func(w *writer) {
		for k, n := range m {
			w.int(k, n)
		}
	})
}

func (w writer) json() []byte { return w.o.JSON() }
