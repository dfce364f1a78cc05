// Package vcard turns the card of a person from the form of older XMPP clients, vcard-temp, into vCard4 and back. It is pure: where
// cards are kept, and that name and picture are those of a profile, is for the sessions.
//
// spec: XEP-0292 §11
package vcard

import (
	"strings"

	"parley/xmpp/element"
)

// The namespaces of the two forms.
const (
	NSTemp = "vcard-temp"                       // XEP-0054
	NS4    = "urn:ietf:params:xml:ns:vcard-4.0" // XEP-0292
)

// maxValues bounds how many properties of one card are converted.
const maxValues = 200

// property ties one property of vcard-temp to one of vCard4.
type property struct {
	temp, four string
	// kind is the element that holds the value in vCard4: text, uri, date; empty where parts name several.
	kind string
	// scheme begins the URI of the value in vCard4.
	scheme string
	// value is the child of the property that holds the value in vcard-temp; empty if it is the property itself.
	value string
	// parts are names of children, in turn of vcard-temp and vCard4.
	parts []string
}

var properties = []property{
	{temp: "FN", four: "fn", kind: "text"},
	{temp: "N", four: "n", parts: []string{"FAMILY", "surname", "GIVEN", "given", "MIDDLE", "additional", "PREFIX", "prefix", "SUFFIX", "suffix"}},
	{temp: "NICKNAME", four: "nickname", kind: "text"},
	{temp: "BDAY", four: "bday", kind: "date"},
	{temp: "ADR", four: "adr", parts: []string{"POBOX", "pobox", "EXTADD", "ext", "STREET", "street", "LOCALITY", "locality", "REGION", "region",
		"PCODE", "code", "CTRY", "country"}},
	{temp: "TEL", four: "tel", kind: "uri", scheme: "tel:", value: "NUMBER"},
	{temp: "EMAIL", four: "email", kind: "text", value: "USERID"},
	{temp: "JABBERID", four: "impp", kind: "uri", scheme: "xmpp:"},
	{temp: "TZ", four: "tz", kind: "text"},
	{temp: "TITLE", four: "title", kind: "text"},
	{temp: "ROLE", four: "role", kind: "text"},
	{temp: "ORG", four: "org", kind: "text", value: "ORGNAME"},
	{temp: "URL", four: "url", kind: "uri"},
	{temp: "DESC", four: "note", kind: "text"},
}

// types are the marks of telephone numbers and addresses that both forms know, in the spelling of vCard4.
var types = []string{"home", "work", "voice", "fax", "cell", "pager", "video", "text"}

// Four is a card of older clients as vCard4. What of the vCard4 had before has no counterpart in the older form is kept.
func Four(temp, had *element.Element) *element.Element {
	out := element.New(NS4, "vcard")
	for i, c := range temp.Elements() {
		for _, p := range properties {
			if p.temp == c.Name.Local && i < maxValues {
				out.Append(p.toFour(c))
			}
		}
	}
	return keep(out, had, func(p property) string { return p.four }, "photo")
}

// Temp is a vCard4 as older clients read it. What of the card had before has no counterpart in vCard4 is kept.
func Temp(four, had *element.Element) *element.Element {
	out := element.New(NSTemp, "vCard")
	for i, c := range four.Elements() {
		for _, p := range properties {
			if p.four == c.Name.Local && i < maxValues {
				out.Append(p.toTemp(c))
			}
		}
	}
	return keep(out, had, func(p property) string { return p.temp }, "PHOTO")
}

// keep adds what the old card has and the table does not know. Pictures are of the profile.
func keep(out, had *element.Element, name func(property) string, picture string) *element.Element {
	known := map[string]bool{picture: true}
	for _, p := range properties {
		known[name(p)] = true
	}
	for i, c := range had.Elements() {
		if !known[c.Name.Local] && i < maxValues {
			out.Append(c.Copy())
		}
	}
	return out
}

func (p property) toFour(c *element.Element) *element.Element {
	out := element.New(NS4, p.four)
	var params *element.Element
	for _, t := range types {
		if c.Child("", strings.ToUpper(t)) != nil && p.value != "" || len(p.parts) > 0 && c.Child("", strings.ToUpper(t)) != nil {
			if params == nil {
				params = out.Add("", "parameters").Add("", "type")
			}
			params.Append(element.NewText(NS4, "text", t))
		}
	}
	if len(p.parts) > 0 {
		for i := 0; i < len(p.parts); i += 2 {
			out.Append(element.NewText(NS4, p.parts[i+1], c.ChildText("", p.parts[i])))
		}
		return out
	}
	text := c.Text()
	if p.value != "" {
		text = c.ChildText("", p.value)
	}
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	out.Append(element.NewText(NS4, p.kind, p.scheme+text))
	if p.temp == "ORG" {
		for _, u := range c.ChildrenNamed("", "ORGUNIT") {
			out.Append(element.NewText(NS4, "text", u.Text()))
		}
	}
	return out
}

func (p property) toTemp(c *element.Element) *element.Element {
	out := element.New(NSTemp, p.temp)
	for _, t := range c.Child("", "parameters").Child("", "type").ChildrenNamed("", "text") {
		for _, known := range types {
			if t.Text() == known && (p.value != "" || len(p.parts) > 0) {
				out.Add("", strings.ToUpper(known))
			}
		}
	}
	if len(p.parts) > 0 {
		for i := 0; i < len(p.parts); i += 2 {
			if text := c.ChildText("", p.parts[i+1]); text != "" {
				out.Append(element.NewText(NSTemp, p.parts[i], text))
			}
		}
		return out
	}
	text, scheme := strings.TrimSpace(c.ChildText("", p.kind)), p.scheme
	if text == "" && p.kind != "text" { // a date or a number may be given as words
		text, scheme = strings.TrimSpace(c.ChildText("", "text")), ""
	}
	rest, ok := strings.CutPrefix(text, scheme)
	if text == "" || !ok {
		return nil
	}
	if p.value == "" {
		return out.SetText(rest)
	}
	out.Append(element.NewText(NSTemp, p.value, rest))
	if p.temp == "ORG" {
		for i, u := range c.ChildrenNamed("", "text") {
			if i > 0 {
				out.Append(element.NewText(NSTemp, "ORGUNIT", u.Text()))
			}
		}
	}
	return out
}
