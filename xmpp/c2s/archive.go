package c2s

import (
	"parley/core"
	"parley/hub"
	"parley/xmpp/archive"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/translate"
)

// archiveOf is the archive of an account: every message of its directs, of whatever network. What is said in rooms, the rooms keep.
func (q *question) archiveOf() archive.Source {
	t := &talks{srv: q.srv, account: q.account, known: map[core.ConvID]core.Address{}}
	return archive.Source{
		Hub: q.srv.Hub, Who: q.account, Write: t.write,
		Base: hub.Query{For: q.account, Directs: true, ByFeed: true},
	}
}

// archiveForm says by what the archive can be asked.
//
// spec: XEP-0313 §4.1.5
func (q *question) archiveForm() (answer, error) { return archive.Form(), nil }

// archive returns a page of the account's archive.
//
// spec: XEP-0313 §4
func (q *question) archive() (answer, error) {
	r, err := archive.Parse(q.payload)
	if err != nil {
		return nil, err
	}
	r.Max = min(r.Max, q.srv.MaxPage)
	if err := q.srv.Guard.Allow(guard.ArchivePages, q.who.String()); err != nil {
		return nil, err
	}
	src := q.archiveOf()
	if !r.With.IsZero() {
		if src.Base.Peer, err = q.srv.names.Address(r.With.Bare()); err != nil {
			return nil, translate.Fail(translate.ItemNotFound, "")
		}
	}
	found, err := src.Answer(q.ctx, r)
	if err != nil {
		return nil, err
	}
	q.s.sawMAM = true
	for _, res := range found.Results {
		m := element.New(translate.NSClient, "message").SetAttr("to", q.from.String()).SetAttr("from", q.from.Bare().String())
		q.s.Send(m.Append(res))
	}
	return found.Fin, nil
}

// archiveEnds says between which messages the archive reaches.
//
// spec: XEP-0313 §5
func (q *question) archiveEnds() (answer, error) { return q.archiveOf().Ends(q.ctx) }

// talks knows with whom the account talks where, for one answer.
type talks struct {
	srv     *Server
	account core.Address
	known   map[core.ConvID]core.Address // zero where it is no direct of the account
}

// write writes an event as the archive holds it; nil if it is none of the account's messages or not to be kept.
func (t *talks) write(v hub.View, e *core.Event) (*element.Element, error) {
	peer, known := t.known[e.Conv]
	if !known {
		c, err := v.Conversation(e.Conv)
		if err != nil {
			return nil, err
		}
		s, err := v.State(e.Conv)
		if err != nil {
			return nil, err
		}
		if _, mine := s.Members[t.account]; mine && c.Shape == core.Direct {
			peer = peerOf(s, t.account)
		}
		t.known[e.Conv] = peer
	}
	if peer.IsZero() || e.Retracted != "" && core.KindOf(e.Content) != core.KindMessage {
		return nil, nil // a reaction that was taken off leaves no trace
	}
	m, err := t.srv.compose(v, t.account, peer, e)
	if err != nil || m == nil || m.Child(translate.NSHints, "no-store") != nil || m.Child(translate.NSHints, "no-permanent-store") != nil {
		return nil, err
	}
	return m, nil
}

// archivePrefs says what is archived: everything, because every client and network of the account reads the same history.
//
// spec: XEP-0441 §2
func (q *question) archivePrefs() (answer, error) {
	p := element.New(translate.NSMAM, "prefs").SetAttr("default", "always")
	p.Append(element.New(translate.NSMAM, "always"), element.New(translate.NSMAM, "never"))
	return p, nil
}

// archivePrefsSet takes no other preference than the one that there is.
func (q *question) archivePrefsSet() (answer, error) {
	if q.payload.Attr("default") != "always" || len(q.payload.Child("", "never").Elements()) > 0 {
		return nil, translate.Fail(translate.NotAllowed, "the archive is the history that all clients of the account share")
	}
	return q.archivePrefs()
}
