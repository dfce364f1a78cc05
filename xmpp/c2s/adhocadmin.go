package c2s

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/adhoc"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The fields of operators' forms that several have.
var (
	fieldJID    = adhoc.Field{Name: "accountjid", Label: "The account's address", Type: "jid-single", Required: true}
	fieldJIDs   = adhoc.Field{Name: "accountjids", Label: "The accounts' addresses", Type: "jid-multi", Required: true}
	fieldNew    = adhoc.Field{Name: "password", Label: "New password", Type: "text-private", Required: true}
	fieldVerify = adhoc.Field{Name: "password-verify", Label: "New password, again", Type: "text-private", Required: true}
	fieldMax    = adhoc.Field{Name: "max_items", Label: "Show at most", Type: "list-single", Values: []string{"100"}, Options: []adhoc.Option{
		{Value: "25"}, {Value: "50"}, {Value: "75"}, {Value: "100"}, {Value: "150"}, {Value: "200"}, {Label: "all", Value: "none"}}}
)

// operatorCommands are those for operators.
//
// spec: XEP-0133 §4
func operatorCommands(srv *Server) adhoc.Table {
	one := func(title string, fields ...adhoc.Field) []adhoc.Stage {
		return []adhoc.Stage{{Title: title, Fields: fixed(fields...)}}
	}
	addUser := one("Add an account", fieldJID, fieldNew, fieldVerify)
	addUser[0].Check = samePasswords
	words := func(name, label string) adhoc.Field {
		return adhoc.Field{Name: name, Label: label, Type: "text-multi", Required: true}
	}
	editMOTD := []adhoc.Stage{{Title: "Edit the message of the day", Fields: srv.motdFields}}
	rows := []struct {
		node, name string
		stages     []adhoc.Stage
		run        func(context.Context, *adhoc.Call) (*adhoc.Result, error)
	}{
		{"add-user", "Add an account", addUser, srv.runAddUser},
		{"delete-user", "Delete accounts", one("Delete accounts and their data for good", fieldJIDs), srv.eachAccount("deleted", srv.Hub.DeleteAccount)},
		{"disable-user", "Disable accounts", one("Disable accounts: nobody can log in", fieldJIDs), srv.eachAccount("disabled", srv.disable(true))},
		{"reenable-user", "Enable accounts again", one("Enable accounts again", fieldJIDs), srv.eachAccount("enabled", srv.disable(false))},
		{"end-user-session", "End sessions", one("End XMPP sessions, of a client or of all of an account", fieldJIDs), srv.runEndSessions},
		{"change-user-password", "Change an account's password", one("Change an account's password", fieldJID, fieldNew), srv.runSetPassword},
		{"get-user-roster", "Show an account's contacts", one("Show an account's contacts",
			adhoc.Field{Name: "accountjids", Label: "The account's address", Type: "jid-single", Required: true}), srv.runRoster},
		{"user-stats", "Show an account's statistics", one("Show an account's statistics", fieldJID), srv.runStats},
		{"get-registered-users-num", "Count the accounts", nil, srv.count("registeredusersnum", registered)},
		{"get-disabled-users-num", "Count the disabled accounts", nil, srv.count("disabledusersnum", disabled)},
		{"get-online-users-num", "Count the accounts that are online", nil, srv.count("onlineusersnum", online)},
		{"get-active-users-num", "Count the accounts with a client that somebody looks at", nil, srv.count("activeusersnum", active)},
		{"get-idle-users-num", "Count the accounts whose clients nobody looks at", nil, srv.count("idleusersnum", idle)},
		{"get-registered-users-list", "List the accounts", one("List the accounts", fieldMax), srv.list("registereduserjids", registered)},
		{"get-disabled-users-list", "List the disabled accounts", one("List the disabled accounts", fieldMax), srv.list("disableduserjids", disabled)},
		{"get-online-users-list", "List the accounts that are online", one("List the accounts that are online", fieldMax), srv.list("onlineuserjids", online)},
		{"get-active-users", "List the accounts with a client that somebody looks at", one("List the active accounts", fieldMax),
			srv.list("activeuserjids", active)},
		{"get-idle-users", "List the accounts whose clients nobody looks at", one("List the idle accounts", fieldMax), srv.list("activeuserjids", idle)},
		{"announce", "Tell all who are online", one("Tell all who are online", words("announcement", "Announcement")), srv.runAnnounce},
		{"set-motd", "Set the message of the day", one("Set the message of the day", words("motd", "Message of the day")), srv.runSetMOTD},
		{"edit-motd", "Edit the message of the day", editMOTD, srv.runSetMOTD},
		{"delete-motd", "Delete the message of the day", nil, srv.runDeleteMOTD},
	}
	var t adhoc.Table
	for _, r := range rows {
		t = append(t, &adhoc.Command{Node: nsAdmin + "#" + r.node, Name: r.name, May: srv.operator, Stages: r.stages, Run: r.run})
	}
	return t
}

