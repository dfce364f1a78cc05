// Package element is the smallest DOM that XMPP needs: an XML element with resolved namespaces, text, and attributes, together
// with a serialiser and a reader of the restricted XML that RFC 6120 allows on a stream.
//
// It is the bottom room of the XMPP house. It knows neither stanzas nor streams nor anything of Parley: package stream reads and
// writes elements, the sessions and the translation give them meaning.
//
// Invariants. Names carry namespace URIs, never prefixes. Namespace declarations are not attributes: the reader takes them away and
// the serialiser makes the ones needed. Whatever an Element holds, its serialisation is well-formed XML 1.0.
package element

import (
	"encoding/xml"
	"slices"
	"strings"
)

// XMLNamespace is the namespace of the reserved prefix "xml", as in xml:lang.
const XMLNamespace = "http://www.w3.org/XML/1998/namespace"

// Node is what an element may contain: *Element or CharData.
type Node interface{ node() }

// CharData is text between tags, unescaped.
type CharData string

// Element is one XML element with all that it contains. The zero value has no name and must not be serialised.
type Element struct {
	// Name has the namespace URI in Space ("" is no namespace) and the local part in Local.
	Name xml.Name
	// Attrs are in document order and hold no namespace declarations. Space is a URI or, for most attributes, "".
	Attrs []xml.Attr
	// Children are never nil nodes; the reader joins adjacent text into one CharData.
	Children []Node
}

func (*Element) node() {}
func (CharData) node() {}

// New makes an empty element. Space is the namespace URI.
func New(space, local string) *Element {
	return &Element{Name: xml.Name{Space: space, Local: local}}
}

// NewText makes an element that contains only text.
func NewText(space, local, text string) *Element {
	return New(space, local).SetText(text)
}

// Is says whether e is not nil and has exactly this name.
func (e *Element) Is(space, local string) bool {
	return e != nil && e.Name.Local == local && e.Name.Space == space
}

// Child returns the first child element with this name, or nil. An empty space means the namespace of e itself, so that
// message.Child("", "body") finds the body of a stanza whatever the stream's content namespace. It may be called on nil.
func (e *Element) Child(space, local string) *Element {
	for c := range e.named(space, local) {
		return c
	}
	return nil
}

// ChildrenNamed returns all child elements with this name, in order; an empty space is read as in Child.
func (e *Element) ChildrenNamed(space, local string) []*Element {
	return slices.Collect(e.named(space, local))
}

func (e *Element) named(space, local string) func(yield func(*Element) bool) {
	return func(yield func(*Element) bool) {
		if e == nil {
			return
		}
		if space == "" {
			space = e.Name.Space
		}
		for _, n := range e.Children {
			if c, ok := n.(*Element); ok && c.Is(space, local) && !yield(c) {
				return
			}
		}
	}
}

// Elements returns the child elements, without the text between them.
func (e *Element) Elements() []*Element {
	if e == nil {
		return nil
	}
	var out []*Element
	for _, n := range e.Children {
		if c, ok := n.(*Element); ok {
			out = append(out, c)
		}
	}
	return out
}

// First returns the first child element whatever its name (the payload of an iq), or nil.
func (e *Element) First() *Element {
	if e == nil {
		return nil
	}
	for _, n := range e.Children {
		if c, ok := n.(*Element); ok {
			return c
		}
	}
	return nil
}

// ChildText returns the text of the first child with this name, or "".
func (e *Element) ChildText(space, local string) string { return e.Child(space, local).Text() }

// Attr returns the value of the attribute without namespace, or "" if there is none. It may be called on nil.
func (e *Element) Attr(local string) string { return e.AttrNS("", local) }

// AttrNS returns the value of the attribute with this namespace URI and local name, or "" if there is none.
func (e *Element) AttrNS(space, local string) string {
	v, _ := e.LookupAttr(space, local)
	return v
}

// LookupAttr tells an empty attribute from an absent one.
func (e *Element) LookupAttr(space, local string) (value string, ok bool) {
	if e == nil {
		return "", false
	}
	for _, a := range e.Attrs {
		if a.Name.Local == local && a.Name.Space == space {
			return a.Value, true
		}
	}
	return "", false
}

// SetAttr sets the attribute without namespace and returns e.
func (e *Element) SetAttr(local, value string) *Element { return e.SetAttrNS("", local, value) }

// SetAttrNS sets the attribute with this namespace URI and returns e.
func (e *Element) SetAttrNS(space, local, value string) *Element {
	for i, a := range e.Attrs {
		if a.Name.Local == local && a.Name.Space == space {
			e.Attrs[i].Value = value
			return e
		}
	}
	e.Attrs = append(e.Attrs, xml.Attr{Name: xml.Name{Space: space, Local: local}, Value: value})
	return e
}

