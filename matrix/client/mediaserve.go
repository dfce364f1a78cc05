package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
	"parley/media"
)

// cacheMedia is how long a client may keep a file.
const cacheMedia = 30 * 24 * time.Hour

// arrived is the file of the path, of this server or another, waited for if it
// is still to come, and fetched if it is elsewhere.
func (a *API) arrived(r *Request) (hub.Media, media.Hash, error) {
	if server := r.Var("serverName"); !a.hub.Hosts(server) {
		f, err := a.File(wire.MXC(server, r.Var("mediaId")))
		if err != nil {
			return hub.Media{}, media.Hash{}, errNoMedia()
		}
		m, err := a.config.Remote.Find(r.Context(), f)
		if err != nil {
			return m, media.Hash{}, err
		}
		return a.here(r, m)
	}
	ms, err := r.QueryInt("timeout_ms", int(waitDefault.Milliseconds()), 0, int(waitLongest.Milliseconds()))
	if err != nil {
		return hub.Media{}, media.Hash{}, err
	}
	m, err := a.promised(r.Context(), core.MediaID(r.Var("mediaId")), time.Duration(ms)*time.Millisecond)
	if err != nil {
		return m, media.Hash{}, err
	}
	return a.here(r, m)
}

// here is a file with its bytes, for a client.
func (a *API) here(r *Request, m hub.Media) (hub.Media, media.Hash, error) {
	if isElsewhere(m) {
		if err := r.Take(Writes); err != nil { // it makes others work, too
			return m, media.Hash{}, err
		}
	}
	return a.stored(r.Context(), m)
}

// stored is a file whose bytes are brought here if they are elsewhere.
func (a *API) stored(ctx context.Context, m hub.Media) (_ hub.Media, _ media.Hash, err error) {
	if isElsewhere(m) {
		if m, err = a.bring(ctx, m.File); err != nil {
			return m, media.Hash{}, err
		}
	}
	if !m.Stored {
		return m, media.Hash{}, errNoMedia()
	}
	h, err := media.ParseHash(m.File.SHA256)
	return m, h, err
}

// promised is a file of this server, waited for if it is still to come.
func (a *API) promised(ctx context.Context, id core.MediaID, wait time.Duration) (hub.Media, error) {
	m, err := a.hub.MediaByID(ctx, id)
	if err == nil && !m.Stored && m.File.URL == "" && now().Before(m.Created.Add(uploadWithin)) {
		m, err = a.await(ctx, m, wait)
	}
	return m, err
}

// Arrived is a file of this server for another one: waited for, at most so
// long, if it is still to come, and fetched if it is on the web. Files of other
// Matrix servers are theirs to give.
//
// spec: MX 1.19 SS §25
func (a *API) Arrived(ctx context.Context, id core.MediaID, wait time.Duration) (hub.Media, media.Hash, error) {
	m, err := a.promised(ctx, id, min(max(wait, 0), waitLongest))
	if err != nil {
		return m, media.Hash{}, err
	}
	if uri, _ := a.URI(m.File); m.File.URL != "" && uri == m.File.URL {
		return m, media.Hash{}, errNoMedia()
	}
	return a.stored(ctx, m)
}

// await waits until the file is here, or the time has passed.
func (a *API) await(ctx context.Context, m hub.Media, wait time.Duration) (hub.Media, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-a.pending.wait(m.ID):
	case <-timer.C:
	case <-ctx.Done():
		return m, ctx.Err()
	}
	m, err := a.hub.MediaByID(ctx, m.ID)
	if err == nil && !m.Stored {
		err = Errorf(http.StatusGatewayTimeout, NotYetUploaded, "The file is not here yet.")
	}
	return m, err
}

// Served is a file as an answer. Close it, or have it written.
type Served struct {
	io.ReadSeekCloser
	Tag media.Hash
	As  media.Presentation
}

// WriteReply implements [Reply], with ranges.
func (c Served) WriteReply(w http.ResponseWriter, r *http.Request) {
	defer c.Close()
	media.Serve(w, r, c.Tag, c, c.As)
}

