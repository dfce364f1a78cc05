package c2s

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

//go:embed migrations/push/*.sql
var pushMigrations embed.FS

func migratePush(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(pushMigrations, "migrations/push")
	if err != nil {
		return err
	}
	return db.Migrate(ctx, "xmpp-push", dir)
}

// The measures of pushing.
const (
	maxPushQueue    = 10000            // what waits for the pusher's goroutine; beyond it nothing is pushed, and the log says so
	maxPushFlying   = 1000             // publications that wait for their answer
	pushAnswerTime  = 5 * time.Minute  // until one that is not answered is forgotten
	maxPushFailures = 20               // in a row, of those that may pass
	maxPushText     = 500              // bytes of a message's text in a summary
	defaultPushGap  = 2 * time.Second  // between two publications to one target
	forgetPushed    = 24 * time.Hour   // what is known of a target that nothing was published to
	pushDealTime    = 20 * time.Second // for one piece of news
)

// pusher tells push services that something has happened for a client that is not there. It hears what the hub tells every session,
// whether or not the account has one; one goroutine deals with it. That somebody was told twice, or not at all when the server
// crashed in between, costs nobody a message: the client fetches them.
type pusher struct {
	srv *Server

	mu   sync.Mutex
	on   map[core.Address]bool // accounts with targets; nil before they are known, and then all may have some
	jobs []func(context.Context)
	lost int
	wake chan struct{} // holds one token while there are jobs

	// What belongs to the goroutine.
	summaries map[pushKey]*pushSummary
	flying    map[string]flyingPush // by the id of the iq
}

// pushSummary is what a target is to be told, and when.
type pushSummary struct {
	count   int // messages since the client was last there
	pending int // requests that wait for an answer
	sender  translate.JID
	body    string
	last    time.Time
	timed   bool // a publication is on the clock
}

type flyingPush struct {
	key  pushKey
	sent time.Time
}

func newPusher(srv *Server) *pusher {
	p := &pusher{srv: srv, wake: make(chan struct{}, 1), summaries: map[pushKey]*pushSummary{}, flying: map[string]flyingPush{}}
	srv.Hub.Listen(p.hear)
	return p
}

// run deals with the jobs until ctx ends.
func (p *pusher) run(ctx context.Context) {
	all, err := p.accounts(ctx)
	if err != nil && ctx.Err() == nil {
		p.srv.Log.Error("reading who has enabled push notifications", "err", err) // then every account is asked about
	}
	if err == nil {
		p.know(all)
	}
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		jobs, lost := p.jobs, p.lost
		p.jobs, p.lost = nil, 0
		p.mu.Unlock()
		if lost > 0 {
			p.srv.Log.Warn("too much has happened to push all of it", "lost", lost)
		}
		for _, f := range jobs {
			if ctx.Err() != nil {
				return
			}
			deal, cancel := context.WithTimeout(ctx, pushDealTime)
			f(deal)
			cancel()
		}
	}
}

// know notes which accounts have targets, beside those that have got some meanwhile.
func (p *pusher) know(accounts []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	on := map[core.Address]bool{}
	for _, s := range accounts {
		if a, err := core.ParseAddress(s); err == nil {
			on[a] = true
		}
	}
	for k := range p.summaries {
		on[k.account] = true
	}
	p.on = on
}

// do has f called by the pusher's goroutine; any goroutine may call it.
func (p *pusher) do(f func(context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.jobs) >= maxPushQueue {
		p.lost++
		return
	}
	p.jobs = append(p.jobs, f)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// concerns says whether an account may have targets.
func (p *pusher) concerns(a core.Address) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return a.IsLocal() && (p.on == nil || p.on[a])
}

// enabled notes a new target, whose client is there.
func (p *pusher) enabled(k pushKey) {
	p.mu.Lock()
	if p.on != nil {
		p.on[k.account] = true
	}
	p.mu.Unlock()
	p.do(func(context.Context) { delete(p.summaries, k) })
}

// hear takes what the hub publishes. It does not block.
func (p *pusher) hear(b hub.Bulletin) {
	for _, a := range b.To {
		if !p.concerns(a) {
			continue
		}
		switch n := b.News.(type) {
		case hub.EventNews:
			if n.Event.Sender != a && !n.Aside && !n.Again {
				p.do(func(ctx context.Context) { p.event(ctx, a, n) })
			}
		case hub.ContactNews:
			if n.Notice != nil && n.Notice.Kind == hub.Ask {
				p.do(func(ctx context.Context) { p.asked(ctx, a) })
			}
		}
	}
}

