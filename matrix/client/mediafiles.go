package client

import (
	"errors"
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

// mediaOf finds the file of this server in the path.
func (a *API) mediaOf(r *Request) (hub.Media, error) {
	if !a.hub.Hosts(r.Var("serverName")) {
		return hub.Media{}, errNoMedia()
	}
	return a.hub.MediaByID(r.Context(), core.MediaID(r.Var("mediaId")))
}
