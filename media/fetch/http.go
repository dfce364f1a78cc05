package fetch

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"

	"parley/netguard"
)

// Web is the [Source] of what is on the web.
type Web struct {
	// Client refuses what must not be reached, and bounds time and size.
	Client *http.Client
}

// Open implements [Source].
func (w Web) Open(ctx context.Context, url string) (*File, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching: %w", err)
	}
	resp, err := w.Client.Do(req)
	if errors.Is(err, netguard.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fetching: %w", err) // has the URL
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return &File{Body: resp.Body, Type: resp.Header.Get("Content-Type"), Name: FileName(resp.Header.Get("Content-Disposition"))}, nil
	case http.StatusNotFound, http.StatusGone:
		err = ErrNotFound
	default:
		err = errors.New("it was not given")
	}
	resp.Body.Close()
	return nil, fmt.Errorf("fetching %s: %w: %s", req.URL.Host, err, resp.Status)
}

// FileName is the name in a Content-Disposition header, "" where there is none.
//
// spec: RFC 6266 §4.3
func FileName(disposition string) string {
	if len(disposition) > 4*maxName {
		return ""
	}
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		return ""
	}
	return params["filename"]
}
