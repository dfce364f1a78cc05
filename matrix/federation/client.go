package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"parley/matrix/wire"
	"parley/netguard"
)

// ErrRefused is wrapped where the operator has nothing exchanged with a server.
var ErrRefused = errors.New("nothing is exchanged with this server")

// ClientConfig is what a [Client] stands on.
type ClientConfig struct {
	Transport http.RoundTripper
	// Keys are what our domains sign with.
	Keys map[string]*wire.SigningKey
	// Refuses says that nothing is exchanged with a server; nil refuses none.
	Refuses func(server string) bool
	Agent   string // for the User-Agent header
	Timeout time.Duration
	// MaxAnswer bounds an answer, in bytes, where a [Call] does not.
	MaxAnswer int64
	Log       *slog.Logger
	// Now is for tests; nil is time.Now.
	Now func() time.Time
}

// Client calls other servers. It is safe for concurrent use.
type Client struct {
	cfg     ClientConfig
	backoff backoff
}

// NewClient makes a client.
func NewClient(c ClientConfig) *Client {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Refuses == nil {
		c.Refuses = func(string) bool { return false }
	}
	return &Client{cfg: c, backoff: backoff{now: c.Now}}
}

// Call is one request.
type Call struct {
	// Origin is the domain of ours that asks; empty for a request that is not
	// signed. Destination is a server name.
	Origin, Destination string
	Method              string
	// URI is the escaped path, from "/_matrix/", and the query: see [URI].
	URI string
	// Body is JSON, or empty.
	Body []byte
	// MaxAnswer and Timeout are those of the configuration where they are zero.
	// The time is until the answer has been read.
	MaxAnswer int64
	Timeout   time.Duration
	// Insist makes the call also where the server could not be reached a short
	// while ago: for what somebody waits for.
	Insist bool
}

// URI escapes the segments of a path and adds a query.
func URI(query url.Values, segments ...string) string {
	var b bytes.Buffer
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	if len(query) > 0 {
		b.WriteByte('?')
		b.WriteString(query.Encode())
	}
	return b.String()
}

// Do makes a call and returns the JSON of a good answer. Other answers are an
// [*Error], a server that was to be let alone a [*BackoffError].
func (c *Client) Do(ctx context.Context, call Call) ([]byte, error) {
	body, err := c.Open(ctx, call)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	out, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("reading what %s answers: %w", call.Destination, err)
	}
	if !json.Valid(out) {
		return nil, fmt.Errorf("%s answers %s %s with something that is no JSON", call.Destination, call.Method, call.URI)
	}
	return out, nil
}

// Open is Do for answers that are read as they come, and need not be JSON.
func (c *Client) Open(ctx context.Context, call Call) (io.ReadCloser, error) {
	_, body, err := c.Stream(ctx, call)
	return body, err
}

// Stream is Open with the headers of the answer.
func (c *Client) Stream(ctx context.Context, call Call) (http.Header, io.ReadCloser, error) {
	if c.cfg.Refuses(call.Destination) {
		return nil, nil, fmt.Errorf("calling %s: %w", call.Destination, ErrRefused)
	}
	if _, ours := c.cfg.Keys[call.Destination]; ours {
		return nil, nil, fmt.Errorf("%s is at home here", call.Destination)
	}
	if err := c.backoff.check(call.Destination); err != nil && !call.Insist {
		return nil, nil, err
	}
	timeout := call.Timeout
	if timeout == 0 {
		timeout = c.cfg.Timeout
	}
	timed, cancel := context.WithTimeout(ctx, timeout)
	req, err := c.request(timed, call)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	resp, err := c.cfg.Transport.RoundTrip(req)
	if err != nil {
		cancel()
		if ctx.Err() == nil { // else it is not the server's fault
			c.backoff.failed(call.Destination, 0)
		}
		return nil, nil, fmt.Errorf("calling %s: %w", call.Destination, err)
	}
	limit := call.MaxAnswer
	if limit == 0 {
		limit = c.cfg.MaxAnswer
	}
	body := &answerBody{netguard.LimitBody(resp.Body, limit), cancel}
	if resp.StatusCode == http.StatusOK {
		c.backoff.forgive(call.Destination)
		return resp.Header, body, nil
	}
	defer body.Close()
	return nil, nil, c.refusal(call, resp, body)
}

