package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"parley/config"
)

// The admin socket lets `parley account` work while the server, which holds
// the database for itself, runs. It is HTTP with JSON on a unix socket that
// only its owner can open; there is no other authentication.

// maxAdminBody bounds a request and an answer, in bytes.
const maxAdminBody = 16 << 20

// maxSocketPath is the longest path of a unix socket.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// adminRequest is the body of every request that has one.
type adminRequest struct {
	Address  string `json:"address,omitempty"`
	Password string `json:"password,omitempty"`
	Disabled bool   `json:"disabled,omitempty"`
	Policy   string `json:"policy,omitempty"`
}

// adminError is the body of every answer but the good ones.
type adminError struct {
	Error string `json:"error"`
}

// serverStatus is what GET /status answers.
type serverStatus struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
}

// adminHandler serves accounts to the other end of the socket.
func adminHandler(acc accounts, status serverStatus) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(context.Context, string, adminRequest) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var req adminRequest
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
			if err == nil && len(body) > 0 {
				err = json.Unmarshal(body, &req)
			}
			if err != nil {
				answer(w, http.StatusBadRequest, adminError{fmt.Sprintf("reading the request: %v", err)})
				return
			}
			result, err := f(r.Context(), r.PathValue("address"), req)
			if err != nil {
				answer(w, http.StatusUnprocessableEntity, adminError{err.Error()})
				return
			}
			answer(w, http.StatusOK, result)
		})
	}
	type none struct{}
	handle("GET /status", func(context.Context, string, adminRequest) (any, error) { return status, nil })
	handle("GET /accounts", func(ctx context.Context, _ string, _ adminRequest) (any, error) { return acc.List(ctx) })
	handle("POST /accounts", func(ctx context.Context, _ string, r adminRequest) (any, error) {
		return none{}, acc.Add(ctx, r.Address, r.Password)
	})
	handle("PUT /accounts/{address}/password", func(ctx context.Context, address string, r adminRequest) (any, error) {
		return none{}, acc.SetPassword(ctx, address, r.Password)
	})
	handle("PUT /accounts/{address}/disabled", func(ctx context.Context, address string, r adminRequest) (any, error) {
		return none{}, acc.SetDisabled(ctx, address, r.Disabled)
	})
	handle("PUT /accounts/{address}/strangers", func(ctx context.Context, address string, r adminRequest) (any, error) {
		return none{}, acc.SetStrangers(ctx, address, r.Policy)
	})
	handle("DELETE /accounts/{address}", func(ctx context.Context, address string, _ adminRequest) (any, error) {
		return none{}, acc.Delete(ctx, address)
	})
	return mux
}

func answer(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		code, data = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(data) // the other end may be gone
}

// listenAdmin opens the socket. A socket that a killed server left behind is
// replaced; one that somebody answers on is not.
func listenAdmin(ctx context.Context, d config.Dir) (net.Listener, error) {
	path := d.AdminSocket()
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path %s is too long for a socket (at most %d bytes): choose a shorter --dir", path, maxSocketPath)
	}
	if _, err := dialAdmin(ctx, d); err == nil {
		return nil, fmt.Errorf("a server is already running in %s", d)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an old admin socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	// DIR itself is closed to others, so that nobody is quicker than this.
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("closing the admin socket to others: %w", err)
	}
	return ln, nil
}

// adminClient is [accounts] at the other end of the socket.
type adminClient struct{ http *http.Client }

// errNoServer says that no server runs in the directory.
var errNoServer = errors.New("no server is running")

// dialAdmin connects to the running server; [errNoServer] if there is none.
func dialAdmin(ctx context.Context, d config.Dir) (*adminClient, error) {
	c := &adminClient{&http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", d.AdminSocket())
			},
		},
	}}
	_, err := c.Status(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNoServer
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// do sends a request, and reads the answer into out unless it is nil.
func (c *adminClient) do(ctx context.Context, method, path string, body *adminRequest, out any) error {
	var payload io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("writing the request: %w", err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://parley"+path, payload)
	if err != nil {
		return fmt.Errorf("asking the running server: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the running server: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminBody))
	if err != nil {
		return fmt.Errorf("reading the running server's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e adminError
		if json.Unmarshal(data, &e) != nil || e.Error == "" {
			e.Error = "the running server answered " + resp.Status
		}
		return errors.New(e.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("reading the running server's answer: %w", err)
	}
	return nil
}

// Status tells which server is running.
func (c *adminClient) Status(ctx context.Context) (s serverStatus, err error) {
	return s, c.do(ctx, http.MethodGet, "/status", nil, &s)
}

func (c *adminClient) Add(ctx context.Context, address, password string) error {
	return c.do(ctx, http.MethodPost, "/accounts", &adminRequest{Address: address, Password: password}, nil)
}

func (c *adminClient) List(ctx context.Context) (list []accountInfo, err error) {
	return list, c.do(ctx, http.MethodGet, "/accounts", nil, &list)
}

func (c *adminClient) SetPassword(ctx context.Context, address, password string) error {
	return c.do(ctx, http.MethodPut, accountPath(address)+"/password", &adminRequest{Password: password}, nil)
}

func (c *adminClient) SetStrangers(ctx context.Context, address, policy string) error {
	return c.do(ctx, http.MethodPut, accountPath(address)+"/strangers", &adminRequest{Policy: policy}, nil)
}

func (c *adminClient) SetDisabled(ctx context.Context, address string, disabled bool) error {
	return c.do(ctx, http.MethodPut, accountPath(address)+"/disabled", &adminRequest{Disabled: disabled}, nil)
}

func (c *adminClient) Delete(ctx context.Context, address string) error {
	return c.do(ctx, http.MethodDelete, accountPath(address), nil, nil)
}

func accountPath(address string) string { return "/accounts/" + url.PathEscape(address) }
