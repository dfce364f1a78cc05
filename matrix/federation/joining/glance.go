package joining

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
)

const (
	maxGlance   = 1 << 20 // bytes of an answer
	maxGlancers = 3       // servers that are asked
	maxTold     = 1000    // bytes of a name or topic
)

// Glance implements [hub.Glancer]: it asks the servers of a room what they tell of
// it. One that is known by its alias and of which they tell nothing is there all
// the same.
//
// spec: MX 1.19 SS §16
func (j *Joining) Glance(ctx context.Context, who, room core.Address) (hub.Glance, error) {
	g := hub.Glance{Address: room}
	alias, _, err := j.alias(ctx, room)
	if err != nil {
		return g, err
	}
	roomID, servers, err := j.resolve(ctx, alias)
	if err != nil {
		return g, err
	}
	servers = candidates(j.ours, servers)
	for _, server := range servers[:min(len(servers), maxGlancers)] {
		told, err := j.glanceAt(ctx, server, roomID, who.Domain)
		if err == nil {
			told.Address = room
			return told, nil
		}
		j.cfg.Log.Debug("a Matrix server does not tell of a room", "server", server, "room", roomID, "err", err)
	}
	return g, ctx.Err()
}

func (j *Joining) glanceAt(ctx context.Context, server, roomID, origin string) (hub.Glance, error) {
	raw, err := j.cfg.Client.Do(ctx, federation.Call{
		Origin: origin, Destination: server, Method: http.MethodGet,
		URI:       federation.URI(url.Values{"suggested_only": {"true"}}, "_matrix", "federation", "v1", "hierarchy", roomID),
		MaxAnswer: maxGlance, Timeout: j.cfg.AskTimeout,
	})
	if err != nil {
		return hub.Glance{}, err
	}
	var answer struct {
		Room struct {
			RoomID   string `json:"room_id"`
			Name     string `json:"name"`
			Topic    string `json:"topic"`
			Members  int    `json:"num_joined_members"`
			JoinRule string `json:"join_rule"`
			Type     string `json:"room_type"`
			Scheme   string `json:"encryption"`
		} `json:"room"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Room.RoomID != roomID {
		return hub.Glance{}, unusable("it tells of another room, or of none")
	}
	r := answer.Room
	g := hub.Glance{
		Name: line(r.Name), Topic: line(r.Topic), Members: max(r.Members, 0), Type: line(r.Type), Scheme: line(r.Scheme),
	}
	if g.JoinRule = core.JoinRule(r.JoinRule); r.JoinRule == "" {
		g.JoinRule = core.JoinPublic // which is the default
	}
	return g, nil
}

// line is a stranger's text on one line, and not long.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > maxTold {
		s = strings.ToValidUTF8(s[:maxTold], "")
	}
	return strings.TrimSpace(s)
}
