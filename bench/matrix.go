package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer bounds an answer of the Matrix API, in bytes.
const maxAnswer = 16 << 20

// matrixClient is a Matrix client that knows one room.
type matrixClient struct {
	base, token string
	since       string // where the next /sync goes on
	room        string // the room of the direct conversation, empty until it was seen
	http        *http.Client
}

// object is a JSON object.
type object = map[string]any

// matrixLogin logs an account in.
//
// spec: MX 1.19 CS §5.7
func (s *Site) matrixLogin(ctx context.Context, local string) (*matrixClient, error) {
	conf := s.tls.Clone()
	conf.NextProtos = nil
	addr := net.JoinHostPort(s.Host().Addr4.String(), "8448")
	m := &matrixClient{base: "https://" + s.Domain() + ":8448/_matrix/client/v3", http: &http.Client{
		Timeout: arrivalTimeout,
		Transport: &http.Transport{TLSClientConfig: conf, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.Host().Dial(ctx, network, addr)
		}},
	}}
	var got struct {
		Token string `json:"access_token"`
	}
	err := m.do(ctx, http.MethodPost, "/login", object{
		"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.user", "user": local},
	}, &got)
	m.token = got.Token
	return m, err
}

// do sends a request and decodes the answer; anything but success is an error.
func (m *matrixClient) do(ctx context.Context, method, path string, body, into any) error {
	data, err := m.raw(ctx, method, path, body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("bench: %s: %w", path, err)
	}
	return nil
}

func (m *matrixClient) raw(ctx context.Context, method, path string, body any) ([]byte, error) {
	var payload io.Reader = http.NoBody
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("bench: %s: %w", path, err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, payload)
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if m.token != "" {
		req.Header.Set("Authorization", "Bearer "+m.token)
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, data)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: %s: %w", path, err)
	}
	return data, nil
}

// syncUntil waits for an answer to /sync that has a text, and joins the room that it is
// invited to.
//
// spec: MX 1.19 CS §6.5
func (m *matrixClient) syncUntil(ctx context.Context, mark string) error {
	for limit := time.Now().Add(arrivalTimeout); time.Now().Before(limit); {
		q := url.Values{"timeout": {"10000"}}
		if m.since != "" {
			q.Set("since", m.since)
		}
		data, err := m.raw(ctx, http.MethodGet, "/sync?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		if err := m.note(ctx, data); err != nil {
			return err
		}
		if bytes.Contains(data, []byte(mark)) {
			return nil
		}
	}
	return errors.New("bench: a message did not arrive at /sync")
}

// note remembers where the next /sync goes on, and the room.
func (m *matrixClient) note(ctx context.Context, data []byte) error {
	var got struct {
		Next  string `json:"next_batch"`
		Rooms struct {
			Join   map[string]json.RawMessage `json:"join"`
			Invite map[string]json.RawMessage `json:"invite"`
		} `json:"rooms"`
	}
	if err := json.Unmarshal(data, &got); err != nil {
		return fmt.Errorf("bench: /sync: %w", err)
	}
	m.since = got.Next
	for room := range got.Rooms.Invite {
		if _, err := m.raw(ctx, http.MethodPost, "/join/"+url.PathEscape(room), object{}); err != nil {
			return err
		}
	}
	for room := range got.Rooms.Join {
		m.room = room
	}
	return nil
}

// say sends a message to the room.
//
// spec: MX 1.19 CS §7.8
func (m *matrixClient) say(ctx context.Context, txn, body string) error {
	path := "/rooms/" + url.PathEscape(m.room) + "/send/m.room.message/" + url.PathEscape(txn)
	_, err := m.raw(ctx, http.MethodPut, path, object{"msgtype": "m.text", "body": body})
	return err
}
