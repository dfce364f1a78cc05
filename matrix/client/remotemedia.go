package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"

	"parley/core"
	"parley/hub"
	"parley/media"
)

// fetch brings a file here that has so far only been named: a link that one of
// another network sent. The first who wants to see it waits; whoever asks
// meanwhile waits with her, and all others find it stored. The operator's
// client decides what may be reached, and bounds time and size.
func (a *API) fetch(ctx context.Context, m hub.Media) (hub.Media, error) {
	gate := &a.fetching[sha256.Sum256([]byte(m.ID))[0]%uint8(len(a.fetching))]
	gate.Lock()
	defer gate.Unlock()
	m, err := a.hub.MediaByID(ctx, m.ID)
	if err != nil || m.Stored {
		return m, err
	}
	gone := func(why string) error {
		return Errorf(http.StatusBadGateway, Unknown, "The file is on another server, which did not give it: %s.", why)
	}
	if a.config.Fetch == nil {
		return m, gone("this server fetches no files")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.File.URL, nil)
	if err != nil {
		return m, gone("its address is malformed")
	}
	res, err := a.config.Fetch.Do(req)
	if err != nil {
		a.log.Info("a file of another server was not fetched", "media", m.ID, "err", err)
		return m, gone("it cannot be reached")
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return m, gone("it answered " + res.Status)
	}
	declared := m.File.Type
	if declared == "" {
		declared = res.Header.Get("Content-Type")
	}
	_, err = a.files.Put(ctx, media.Upload{
		Body: res.Body, Declared: declared, MaxSize: a.config.UploadSize,
		Keep: func(b media.Blob) error {
			if m.File.SHA256 != "" && m.File.SHA256 != b.Hash.String() {
				return fmt.Errorf("%w: its hash is not the one that was announced", errForged)
			}
			m.Stored = true
			m.File = stored(m.File, b)
			return a.hub.AddMedia(ctx, m)
		},
	})
	if err != nil {
		m.Stored = false
		a.log.Info("a file of another server was not kept", "media", m.ID, "err", err)
		return m, gone("it is too large or not what was announced")
	}
	return m, nil
}

var errForged = fmt.Errorf("forged file")

// stored adds to what was said of a file what is known once it is here.
func stored(f core.File, b media.Blob) core.File {
	f.Size, f.SHA256 = b.Size, b.Hash.String()
	if f.Type == "" {
		f.Type = b.Type
	}
	if f.Width == 0 {
		f.Width, f.Height = b.Width, b.Height
	}
	return f
}
