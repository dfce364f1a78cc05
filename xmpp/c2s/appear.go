package c2s

import (
	"context"
	"io"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/media"
)

// How one on another network appears is for her server to say. A client that asks for her card waits for that; its session goes on.

// appearance is a profile with its picture, nil if there is none that fits in a stanza.
type appearance struct {
	core.Profile
	photo []byte
	typ   string
}

// look is how the account appears of which something is asked.
func (q *question) look() (appearance, error) {
	if q.seen != nil {
		return *q.seen, nil
	}
	p, err := q.srv.Hub.Profile(q.ctx, q.account)
	a := appearance{Profile: p}
	if photo, typ, ok := q.srv.picture(q.ctx, p); ok {
		a.photo, a.typ = photo, typ
	}
	return a, err
}

// abroad says whether the card of one on another network is asked for, in any of its forms, whose server is to be asked how she appears.
// That is done for accounts here and nobody else.
func (q *question) abroad() bool {
	if q.srv.Appear == nil || q.s == nil || !abroad(q.account) || q.iq.Attr("type") != "get" {
		return false
	}
	p := q.iq.First()
	return p.Is(nsVCard, "vCard") || p.Is(nsPubSub, "pubsub") && slices.Contains(personNodes, p.Child("", "items").Attr("node"))
}

// appear finds out how the account appears, and brings its picture here. Where that cannot be had, what is known has to do.
func (q *question) appear(ctx context.Context) error {
	p, err := q.srv.Appear(ctx, q.who, q.account)
	if err != nil {
		q.srv.Log.Debug("how one appears was not found out", "who", q.account, "err", err)
		if p, err = q.srv.Hub.Profile(ctx, q.account); err != nil {
			return err
		}
	}
	q.seen = &appearance{Profile: p}
	if p.Avatar == nil {
		return nil
	}
	m, err := q.srv.Remote.Bring(ctx, *p.Avatar)
	if err != nil {
		q.srv.Log.Debug("a picture was not brought here", "who", q.account, "err", err)
		return nil
	}
	q.seen.photo, q.seen.typ = q.srv.smallPicture(ctx, m)
	return nil
}

// smallSide is how large what is shown of a picture is that is too large for a stanza, in pixels.
const smallSide = 320

// smallPicture reads a picture, or a smaller one of it; nil where there is none that fits in a stanza.
func (srv *Server) smallPicture(ctx context.Context, m hub.Media) (picture []byte, typ string) {
	h, err := media.ParseHash(m.File.SHA256)
	if err != nil || srv.Files == nil {
		return nil, ""
	}
	side := smallSide
	if m.File.Size <= maxAvatar {
		side = max(m.File.Width, m.File.Height, 1) // the picture itself
	}
	t, err := srv.Files.Thumbnail(ctx, h, side, side, media.Scale)
	if err != nil {
		return nil, "" // it is no picture
	}
	defer t.Close()
	picture, err = io.ReadAll(io.LimitReader(t, maxAvatar+1))
	if err != nil || len(picture) > maxAvatar {
		return nil, ""
	}
	return picture, t.Type
}
