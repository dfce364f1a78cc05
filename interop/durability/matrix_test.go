package durability

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// object is a JSON object.
type object = map[string]any

// matrix is a Matrix client on nothing but net/http.
type matrix struct {
	*target
	user, token string
	http        *http.Client
}

// matrixAs logs in.
func matrixAs(ctx context.Context, to *target, name string) (*matrix, error) {
	m := &matrix{target: to, user: "@" + name + ":" + domain, http: &http.Client{Transport: &http.Transport{}}}
	got, err := m.want(ctx, http.MethodPost, "/_matrix/client/v3/login", object{
		"type": "m.login.password", "password": password, "identifier": object{"type": "m.id.user", "user": name},
	})
	if err != nil {
		return nil, err
	}
	m.token, _ = got["access_token"].(string)
	return m, nil
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

// raw sends a request and returns the answer as it is.
func (m *matrix) raw(ctx context.Context, method, path, contentType string, body io.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.target.http+path, body)
	if err != nil {
		return 0, nil, err
	}
	if m.token != "" {
		req.Header.Set("Authorization", "Bearer "+m.token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, b, err
}

// do sends JSON; what is not a JSON object in the answer is an error.
func (m *matrix) do(ctx context.Context, method, path string, body any) (int, object, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		r = bytes.NewReader(b)
	}
	code, b, err := m.raw(ctx, method, path, "application/json", r)
	if err != nil {
		return 0, nil, err
	}
	var got object
	if err := json.Unmarshal(b, &got); err != nil {
		return code, nil, fmt.Errorf("%s %s: %d, %w: %.200s", method, path, code, err, b)
	}
	return code, got, nil
}

// want is do for what must succeed.
func (m *matrix) want(ctx context.Context, method, path string, body any) (object, error) {
	code, got, err := m.do(ctx, method, path, body)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s %s: %d %v", method, path, code, got)
	}
	return got, err
}

func sendPath(room, txn string) string {
	return "/_matrix/client/v3/rooms/" + url.PathEscape(room) + "/send/m.room.message/" + url.PathEscape(txn)
}

func text(body string) object { return object{"msgtype": "m.text", "body": body} }

// say sends until it is acknowledged, with one transaction ID throughout, and returns the event ID; "" if ctx ended first.
func (m *matrix) say(ctx context.Context, room, txn, body string) (string, error) {
	for {
		code, got, err := m.do(ctx, http.MethodPut, sendPath(room, txn), text(body))
		switch {
		case err == nil && code == http.StatusOK:
			id, _ := got["event_id"].(string)
			if id == "" {
				return "", fmt.Errorf("sending: 200 without an event ID: %v", got)
			}
			return id, nil
		case err == nil && code < 500:
			return "", fmt.Errorf("sending: %d %v", code, got)
		case !pause(ctx):
			return "", nil
		}
	}
}

// mumble sends as say does, once, and hangs up without waiting for the answer.
func (m *matrix) mumble(room, txn, body string) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(m.target.http, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	b, err := json.Marshal(text(body))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		sendPath(room, txn), domain, m.token, len(b), b)
	return err
}

// create makes a room and has the others join it.
func (m *matrix) create(ctx context.Context, body object, others ...*matrix) (string, error) {
	var invite []string
	for _, o := range others {
		invite = append(invite, o.user)
	}
	body["invite"] = invite
	got, err := m.want(ctx, http.MethodPost, "/_matrix/client/v3/createRoom", body)
	if err != nil {
		return "", err
	}
	room, _ := got["room_id"].(string)
	for _, o := range others {
		if _, err := o.want(ctx, http.MethodPost, "/_matrix/client/v3/join/"+url.PathEscape(room), object{}); err != nil {
			return "", err
		}
	}
	return room, nil
}

// line is one message in somebody's view of a conversation: what is said, and what it is called there.
type line struct{ body, id string }

// history reads all messages of a room, from either end, and returns them oldest first.
func (m *matrix) history(ctx context.Context, room string, backwards bool) ([]line, error) {
	var out []line
	from, dir := "", "f"
	if backwards {
		dir = "b"
	}
	for {
		q := url.Values{"dir": {dir}, "limit": {"41"}}
		if from != "" {
			q.Set("from", from)
		}
		code, b, err := m.raw(ctx, http.MethodGet, "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/messages?"+q.Encode(), "", nil)
		if err != nil || code != http.StatusOK {
			return nil, fmt.Errorf("reading the history: %d, %w, %.200s", code, err, b)
		}
		var page struct {
			End   string `json:"end"`
			Chunk []struct {
				ID      string `json:"event_id"`
				Type    string `json:"type"`
				Content struct {
					Body string `json:"body"`
				} `json:"content"`
			} `json:"chunk"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return nil, err
		}
		for _, e := range page.Chunk {
			if e.Type != "m.room.message" {
				continue
			}
			if backwards {
				out = append([]line{{e.Content.Body, e.ID}}, out...)
			} else {
				out = append(out, line{e.Content.Body, e.ID})
			}
		}
		if page.End == "" || page.End == from {
			return out, nil
		}
		from = page.End
	}
}