// localAccount reads the address of an account here, whether or not there is one.
func (srv *Server) localAccount(s string) (core.Address, translate.JID, error) {
	j, err := translate.ParseJID(strings.TrimSpace(s))
	if err == nil && j.Local != "" && srv.Hub.Hosts(j.Domain) {
		if a, err := srv.names.Address(j.Bare()); err == nil && a.IsLocal() {
			return a, j, nil
		}
	}
	return core.Address{}, j, translate.Fail(translate.ItemNotFound, fmt.Sprintf("%q is no account here", s))
}

// existing is localAccount for one that there is.
func (srv *Server) existing(ctx context.Context, s string) (core.Address, translate.JID, error) {
	a, j, err := srv.localAccount(s)
	if err != nil {
		return a, j, err
	}
	if _, err = srv.Hub.Account(ctx, a); errors.Is(err, hub.ErrNone) {
		err = translate.Fail(translate.ItemNotFound, fmt.Sprintf("%q is no account here", s))
	}
	return a, j, err
}

func (srv *Server) runAddUser(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	a, _, err := srv.localAccount(c.Get("accountjid"))
	if err != nil {
		return nil, err
	}
	if err := srv.Hub.CreateAccount(ctx, a, c.Get("password")); err != nil {
		return nil, err
	}
	srv.Log.Info("an operator has made an account", "operator", c.Account.Bare(), "account", a.Bare())
	return &adhoc.Result{Note: "The account " + a.Bare() + " was made."}, nil
}

func (srv *Server) disable(off bool) func(context.Context, core.Address) error {
	return func(ctx context.Context, a core.Address) error { return srv.Hub.Disable(ctx, a, off) }
}

// eachAccount does something to each account that is named, after all of them were found.
func (srv *Server) eachAccount(done string, do func(context.Context, core.Address) error) func(context.Context, *adhoc.Call) (*adhoc.Result, error) {
	return func(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
		var all []core.Address
		for _, s := range c.All("accountjids") {
			a, _, err := srv.existing(ctx, s)
			if err != nil {
				return nil, err
			}
			if a == c.Account {
				return nil, translate.Fail(translate.NotAllowed, "this cannot be done to one's own account")
			}
			all = append(all, a)
		}
		for i, a := range all {
			if err := do(ctx, a); err != nil {
				return nil, fmt.Errorf("%s, after %d others: %w", a.Bare(), i, err)
			}
			srv.Log.Info("an operator has changed an account", "operator", c.Account.Bare(), "account", a.Bare(), "is", done)
		}
		return &adhoc.Result{Note: fmt.Sprintf("%d accounts were %s.", len(all), done)}, nil
	}
}

