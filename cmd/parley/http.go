package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Times and sizes of HTTP that hold for every path.
const (
	headerTimeout  = 15 * time.Second
	httpIdle       = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// A body must come at this rate at least, after a start.
	bodyGrace   = 30 * time.Second
	bodyPerByte = time.Second / 4096
)

// newHTTPServer makes a server that no slow client can hold up.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           steadyBody(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       httpIdle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// httpService is a [service] of an HTTP server; conf is nil for plain HTTP.
func httpService(name string, srv *http.Server, conf *tls.Config) service {
	return service{
		name: name,
		serve: func(ln net.Listener) error {
			if conf != nil {
				ln = tls.NewListener(ln, conf)
			}
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
		stop: func(ctx context.Context) error {
			if err := srv.Shutdown(ctx); err != nil {
				return errors.Join(err, srv.Close())
			}
			return nil
		},
	}
}

// steadyBody lets a request's body come as slowly as [bodyPerByte], on
// average, and no slower; a whole-request timeout would cut off large uploads.
func steadyBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			b := &steadyReader{ReadCloser: r.Body, deadline: time.Now().Add(bodyGrace), ctl: http.NewResponseController(w)}
			r.Body = b
			defer b.rest()
		}
		next.ServeHTTP(w, r)
	})
}

type steadyReader struct {
	io.ReadCloser
	deadline time.Time
	ended    bool
	ctl      *http.ResponseController
}

func (b *steadyReader) Read(p []byte) (int, error) {
	if err := b.ctl.SetReadDeadline(b.deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	b.deadline = b.deadline.Add(time.Duration(n) * bodyPerByte)
	if errors.Is(err, io.EOF) {
		// What the server does next with the connection has no deadline.
		b.ended = true
		_ = b.ctl.SetReadDeadline(time.Time{})
	}
	return n, err
}

// rest holds to the deadline what the handler left unread, which the server
// reads and discards so that it can keep the connection.
func (b *steadyReader) rest() {
	if !b.ended {
		_ = b.ctl.SetReadDeadline(b.deadline)
	}
}
