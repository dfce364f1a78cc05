package element

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// parser turns the raw tokens of encoding/xml into one element. RawToken checks the syntax of each token, the characters and the
// encoding; that tags match, that namespaces are bound, that attributes are unique and that nothing is there which XMPP forbids is
// checked here. A parser lives as long as one element, so that an idle stream holds none.
//
// spec: RFC 6120 §11.1
// spec: RFC 6120 §11.3
type parser struct {
	r        *Reader
	limits   *Limits
	dec      *xml.Decoder
	stack    []open
	elements int
}

// open is an element whose end tag has not come.
type open struct {
	el    *Element
	raw   string // prefix:local as written
	scope int    // how many bindings there were outside
	text  *strings.Builder
}

// element reads up to the end tag that matches the first start tag.
func (p *parser) element() (*Element, error) {
	for {
		tok, err := p.token()
		if err != nil {
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			scope := len(p.r.scope)
			el, raw, err := p.open(tok)
			if err != nil {
				return nil, err
			}
			p.flush()
			p.stack = append(p.stack, open{el: el, raw: raw, scope: scope})
			if len(p.stack) > p.limits.Depth {
				return nil, over(LimitDepth)
			}
		case xml.CharData:
			if len(p.stack) == 0 {
				return nil, &ParseError{Condition: BadFormat, Detail: "text between stanzas"}
			}
			p.addText(tok)
		case xml.EndElement:
			done, err := p.close(rawName(tok.Name))
			if done != nil || err != nil {
				return done, err
			}
		default:
			return nil, p.refuse(tok)
		}
	}
}

// token reads one raw token and gives errors their conditions.
func (p *parser) token() (xml.Token, error) {
	tok, err := p.dec.RawToken()
	if err == nil {
		return tok, nil
	}
	if pe, ok := errors.AsType[*ParseError](err); ok {
		return nil, pe
	}
	if p.r.broken != nil {
		return nil, p.r.broken
	}
	if se, ok := errors.AsType[*xml.SyntaxError](err); ok {
		// The five predefined entities and references to characters are the only ones that the decoder knows.
		ref, entity := strings.CutPrefix(se.Msg, "invalid character entity &")
		if entity && !strings.HasPrefix(ref, "#") && strings.HasSuffix(ref, ";") {
			return nil, &ParseError{Condition: RestrictedXML, Detail: "reference to an entity that is not predefined"}
		}
		return nil, illFormed("%s", syntaxDetail(se.Msg))
	}
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	if strings.HasPrefix(err.Error(), "xml: unsupported version") {
		return nil, illFormed("another version of XML than 1.0")
	}
	return nil, err
}

// syntaxDetail cuts what the sender wrote off the decoder's message.
func syntaxDetail(msg string) string {
	if i := strings.IndexAny(msg, "&<:"); i >= 0 {
		msg = msg[:i]
	}
	return strings.TrimSpace(msg)
}

// refuse says why a token may not stand here.
func (p *parser) refuse(tok xml.Token) error {
	detail := "text outside of any element"
	switch tok.(type) {
	case xml.Comment:
		detail = "comment"
	case xml.ProcInst:
		detail = "processing instruction"
	case xml.Directive:
		detail = "document type declaration"
	default:
		return illFormed("%s", detail)
	}
	return &ParseError{Condition: RestrictedXML, Detail: detail}
}

// open checks a start tag and resolves its names. New declarations are put on the reader's scope.
func (p *parser) open(tok xml.StartElement) (*Element, string, error) {
	lim := p.limits
	if p.elements++; p.elements > lim.Elements {
		return nil, "", over(LimitElements)
	}
	if len(tok.Attr) > lim.Attrs {
		return nil, "", over(LimitAttrs)
	}
	if len(tok.Name.Space)+len(tok.Name.Local) > lim.Names {
		return nil, "", over(LimitNames)
	}
	plain := 0
	for i, a := range tok.Attr {
		if slices.ContainsFunc(tok.Attr[:i], func(b xml.Attr) bool { return a.Name == b.Name }) {
			return nil, "", illFormed("attribute given twice")
		}
		if len(a.Name.Space)+len(a.Name.Local) > lim.Names {
			return nil, "", over(LimitNames)
		}
		declares, err := p.declare(a)
		if err != nil {
			return nil, "", err
		}
		if !declares {
			plain++
		}
	}
	raw := rawName(tok.Name)
	if !ncName(tok.Name.Local) {
		return nil, "", illFormed("name with a misplaced colon")
	}
	space, err := p.resolve(tok.Name.Space)
	if err != nil {
		return nil, "", err
	}
	el := &Element{Name: xml.Name{Space: space, Local: tok.Name.Local}}
	if plain > 0 {
		if el.Attrs, err = p.attrs(tok.Attr, plain); err != nil {
			return nil, "", err
		}
	}
	return el, raw, nil
}