func (srv *Server) runEndSessions(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	n := 0
	for _, name := range c.All("accountjids") {
		a, j, err := srv.existing(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, s := range srv.of(a) {
			if j.Resource == "" || j.Resource == s.jid.Resource {
				s.terminate()
				n++
			}
		}
	}
	return &adhoc.Result{Note: fmt.Sprintf("%d sessions were ended.", n)}, nil
}

func (srv *Server) runSetPassword(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	a, _, err := srv.existing(ctx, c.Get("accountjid"))
	if err != nil {
		return nil, err
	}
	if err := srv.Hub.SetPassword(ctx, a, c.Get("password")); err != nil {
		return nil, err
	}
	srv.Log.Info("an operator has changed a password", "operator", c.Account.Bare(), "account", a.Bare())
	return &adhoc.Result{Note: "The password of " + a.Bare() + " was changed."}, nil
}

// spec: XEP-0133 §4.8
func (srv *Server) runRoster(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	a, j, err := srv.existing(ctx, c.Get("accountjids"))
	if err != nil {
		return nil, err
	}
	items, err := srv.rosterItems(ctx, a)
	if err != nil {
		return nil, err
	}
	return &adhoc.Result{Fields: []adhoc.Field{{Name: "accountjids", Values: []string{j.Bare().String()}}},
		Extra: element.New(nsRoster, "query").Append(items...)}, nil
}

// spec: XEP-0133 §4.10
func (srv *Server) runStats(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	a, _, err := srv.existing(ctx, c.Get("accountjid"))
	if err != nil {
		return nil, err
	}
	contacts, _, err := srv.Hub.Contacts(ctx, a)
	if err != nil {
		return nil, err
	}
	resources := adhoc.Field{Name: "onlineresources", Label: "Clients that are online"}
	for _, s := range srv.sortedOf(a) {
		resources.Values = append(resources.Values, s.jid.Resource)
	}
	return &adhoc.Result{Fields: []adhoc.Field{
		{Name: "rostersize", Label: "Contacts", Values: []string{strconv.Itoa(len(contacts))}}, resources}}, nil
}

// which picks accounts; the sessions are those of XMPP.
type which func(a *hub.Account, sessions []*Session) bool

func registered(*hub.Account, []*Session) bool   { return true }
func disabled(a *hub.Account, _ []*Session) bool { return a.Disabled }
func online(_ *hub.Account, all []*Session) bool { return len(all) > 0 }
func active(_ *hub.Account, all []*Session) bool { return slices.ContainsFunc(all, watched) }
func idle(a *hub.Account, all []*Session) bool   { return online(a, all) && !active(a, all) }
func watched(s *Session) bool                    { return !s.state.away.Load() }

// those are the JIDs of the domain's accounts that are picked, in their order.
func (srv *Server) those(ctx context.Context, domain string, pick which) ([]string, error) {
	accounts, err := srv.Hub.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range accounts {
		a := &accounts[i]
		if a.Address.Domain == domain && pick(a, srv.of(a.Address)) {
			out = append(out, srv.names.JID(a.Address).String())
		}
	}
	return out, nil
}

func (srv *Server) count(field string, pick which) func(context.Context, *adhoc.Call) (*adhoc.Result, error) {
	return func(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
		all, err := srv.those(ctx, c.At.Domain, pick)
		if err != nil {
			return nil, err
		}
		return &adhoc.Result{Fields: []adhoc.Field{{Name: field, Values: []string{strconv.Itoa(len(all))}}}}, nil
	}
}

func (srv *Server) list(field string, pick which) func(context.Context, *adhoc.Call) (*adhoc.Result, error) {
	return func(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
		all, err := srv.those(ctx, c.At.Domain, pick)
		if err != nil {
			return nil, err
		}
		res := &adhoc.Result{}
		if most, err := strconv.Atoi(c.Get("max_items")); err == nil && len(all) > most {
			res.Note = fmt.Sprintf("These are %d of %d.", most, len(all))
			all = all[:most]
		}
		res.Fields = []adhoc.Field{{Name: field, Values: all}}
		return res, nil
	}
}

// onlineAt are the sessions of all accounts of a domain.
func (srv *Server) onlineAt(domain string) (all []*Session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for a, sessions := range srv.sessions {
		if a.Domain == domain {
			for _, s := range sessions {
				all = append(all, s)
			}
		}
	}
	return all
}

// tellAll sends words to every client of a domain that is online, and returns to how many.
func (srv *Server) tellAll(domain, subject, body string) (n int) {
	for _, s := range srv.onlineAt(domain) {
		if s.post(s.notice(subject, body)) {
			n++
		}
	}
	return n
}

// spec: XEP-0133 §4.23
func (srv *Server) runAnnounce(_ context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	n := srv.tellAll(c.At.Domain, "Announcement", strings.Join(c.All("announcement"), "\n"))
	return &adhoc.Result{Note: fmt.Sprintf("%d clients were told.", n)}, nil
}

// motdKey is the setting that holds a domain's message of the day.
func motdKey(domain string) string { return "xmpp-motd:" + domain }

// motd is the message of the day of a domain, "" if there is none.
func (srv *Server) motd(ctx context.Context, domain string) (text string, err error) {
	err = srv.Hub.Read(ctx, func(v hub.View) error {
		data, err := v.Setting(motdKey(domain))
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		text = string(data)
		return err
	})
	return text, err
}

func (srv *Server) motdFields(ctx context.Context, c *adhoc.Call) ([]adhoc.Field, error) {
	text, err := srv.motd(ctx, c.At.Domain)
	return []adhoc.Field{{Name: "motd", Label: "Message of the day", Type: "text-multi", Required: true, Values: strings.Split(text, "\n")}}, err
}

func (srv *Server) putMOTD(ctx context.Context, domain, text string) error {
	return srv.Hub.Write(ctx, func(tx hub.Tx) error { return tx.SetSetting(motdKey(domain), []byte(text)) })
}

// spec: XEP-0133 §4.24
// spec: XEP-0133 §4.25
func (srv *Server) runSetMOTD(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	text := strings.TrimSpace(strings.Join(c.All("motd"), "\n"))
	if err := srv.putMOTD(ctx, c.At.Domain, text); err != nil {
		return nil, err
	}
	n := srv.tellAll(c.At.Domain, "Message of the day", text)
	return &adhoc.Result{Note: fmt.Sprintf("%d clients were told; the others will be when they come.", n)}, nil
}

// spec: XEP-0133 §4.26
func (srv *Server) runDeleteMOTD(ctx context.Context, c *adhoc.Call) (*adhoc.Result, error) {
	return &adhoc.Result{Note: "There is no message of the day."}, srv.putMOTD(ctx, c.At.Domain, "")
}

// tellMOTD shows the client that has just come the message of the day.
func (s *Session) tellMOTD(ctx context.Context) error {
	text, err := s.srv.motd(ctx, s.jid.Domain)
	if err == nil && text != "" {
		s.Send(s.notice("Message of the day", text))
	}
	return err
}
