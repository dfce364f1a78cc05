package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"parley/bench/matrixclient"
	"time"
)

// matrixClient is a Matrix client that knows one room.
type matrixClient struct {
	*matrixclient.Client
	since string // where the next /sync goes on
	room  string // the room of the direct conversation, empty until it was seen
}

// object is a JSON object.
type object = map[string]any

// matrixLogin logs an account in.
func (s *Site) matrixLogin(ctx context.Context, local string) (*matrixClient, error) {
	conf := s.tls.Clone()
	conf.NextProtos = nil
	c, err := matrixclient.Server{
		Host: s.Host(), Domain: s.Domain(), Port: 8448, TLS: conf, Timeout: arrivalTimeout,
	}.Login(ctx, local, password)
	return &matrixClient{Client: c}, err
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
		data, err := m.Raw(ctx, http.MethodGet, "/sync?"+q.Encode(), nil)
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
		if _, err := m.Raw(ctx, http.MethodPost, "/join/"+url.PathEscape(room), object{}); err != nil {
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
	_, err := m.Raw(ctx, http.MethodPut, path, object{"msgtype": "m.text", "body": body})
	return err
}