// event pushes an event that somebody should look at.
func (p *pusher) event(ctx context.Context, account core.Address, n hub.EventNews) {
	body, isMessage := core.BodyOf(n.Event.Content)
	if m, ok := n.Event.Content.(core.Membership); ok && m.Target == account && m.Standing == core.Invited {
		p.asked(ctx, account)
		return
	}
	if core.KindOf(n.Event.Content) != core.KindMessage || !isMessage {
		return
	}
	wanted, err := p.wanted(ctx, account, n, body)
	if err != nil {
		p.srv.Log.Error("finding out whether a message is to be pushed", "account", account.Bare(), "err", err)
		return
	}
	if !wanted {
		return
	}
	sender, text := p.srv.names.JID(n.Event.Sender), ""
	if n.Conv.Shape == core.Group && !n.Conv.Address.IsZero() {
		sender = p.srv.names.RoomJID(n.Conv.Address)
		if m, ok := n.State.Members[n.Event.Sender]; ok && m.Nick != "" {
			sender = sender.With(m.Nick)
		}
	}
	if body.Encrypted == nil {
		text = clipText(body.Plain(), maxPushText)
	}
	p.each(ctx, account, func(s *pushSummary) {
		s.count++
		s.sender, s.body = sender, text
	})
}

// asked pushes that somebody asks for consent, or invites.
func (p *pusher) asked(ctx context.Context, account core.Address) {
	waiting := map[core.Address]bool{} // people, and rooms by their conversation
	err := p.srv.Hub.Read(ctx, func(v hub.View) error {
		contacts, err := v.Contacts(account)
		if err != nil {
			return err
		}
		for _, c := range contacts {
			if c.Asks {
				waiting[c.Address] = true
			}
		}
		places, err := v.Places(account)
		for _, pl := range places {
			if pl.Standing == core.Invited && pl.Peer.IsZero() {
				waiting[core.Address{Name: string(pl.Conv)}] = true
			} else if pl.Standing == core.Invited {
				waiting[pl.Peer] = true
			}
		}
		return err
	})
	if err != nil {
		p.srv.Log.Error("counting requests to push", "account", account.Bare(), "err", err)
		return
	}
	if len(waiting) > 0 {
		p.each(ctx, account, func(s *pushSummary) { s.pending = len(waiting) })
	}
}

// each notes news for those targets of the account whose clients are not there, and has it published.
func (p *pusher) each(ctx context.Context, account core.Address, note func(*pushSummary)) {
	targets, err := p.targets(ctx, account)
	if err != nil {
		p.srv.Log.Error("reading push services", "account", account.Bare(), "err", err)
		return
	}
	for i := range targets {
		k := targets[i].key()
		if s, ok := p.srv.at(account, targets[i].resource); ok && !s.state.away.Load() {
			delete(p.summaries, k)
			continue
		}
		p.note(&targets[i], note)
	}
	if len(targets) == 0 {
		p.mu.Lock()
		delete(p.on, account)
		p.mu.Unlock()
	}
}

// note notes news for a target whose client is not there.
func (p *pusher) note(t *pushTarget, note func(*pushSummary)) {
	k := t.key()
	s := p.summaries[k]
	if s == nil {
		s = &pushSummary{}
		p.summaries[k] = s
	}
	note(s)
	p.publishSoon(k, s, t)
}

// publishSoon publishes now, or, when the target was told just now, once for all that comes in a while.
func (p *pusher) publishSoon(k pushKey, s *pushSummary, t *pushTarget) {
	if s.timed {
		return
	}
	wait := p.srv.PushGap - time.Since(s.last)
	if wait <= 0 {
		p.publish(k, s, t)
		return
	}
	s.timed = true
	time.AfterFunc(wait, func() {
		p.do(func(ctx context.Context) {
			s.timed = false
			if p.summaries[k] == s { // else the client has come back
				p.publishAgain(ctx, k, s)
			}
		})
	})
}

func (p *pusher) publishAgain(ctx context.Context, k pushKey, s *pushSummary) {
	targets, err := p.targets(ctx, k.account)
	if err != nil {
		p.srv.Log.Error("reading push services", "account", k.account.Bare(), "err", err)
		return
	}
	for i := range targets {
		if targets[i].key() == k {
			p.publish(k, s, &targets[i])
		}
	}
}

