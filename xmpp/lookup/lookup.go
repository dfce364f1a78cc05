// Package lookup reads from the hub what translation needs to know: which messages, files and reactions a stanza or an event names.
// It stands between the pure functions of package translate and a [hub.View], and is shared by the sessions of local clients, the
// rooms and the carrier between servers.
package lookup

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// MediaPath begins the path of every link to a file that is stored here.
const MediaPath = "/_parley/media/"

// Place is where something is said: in a room, or to one person.
type Place struct {
	Conv core.ConvID  // of the room
	Peer core.Address // of private talk; zero in a room
}

// Link is the address of a stored file for those who cannot log in. base is "https://" and the host.
func Link(base, secret, name string) string {
	if name == "" {
		name = "file"
	}
	return base + MediaPath + secret + "/" + url.PathEscape(name)
}

// secretOf reads the secret out of a link of ours.
func secretOf(base, link string) (string, bool) {
	rest, ok := strings.CutPrefix(link, base+MediaPath)
	if !ok {
		return "", false
	}
	secret, _, _ := strings.Cut(rest, "/")
	return secret, secret != ""
}

// Reading fills in what translate.In must know of a stanza that r.Sender says at a place. r brings Sender, Names and Now.
func Reading(v hub.View, m *element.Element, at Place, base string, r translate.Reading) (translate.Reading, error) {
	r.Group = at.Peer.IsZero()
	r.Scope = translate.Scope(r.Sender, at.Conv, at.Peer)
	r.Messages, r.Files = map[string]core.EventID{}, map[string]core.File{}
	refs := translate.References(m)
	for _, ref := range refs.Messages {
		id, err := Find(v, r.Sender, at, ref)
		if err != nil {
			return r, err
		}
		if id != "" {
			r.Messages[ref.ID] = id
		}
	}
	for _, link := range refs.URLs {
		secret, ours := secretOf(base, link)
		if !ours {
			continue
		}
		f, err := v.MediaBySecret(secret)
		if errors.Is(err, hub.ErrNone) {
			continue
		} else if err != nil {
			return r, err
		}
		f.File.Media = f.ID
		r.Files[link] = f.File
	}
	return r, nil
}

// Find looks a reference up: by what its author called the message, and as an EventID, which is our own name for it. It finds nothing
// outside of the place.
func Find(v hub.View, sender core.Address, at Place, ref translate.Ref) (core.EventID, error) {
	scopes := []string{translate.Scope(sender, at.Conv, at.Peer)}
	if !at.Peer.IsZero() && ref.Author == translate.AnyMessage {
		scopes = append(scopes, translate.Scope(at.Peer, "", sender))
	}
	if !at.Peer.IsZero() || ref.Stanza {
		for _, scope := range scopes {
			for _, kind := range []string{translate.AliasOrigin, translate.AliasID} {
				id, _, err := v.EventBy(core.Alias{Network: core.XMPP, Kind: kind, Scope: scope, Key: ref.ID})
				if err == nil {
					return id, nil
				} else if !errors.Is(err, hub.ErrNone) {
					return "", err
				}
			}
		}
	}
	e, err := v.Event(core.EventID(ref.ID))
	if errors.Is(err, hub.ErrNone) {
		return named(v, at, ref.ID)
	} else if err != nil {
		return "", err
	}
	if at.Peer.IsZero() {
		if e.Conv == at.Conv {
			return e.ID, nil
		}
		return "", nil
	}
	directs, err := v.Directs(sender, at.Peer)
	if err == nil && slices.Contains(directs, e.Conv) {
		return e.ID, nil
	}
	return "", err
}

// named finds what a room elsewhere calls so.
func named(v hub.View, at Place, id string) (core.EventID, error) {
	if at.Conv == "" {
		return "", nil
	}
	a := core.Alias{Network: core.XMPP, Kind: translate.AliasStanza, Scope: translate.RoomScope(at.Conv), Key: id}
	e, _, err := v.EventBy(a)
	if errors.Is(err, hub.ErrNone) {
		err = nil
	}
	return e, err
}

// Writing fills in what translate.Out must know of an event.
func Writing(v hub.View, e *core.Event, base string, w *translate.Writing) error {
	w.Messages = map[core.EventID]core.Event{}
	add := func(id core.EventID) (core.Event, bool, error) {
		t, err := v.Event(id)
		if errors.Is(err, hub.ErrNone) {
			return t, false, nil
		}
		if err == nil {
			w.Messages[id] = t
		}
		return t, err == nil, err
	}
	if e.Retracted != "" {
		_, _, err := add(e.Retracted)
		return err
	}
	for _, id := range translate.Targets(e) {
		t, known, err := add(id)
		if err != nil {
			return err
		}
		if !known {
			continue
		}
		if r, ok := t.Content.(core.Reaction); ok { // e takes it off
			w.ReactedTo = r.Target
		}
	}
	if r, ok := e.Content.(core.Reaction); ok {
		w.ReactedTo = r.Target
	}
	if w.ReactedTo != "" {
		if _, _, err := add(w.ReactedTo); err != nil {
			return err
		}
		related, err := v.Related(w.ReactedTo, core.KindReaction)
		if err != nil {
			return err
		}
		w.Reacted = translate.ReactionsOf(e.Sender, related)
	}
	return links(v, e, base, w)
}

func links(v hub.View, e *core.Event, base string, w *translate.Writing) error {
	b, ok := core.BodyOf(e.Content)
	if !ok {
		return nil
	}
	files := b.Files()
	if !slices.ContainsFunc(files, func(f core.File) bool { return f.Media != "" }) {
		return nil
	}
	all, err := v.Links(e.ID)
	if err != nil {
		return err
	}
	w.Links = map[core.MediaID]string{}
	for _, f := range files {
		for _, l := range all {
			if l.Media == f.Media && f.Media != "" {
				w.Links[f.Media] = Link(base, l.Secret, f.Name)
			}
		}
	}
	return nil
}