// declare puts a namespace declaration on the scope, and says whether the attribute was one.
//
// spec: RFC 6120 §4.8
func (p *parser) declare(a xml.Attr) (bool, error) {
	var prefix string
	switch {
	case a.Name.Space == "xmlns":
		prefix = a.Name.Local
		if a.Value == "" {
			return true, illFormed("namespace prefix bound to nothing")
		}
	case a.Name.Space == "" && a.Name.Local == "xmlns":
	default:
		return false, nil
	}
	if len(a.Value) > p.limits.Names {
		return true, over(LimitNames)
	}
	if prefix == "xmlns" || a.Value == xmlnsNamespace || (prefix == "xml") != (a.Value == XMLNamespace) {
		return true, illFormed("reserved namespace bound to another prefix")
	}
	if prefix != "" && !ncName(prefix) {
		return true, illFormed("name with a misplaced colon")
	}
	if len(p.r.scope) >= p.limits.Namespaces {
		return true, over(LimitNamespaces)
	}
	p.r.scope = append(p.r.scope, binding{prefix: prefix, uri: a.Value})
	return true, nil
}

const xmlnsNamespace = "http://www.w3.org/2000/xmlns/"

// attrs resolves the attributes that are not declarations and refuses those that are duplicates once resolved.
func (p *parser) attrs(raw []xml.Attr, plain int) ([]xml.Attr, error) {
	out := make([]xml.Attr, 0, plain)
	for _, a := range raw {
		if a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns" {
			continue
		}
		if !ncName(a.Name.Local) {
			return nil, illFormed("name with a misplaced colon")
		}
		if a.Name.Space != "" {
			space, err := p.resolve(a.Name.Space)
			if err != nil {
				return nil, err
			}
			a.Name.Space = space
			for _, b := range out {
				if a.Name == b.Name {
					return nil, illFormed("attribute given twice")
				}
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// resolve finds the namespace of a prefix; "" is the default namespace.
func (p *parser) resolve(prefix string) (string, error) {
	if prefix == "xml" {
		return XMLNamespace, nil
	}
	for i := len(p.r.scope) - 1; i >= 0; i-- {
		if b := p.r.scope[i]; b.prefix == prefix {
			if prefix != "" {
				p.r.left -= len(b.uri)
			}
			return b.uri, nil
		}
	}
	if prefix == "" {
		return "", nil
	}
	return "", illFormed("namespace prefix that is not bound")
}

// close handles an end tag and returns the element if it was the outermost one.
func (p *parser) close(raw string) (*Element, error) {
	if len(p.stack) == 0 {
		if p.r.header == nil || raw != p.r.root {
			return nil, illFormed("end tag without a start tag")
		}
		return nil, io.EOF
	}
	p.flush()
	top := p.stack[len(p.stack)-1]
	if raw != top.raw {
		return nil, illFormed("end tag that does not match its start tag")
	}
	p.r.scope = p.r.scope[:top.scope]
	p.stack = p.stack[:len(p.stack)-1]
	if len(p.stack) == 0 {
		return top.el, nil
	}
	parent := p.stack[len(p.stack)-1].el
	parent.Children = append(parent.Children, top.el)
	return nil, nil
}

// addText keeps text for the innermost element. The usual case is one run of text, which costs one allocation; CDATA sections next
// to each other and to text are joined.
func (p *parser) addText(data []byte) {
	if len(data) == 0 {
		return
	}
	top := &p.stack[len(p.stack)-1]
	if top.text == nil {
		top.text = new(strings.Builder)
	}
	top.text.Write(data)
}

// flush makes the text kept so far a child of the innermost element.
func (p *parser) flush() {
	if len(p.stack) == 0 {
		return
	}
	top := &p.stack[len(p.stack)-1]
	if top.text == nil {
		return
	}
	top.el.Children = append(top.el.Children, CharData(top.text.String()))
	top.text = nil
}

// ncName says whether a name that the decoder let pass is also one without its prefix.
func ncName(local string) bool {
	first, _ := utf8.DecodeRuneInString(local)
	return nameStart(first) && !strings.ContainsRune(local, ':')
}

func rawName(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}