// publish tells a push service.
func (p *pusher) publish(k pushKey, s *pushSummary, t *pushTarget) {
	now := time.Now()
	for id, f := range p.flying {
		if now.Sub(f.sent) > pushAnswerTime {
			delete(p.flying, id)
		}
	}
	if len(p.flying) >= maxPushFlying {
		p.srv.Log.Warn("too many push services do not answer")
		return
	}
	s.last = now
	id := "push-" + core.NewToken()[:16]
	p.flying[id] = flyingPush{k, now}
	p.srv.toService(t.element(s, p.srv.PushSummary).SetAttr("id", id).SetAttr("from", p.srv.names.JID(k.account).String()))
}

// element is the publication, but for whose it is.
//
// spec: XEP-0357 §7
func (t *pushTarget) element(s *pushSummary, told PushSummary) *element.Element {
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "set").SetAttr("to", t.service)
	ps := iq.Add(nsPubSub, "pubsub")
	publish := ps.Add("", "publish")
	if t.node != "" {
		publish.SetAttr("node", t.node)
	}
	x := newForm("submit", formPushSummary)
	addField(x, "message-count", "", strconv.Itoa(s.count))
	if s.pending > 0 {
		addField(x, "pending-subscription-count", "", strconv.Itoa(s.pending))
	}
	if s.count > 0 && (told == PushSender || told == PushBody) {
		addField(x, "last-message-sender", "", s.sender.String())
	}
	if told == PushBody && s.body != "" {
		addField(x, "last-message-body", "", s.body)
	}
	publish.Add("", "item").Add(nsPush, "notification").Append(x)
	if t.options != nil {
		ps.Add("", "publish-options").Append(t.options.Copy())
	}
	return iq
}

// answered takes the answer to a publication; false if it is none. Any goroutine may call it.
//
// spec: XEP-0357 §7.1
func (p *pusher) answered(st *element.Element) bool {
	id := st.Attr("id")
	if len(id) < 5 || id[:5] != "push-" {
		return false
	}
	p.do(func(ctx context.Context) {
		f, ok := p.flying[id]
		if !ok || !sameJID(st.Attr("from"), f.key.service) || !sameJID(st.Attr("to"), p.srv.names.JID(f.key.account).String()) {
			return
		}
		delete(p.flying, id)
		if err := p.verdict(ctx, f.key, st); err != nil {
			p.srv.Log.Error("keeping what a push service answered", "service", f.key.service, "err", err)
		}
	})
	return true
}

// verdict disables a target that refuses for good, and one that has failed too often in a row.
func (p *pusher) verdict(ctx context.Context, k pushKey, st *element.Element) error {
	targets, err := p.targets(ctx, k.account)
	if err != nil {
		return err
	}
	for _, t := range targets {
		switch {
		case t.key() != k:
		case st.Attr("type") == "result" && t.failures == 0:
		case st.Attr("type") == "result":
			return p.setFailures(ctx, k, 0)
		case t.failures+1 < maxPushFailures && mayPass(translate.ReadError(st)):
			return p.setFailures(ctx, k, t.failures+1)
		default:
			p.srv.Log.Info("a push service refuses and is disabled", "account", k.account.Bare(), "service", k.service)
			delete(p.summaries, k)
			return p.remove(ctx, k)
		}
	}
	return nil
}

// mayPass says whether an error may be gone the next time: the service is not reached, or asks to wait.
func mayPass(e *translate.Error) bool {
	switch {
	case e == nil:
		return false
	case e.Type == "wait":
		return true
	}
	switch e.Name {
	case translate.RemoteServerNotFound.Name, translate.RemoteServerTimeout.Name, translate.InternalServerError.Name,
		translate.ServiceUnavailable.Name:
		return true
	}
	return false
}

// withdrawn takes a push service's word that it wants to be told no more.
//
// spec: XEP-0357 §8
func (p *pusher) withdrawn(st *element.Element, account core.Address) {
	ps := st.Child(nsPubSub, "pubsub")
	if st.Name.Local != "message" || ps == nil || !p.concerns(account) {
		return
	}
	for _, a := range ps.ChildrenNamed("", "affiliation") {
		if a.Attr("affiliation") != "none" || !sameJID(a.Attr("jid"), p.srv.names.JID(account).String()) {
			continue
		}
		k := pushKey{account, st.Attr("from"), ps.Attr("node")}
		p.do(func(ctx context.Context) {
			if err := p.remove(ctx, k); err != nil {
				p.srv.Log.Error("disabling a push service", "service", k.service, "err", err)
			}
		})
	}
}

func sameJID(a, b string) bool {
	x, err1 := translate.ParseJID(a)
	y, err2 := translate.ParseJID(b)
	return err1 == nil && err2 == nil && x == y
}

