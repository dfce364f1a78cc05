package c2s

import (
	"context"
	"slices"
	"strings"

	"parley/core"
	"parley/xmpp/adhoc"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// nsAdmin is of the commands for operators, and the type of their forms.
const nsAdmin = "http://jabber.org/protocol/admin" // XEP-0133

// newCommands makes the commands of a server: those for everybody, which are also found at one's own account, and those for operators.
func newCommands(srv *Server) *adhoc.Service {
	return &adhoc.Service{
		Table: slices.Concat(userCommands(srv), operatorCommands(srv)),
		FormType: func(node string) string {
			if strings.HasPrefix(node, nsAdmin+"#") {
				return nsAdmin
			}
			return ""
		},
	}
}

func (q *question) asker() adhoc.Asker { return adhoc.Asker{JID: q.from, Account: q.who, At: q.to} }

// commands says whether there are any for the asker: at the domain, and at her own account.
func (q *question) commands() bool { return q.s != nil && (q.to.Local == "" || q.own()) }

// command runs a command for one of our own clients.
//
// spec: XEP-0050 §2.4
func (q *question) command() (answer, error) {
	if !q.commands() {
		return nil, translate.Fail(translate.ForbiddenError, "commands are for those who have an account here")
	}
	return q.srv.commands.Execute(q.ctx, q.asker(), q.payload)
}

// commandInfo describes a node of commands; ok is false for other nodes.
//
// spec: XEP-0050 §2.1
func (q *question) commandInfo() (info answer, ok bool, err error) {
	if !q.commands() {
		return nil, false, nil
	}
	return q.srv.commands.Table.Info(q.asker(), q.payload.Attr("node"))
}

// commandItems lists the commands of the asker, if it is them that are asked for.
//
// spec: XEP-0050 §2.2
func (q *question) commandItems() (items answer, ok bool) {
	if !q.commands() || q.payload.Attr("node") != adhoc.Namespace {
		return nil, false
	}
	return q.srv.commands.Table.Items(q.asker()), true
}

// operator says whether somebody may run the commands for operators, which are found at the domain.
func (srv *Server) operator(who adhoc.Asker) bool {
	return who.At.Local == "" && contains(srv.Operators, who.Account)
}

func anybody(adhoc.Asker) bool { return true }

// fixed are fields that are always the same.
func fixed(fields ...adhoc.Field) func(context.Context, *adhoc.Call) ([]adhoc.Field, error) {
	return func(context.Context, *adhoc.Call) ([]adhoc.Field, error) { return fields, nil }
}

// userCommands are those for everybody.
func userCommands(srv *Server) adhoc.Table {
	return adhoc.Table{
		{
			Node: "change-password", Name: "Change my password", May: anybody,
			Stages: []adhoc.Stage{{
				Title: "Change my password", Instructions: "Other clients that are logged in stay so.",
				Fields: fixed(
					adhoc.Field{Name: "old", Label: "Present password", Type: "text-private", Required: true},
					adhoc.Field{Name: "password", Label: "New password", Type: "text-private", Required: true},
					adhoc.Field{Name: "password-verify", Label: "New password, again", Type: "text-private", Required: true}),
				Check: samePasswords,
			}},
			Run: srv.runChangePassword,
		},
		{Node: "sessions", Name: "List my XMPP clients", May: anybody, Run: srv.runSessions},
		{
			Node: "end-session", Name: "End the session of one of my XMPP clients", May: anybody,
			Stages: []adhoc.Stage{
				{Title: "End a session", Instructions: "Which client?", Fields: srv.chooseSession},
				{Title: "End a session", Fields: confirmSession},
			},
			Run: srv.runEndSession,
		},
	}
}

func samePasswords(_ context.Context, c *adhoc.Call) error {
	if c.Get("password") != c.Get("password-verify") {
		return translate.Fail(translate.NotAcceptable, "the two passwords differ")
	}
	return nil
}

func (srv *Server) runChangePassword(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	if err := srv.Hub.CheckPassword(ctx, c.Account, c.Get("old")); err != nil {
		return nil, err
	}
	if err := srv.Hub.SetPassword(ctx, c.Account, c.Get("password")); err != nil {
		return nil, err
	}
	return &adhoc.Result{Note: "The password was changed."}, nil
}

// sessionState says in a word what a client is doing.
func (s *Session) sessionState() string {
	switch {
	case s.state.away.Load():
		return "idle"
	case s.Available():
		return "available"
	}
	return "connected"
}

func (srv *Server) sortedOf(account core.Address) []*Session {
	all := srv.of(account)
	slices.SortFunc(all, func(a, b *Session) int { return strings.Compare(a.jid.Resource, b.jid.Resource) })
	return all
}

func (srv *Server) runSessions(_ context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	res := &adhoc.Result{Title: "My XMPP clients", Columns: []adhoc.Field{
		{Name: "resource", Label: "Client", Type: "text-single"}, {Name: "state", Label: "State", Type: "text-single"}}}
	for _, s := range srv.sortedOf(c.Account) {
		res.Rows = append(res.Rows, []string{s.jid.Resource, s.sessionState()})
	}
	return res, nil
}

func (srv *Server) chooseSession(_ context.Context, c *adhoc.Call) ([]adhoc.Field, error) {
	f := adhoc.Field{Name: "resource", Label: "Client", Type: "list-single", Required: true}
	for _, s := range srv.sortedOf(c.Account) {
		f.Options = append(f.Options, adhoc.Option{Label: s.jid.Resource + " (" + s.sessionState() + ")", Value: s.jid.Resource})
	}
	return []adhoc.Field{f}, nil
}

func confirmSession(_ context.Context, c *adhoc.Call) ([]adhoc.Field, error) {
	return []adhoc.Field{{Name: "sure", Label: "End the session of " + c.Get("resource"), Type: "boolean", Values: []string{"true"}}}, nil
}

func (srv *Server) runEndSession(_ context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	s, there := srv.at(c.Account, c.Get("resource"))
	if !c.Yes("sure") || !there {
		return &adhoc.Result{Note: "No session was ended."}, nil
	}
	s.terminate()
	return &adhoc.Result{Note: "The session was ended."}, nil
}

// terminate ends a session because somebody who may has said so. It does not wait: the client may be ending its own.
func (s *Session) terminate() {
	go s.call(func(context.Context) { s.fail(stream.Errorf(stream.Reset, "this session was ended")) })
}

// notice is a message of a domain to one client, which is not kept.
func (s *Session) notice(subject, body string) *element.Element {
	m := element.New(translate.NSClient, "message").SetAttr("type", "headline").SetAttr("id", core.NewToken()[:16])
	m.SetAttr("from", s.jid.Domain).SetAttr("to", s.jid.String())
	return m.Append(element.NewText(translate.NSClient, "subject", subject), element.NewText(translate.NSClient, "body", body))
}