// RemoveAttr removes the attribute without namespace, if there is one, and returns e.
func (e *Element) RemoveAttr(local string) *Element {
	e.Attrs = slices.DeleteFunc(e.Attrs, func(a xml.Attr) bool { return a.Name.Space == "" && a.Name.Local == local })
	return e
}

// Lang returns xml:lang of this very element; what it inherits is for the caller, who knows the parents.
func (e *Element) Lang() string { return e.AttrNS(XMLNamespace, "lang") }

// SetLang sets xml:lang, or removes it if lang is empty, and returns e.
func (e *Element) SetLang(lang string) *Element {
	if lang != "" {
		return e.SetAttrNS(XMLNamespace, "lang", lang)
	}
	e.Attrs = slices.DeleteFunc(e.Attrs, func(a xml.Attr) bool { return a.Name.Space == XMLNamespace && a.Name.Local == "lang" })
	return e
}

// Text returns the text directly inside e, without that of child elements. It may be called on nil.
func (e *Element) Text() string {
	if e == nil {
		return ""
	}
	if len(e.Children) == 1 {
		if t, ok := e.Children[0].(CharData); ok {
			return string(t)
		}
	}
	var b strings.Builder
	for _, n := range e.Children {
		if t, ok := n.(CharData); ok {
			b.WriteString(string(t))
		}
	}
	return b.String()
}

// SetText replaces everything inside e with text and returns e.
func (e *Element) SetText(text string) *Element {
	e.Children = nil
	if text != "" {
		e.Children = []Node{CharData(text)}
	}
	return e
}

// Append adds child elements, passing over nil ones, and returns e.
func (e *Element) Append(children ...*Element) *Element {
	for _, c := range children {
		if c != nil {
			e.Children = append(e.Children, c)
		}
	}
	return e
}

// AppendText adds text after what is already inside and returns e.
func (e *Element) AppendText(text string) *Element {
	if text != "" {
		e.Children = append(e.Children, CharData(text))
	}
	return e
}

// Add makes a child element, appends it and returns the child. An empty space means the namespace of e.
func (e *Element) Add(space, local string) *Element {
	if space == "" {
		space = e.Name.Space
	}
	c := New(space, local)
	e.Children = append(e.Children, c)
	return c
}

// RemoveChildren removes the child elements for which drop is true and returns e.
func (e *Element) RemoveChildren(drop func(*Element) bool) *Element {
	e.Children = slices.DeleteFunc(e.Children, func(n Node) bool {
		c, ok := n.(*Element)
		return ok && drop(c)
	})
	return e
}

// Copy returns a deep copy, which shares nothing that can be changed with e. Copy of nil is nil.
func (e *Element) Copy() *Element {
	if e == nil {
		return nil
	}
	c := &Element{Name: e.Name, Attrs: slices.Clone(e.Attrs), Children: slices.Clone(e.Children)}
	for i, n := range c.Children {
		if child, ok := n.(*Element); ok {
			c.Children[i] = child.Copy()
		}
	}
	return c
}

// Rename moves e, and those of its descendants that are reached through elements of the same namespace only, from one namespace to
// another, and returns e. It is how a stanza passes between jabber:client and jabber:server: a stanza that is forwarded inside
// another element keeps its own namespace.
func (e *Element) Rename(from, to string) *Element {
	if e.Name.Space != from {
		return e
	}
	e.Name.Space = to
	for _, n := range e.Children {
		if c, ok := n.(*Element); ok {
			c.Rename(from, to)
		}
	}
	return e
}

// Equal says whether both hold the same document: same names, attributes in any order, same children in order. Adjacent text nodes
// count as one.
func Equal(a, b *Element) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.Name != b.Name || len(a.Attrs) != len(b.Attrs) {
		return false
	}
	for _, at := range a.Attrs {
		if v, ok := b.LookupAttr(at.Name.Space, at.Name.Local); !ok || v != at.Value {
			return false
		}
	}
	return slices.EqualFunc(joined(a.Children), joined(b.Children), func(x, y Node) bool {
		ex, okx := x.(*Element)
		ey, oky := y.(*Element)
		if okx != oky {
			return false
		}
		return okx && Equal(ex, ey) || !okx && x == y
	})
}

// joined returns the nodes with adjacent text made one and empty text left out.
func joined(nodes []Node) []Node {
	out := make([]Node, 0, len(nodes))
	for _, n := range nodes {
		t, ok := n.(CharData)
		if ok && t == "" {
			continue
		}
		if ok && len(out) > 0 {
			if before, ok := out[len(out)-1].(CharData); ok {
				out[len(out)-1] = before + t
				continue
			}
		}
		out = append(out, n)
	}
	return out
}
