package c2s

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the hash that TURN servers take
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"time"

	"parley/xmpp/element"
	"parley/xmpp/translate"
)

const (
	nsExtDisco = "urn:xmpp:extdisco:2"                  // XEP-0215
	serverInfo = "http://jabber.org/network/serverinfo" // XEP-0157
)

// ExternalService is a service outside of this server of which clients are told.
//
// spec: XEP-0215 §3
type ExternalService struct {
	Type, Host, Transport, Name string
	Port                        uint16 // 0: the usual one
	// Secret is shared with the service: credentials are made from it. Otherwise Username and Password are told, if there are any.
	Secret, Username, Password string
	// TTL is how long credentials are good for.
	TTL time.Duration
}

// restricted says that the service needs credentials.
func (e *ExternalService) restricted() bool { return e.Secret != "" || e.Password != "" }

// describe writes the service for an account. Credentials that are made from a secret are those that TURN servers know: a name that
// begins with when it ends, and a code for it.
//
// spec: XEP-0215 §3.1
func (e *ExternalService) describe(account string, now time.Time) *element.Element {
	el := element.New(nsExtDisco, "service").SetAttr("type", e.Type).SetAttr("host", e.Host)
	user, password := e.Username, e.Password
	if e.Secret != "" {
		ends := now.Add(e.TTL).UTC().Truncate(time.Second)
		user = strconv.FormatInt(ends.Unix(), 10) + ":" + account
		mac := hmac.New(sha1.New, []byte(e.Secret))
		mac.Write([]byte(user))
		password = base64.StdEncoding.EncodeToString(mac.Sum(nil))
		el.SetAttr("expires", ends.Format(time.RFC3339))
	}
	port := ""
	if e.Port != 0 {
		port = strconv.Itoa(int(e.Port))
	}
	for _, a := range [...][2]string{{"port", port}, {"transport", e.Transport}, {"name", e.Name}, {"username", user}, {"password", password}} {
		if a[1] != "" {
			el.SetAttr(a[0], a[1])
		}
	}
	if e.restricted() {
		el.SetAttr("restricted", "true")
	}
	return el
}

// external lists services, for local accounts only: who has the credentials may use the services.
//
// spec: XEP-0215 §3.1
// spec: XEP-0215 §3.2
func (q *question) external() (answer, error) {
	if q.s == nil {
		return nil, translate.Fail(translate.NotAllowed, "this is for accounts of this server")
	}
	list, typ := element.New(nsExtDisco, "services"), q.payload.Attr("type")
	if typ != "" {
		list.SetAttr("type", typ)
	}
	for i := range q.srv.External {
		if e := &q.srv.External[i]; typ == "" || e.Type == typ {
			list.Append(e.describe(q.who.Name, time.Now()))
		}
	}
	return list, nil
}

// credentials gives those for one service.
//
// spec: XEP-0215 §3.3
func (q *question) credentials() (answer, error) {
	if q.s == nil {
		return nil, translate.Fail(translate.NotAllowed, "this is for accounts of this server")
	}
	asked := q.payload.Child(nsExtDisco, "service")
	if asked.Attr("type") == "" || asked.Attr("host") == "" {
		return nil, translate.Fail(translate.BadRequest, "name the service by its type and host")
	}
	out := element.New(nsExtDisco, "credentials")
	for i := range q.srv.External {
		e := &q.srv.External[i]
		el := e.describe(q.who.Name, time.Now())
		port := asked.Attr("port")
		if e.restricted() && e.Type == asked.Attr("type") && e.Host == asked.Attr("host") && (port == "" || port == el.Attr("port")) {
			out.Append(el)
		}
	}
	if len(out.Elements()) == 0 {
		return nil, translate.Fail(translate.ItemNotFound, "")
	}
	return out, nil
}

// contactForm says where the operator is reached; nil if that is not known.
//
// spec: XEP-0157 §2
func (srv *Server) contactForm() *element.Element {
	if len(srv.Contact) == 0 {
		return nil
	}
	x := element.New(nsData, "x").SetAttr("type", "result")
	field := func(name string, values ...string) *element.Element {
		f := x.Add("", "field").SetAttr("var", name)
		for _, v := range values {
			f.Append(element.NewText(nsData, "value", v))
		}
		return f
	}
	field("FORM_TYPE", serverInfo).SetAttr("type", "hidden")
	for _, kind := range slices.Sorted(maps.Keys(srv.Contact)) {
		field(kind+"-addresses", srv.Contact[kind]...).SetAttr("type", "list-multi")
	}
	return x
}

// formVerification is what a form adds to the string that entity capabilities hash.
//
// spec: XEP-0115 §5.1
func formVerification(x *element.Element) string {
	if x == nil {
		return ""
	}
	s, fields := "", x.ChildrenNamed("", "field")
	slices.SortFunc(fields, func(a, b *element.Element) int {
		return cmpForm(a.Attr("var"), b.Attr("var"))
	})
	for _, f := range fields {
		if f.Attr("var") != "FORM_TYPE" {
			s += f.Attr("var") + "<"
		}
		var values []string
		for _, v := range f.ChildrenNamed("", "value") {
			values = append(values, v.Text()+"<")
		}
		slices.Sort(values)
		for _, v := range values {
			s += v
		}
	}
	return s
}

// cmpForm puts the form's type first.
func cmpForm(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "FORM_TYPE" || b != "FORM_TYPE" && a < b:
		return -1
	}
	return 1
}
