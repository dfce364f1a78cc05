package c2s

import (
	"context"

	"parley/core"
	"parley/hub"
	"parley/xmpp/adhoc"
	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// The namespaces of what clients ask for.
const (
	nsPing       = "urn:xmpp:ping"                         // XEP-0199
	nsTime       = "urn:xmpp:time"                         // XEP-0202
	nsVersion    = "jabber:iq:version"                     // XEP-0092
	nsPrivate    = "jabber:iq:private"                     // XEP-0049
	nsVCard      = "vcard-temp"                            // XEP-0054
	nsBlocking   = "urn:xmpp:blocking"                     // XEP-0191
	nsUpload     = "urn:xmpp:http:upload:0"                // XEP-0363
	nsDiscoInfo  = "http://jabber.org/protocol/disco#info" // XEP-0030
	nsDiscoItems = "http://jabber.org/protocol/disco#items"
	nsPubSub     = "http://jabber.org/protocol/pubsub" // XEP-0060
	nsPubSubOwn  = "http://jabber.org/protocol/pubsub#owner"
	nsPubSubErr  = "http://jabber.org/protocol/pubsub#errors"
	nsPubSubEv   = "http://jabber.org/protocol/pubsub#event"
	nsRSM        = "http://jabber.org/protocol/rsm" // XEP-0059
	nsData       = "jabber:x:data"                  // XEP-0004
)

// question is an iq of type get or set that the server answers.
type question struct {
	srv  *Server
	ctx  context.Context
	from translate.JID // who asks
	who  core.Address  // the same, bare
	s    *Session      // nil if it is asked from another server
	// account is on whose behalf the server answers, zero for its own.
	account core.Address
	to      translate.JID
	iq      *element.Element
	payload *element.Element
	// seen is how the account appears, if that was found out: see appear.
	seen *appearance
}

// own says whether an account asks for what is its own.
func (q *question) own() bool { return q.s != nil && q.account == q.who }

// answer is the payload of the result, nil for an empty one.
type answer = *element.Element

type what struct{ space, name, typ string }

type handler func(*question) (answer, error)

// ownTable is what a client may ask on behalf of its own account: iqs without an address or to the bare JID.
var ownTable map[what]handler

// accountTable is what anybody may ask of an account; the handlers decide what is shown.
var accountTable map[what]handler

// serverTable is what may be asked of a domain.
var serverTable map[what]handler

// uploadTable is what may be asked of the upload service.
var uploadTable map[what]handler

func init() {
	accountTable = map[what]handler{
		{nsDiscoInfo, "query", "get"}:  (*question).accountInfo,
		{nsDiscoItems, "query", "get"}: (*question).accountItems,
		{nsVCard, "vCard", "get"}:      (*question).vcard,
		{nsPubSub, "pubsub", "get"}:    (*question).pep,
		{nsPubSub, "pubsub", "set"}:    (*question).pep,
		{nsPubSubOwn, "pubsub", "get"}: (*question).pep,
		{nsPubSubOwn, "pubsub", "set"}: (*question).pep,
	}
	ownTable = map[what]handler{
		{nsRoster, "query", "get"}:              (*question).roster,
		{nsRoster, "query", "set"}:              (*question).rosterSet,
		{nsSession, "session", "set"}:           (*question).nothing,
		{nsPing, "ping", "get"}:                 (*question).nothing,
		{nsVersion, "query", "get"}:             (*question).version,
		{nsTime, "time", "get"}:                 (*question).time,
		{translate.NSCarbons, "enable", "set"}:  (*question).carbonsOn,
		{translate.NSCarbons, "disable", "set"}: (*question).carbonsOff,
		{nsBlocking, "blocklist", "get"}:        (*question).blocklist,
		{nsBlocking, "block", "set"}:            (*question).block,
		{nsBlocking, "unblock", "set"}:          (*question).unblock,
		{translate.NSMAM, "query", "get"}:       (*question).archiveForm,
		{translate.NSMAM, "query", "set"}:       (*question).archive,
		{translate.NSMAM, "metadata", "get"}:    (*question).archiveEnds,
		{translate.NSMAM, "prefs", "get"}:       (*question).archivePrefs,
		{translate.NSMAM, "prefs", "set"}:       (*question).archivePrefsSet,
		{nsVCard, "vCard", "set"}:               (*question).vcardSet,
		{nsPrivate, "query", "get"}:             (*question).private,
		{nsPrivate, "query", "set"}:             (*question).privateSet,
		{nsRegister, "query", "get"}:            (*question).registered,
		{nsRegister, "query", "set"}:            (*question).registerSet,
		{adhoc.Namespace, "command", "set"}:     (*question).command,
		{nsPush, "enable", "set"}:               (*question).pushEnable,
		{nsPush, "disable", "set"}:              (*question).pushDisable,
	}
	for k, h := range accountTable {
		ownTable[k] = h
	}
	serverTable = map[what]handler{
		{nsDiscoInfo, "query", "get"}:  (*question).serverInfo,
		{nsDiscoItems, "query", "get"}: (*question).serverItems,
		{nsPing, "ping", "get"}:        (*question).nothing,
		{nsVersion, "query", "get"}:    (*question).version,
		{nsTime, "time", "get"}:        (*question).time,
		// spec: XEP-0215 §3
		{nsExtDisco, "services", "get"}:    (*question).external,
		{nsExtDisco, "credentials", "get"}: (*question).credentials,
		// Some clients ask the domain for what is their account's.
		{nsRegister, "query", "get"}:            (*question).registered,
		{nsRegister, "query", "set"}:            (*question).registerSet,
		{nsRoster, "query", "get"}:              (*question).roster,
		{nsSession, "session", "set"}:           (*question).nothing,
		{translate.NSCarbons, "enable", "set"}:  (*question).carbonsOn,
		{translate.NSCarbons, "disable", "set"}: (*question).carbonsOff,
		{nsBlocking, "blocklist", "get"}:        (*question).blocklist,
		{adhoc.Namespace, "command", "set"}:     (*question).command,
	}
	uploadTable = map[what]handler{
		{nsDiscoInfo, "query", "get"}: (*question).uploadInfo,
		{nsUpload, "request", "get"}:  (*question).slot,
		{nsPing, "ping", "get"}:       (*question).nothing,
	}
}

// uploadLabel is the first label of the domain of the upload service.
const uploadLabel = "upload"

// stanza deals with one stanza of the client, unless it has to wait for another.
func (s *Session) stanza(ctx context.Context, st *element.Element) error {
	if waits, err := s.park(st); waits {
		return err
	}
	return s.dispatch(ctx, st)
}

func (s *Session) dispatch(ctx context.Context, st *element.Element) error {
	switch st.Name.Local {
	case "iq":
		return s.iq(ctx, st)
	case "message":
		return s.message(ctx, st)
	case "presence":
		return s.presenceStanza(ctx, st)
	}
	return nil
}

// answered tells the client why a stanza of its was not dealt with.
func (s *Session) answered(ctx context.Context, st *element.Element, err error) {
	if err == nil {
		return
	}
	if hub.CodeOf(err) == "" && !isStanzaError(err) && ctx.Err() == nil {
		s.Log().Error("dealing with a stanza", "kind", st.Name.Local, "err", err)
	}
	if t := st.Attr("type"); t != "error" && t != "result" {
		s.Send(translate.Bounce(st, err))
	}
}

func isStanzaError(err error) bool {
	_, ok := err.(*translate.Error) //nolint:errorlint // handlers return it bare
	return ok
}

// stamp puts the client's full JID on the stanza. A client may give no other.
//
// spec: RFC 6120 §8.1.2.1
func (s *Session) stamp(st *element.Element) bool {
	if given := st.Attr("from"); given != "" {
		j, err := translate.ParseJID(given)
		if err != nil || j != s.jid && j != s.jid.Bare() {
			s.fail(stream.Errorf(stream.InvalidFrom, ""))
			return false
		}
	}
	st.SetAttr("from", s.jid.String())
	return true
}

// iq dispatches an iq by its address.
func (s *Session) iq(ctx context.Context, st *element.Element) error {
	if typ := st.Attr("type"); st.Attr("id") == "" || typ != "get" && typ != "set" && typ != "result" && typ != "error" {
		return translate.Fail(translate.BadRequest, "an iq has an id and one of four types")
	}
	to := s.jid.Bare()
	if st.Attr("to") != "" {
		var err error
		if to, err = translate.ParseJID(st.Attr("to")); err != nil {
			return translate.Fail(translate.JIDMalformed, "")
		}
	}
	if svc, ok := s.serves(st, to); ok {
		return svc.Stanza(ctx, s, st)
	}
	table, account, err := s.srv.tableFor(to)
	if err != nil {
		return s.forward(st, to)
	}
	if !isRequest(st) {
		s.result(st, to)
		return nil
	}
	if account == s.account {
		table = ownTable
	}
	q := &question{srv: s.srv, ctx: ctx, from: s.jid, who: s.account, s: s, account: account, to: to, iq: st}
	if q.abroad() {
		return s.Beside(translate.JID{}, q.appear, func(ctx context.Context, err error) error {
			if q.ctx = ctx; err != nil {
				return err
			}
			return q.reply(table)
		})
	}
	return q.reply(table)
}

// reply sends the client what comes of its question.
func (q *question) reply(table map[what]handler) error {
	res, err := q.ask(table)
	if err == nil {
		q.s.Send(res)
	}
	return err
}

// tableFor finds by which table the server answers for a JID; the error is for JIDs for which it does not.
func (srv *Server) tableFor(to translate.JID) (map[what]handler, core.Address, error) {
	if srv.Hub.Hosts(to.Domain) && to.Resource == "" {
		if to.Local == "" {
			return serverTable, core.Address{}, nil
		}
		account, err := srv.names.Address(to)
		return accountTable, account, err
	}
	for _, d := range srv.Hub.Config().Domains {
		if to.Domain == uploadLabel+"."+d && to.Local == "" {
			return uploadTable, core.Address{}, nil
		}
	}
	return nil, core.Address{}, errNobody
}

// ask finds the handler and makes the result of its answer.
func (q *question) ask(table map[what]handler) (*element.Element, error) {
	q.payload = q.iq.First()
	if q.payload == nil || len(q.iq.Elements()) != 1 {
		return nil, translate.Fail(translate.BadRequest, "a request has one child element")
	}
	h := table[what{q.payload.Name.Space, q.payload.Name.Local, q.iq.Attr("type")}]
	if h == nil {
		return nil, errNobody
	}
	if q.account.IsLocal() && q.s == nil || q.account.IsLocal() && q.account != q.who {
		if err := q.visible(); err != nil {
			return nil, err
		}
	}
	payload, err := h(q)
	if err != nil {
		return nil, err
	}
	res := element.New(translate.NSClient, "iq").SetAttr("type", "result").SetAttr("id", q.iq.Attr("id")).SetAttr("to", q.from.String())
	if q.iq.Attr("to") != "" {
		res.SetAttr("from", q.iq.Attr("to"))
	}
	return res.Append(payload), nil
}

// visible refuses what is asked of an account by one whom it blocks. That there is no such account looks alike.
//
// spec: XEP-0191 §3.3
func (q *question) visible() error {
	if _, err := q.srv.Hub.Account(q.ctx, q.account); err != nil {
		return errNobody
	}
	blocked, err := q.srv.Hub.Blocks(q.ctx, q.account, q.who)
	if err == nil && blocked {
		err = errNobody
	}
	return err
}

// answerForeign answers a request of an entity on another server.
func (srv *Server) answerForeign(ctx context.Context, st *element.Element, to translate.JID) {
	from, err := translate.ParseJID(st.Attr("from"))
	if err != nil || srv.Router == nil {
		return
	}
	who, err := srv.names.Address(from.Bare())
	if err == nil {
		var table map[what]handler
		var res *element.Element
		q := &question{srv: srv, ctx: ctx, from: from, who: who, to: to, iq: st}
		if table, q.account, err = srv.tableFor(to); err == nil {
			if res, err = q.ask(table); err == nil {
				srv.Router.Route(res)
				return
			}
		}
	}
	srv.bounceForeign(st, err)
}

// forward sends a stanza on to a client of another account or to another server.
func (s *Session) forward(st *element.Element, to translate.JID) error {
	if s.srv.Hub.Hosts(to.Domain) {
		account, err := s.srv.names.Address(to.Bare())
		if err != nil {
			return errNobody
		}
		if account != s.account {
			if blocked, err := s.srv.Hub.Blocks(context.Background(), account, s.account); err != nil || blocked {
				return errNobody
			}
		}
		return s.srv.route(st, to)
	}
	if s.srv.Router == nil {
		return translate.Fail(translate.RemoteServerNotFound, "")
	}
	s.srv.Router.Route(st)
	return nil
}

// request asks the client something of the server's own; f gets the answer, in the session's goroutine.
func (s *Session) request(iq *element.Element, f func(*element.Element)) {
	if len(s.pending) > 100 {
		return
	}
	id := core.NewToken()
	s.pending[id] = f
	s.SendAway(iq.SetAttr("id", id).SetAttr("to", s.jid.String()))
}

// result takes an answer of the client to a request of the server's own. Others are dropped, as RFC 6120 asks.
//
// spec: RFC 6120 §8.2.3
func (s *Session) result(st *element.Element, _ translate.JID) {
	if f := s.pending[st.Attr("id")]; f != nil {
		delete(s.pending, st.Attr("id"))
		f(st)
	}
}

func (q *question) nothing() (answer, error) { return nil, nil }

func (q *question) carbonsOn() (answer, error)  { return nil, q.setCarbons(true) }
func (q *question) carbonsOff() (answer, error) { return nil, q.setCarbons(false) }

// spec: XEP-0280 §4
func (q *question) setCarbons(on bool) error {
	if q.s == nil {
		return errNobody
	}
	q.s.state.carbons.Store(on)
	return nil
}
