package c2s

import (
	"context"
	"errors"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// People of other networks have JIDs under a domain of ours, and no server of XMPP that would answer for them: this one does, with what
// their own servers tell.

// abroad says whether somebody is of another network than XMPP, and not an account here.
func abroad(a core.Address) bool { return !a.IsZero() && !a.IsLocal() && a.Network != core.XMPP }

// networkNames is what people call the networks.
var networkNames = map[core.Network]string{
	core.Matrix: "Matrix", core.Mail: "Mail", core.ActivityPub: "ActivityPub", core.IRC: "IRC",
}

// carried are the features of a client of XMPP by what a network must carry for them.
var carried = []struct {
	f  core.Feature
	ns string
}{
	{core.FeatureTyping, translate.NSChatStates}, {core.FeatureDelivered, translate.NSReceipts}, {core.FeatureDisplayed, translate.NSMarkers},
	{core.FeatureEdit, translate.NSCorrect}, {core.FeatureReaction, translate.NSReactions}, {core.FeatureReply, translate.NSReply},
	{core.FeatureRetract, translate.NSRetract}, {core.FeatureFile, translate.NSOOB},
}

// personInfo describes somebody of another network to an account here: on which network she really is, and what of XMPP reaches her.
//
// spec: XEP-0030 §3.1
func (q *question) personInfo() (answer, error) {
	if q.s == nil {
		return nil, errNobody
	}
	if q.payload.Attr("node") != "" {
		return nil, translate.Fail(translate.ItemNotFound, "")
	}
	features := []string{nsDiscoInfo, nsVCard, nsPubSub + "#retrieve-items"}
	caps := q.srv.Hub.Capabilities(q.account)
	for _, c := range carried {
		if caps.Grade(c.f) != core.No {
			features = append(features, c.ns)
		}
	}
	slices.Sort(features)
	name := networkNames[q.account.Network] + ": " + q.account.Bare()
	return discoInfo("", [][3]string{{"account", "registered", name}, {"pubsub", "pep", ""}}, features), nil
}

// personNodes are the nodes of which there is something where a profile is.
var personNodes = []string{nodeNick, nodeAvatar, nodePicture, nodeVCard}

// personItems answers for the nodes in which people of XMPP say how they appear.
//
// spec: XEP-0060 §6.5
func (q *question) personItems() (answer, error) {
	asked := q.payload.Child("", "items")
	if q.s == nil || asked == nil || !slices.Contains(personNodes, asked.Attr("node")) {
		return nil, errNobody
	}
	node := asked.Attr("node")
	var found []pep.Item
	err := q.srv.Hub.Read(q.ctx, func(v hub.View) (err error) {
		found, err = q.srv.nodeItems(q.ctx, v, q.account, node, 1)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, translate.Fail(translate.ItemNotFound, "there is no such node")
	}
	wanted := asked.ChildrenNamed("", "item")
	out := element.New(nsPubSub, "pubsub")
	list := out.Add("", "items").SetAttr("node", node)
	for _, it := range found {
		if len(wanted) == 0 || slices.ContainsFunc(wanted, func(w *element.Element) bool { return w.Attr("id") == it.ID }) {
			list.Append(itemElement(nsPubSub, it, false, false))
		}
	}
	return out, nil
}

// learnPerson has the hub know how somebody of another network appears, and her picture be here, as far as that can be had now.
func (srv *Server) learnPerson(ctx context.Context, account, who core.Address) {
	p, err := srv.Appear(ctx, account, who)
	if err == nil && p.Avatar != nil {
		_, err = srv.Remote.Bring(ctx, *p.Avatar)
	}
	if err != nil {
		srv.Log.Debug("how a person of another network appears is not known", "who", who, "err", err)
	}
}

// personTime is how long a person's server has to say how she appears.
const personTime = time.Minute

// meet finds out, beside all else, how one appears who has become visible to an account here.
func (srv *Server) meet(b hub.Bulletin) {
	n, ok := b.News.(hub.ContactNews)
	if !ok || srv.Appear == nil || n.Notice == nil || n.Notice.Kind != hub.Approve || !abroad(n.Contact.Address) {
		return
	}
	select {
	case srv.moves <- struct{}{}:
	default:
		return // her card will be asked for
	}
	if !srv.joins(&srv.errands) {
		<-srv.moves
		return
	}
	go func() {
		defer srv.errands.Done()
		defer func() { <-srv.moves }()
		ctx, cancel := srv.untilStopped(personTime)
		defer cancel()
		srv.learnPerson(ctx, n.Contact.Account, n.Contact.Address)
	}()
}

// personEvents are the notifications of how somebody of another network appears that a client wants.
//
// spec: XEP-0163 §4.3.2
func (s *Session) personEvents(ctx context.Context, who core.Address) error {
	for _, node := range []string{nodeNick, nodeAvatar} {
		if !s.notify[node] {
			continue
		}
		var ev *pepEvent
		err := s.srv.Hub.Read(ctx, func(v hub.View) error {
			c, err := v.Contact(s.account, who)
			if err != nil || !c.Seen {
				if errors.Is(err, hub.ErrNone) {
					err = nil
				}
				return err
			}
			ev, err = s.srv.lastEvent(ctx, v, who, node, defaultConfig(node))
			return err
		})
		if err != nil {
			return err
		}
		if ev != nil {
			s.Send(s.srv.pepMessage(ev, s.jid))
		}
	}
	return nil
}

// personPhoto names the picture of somebody of another network in her presence.
//
// spec: XEP-0153 §3.1
func (s *Session) personPhoto(ctx context.Context, who core.Address, presence *element.Element) {
	id := ""
	err := s.srv.Hub.Read(ctx, func(v hub.View) error {
		p, err := v.Profile(who)
		if err == nil && p.Avatar != nil {
			id, _, err = s.srv.avatarID(ctx, v, p.Avatar)
		}
		return err
	})
	if err != nil || id == "" {
		return // it will be named once it is known
	}
	presence.Add(nsPhoto, "x").Append(element.NewText(nsPhoto, "photo", id))
}

// heldMost is how much of what was said before the account let the other in is fetched.
const heldMost = 20

// heldElsewhere is heldMessages for a direct that was on other servers: what was said in it is there.
func (s *Session) heldElsewhere(conv core.ConvID, before core.Feed) {
	if !s.state.takesBare() || s.beside.busy >= maxBeside || !s.srv.joins(&s.srv.errands) {
		return
	}
	s.beside.busy++
	go func() {
		defer s.srv.errands.Done()
		ctx, cancel := s.srv.untilStopped(personTime)
		defer cancel()
		if err := s.srv.Hub.Older(ctx, conv, 0, heldMost); err != nil {
			s.Log().Info("what was said before is not known", "conversation", conv, "err", err)
		}
		s.call(func(ctx context.Context) {
			s.beside.busy--
			if err := s.heldMessages(ctx, conv, before); err != nil {
				s.Log().Error("showing what was said before", "err", err)
			}
		})
	}()
}

// invitedAbroad finds the direct on other servers to which somebody has invited the account, if there is none in which it is with her.
func (s *Session) invitedAbroad(ctx context.Context, peer core.Address) (conv core.ConvID, err error) {
	err = s.srv.Hub.Read(ctx, func(v hub.View) error {
		directs, err := v.Directs(s.account, peer)
		if err != nil {
			return err
		}
		for _, id := range directs {
			st, err := v.State(id)
			if err != nil {
				return err
			}
			switch {
			case st.MovedTo != nil || st.Encryption != nil:
			case st.Standing(s.account) == core.Joined:
				conv = ""
				return nil
			case st.Standing(s.account) == core.Invited && conv == "":
				is, err := s.srv.Hub.Abroad(v, id, s.account)
				if err != nil {
					return err
				}
				if is {
					conv = id
				}
			}
		}
		return nil
	})
	return conv, err
}

// talkAbroad is talk with one of another network, whose server may have to be asked first: what is said to one who has invited the account
// is an answer to that.
func (s *Session) talkAbroad(ctx context.Context, st *element.Element, to translate.JID, peer core.Address) error {
	if st.ChildText("", "body") == "" {
		return s.talk(ctx, st, to, peer)
	}
	conv, err := s.invitedAbroad(ctx, peer)
	if err != nil {
		return err
	}
	if conv == "" {
		return s.talk(ctx, st, to, peer)
	}
	return s.Beside(to.Bare(), func(ctx context.Context) error {
		_, err := s.srv.Hub.Accept(ctx, hub.JoinRequest{Conv: conv, Who: s.account, From: s.ID()})
		return err
	}, func(ctx context.Context, err error) error {
		if err != nil {
			return err
		}
		return s.talk(ctx, st, to, peer)
	})
}
