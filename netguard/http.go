package netguard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxRedirects is how many redirects a client follows.
const maxRedirects = 5

// ErrTooLarge is returned when an answer is longer than was allowed.
var ErrTooLarge = errors.New("the answer is too large")

// ClientOptions bound what an HTTP client does.
type ClientOptions struct {
	// Timeout is for a request as a whole, the body included; must be set.
	Timeout time.Duration
	// MaxBytes bounds each body; must be set. Reading past it fails with
	// [ErrTooLarge].
	MaxBytes int64
	// TLS is for outgoing connections; nil: the system's defaults.
	TLS *tls.Config
}

// Client makes an HTTP client whose connections all pass the guard. It uses no
// proxy, keeps no cookies, follows a few redirects, never from https to http,
// and bounds times and sizes.
func (g *Guard) Client(o ClientOptions) *http.Client {
	return &http.Client{
		Timeout: o.Timeout,
		Transport: &limitTransport{
			max: o.MaxBytes,
			base: &http.Transport{
				DialContext:            g.DialContext,
				TLSClientConfig:        o.TLS,
				ForceAttemptHTTP2:      true,
				TLSHandshakeTimeout:    dialTimeout,
				ResponseHeaderTimeout:  o.Timeout,
				MaxResponseHeaderBytes: 64 << 10,
				MaxIdleConnsPerHost:    2,
				MaxIdleConns:           100,
				IdleConnTimeout:        time.Minute,
			},
		},
		CheckRedirect: checkRedirect,
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect from https to %s", req.URL.Scheme)
	}
	return nil
}

// limitTransport lets no answer be longer than max bytes. The limit is on
// what is read after decompression.
type limitTransport struct {
	base http.RoundTripper
	max  int64
}

func (t *limitTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return nil, fmt.Errorf("scheme %q is not fetched", s)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > t.max {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: %d bytes, allowed are %d", ErrTooLarge, resp.ContentLength, t.max)
	}
	resp.Body = LimitBody(resp.Body, t.max)
	return resp, nil
}

// LimitBody returns a body that fails with [ErrTooLarge] once more than limit
// bytes were read, where [io.LimitReader] would pretend that it ended.
func LimitBody(rc io.ReadCloser, limit int64) io.ReadCloser {
	return &limitedBody{rc: rc, left: limit}
}

type limitedBody struct {
	rc   io.ReadCloser
	left int64 // bytes that may still be read; -1 once over
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrTooLarge
	}
	// Reading one byte more than is left tells an end from an excess.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.rc.Read(p)
	if int64(n) > b.left {
		n, b.left = int(b.left), -1
		return n, ErrTooLarge
	}
	b.left -= int64(n)
	return n, err
}

func (b *limitedBody) Close() error { return b.rc.Close() }

// ReadAll reads a reader to its end, or fails with [ErrTooLarge].
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	return io.ReadAll(LimitBody(io.NopCloser(r), limit))
}

// Get fetches a URL whole, with a client from [Guard.Client]. An answer other
// than 200 is an error.
func Get(ctx context.Context, c *http.Client, url string) (body []byte, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching %s: %w", url, err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("fetching: %w", err) // has the URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("fetching %s: the server answered %s", url, resp.Status)
	}
	if body, err = io.ReadAll(resp.Body); err != nil {
		return nil, nil, fmt.Errorf("fetching %s: %w", url, err)
	}
	return body, resp.Header, nil
}
