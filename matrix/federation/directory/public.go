package directory

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"parley/core"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/rooms"
	"parley/matrix/wire"
)

const (
	maxPublicQuery  = 64 << 10 // bytes
	maxPublicAnswer = 2 << 20  // bytes
	maxToken        = 1024     // bytes of a token of another server
)

// servePublic lists the rooms of our directory to another server.
//
// spec: MX 1.19 SS §15
func (d *Directory) servePublic(r *federation.Request) (any, error) {
	q, network, err := publicQuery(r)
	if err != nil {
		return nil, err
	}
	if q.Limit <= 0 || q.Limit > rooms.MaxPublicRooms {
		q.Limit = rooms.MaxPublicRooms
	}
	// There are no further networks that could be asked for by themselves.
	show := func(c core.Conversation) bool { return ours(c) && network == "" }
	page, err := d.cfg.Rooms.PublicRooms(r.Context(), q, show)
	if err != nil {
		return nil, told(err)
	}
	return page, nil
}

// publicQuery reads the request in either of its forms, and which network it is
// about.
func publicQuery(r *federation.Request) (q rooms.PublicQuery, network string, err error) {
	if r.HTTP.Method == http.MethodPost {
		body := struct {
			*rooms.PublicQuery
			Network string `json:"third_party_instance_id"`
		}{PublicQuery: &q}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return q, "", federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "The body is no query of the directory.")
		}
		return q, body.Network, nil
	}
	v := r.HTTP.URL.Query()
	q.Since = v.Get("since")
	if text := v.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil {
			return q, "", federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "limit is no number.")
		}
	}
	return q, v.Get("third_party_instance_id"), nil
}

// PublicRooms implements [rooms.Directory].
//
// spec: MX 1.19 SS §15
func (d *Directory) PublicRooms(ctx context.Context, server string, q rooms.PublicQuery) (rooms.PublicPage, error) {
	if err := wire.ParseServerName(server); err != nil {
		return rooms.PublicPage{}, client.Errorf(http.StatusBadRequest, client.InvalidParam, "%.300q is no server.", server)
	}
	question, err := publicQuestion(server, q)
	if err != nil {
		return rooms.PublicPage{}, err
	}
	raw, err := d.ask(ctx, question)
	var page rooms.PublicPage
	if err == nil {
		page, err = readPage(raw, server, q.Limit)
	}
	if err != nil {
		d.cfg.Log.Debug("a server's directory was not read", "server", server, "err", err)
		return page, refused(err, server, "directory")
	}
	return page, nil
}

// publicQuestion asks by GET where there is nothing to filter, as all servers
// understand it.
func publicQuestion(server string, q rooms.PublicQuery) (question, error) {
	out := question{server: server, path: []string{"publicRooms"}, query: url.Values{}, maxAnswer: maxPublicAnswer}
	if q.Filter.Term == "" && q.Filter.Types == nil {
		out.query.Set("limit", strconv.Itoa(q.Limit))
		if q.Since != "" {
			out.query.Set("since", q.Since)
		}
		return out, nil
	}
	body, err := json.Marshal(q)
	out.method, out.body = http.MethodPost, body
	return out, err
}

// readPage reads a page. Rooms that are not of the form that they should have
// are left out.
func readPage(raw []byte, server string, limit int) (page rooms.PublicPage, err error) {
	var answer struct {
		Chunk []json.RawMessage `json:"chunk"`
		Next  string            `json:"next_batch"`
		Prev  string            `json:"prev_batch"`
		Total float64           `json:"total_room_count_estimate"`
	}
	if json.Unmarshal(raw, &answer) != nil || len(answer.Next) > maxToken || len(answer.Prev) > maxToken {
		return page, malformed(server, errForm)
	}
	page = rooms.PublicPage{Chunk: []rooms.Summary{}, Next: answer.Next, Prev: answer.Prev}
	if answer.Total > 0 && answer.Total < 1<<53 {
		page.Total = int(answer.Total)
	}
	for _, raw := range answer.Chunk[:min(len(answer.Chunk), limit)] {
		var sum rooms.Summary
		if json.Unmarshal(raw, &sum) == nil && tidy(&sum) {
			page.Chunk = append(page.Chunk, sum)
		}
	}
	return page, nil
}

// maxShort is how long what has a fixed form may be in a summary, in bytes.
const maxShort = 255

// tidy holds a summary from another server to its form; false for one that
// cannot be used.
//
// spec: MX 1.19 CS §8.6
func tidy(s *rooms.Summary) bool {
	if wire.CheckRoomID(s.RoomID) != nil || s.Members < 0 {
		return false
	}
	if _, _, err := wire.ParseMXC(s.Avatar); err != nil {
		s.Avatar = ""
	}
	if _, _, err := wire.ParseAlias(s.Alias); err != nil {
		s.Alias = ""
	}
	if s.JoinRule == "" {
		s.JoinRule = string(core.JoinPublic)
	}
	for _, text := range []*string{&s.JoinRule, &s.Type, &s.Version, &s.Encryption} {
		if len(*text) > maxShort {
			*text = ""
		}
	}
	allowed := s.Allowed
	s.Allowed = nil
	for _, id := range allowed[:min(len(allowed), maxAllowed)] {
		if wire.CheckRoomID(id) == nil {
			s.Allowed = append(s.Allowed, id)
		}
	}
	s.Membership = "" // it is not for others to say
	return true
}