// OpenFile is a stored file as it is served.
func (a *API) OpenFile(m hub.Media, h media.Hash, as media.Presentation) (Served, error) {
	f, err := a.files.Get(h)
	if errors.Is(err, media.ErrNotFound) {
		a.log.Error("a file has a row and no bytes", "media", m.ID)
		return Served{}, errNoMedia()
	}
	if err != nil {
		return Served{}, err
	}
	as.Type = m.File.Type
	if as.Name == "" {
		as.Name = m.File.Name
	}
	return Served{f, h, as}, nil
}

// download serves a file to one who has logged in.
//
// spec: MX 1.19 CS §10.9
func (a *API) download(r *Request) (any, error) {
	m, h, err := a.arrived(r)
	if err != nil {
		return nil, err
	}
	return a.OpenFile(m, h, media.Presentation{Name: r.Var("fileName"), MaxAge: cacheMedia})
}

// Size is a wish for a thumbnail.
type Size struct {
	Width, Height int
	Method        media.Method
}

// ReadSize reads the wish in a query.
//
// spec: MX 1.19 CS §10.9.2.1
func ReadSize(q url.Values) (Size, error) {
	const largest = 10_000
	s := Size{Method: media.Method(q.Get("method"))}
	for name, side := range map[string]*int{"width": &s.Width, "height": &s.Height} {
		n, err := strconv.Atoi(q.Get(name))
		if err != nil || n <= 0 {
			return s, errSize()
		}
		*side = min(n, largest)
	}
	switch s.Method {
	case "":
		s.Method = media.Scale
	case media.Scale, media.Crop:
	default:
		return s, errSize()
	}
	return s, nil
}

func errSize() error {
	return Errorf(http.StatusBadRequest, InvalidParam, "A thumbnail has a width, a height, and the method scale or crop.")
}

// thumbnail serves a small image of a file.
func (a *API) thumbnail(r *Request) (any, error) {
	size, err := ReadSize(r.query)
	if err != nil {
		return nil, err
	}
	m, h, err := a.arrived(r)
	if err != nil {
		return nil, err
	}
	return a.Thumbnail(r.Context(), m, h, size)
}

// Thumbnail is a small image of a stored file.
//
// spec: MX 1.19 CS §10.9.2.1
func (a *API) Thumbnail(ctx context.Context, m hub.Media, h media.Hash, size Size) (Served, error) {
	t, err := a.files.Thumbnail(ctx, h, size.Width, size.Height, size.Method)
	switch {
	case errors.Is(err, media.ErrNoThumbnail):
		return Served{}, Errorf(http.StatusBadRequest, Unknown, "This file has no thumbnail.")
	case errors.Is(err, media.ErrTooLarge):
		return Served{}, Errorf(http.StatusRequestEntityTooLarge, TooLarge, "This image has too many pixels to make a thumbnail of.")
	case errors.Is(err, media.ErrNotFound):
		return Served{}, errNoMedia()
	case err != nil:
		return Served{}, err
	}
	tag := h
	if !t.Original {
		tag = sha256.Sum256(fmt.Appendf(nil, "%s %dx%d %s", h, size.Width, size.Height, size.Method))
	}
	return Served{t.File, tag, media.Presentation{Type: t.Type, Name: m.File.Name, MaxAge: cacheMedia}}, nil
}

// frozen answers for the endpoints that served files to everybody.
//
// spec: MX 1.19 CS §10.9
func frozen(*Request) (any, error) {
	return nil, Errorf(http.StatusNotFound, NotFound, "Files are for those who have logged in, at /_matrix/client/v1/media.")
}

// publicMedia serves a file to one who has its unguessable link: those who
// cannot log in here.
func (a *API) publicMedia(r *Request) (any, error) {
	m, err := a.hub.MediaBySecret(r.Context(), r.Var("secret"))
	if err != nil {
		return nil, err
	}
	m, h, err := a.here(r, m)
	if err != nil {
		return nil, err
	}
	// The link ends with the message, so nobody may keep it for long.
	return a.OpenFile(m, h, media.Presentation{Name: m.File.Name})
}
