package c2s

import (
	"context"
	"crypto/sha1" //nolint:gosec // the hash that names avatars
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/pep"
	"parley/xmpp/translate"
)

// profiles learns how contacts on other servers appear, for the one profile that every network's clients of an account see: from the
// picture that their presence names and the card behind it, and from what they publish.
//
// spec: XEP-0153 §3.2
// spec: XEP-0084 §3.3
type profiles struct {
	srv *Server
	mu  sync.Mutex
	// known is which picture a contact was last found to have, or asked about, and when.
	known map[core.Address]pictureKnown
	asked map[string]profileAsked // by id of the iq
}

type pictureKnown struct {
	hash string
	at   time.Time
}

type profileAsked struct {
	who  core.Address
	from translate.JID
	hash string
	at   time.Time
}

// The bounds of what is remembered of contacts' profiles.
const (
	maxKnownPictures = 5000
	maxProfilesAsked = 500
	// askAgain is for how long the same picture of a contact is not asked for once more.
	askAgain = 10 * time.Minute
)

func newProfiles(srv *Server) *profiles {
	return &profiles{srv: srv, known: map[core.Address]pictureKnown{}, asked: map[string]profileAsked{}}
}

// news says whether a picture of a contact is one that is not known or asked for already, and notes that it will be.
func (p *profiles) news(who core.Address, hash string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.known[who]
	if ok && k.hash == hash && time.Since(k.at) < askAgain {
		return false
	}
	if len(p.known) >= maxKnownPictures {
		clear(p.known)
	}
	p.known[who] = pictureKnown{hash, time.Now()}
	return true
}

// ask sends a question on behalf of an account, and notes what the answer will be about.
func (p *profiles) ask(account, who core.Address, hash string, payload *element.Element) {
	to := p.srv.names.JID(who)
	p.mu.Lock()
	for id, a := range p.asked {
		if time.Since(a.at) > time.Minute {
			delete(p.asked, id)
		}
	}
	full := len(p.asked) >= maxProfilesAsked
	id := core.NewToken()
	if !full {
		p.asked[id] = profileAsked{who, to, hash, time.Now()}
	}
	p.mu.Unlock()
	if full {
		return // the next presence asks again
	}
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "get").SetAttr("id", id)
	p.srv.Router.Route(iq.SetAttr("from", p.srv.names.JID(account).String()).SetAttr("to", to.String()).Append(payload))
}

// presence looks whether a contact's presence names a picture that is not known yet.
func (p *profiles) presence(ctx context.Context, account, who core.Address, st *element.Element) {
	hash := strings.ToLower(st.Child(nsPhoto, "x").ChildText("", "photo"))
	if follows, err := p.follows(ctx, account, who); err != nil || !follows {
		return
	}
	if has, err := p.has(ctx, who, hash); err != nil || has || !p.news(who, hash) {
		return
	}
	p.ask(account, who, hash, element.New(nsVCard, "vCard"))
}

// follows says whether an account sees somebody, who is then one whose profile concerns it.
func (p *profiles) follows(ctx context.Context, account, who core.Address) (seen bool, err error) {
	err = p.srv.Hub.Read(ctx, func(v hub.View) error {
		c, err := v.Contact(account, who)
		seen = err == nil && c.Seen
		if errors.Is(err, hub.ErrNone) {
			err = nil
		}
		return err
	})
	return seen, err
}

// has says whether a contact is known to appear with a name and that picture.
func (p *profiles) has(ctx context.Context, who core.Address, hash string) (has bool, err error) {
	err = p.srv.Hub.Read(ctx, func(v hub.View) error {
		profile, err := v.Profile(who)
		if err != nil || profile.Name == "" && profile.Avatar == nil {
			return err
		}
		id := ""
		if profile.Avatar != nil {
			id, _, err = p.srv.avatarID(ctx, v, profile.Avatar)
		}
		has = id == hash
		return err
	})
	return has, err
}

// published looks whether a notification from a contact's server is about how the contact appears.
//
// spec: XEP-0172 §4.3
func (p *profiles) published(ctx context.Context, st *element.Element) {
	items := st.Child(nsPubSubEv, "event").Child("", "items")
	from, err1 := translate.ParseJID(st.Attr("from"))
	to, err2 := translate.ParseJID(st.Attr("to"))
	payload := items.Child("", "item").First()
	if items == nil || payload == nil || err1 != nil || err2 != nil || from.Resource != "" || p.srv.Router == nil {
		return
	}
	who, err1 := p.srv.names.Address(from)
	account, err2 := p.srv.names.Address(to.Bare())
	if err1 != nil || err2 != nil {
		return
	}
	if follows, err := p.follows(ctx, account, who); err != nil || !follows {
		return
	}
	switch {
	case payload.Is(nodeNick, "nick"):
		p.learn(ctx, who, func(pr *core.Profile) { pr.Name = nameIn(pr.Name, payload.Text()) })
	case payload.Is(nodeAvatar, "metadata"):
		info := payload.Child("", "info")
		if info == nil {
			p.learn(ctx, who, func(pr *core.Profile) { pr.Avatar = nil })
			return
		}
		hash := strings.ToLower(info.Attr("id"))
		if has, err := p.has(ctx, who, hash); err != nil || has || !p.news(who, hash) {
			return
		}
		ask := element.New(nsPubSub, "pubsub")
		ask.Add("", "items").SetAttr("node", nodePicture).Add("", "item").SetAttr("id", info.Attr("id"))
		p.ask(account, who, hash, ask)
	}
}

