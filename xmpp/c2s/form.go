package c2s

import (
	"parley/xmpp/element"
)

// form is a submitted data form: the values of each field.
//
// spec: XEP-0004 §3
type form map[string][]string

// readForm reads a submitted form; ok is false if x is none, or is not of the type.
func readForm(x *element.Element, formType string) (f form, ok bool) {
	if !x.Is(nsData, "x") || x.Attr("type") != "submit" {
		return nil, false
	}
	f = form{}
	for _, field := range x.ChildrenNamed("", "field") {
		name := field.Attr("var")
		f[name] = []string{}
		for _, v := range field.ChildrenNamed("", "value") {
			f[name] = append(f[name], v.Text())
		}
	}
	return f, f.get("FORM_TYPE") == formType
}

func (f form) get(name string) string {
	if v := f[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// yes reads a boolean; what is not submitted is def.
func (f form) yes(name string, def bool) bool {
	switch f.get(name) {
	case "1", "true":
		return true
	case "0", "false":
		return false
	}
	return def
}

// newForm makes a form of the type, "form" or "result".
func newForm(typ, formType string) *element.Element {
	x := element.New(nsData, "x").SetAttr("type", typ)
	addField(x, "FORM_TYPE", "hidden", formType)
	return x
}

func addField(x *element.Element, name, typ string, values ...string) *element.Element {
	f := x.Add("", "field").SetAttr("var", name)
	if typ != "" {
		f.SetAttr("type", typ)
	}
	for _, v := range values {
		f.Append(element.NewText(nsData, "value", v))
	}
	return f
}

func addOptions(field *element.Element, options ...string) {
	for _, o := range options {
		field.Add("", "option").Append(element.NewText(nsData, "value", o))
	}
}
