package client

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/media"
)

// How long a URI that was made before its file may stay without one, how many
// such an account may have, and how long a download waits for the file.
const (
	uploadWithin = 24 * time.Hour
	maxPending   = 100
	waitDefault  = 20 * time.Second
	waitLongest  = time.Minute
	cacheMedia   = 30 * 24 * time.Hour
)

// pendingUploads are the URIs whose files are still to come.
type pendingUploads struct {
	mu sync.Mutex
	m  map[core.MediaID]*pendingUpload
}

type pendingUpload struct {
	owner   core.Address
	expires time.Time
	busy    bool
	done    chan struct{} // closed when the file is here
}

func (p *pendingUploads) add(id core.MediaID, owner core.Address, expires time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for id, u := range p.m {
		if time.Now().After(u.expires) {
			delete(p.m, id)
		} else if u.owner == owner {
			n++
		}
	}
	if n >= maxPending {
		return limited(time.Minute)
	}
	if p.m == nil {
		p.m = map[core.MediaID]*pendingUpload{}
	}
	p.m[id] = &pendingUpload{owner: owner, expires: expires, done: make(chan struct{})}
	return nil
}

// begin reports whether nobody else is uploading to the URI.
func (p *pendingUploads) begin(id core.MediaID, owner core.Address, expires time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		p.m = map[core.MediaID]*pendingUpload{}
	}
	u := p.m[id]
	if u == nil { // made before a restart
		u = &pendingUpload{owner: owner, expires: expires, done: make(chan struct{})}
		p.m[id] = u
	}
	if u.busy {
		return false
	}
	u.busy = true
	return true
}

func (p *pendingUploads) end(id core.MediaID, stored bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.m[id]
	if u == nil {
		return
	}
	if u.busy = false; stored {
		close(u.done)
		delete(p.m, id)
	}
}

// wait is closed when the file is here; it is nil for one that nobody promised
// since the server started.
func (p *pendingUploads) wait(id core.MediaID) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u := p.m[id]; u != nil {
		return u.done
	}
	return nil
}

func (a *API) mediaConfig(*Request) (any, error) {
	return map[string]int64{"m.upload.size": a.config.UploadSize}, nil
}

// createMedia makes a URI for a file that is still to come.
//
// spec: MX 1.19 CS §10.9
func (a *API) createMedia(r *Request) (any, error) {
	m := hub.Media{ID: core.NewMediaID(), Owner: r.Account, Created: now()}
	expires := m.Created.Add(uploadWithin)
	if err := a.pending.add(m.ID, r.Account, expires); err != nil {
		return nil, err
	}
	if err := a.hub.AddMedia(r.Context(), m); err != nil {
		return nil, err
	}
	return map[string]any{"content_uri": a.MXC(m.ID), "unused_expires_at": expires.UnixMilli()}, nil
}

// upload takes a file.
//
// spec: MX 1.19 CS §10.9
func (a *API) upload(r *Request) (any, error) {
	m := hub.Media{ID: core.NewMediaID(), Owner: r.Account, Created: now()}
	if err := a.receive(r, m); err != nil {
		return nil, err
	}
	return map[string]string{"content_uri": a.MXC(m.ID)}, nil
}

// uploadTo takes the file for a URI that was made before.
func (a *API) uploadTo(r *Request) (any, error) {
	m, err := a.mediaOf(r)
	if err != nil {
		return nil, err
	}
	overwrite := Errorf(http.StatusConflict, CannotOverwrite, "There is a file under this URI.")
	switch {
	case m.Owner != r.Account:
		return nil, Errorf(http.StatusForbidden, Forbidden, "This URI is another's.")
	case m.Stored || m.File.URL != "":
		return nil, overwrite
	case now().After(m.Created.Add(uploadWithin)):
		return nil, Errorf(http.StatusNotFound, NotFound, "This URI has expired.")
	case !a.pending.begin(m.ID, m.Owner, m.Created.Add(uploadWithin)):
		return nil, overwrite
	}
	// It may have been filled since it was read above.
	if m, err = a.hub.MediaByID(r.Context(), m.ID); err == nil && m.Stored {
		err = overwrite
	}
	if err == nil {
		err = a.receive(r, m)
	}
	a.pending.end(m.ID, err == nil)
	return nil, err
}

// receive stores the request's body as the file of m; its row is written when
// the bytes are on disk.
func (a *API) receive(r *Request, m hub.Media) error {
	tooLarge := Errorf(http.StatusRequestEntityTooLarge, TooLarge, "A file has at most %d bytes.", a.config.UploadSize)
	if r.HTTP.ContentLength > a.config.UploadSize {
		return tooLarge
	}
	name := clean(r.Query("filename"))
	if len(name) > maxTextual {
		return Errorf(http.StatusBadRequest, InvalidParam, "A file's name has at most %d bytes.", maxTextual)
	}
	_, err := a.files.Put(r.Context(), media.Upload{
		Body: r.HTTP.Body, Declared: r.HTTP.Header.Get("Content-Type"), MaxSize: a.config.UploadSize,
		Keep: func(b media.Blob) error {
			m.Stored = true
			m.File = core.File{
				Media: m.ID, Type: b.Declared, Name: name, Size: b.Size, SHA256: b.Hash.String(), Width: b.Width, Height: b.Height,
			}
			if m.File.Type == "" {
				m.File.Type = b.Type
			}
			return a.hub.AddMedia(r.Context(), m)
		},
	})
	switch {
	case errors.Is(err, media.ErrTooLarge):
		return tooLarge
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Errorf(http.StatusBadRequest, Unknown, "The file did not arrive whole.")
	}
	return err
}