// answered takes the answer to a question; false if it is to none of ours.
func (p *profiles) answered(ctx context.Context, st *element.Element) bool {
	p.mu.Lock()
	a, ok := p.asked[st.Attr("id")]
	if ok = ok && st.Attr("from") == a.from.String(); ok {
		delete(p.asked, st.Attr("id"))
	}
	p.mu.Unlock()
	if !ok || st.Attr("type") != "result" {
		return ok
	}
	if data := st.Child(nsPubSub, "pubsub").Child("", "items").Child("", "item").Child(nodePicture, "data"); data != nil {
		p.picture(ctx, a, data.Text(), nil)
		return true
	}
	card := st.Child(nsVCard, "vCard")
	if card == nil {
		return true
	}
	name := func(pr *core.Profile) {
		pr.Name = nameIn(pr.Name, card.ChildText("", "NICKNAME"), card.ChildText("", "FN"))
		if a.hash == "" {
			pr.Avatar = nil
		}
	}
	if a.hash == "" || card.Child("", "PHOTO") == nil {
		p.learn(ctx, a.who, name)
		return true
	}
	p.picture(ctx, a, card.Child("", "PHOTO").ChildText("", "BINVAL"), name)
	return true
}

// picture keeps a contact's picture, if it is the one that was asked for.
func (p *profiles) picture(ctx context.Context, a profileAsked, data string, also func(*core.Profile)) {
	picture, err := decodeBase64(data)
	sum := sha1.Sum(picture) //nolint:gosec // see the import
	typ := http.DetectContentType(picture)
	var f *core.File
	if err == nil && len(picture) > 0 && len(picture) <= maxAvatar && strings.HasPrefix(typ, "image/") &&
		hex.EncodeToString(sum[:]) == a.hash && p.srv.Files != nil {
		if f, err = p.srv.keepAvatar(ctx, a.who, picture, typ); err != nil {
			p.srv.Log.Error("keeping a contact's picture", "err", err)
		}
	}
	p.learn(ctx, a.who, func(pr *core.Profile) {
		if also != nil {
			also(pr)
		}
		if f != nil && err == nil {
			pr.Avatar = f
		}
	})
}

// learn changes a contact's profile, also where it stands in the directs with accounts here.
func (p *profiles) learn(ctx context.Context, who core.Address, change func(*core.Profile)) {
	err := p.learned(ctx, who, change)
	if err != nil && ctx.Err() == nil {
		p.srv.Log.Error("learning a contact's profile", "err", err)
	}
}

func (p *profiles) learned(ctx context.Context, who core.Address, change func(*core.Profile)) error {
	profile, err := p.srv.Hub.Profile(ctx, who)
	if err != nil {
		return err
	}
	was := profile
	if change(&profile); sameProfile(profile, was) {
		return nil
	}
	if err := p.srv.Hub.LearnProfile(ctx, who, profile); err != nil {
		return err
	}
	var places []hub.Place
	if err := p.srv.Hub.Read(ctx, func(v hub.View) (err error) {
		places, err = v.Places(who)
		return err
	}); err != nil {
		return err
	}
	for _, place := range places {
		if place.Standing != core.Joined || place.Peer.IsZero() {
			continue
		}
		_, err := p.srv.Hub.Submit(ctx, hub.Draft{Conv: place.Conv, Sender: who, Content: core.Membership{
			Target: who, Standing: core.Joined, Name: profile.Name, Avatar: profile.Avatar, Nick: place.Nick,
		}})
		if err != nil && hub.CodeOf(err) == "" {
			return err
		}
	}
	return nil
}

// ownChanged tells contacts on other servers how an account appears now, from whatever network's client that was set.
func (p *profiles) ownChanged(ctx context.Context, who core.Address) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, node := range []string{nodeNick, nodeAvatar} {
		var ev *pepEvent
		var foreign []core.Address
		err := p.srv.Hub.Read(ctx, func(v hub.View) error {
			c, err := pep.Node(v, who, node)
			if isStanzaError(err) {
				c, err = defaultConfig(node), nil
			}
			if err != nil {
				return err
			}
			if ev, err = p.srv.lastEvent(ctx, v, who, node, c); err != nil || ev == nil {
				return err
			}
			contacts, _, err := pep.Audience(v, p.srv.names, who, node, c)
			for _, a := range contacts {
				if !a.IsLocal() && a.Network == core.XMPP {
					foreign = append(foreign, a)
				}
			}
			return err
		})
		if err != nil {
			p.srv.Log.Error("telling other servers of a profile", "err", err)
			return
		}
		if ev != nil {
			p.srv.announceForeign(ctx, ev, foreign, nil)
		}
	}
}

// watch has contacts on other servers told of changes until ctx ends.
func (p *profiles) watch(ctx context.Context) (cancel func()) {
	if p.srv.Router == nil {
		return func() {}
	}
	return p.srv.Hub.Listen(func(b hub.Bulletin) {
		if n, ok := b.News.(hub.ProfileNews); ok && n.Who.IsLocal() && p.srv.Hub.Hosts(n.Who.Domain) {
			go p.ownChanged(ctx, n.Who)
		}
	})
}

// freshPhoto sends the client's presence once more when the picture that it names has changed.
//
// spec: XEP-0398 §4
func (s *Session) freshPhoto(ctx context.Context) error {
	if s.presence == nil {
		return nil
	}
	st := s.presence.Copy()
	if err := s.addPhoto(ctx, st); err != nil || element.Equal(st, s.presence) {
		return err
	}
	s.presence = st
	return s.srv.Hub.SetPresence(ctx, s.account, translate.ReadPresence(st, s.jid))
}