// answerBody ends the time limit with the body.
type answerBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *answerBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	if err := wire.ParseServerName(call.Destination); err != nil {
		return nil, err
	}
	u, err := url.ParseRequestURI(call.URI)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", call.Destination, err)
	}
	u.Scheme, u.Host = MatrixURL, call.Destination
	var body io.Reader
	if len(call.Body) > 0 {
		body = bytes.NewReader(call.Body)
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, "", body)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", call.Destination, err)
	}
	req.URL = u
	req.Header.Set("User-Agent", c.cfg.Agent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if call.Origin == "" {
		return req, nil
	}
	key := c.cfg.Keys[call.Origin]
	if key == nil {
		return nil, fmt.Errorf("calling %s: no key of %q", call.Destination, call.Origin)
	}
	// What is signed is what will be on the wire.
	auth, err := Sign(wire.Signer{Server: call.Origin, Key: key}, call.Destination, call.Method, u.RequestURI(), call.Body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", auth.String())
	return req, nil
}

// maxRefusal bounds what is read of an error, in bytes.
const maxRefusal = 64 << 10

// outOfOrder are the answers by which a server, or what stands before it, says
// that it cannot answer now.
var outOfOrder = map[int]bool{
	http.StatusTooManyRequests: true, http.StatusBadGateway: true, http.StatusServiceUnavailable: true, http.StatusGatewayTimeout: true,
}

// ofFiles are errors that come with such a status and say no more than that a
// file cannot be had.
//
// spec: MX 1.19 SS §25
var ofFiles = map[string]bool{"M_NOT_YET_UPLOADED": true, "M_TOO_LARGE": true}

// refusal reads an answer that is not 200. One that says that the server itself
// is out of order, or that it has had enough, counts as not reached.
func (c *Client) refusal(call Call, resp *http.Response, body io.ReadCloser) error {
	e := &Error{Status: resp.StatusCode, Server: call.Destination}
	var text struct {
		Errcode    string `json:"errcode"`
		Error      string `json:"error"`
		RetryAfter int64  `json:"retry_after_ms"`
	}
	raw, err := netguard.ReadAll(body, maxRefusal)
	if err == nil && json.Unmarshal(raw, &text) == nil {
		e.Errcode, e.Text, e.Body = text.Errcode, text.Error, raw
		e.RetryAfter = time.Duration(min(max(text.RetryAfter, 0), maxPause.Milliseconds())) * time.Millisecond
	}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	if outOfOrder[resp.StatusCode] && !ofFiles[e.Errcode] {
		c.backoff.failed(call.Destination, e.RetryAfter)
	} else {
		c.backoff.forgive(call.Destination)
	}
	return e
}

// Heard notes that a server has called us, so that it need not be let alone any
// longer.
func (c *Client) Heard(server string) { c.backoff.forgive(server) }

// Until says until when a server is let alone; zero if it is not.
func (c *Client) Until(server string) time.Time {
	if e, ok := errors.AsType[*BackoffError](c.backoff.check(server)); ok {
		return e.Until
	}
	return time.Time{}
}

const maxKeyAnswer = 1 << 20 // bytes

// ServerKeys implements [keyring.Fetcher].
//
// spec: MX 1.19 SS §2.3.1
func (c *Client) ServerKeys(ctx context.Context, server string) ([]byte, error) {
	return c.Do(ctx, Call{Destination: server, Method: http.MethodGet, URI: "/_matrix/key/v2/server", MaxAnswer: maxKeyAnswer, Insist: true})
}

// QueryKeys implements [keyring.Fetcher].
//
// spec: MX 1.19 SS §2.3.2
func (c *Client) QueryKeys(ctx context.Context, notary string, body []byte) ([]byte, error) {
	return c.Do(ctx, Call{Destination: notary, Method: http.MethodPost, URI: "/_matrix/key/v2/query", Body: body, MaxAnswer: maxKeyAnswer, Insist: true})
}