// clipText cuts a text at a rune.
func clipText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most] + "…"
}

// wanted says whether the account wants to be called for a message: in a room as its bookmark says, else always in one that is not
// public, and in a public one when the message is about the account.
//
// spec: XEP-0492 §2
// spec: XEP-0492 §3
func (p *pusher) wanted(ctx context.Context, account core.Address, n hub.EventNews, body core.Body) (bool, error) {
	if n.State.Standing(account) != core.Joined && n.Conv.Shape == core.Group {
		return false, nil
	}
	wish := "always"
	err := p.srv.Hub.Read(ctx, func(v hub.View) error {
		if blocked, err := v.Blocked(account, n.Event.Sender); err != nil || blocked {
			wish = "never"
			return err
		}
		if n.Conv.Shape != core.Group || n.Conv.Address.IsZero() {
			return nil
		}
		if n.State.JoinRule == core.JoinPublic {
			wish = "on-mention"
		}
		it, found, err := pep.ReadItem(v, account, nsBookmarks, p.srv.names.RoomJID(n.Conv.Address).String())
		if found {
			if w := notifyWish(it.Payload); w != "" {
				wish = w
			}
		}
		return err
	})
	if err != nil || wish != "on-mention" {
		return wish == "always" && err == nil, err
	}
	if body.MentionsAll || contains(body.Mentions, account) {
		return true, nil
	}
	return p.repliesTo(ctx, account, body.ReplyTo)
}

func contains(list []core.Address, a core.Address) bool {
	for _, o := range list {
		if o == a {
			return true
		}
	}
	return false
}

func (p *pusher) repliesTo(ctx context.Context, account core.Address, id core.EventID) (is bool, err error) {
	if id == "" {
		return false, nil
	}
	err = p.srv.Hub.Read(ctx, func(v hub.View) error {
		e, err := v.Event(id)
		if errors.Is(err, hub.ErrNone) {
			return nil
		}
		is = err == nil && e.Sender == account
		return err
	})
	return is, err
}

const nsNotify = "urn:xmpp:notification-settings:1" // XEP-0492

// notifyWish reads what a bookmark says of notifications: always, on-mention, never, or "". Which of the account's clients a push
// service reaches, the server does not know; most that have one are phones.
func notifyWish(bookmark *element.Element) string {
	n := bookmark.Child(nsBookmarks, "extensions").Child(nsNotify, "notify")
	best, wish := -1, ""
	for _, c := range n.Elements() {
		if c.Name.Space != nsNotify {
			continue
		}
		rank := 0
		switch category, typ := c.Attr("identity-category"), c.Attr("identity-type"); {
		case category == "client" && typ == "phone":
			rank = 2
		case category == "client" && typ == "":
			rank = 1
		case category != "":
			continue
		}
		switch c.Name.Local {
		case "always", "on-mention", "never":
			if rank > best {
				best, wish = rank, c.Name.Local
			}
		}
	}
	return wish
}

// forget drops what is known of targets for which nothing has happened for long.
func (p *pusher) forget() {
	p.do(func(context.Context) {
		for k, s := range p.summaries {
			if !s.timed && time.Since(s.last) > forgetPushed {
				delete(p.summaries, k)
			}
		}
	})
}

// pushUnacked has what was sent to a client whose stream has broken, and was perhaps never received, told to its push services.
func (s *Session) pushUnacked() {
	p := s.srv.push
	n := 0
	for _, d := range s.out.Unacked() {
		if d.feed != 0 {
			n++
		}
	}
	if n == 0 || !p.concerns(s.account) {
		return
	}
	p.do(func(ctx context.Context) {
		targets, err := p.targets(ctx, s.account)
		if err != nil {
			p.srv.Log.Error("reading push services", "account", s.account.Bare(), "err", err)
			return
		}
		for i := range targets {
			if targets[i].resource == s.jid.Resource && s.state.away.Load() {
				p.note(&targets[i], func(sum *pushSummary) { sum.count += n })
			}
		}
	})
}

// toService sends a stanza on behalf of an account to a service on this server or another.
func (srv *Server) toService(st *element.Element) {
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil {
		return
	}
	if svc, ok := srv.service(to.Domain); ok {
		if r, ok := svc.(Router); ok {
			r.Route(st)
			return
		}
	}
	if srv.Hub.Hosts(to.Domain) || srv.Router == nil {
		srv.push.answered(translate.Bounce(st, errNobody))
		return
	}
	srv.Router.Route(st)
}
