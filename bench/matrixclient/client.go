// Package matrixclient is a Matrix client for measurements: it logs in, asks, and
// leaves the answers to whoever wants them.
package matrixclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"parley/interop/lab"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

// Server says where clients find a server of the lab.
type Server struct {
	Host   *lab.Host
	Domain string
	Port   uint16
	TLS    *tls.Config
	// Timeout is for one request, a /sync that waits too.
	Timeout time.Duration
}

// Client is one device of an account.
type Client struct {
	base, token string
	http        *http.Client
}

// StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Body   []byte
}

func (e *StatusError) Error() string { return fmt.Sprintf("HTTP %d: %.300s", e.Status, e.Body) }

// Login logs an account in by its password.
//
// spec: MX 1.19 CS §5.7
func (s Server) Login(ctx context.Context, local, password string) (*Client, error) {
	addr := net.JoinHostPort(s.Host.Addr4.String(), strconv.Itoa(int(s.Port)))
	c := &Client{base: "https://" + net.JoinHostPort(s.Domain, strconv.Itoa(int(s.Port))) + "/_matrix/client/v3", http: &http.Client{
		Timeout: s.Timeout,
		Transport: &http.Transport{TLSClientConfig: s.TLS, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.Host.Dial(ctx, network, addr)
		}},
	}}
	var got struct {
		Token string `json:"access_token"`
	}
	err := c.Do(ctx, http.MethodPost, "/login", map[string]any{
		"type": "m.login.password", "password": password, "identifier": map[string]any{"type": "m.id.user", "user": local},
	}, &got)
	c.token = got.Token
	return c, err
}

// Do sends a request and decodes the answer; anything but success is an error. The path
// is what follows "/_matrix/client/v3".
func (c *Client) Do(ctx context.Context, method, path string, body, into any) error {
	data, err := c.Raw(ctx, method, path, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("bench: %s: %w", path, err)
	}
	return nil
}

// Raw is Do without decoding.
func (c *Client) Raw(ctx context.Context, method, path string, body any) ([]byte, error) {
	var payload io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("bench: %s: %w", path, err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &StatusError{resp.StatusCode, data}
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", path, err)
	}
	return data, nil
}

// Close drops the connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }
