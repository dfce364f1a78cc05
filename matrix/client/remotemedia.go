package client

import (
	"context"
	"errors"
	"net/http"

	"parley/core"
	"parley/hub"
	"parley/media/fetch"
)

// fetchErrors say to clients why a file of another server could not be had.
//
// spec: MX 1.19 CS §10.9
var fetchErrors = []struct {
	err    error
	status int
	code   Errcode
	text   string
}{
	{fetch.ErrNotFound, http.StatusNotFound, NotFound, "The file is on another server, which does not have it."},
	{fetch.ErrNotYet, http.StatusGatewayTimeout, NotYetUploaded, "The file is not here yet."},
	{fetch.ErrTooLarge, http.StatusBadGateway, TooLarge, "The file is on another server, and too large for this one."},
	{fetch.ErrForged, http.StatusBadGateway, Unknown, "The file is on another server, and not what was announced."},
	{fetch.ErrBusy, http.StatusServiceUnavailable, Unknown, "Too many files are fetched at the moment; try again."},
	{fetch.ErrNowhere, http.StatusNotFound, NotFound, "The file is nowhere that this server fetches from."},
}

// bring brings a file here that is on another server.
func (a *API) bring(ctx context.Context, f core.File) (hub.Media, error) {
	m, err := a.config.Remote.Bring(ctx, f)
	if err == nil || hub.CodeOf(err) != "" || ctx.Err() != nil {
		return m, err
	}
	for _, e := range fetchErrors {
		if errors.Is(err, e.err) {
			return m, Errorf(e.status, e.code, "%s", e.text)
		}
	}
	return m, Errorf(http.StatusBadGateway, Unknown, "The file is on another server, which did not give it.")
}

// isElsewhere reports whether a file's bytes are on another server.
func isElsewhere(m hub.Media) bool { return !m.Stored && m.File.URL != "" }
