package c2s

import (
	"context"
	"errors"
	"strings"

	"mellium.im/xmpp/jid"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

const (
	nsRegister        = "jabber:iq:register"
	nsRegisterFeature = "http://jabber.org/features/iq-register"
)

var (
	errPassword = stream.Errorf(stream.Reset, "the password was changed")
	errClosed   = translate.Fail(translate.ServiceUnavailable, "accounts are made by the operator of this server")
)

// RegisterFeatures are what a client sees that may make an account: [stream.Clients.RegisterFeatures].
//
// spec: XEP-0077 §8
func (srv *Server) RegisterFeatures(*stream.Conn) []*element.Element {
	if !srv.Hub.Registers() {
		return nil
	}
	return []*element.Element{element.New(nsRegisterFeature, "register")}
}

// Register answers a client that has not authenticated and wants an account: [stream.Clients.Register].
//
// spec: XEP-0077 §3.1.1
func (srv *Server) Register(ctx context.Context, c *stream.Conn, iq *element.Element) *element.Element {
	res := element.New(translate.NSClient, "iq").SetAttr("type", "result").SetAttr("id", iq.Attr("id")).SetAttr("from", c.LocalDomain())
	q := iq.Child(nsRegister, "query")
	var err error
	switch to := iq.Attr("to"); {
	case q == nil || len(iq.Elements()) != 1 || !isRequest(iq) || to != "" && !strings.EqualFold(to, c.LocalDomain()):
		err = translate.Fail(translate.NotAuthorizedError, "authenticate first")
	case !srv.Hub.Registers():
		err = errClosed
	case iq.Attr("type") == "get":
		res.Append(srv.registerForm())
	default:
		err = srv.makeAccount(ctx, c, q)
	}
	if err != nil {
		if hub.CodeOf(err) == "" && !isStanzaError(err) {
			srv.Log.Error("making an account", "err", err)
		}
		return translate.Bounce(iq, err)
	}
	return res
}

// registerForm says what it takes to get an account. Where it takes a token, the data form has a field for it.
//
// spec: XEP-0077 §4
func (srv *Server) registerForm() *element.Element {
	q := element.New(nsRegister, "query")
	q.Append(element.NewText(nsRegister, "instructions", "Choose a user name and a password."))
	q.Add("", "username")
	q.Add("", "password")
	if !srv.Hub.NeedsToken() {
		return q
	}
	q.RemoveChildren(func(*element.Element) bool { return true })
	q.Append(element.NewText(nsRegister, "instructions", "It takes a registration token of the operator to get an account here, and a client that shows forms."))
	x := newForm("form", nsRegister)
	for _, f := range [][3]string{{"username", "text-single", "User name"}, {"password", "text-private", "Password"},
		{"token", "text-single", "Registration token"}} {
		addField(x, f[0], f[1]).SetAttr("label", f[2]).Add("", "required")
	}
	return q.Append(x)
}

// makeAccount makes the account that a client asks for.
func (srv *Server) makeAccount(ctx context.Context, c *stream.Conn, q *element.Element) error {
	name, password, token := q.ChildText("", "username"), q.ChildText("", "password"), ""
	if x := q.Child(nsData, "x"); x != nil {
		f, ok := readForm(x, nsRegister)
		if !ok {
			return translate.Fail(translate.BadRequest, "not the form that was given")
		}
		name, password, token = f.get("username"), f.get("password"), f.get("token")
	}
	if name == "" || password == "" {
		return translate.Fail(translate.NotAcceptable, "a user name and a password are needed")
	}
	j, err := jid.New(name, c.LocalDomain(), "")
	if err != nil {
		return translate.Fail(translate.NotAcceptable, "this cannot be a user name")
	}
	if err := srv.Guard.Allow(guard.Registrations, c.Network()); err != nil {
		return err
	}
	if err := srv.Hub.MayRegister(token); err != nil {
		return err
	}
	account := core.LocalAddress(j.Localpart(), c.LocalDomain())
	err = srv.Hub.CreateAccount(ctx, account, password)
	switch hub.CodeOf(err) {
	case hub.Bad, hub.Forbidden:
		return translate.Fail(translate.NotAcceptable, refusal(err))
	case "":
		if err == nil {
			srv.Log.Info("an account was made by a client", "account", account.Bare(), "addr", c.RemoteAddr())
		}
	}
	return err
}

// refusal is what the user is told of a refusal.
func refusal(err error) string {
	if r, ok := errors.AsType[*hub.Refusal](err); ok {
		return r.Text
	}
	return ""
}

// registered tells what is on file for the account.
//
// spec: XEP-0077 §3.1
func (q *question) registered() (answer, error) {
	if q.s == nil {
		return nil, errNobody
	}
	a := element.New(nsRegister, "query")
	a.Add("", "registered")
	return a.Append(element.NewText(nsRegister, "username", q.srv.names.JID(q.who).Local), element.New(nsRegister, "password")), nil
}

// registerSet changes the password of the account, or ends it.
//
// spec: XEP-0077 §3.2
// spec: XEP-0077 §3.3
func (q *question) registerSet() (answer, error) {
	if q.s == nil {
		return nil, errNobody
	}
	if q.payload.Child("", "remove") != nil {
		if len(q.payload.Elements()) != 1 {
			return nil, translate.Fail(translate.BadRequest, "<remove/> comes alone")
		}
		return nil, q.removeAccount()
	}
	name, password := q.payload.ChildText("", "username"), q.payload.ChildText("", "password")
	if name == "" || password == "" {
		return nil, translate.Fail(translate.BadRequest, "a user name and a password are needed")
	}
	if j, err := jid.New(name, q.s.jid.Domain, ""); err != nil || j.Localpart() != q.s.jid.Local {
		return nil, translate.Fail(translate.NotAllowed, "that is the user name of another account")
	}
	if err := q.srv.Hub.SetPassword(q.ctx, q.who, password); err != nil {
		if hub.CodeOf(err) == hub.Bad {
			err = translate.Fail(translate.NotAcceptable, refusal(err))
		}
		return nil, err
	}
	return nil, q.othersOut()
}

// othersOut makes clients of the account that know only the old password log in again.
func (q *question) othersOut() error {
	for _, other := range q.srv.of(q.who) {
		if other != q.s {
			go other.call(func(context.Context) { other.fail(errPassword) })
		}
	}
	keep := q.s.smID
	return q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error { return forgetLogins(tx, q.who, keep) })
}

// removeAccount ends the account: this session, like all of its others, ends after the answer.
func (q *question) removeAccount() error {
	if err := q.srv.Hub.DeleteAccount(q.ctx, q.who); err != nil {
		return err
	}
	q.s.Log().Info("an account was removed by its user")
	return q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error { return forgetLogins(tx, q.who, "") })
}