func errNoMedia() error {
	return Errorf(http.StatusNotFound, NotFound, "There is no such file.")
}

// mediaOf finds the file of the path.
func (a *API) mediaOf(r *Request) (hub.Media, error) {
	if !a.hub.Hosts(r.Var("serverName")) {
		return hub.Media{}, errNoMedia()
	}
	return a.hub.MediaByID(r.Context(), core.MediaID(r.Var("mediaId")))
}

// arrived is the file of the path, waited for if it is still to come.
func (a *API) arrived(r *Request) (hub.Media, media.Hash, error) {
	m, err := a.mediaOf(r)
	if err != nil {
		return m, media.Hash{}, err
	}
	if !m.Stored && m.File.URL == "" && now().Before(m.Created.Add(uploadWithin)) {
		if m, err = a.await(r, m); err != nil {
			return m, media.Hash{}, err
		}
	}
	if !m.Stored && m.File.URL != "" {
		if m, err = a.fetch(r.Context(), m); err != nil {
			return m, media.Hash{}, err
		}
	}
	if !m.Stored {
		return m, media.Hash{}, errNoMedia()
	}
	h, err := media.ParseHash(m.File.SHA256)
	return m, h, err
}

// await waits until the file is here, or the time that the client gives has
// passed.
func (a *API) await(r *Request, m hub.Media) (hub.Media, error) {
	ms, err := r.QueryInt("timeout_ms", int(waitDefault.Milliseconds()), 0, int(waitLongest.Milliseconds()))
	if err != nil {
		return m, err
	}
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-a.pending.wait(m.ID):
	case <-timer.C:
	case <-r.Context().Done():
		return m, r.Context().Err()
	}
	if m, err = a.hub.MediaByID(r.Context(), m.ID); err == nil && !m.Stored {
		err = Errorf(http.StatusGatewayTimeout, NotYetUploaded, "The file is not here yet.")
	}
	return m, err
}

// served is a file as an answer.
type served struct {
	file io.ReadSeekCloser
	tag  media.Hash
	as   media.Presentation
}

// WriteReply implements [Reply], with ranges.
func (s served) WriteReply(w http.ResponseWriter, r *http.Request) {
	defer s.file.Close()
	media.Serve(w, r, s.tag, s.file, s.as)
}

// open is a file as it is served.
func (a *API) open(m hub.Media, h media.Hash, as media.Presentation) (any, error) {
	f, err := a.files.Get(h)
	if errors.Is(err, media.ErrNotFound) {
		a.log.Error("a file has a row and no bytes", "media", m.ID)
		return nil, errNoMedia()
	}
	if err != nil {
		return nil, err
	}
	as.Type = m.File.Type
	if as.Name == "" {
		as.Name = m.File.Name
	}
	return served{f, h, as}, nil
}

// download serves a file to one who has logged in.
//
// spec: MX 1.19 CS §10.9
func (a *API) download(r *Request) (any, error) {
	m, h, err := a.arrived(r)
	if err != nil {
		return nil, err
	}
	return a.open(m, h, media.Presentation{Name: r.Var("fileName"), MaxAge: cacheMedia})
}

// thumbnail serves a small image of a file.
//
// spec: MX 1.19 CS §10.9.2.1
func (a *API) thumbnail(r *Request) (any, error) {
	const largest = 10_000
	width, err := r.QueryInt("width", 0, 0, largest)
	if err != nil {
		return nil, err
	}
	height, err := r.QueryInt("height", 0, 0, largest)
	if err != nil {
		return nil, err
	}
	method := media.Method(r.Query("method"))
	if method == "" {
		method = media.Scale
	}
	if width <= 0 || height <= 0 || method != media.Scale && method != media.Crop {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "A thumbnail has a width, a height, and the method scale or crop.")
	}
	m, h, err := a.arrived(r)
	if err != nil {
		return nil, err
	}
	t, err := a.files.Thumbnail(r.Context(), h, width, height, method)
	switch {
	case errors.Is(err, media.ErrNoThumbnail):
		return nil, Errorf(http.StatusBadRequest, Unknown, "This file has no thumbnail.")
	case errors.Is(err, media.ErrTooLarge):
		return nil, Errorf(http.StatusRequestEntityTooLarge, TooLarge, "This image has too many pixels to make a thumbnail of.")
	case errors.Is(err, media.ErrNotFound):
		return nil, errNoMedia()
	case err != nil:
		return nil, err
	}
	tag := h
	if !t.Original {
		tag = sha256.Sum256(fmt.Appendf(nil, "%s %dx%d %s", h, width, height, method))
	}
	return served{t.File, tag, media.Presentation{Type: t.Type, Name: m.File.Name, MaxAge: cacheMedia}}, nil
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
	if !m.Stored {
		return nil, errNoMedia()
	}
	h, err := media.ParseHash(m.File.SHA256)
	if err != nil {
		return nil, err
	}
	// The link ends with the message, so nobody may keep it for long.
	return a.open(m, h, media.Presentation{Name: m.File.Name})
}
