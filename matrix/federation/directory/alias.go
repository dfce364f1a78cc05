package directory

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/wire"
)

// maxServers is how many servers of a room are told, or taken from others.
const maxServers = 100

// serveAlias says where an alias of ours leads, and who is in that room.
//
// spec: MX 1.19 SS §20
func (d *Directory) serveAlias(r *federation.Request) (any, error) {
	out := map[string]any{}
	err := d.cfg.Hub.Read(r.Context(), func(v hub.View) error {
		a, err := d.cfg.Mirror.Names(v).RoomAddress(r.HTTP.URL.Query().Get("room_alias"))
		if err != nil {
			return federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "room_alias is no alias.")
		}
		none := federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "There is no such alias here.")
		if !a.IsLocal() {
			return none
		}
		id, err := v.ConversationAt(a)
		if errors.Is(err, hub.ErrNone) {
			return none
		}
		if err != nil {
			return err
		}
		c, err := v.Conversation(id)
		if err != nil {
			return err
		}
		if !ours(c) {
			return none
		}
		out["room_id"] = c.Native[core.Matrix]
		out["servers"], err = d.serversOf(v, c, a.Domain)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ours reports whether a room is one that other Matrix servers may hear of from
// us: rooms on other networks are not.
func ours(c core.Conversation) bool {
	return c.Authority != core.Elsewhere && c.Native[core.Matrix] != ""
}

// serversOf are some servers that are in a room: those domains of ours, and
// others.
func (d *Directory) serversOf(v hub.View, c core.Conversation, home string) ([]string, error) {
	out := []string{}
	state, err := v.State(c.ID)
	if err != nil {
		return nil, err
	}
	for _, m := range state.Members {
		if domain := m.Address.Domain; m.Standing == core.Joined && m.Address.IsLocal() && !slices.Contains(out, domain) {
			out = append(out, domain)
		}
	}
	slices.Sort(out)
	if len(out) == 0 && c.Authority == core.Here {
		out = append(out, home)
	}
	others, err := d.cfg.Servers(v, c.ID)
	return append(out, others[:min(len(others), maxServers)]...), err
}

// alias is where one leads.
type alias struct {
	room    string
	servers []string
}

const maxAliasAnswer = 64 << 10 // bytes

// Resolve implements [rooms.Directory].
//
// spec: MX 1.19 SS §20
func (d *Directory) Resolve(ctx context.Context, name string) (roomID string, servers []string, err error) {
	_, server, err := wire.ParseAlias(name)
	if err != nil {
		return "", nil, refused(err, name, "such alias")
	}
	a, err := d.aliases.get(ctx, name, nil, func(ctx context.Context) (alias, int, time.Duration, error) {
		raw, err := d.ask(ctx, question{
			server: server, path: []string{"query", "directory"}, query: url.Values{"room_alias": {name}}, maxAnswer: maxAliasAnswer, insist: true,
		})
		var a alias
		if err == nil {
			a, err = readAlias(raw, server)
		}
		if err != nil {
			d.cfg.Log.Debug("an alias was not found out", "alias", name, "err", err)
			life := unreachedLife
			if _, answered := errors.AsType[*federation.Error](err); answered || raw != nil {
				life = failureLife
			}
			return a, 0, life, refused(err, server, "such alias")
		}
		return a, len(raw), aliasLife, nil
	})
	return a.room, a.servers, err
}

// readAlias reads the answer of a server, which is itself one to ask further.
func readAlias(raw []byte, server string) (a alias, err error) {
	var answer struct {
		Room    string   `json:"room_id"`
		Servers []string `json:"servers"`
	}
	if json.Unmarshal(raw, &answer) != nil || wire.CheckRoomID(answer.Room) != nil {
		return a, malformed(server, errForm)
	}
	return alias{answer.Room, serverNames(append(answer.Servers[:min(len(answer.Servers), maxServers)], server))}, nil
}

// serverNames are those of a list that can be ones, each once.
func serverNames(list []string) []string {
	out := []string{}
	for _, s := range list {
		if wire.ParseServerName(s) == nil && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
