// Package adhoc runs ad-hoc commands: what a person does by filling in a form that her client knows nothing about. A [Table] says what
// there is: a command's node and name, who may run it, the forms that it asks for one after the other, and what it does with the
// answers. [Service] is the protocol around it: sessions, going on, going back and giving up. What the commands do is their owner's.
package adhoc

import (
	"cmp"
	"context"
	"slices"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The namespaces of commands, and of their forms.
const (
	Namespace = "http://jabber.org/protocol/commands" // XEP-0050
	nsData    = "jabber:x:data"                       // XEP-0004
)

// Asker is who runs a command.
type Asker struct {
	JID     translate.JID // full
	Account core.Address
	// At is the JID at which she asked: a domain, or an account.
	At translate.JID
}

// Command is one row of the table.
type Command struct {
	Node, Name string
	// May says who may run it, and to whom it is shown.
	May func(Asker) bool
	// Stages are the forms to be filled in; none for a command that runs at once.
	Stages []Stage
	// Run does it. An error of the hub's or of translate's is told to the asker as the outcome.
	Run func(context.Context, *Call) (*Result, error)
}

// Table is all commands, in the order in which they are listed.
type Table []*Command

// Stage is one form.
type Stage struct {
	Title, Instructions string
	// Fields are what is asked. It may look at the answers to the stages before.
	Fields func(context.Context, *Call) ([]Field, error)
	// Check looks at the answers, nil for what the fields themselves demand.
	Check func(context.Context, *Call) error
}

// Field is one field of a form.
//
// spec: XEP-0004 §3.2
type Field struct {
	Name, Label string
	Type        string // of XEP-0004 §3.3; empty in results
	Required    bool
	Options     []Option
	Values      []string
}

// Option is one choice of a list.
type Option struct{ Label, Value string }

// Call is one running of a command.
type Call struct {
	Asker
	answers map[string][]string
}

// Get returns the answer to a field, "" if there is none.
func (c *Call) Get(name string) string {
	if v := c.answers[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// All returns all answers to a field that may have several.
func (c *Call) All(name string) []string { return c.answers[name] }

// Yes says whether a boolean field was answered with yes.
func (c *Call) Yes(name string) bool { return c.Get(name) == "1" || c.Get(name) == "true" }

// Result is what a command has to say when it is done.
type Result struct {
	Note   string // in words
	Title  string
	Fields []Field // of the result, none for no form
	// Columns and Rows are a list, in place of fields.
	Columns []Field
	Rows    [][]string
	// Extra goes into the form as it is.
	Extra *element.Element
}

// find returns a command that the asker may run. That there is none and that it is not hers are told apart: lists are no secret.
//
// spec: XEP-0050 §2.2
func (t Table) find(who Asker, node string) (*Command, error) {
	i := slices.IndexFunc(t, func(c *Command) bool { return c.Node == node })
	if i < 0 {
		return nil, translate.Fail(translate.ItemNotFound, "there is no such command")
	}
	if !t[i].May(who) {
		return nil, translate.Fail(translate.ForbiddenError, "this command is not for you")
	}
	return t[i], nil
}

const (
	nsInfo  = "http://jabber.org/protocol/disco#info"
	nsItems = "http://jabber.org/protocol/disco#items"
)

// Items lists the commands that somebody may run.
//
// spec: XEP-0050 §2.2
func (t Table) Items(who Asker) *element.Element {
	q := element.New(nsItems, "query").SetAttr("node", Namespace)
	for _, c := range t {
		if c.May(who) {
			q.Add("", "item").SetAttr("jid", who.At.String()).SetAttr("node", c.Node).SetAttr("name", c.Name)
		}
	}
	return q
}

// Info describes the list of commands, or one of them; ok is false for other nodes.
//
// spec: XEP-0050 §2.2
func (t Table) Info(who Asker, node string) (info *element.Element, ok bool, err error) {
	typ, name := "command-list", "Commands"
	if node != Namespace {
		if !slices.ContainsFunc(t, func(c *Command) bool { return c.Node == node }) {
			return nil, false, nil
		}
		c, err := t.find(who, node)
		if err != nil {
			return nil, true, err
		}
		typ, name = "command-node", c.Name
	}
	q := element.New(nsInfo, "query").SetAttr("node", node)
	q.Add("", "identity").SetAttr("category", "automation").SetAttr("type", typ).SetAttr("name", name)
	for _, f := range []string{Namespace, nsData} {
		q.Add("", "feature").SetAttr("var", f)
	}
	return q, true, nil
}

// form writes a form to be filled in, with the answers given before.
func (s *Stage) form(fields []Field, formType string, given map[string][]string) *element.Element {
	x := element.New(nsData, "x").SetAttr("type", "form")
	x.Append(element.NewText(nsData, "title", s.Title))
	if s.Instructions != "" {
		x.Append(element.NewText(nsData, "instructions", s.Instructions))
	}
	if formType != "" {
		(Field{Name: "FORM_TYPE", Type: "hidden", Values: []string{formType}}).append(x)
	}
	for _, f := range fields {
		if v, ok := given[f.Name]; ok && f.Type != "text-private" {
			f.Values = v
		}
		f.append(x)
	}
	return x
}

func (f Field) append(x *element.Element) {
	el := x.Add("", "field").SetAttr("var", f.Name)
	if f.Type != "" {
		el.SetAttr("type", f.Type)
	}
	if f.Label != "" {
		el.SetAttr("label", f.Label)
	}
	if f.Required {
		el.Add("", "required")
	}
	for _, v := range f.Values {
		el.Append(element.NewText(nsData, "value", v))
	}
	for _, o := range f.Options {
		el.Add("", "option").SetAttr("label", cmp.Or(o.Label, o.Value)).Append(element.NewText(nsData, "value", o.Value))
	}
}

// form writes the result; nil if there is nothing but a note.
func (r *Result) form(formType string) *element.Element {
	if len(r.Fields) == 0 && len(r.Columns) == 0 && r.Extra == nil {
		return nil
	}
	x := element.New(nsData, "x").SetAttr("type", "result")
	if r.Title != "" {
		x.Append(element.NewText(nsData, "title", r.Title))
	}
	if formType != "" {
		(Field{Name: "FORM_TYPE", Type: "hidden", Values: []string{formType}}).append(x)
	}
	for _, f := range r.Fields {
		f.append(x)
	}
	if len(r.Columns) > 0 {
		reported := x.Add("", "reported")
		for _, c := range r.Columns {
			c.append(reported)
		}
	}
	for _, row := range r.Rows {
		item := x.Add("", "item")
		for i, c := range r.Columns {
			Field{Name: c.Name, Values: []string{row[i]}}.append(item)
		}
	}
	return x.Append(r.Extra)
}

// read takes the answers of a submitted form to the fields. What the form does not ask for is no answer.
//
// spec: XEP-0004 §3.2
func read(x *element.Element, fields []Field) (map[string][]string, error) {
	given := map[string][]string{}
	if x != nil {
		for _, el := range x.ChildrenNamed("", "field") {
			values := []string{}
			for _, v := range el.ChildrenNamed("", "value") {
				values = append(values, v.Text())
			}
			given[el.Attr("var")] = values
		}
	}
	out := map[string][]string{}
	for _, f := range fields {
		v, there := given[f.Name]
		if !there {
			v = f.Values
		}
		if f.Required && (len(v) == 0 || v[0] == "") {
			return nil, badPayload(cmp.Or(f.Label, f.Name) + " is missing")
		}
		if len(v) > 1 && f.Type != "jid-multi" && f.Type != "text-multi" && f.Type != "list-multi" {
			return nil, badPayload(cmp.Or(f.Label, f.Name) + " has one value")
		}
		if len(f.Options) > 0 {
			for _, one := range v {
				if !slices.ContainsFunc(f.Options, func(o Option) bool { return o.Value == one }) {
					return nil, badPayload(cmp.Or(f.Label, f.Name) + " is none of the choices")
				}
			}
		}
		out[f.Name] = v
	}
	return out, nil
}

// badPayload and the like are the errors of commands.
//
// spec: XEP-0050 §4.5
func badPayload(text string) error { return badRequest("bad-payload", text) }

func badRequest(condition, text string) error {
	return &translate.Error{Condition: translate.BadRequest, Text: text, Extra: element.New(Namespace, condition)}
}
