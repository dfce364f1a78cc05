package federation

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"parley/matrix/wire"
)

// Bounds of a question to us as a notary.
const (
	maxQuery   = 64 << 10 // bytes
	maxServers = 100
	// queriesPerSecond is how many servers one IP address may ask about,
	// sustained; [maxServers] at once.
	queriesPerSecond = maxServers / 10
)

// routes are the endpoints of this package.
func (s *Server) routes() []Route {
	queries := newPace(queriesPerSecond)
	return []Route{
		{Method: "GET", Path: "/_matrix/federation/v1/version", Open: true, Handler: s.version},
		{Method: "GET", Path: "/_matrix/key/v2/server", Open: true, Handler: s.serverKeys},
		{Method: "GET", Path: "/_matrix/key/v2/query/{serverName}", Open: true, Handler: func(r *Request) (any, error) { return s.queryOne(r, queries) }},
		{Method: "POST", Path: "/_matrix/key/v2/query", Open: true, MaxBody: maxQuery, Handler: func(r *Request) (any, error) { return s.query(r, queries) }},
	}
}

// version says what this server is.
//
// spec: MX 1.19 SS §2.2
func (s *Server) version(*Request) (any, error) {
	return map[string]any{"server": map[string]string{"name": "Parley", "version": s.cfg.Version}}, nil
}

// serverKeys publishes our keys.
//
// spec: MX 1.19 SS §2.3.1
func (s *Server) serverKeys(r *Request) (any, error) {
	answer, err := s.cfg.Keys.Publish(r.Destination)
	return json.RawMessage(answer), err
}

// queryOne is a question to us as a notary about one server.
//
// spec: MX 1.19 SS §2.3.2
func (s *Server) queryOne(r *Request, queries *pace) (any, error) {
	var least time.Time
	if text := r.HTTP.URL.Query().Get("minimum_valid_until_ts"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "minimum_valid_until_ts is no number.")
		}
		least = time.UnixMilli(ms)
	}
	return s.notarise(r, queries, map[string]time.Time{r.Var("serverName"): least})
}

// query is a question to us as a notary about several servers.
//
// spec: MX 1.19 SS §2.3.2
func (s *Server) query(r *Request, queries *pace) (any, error) {
	var q struct {
		ServerKeys map[string]map[string]struct {
			Least int64 `json:"minimum_valid_until_ts"`
		} `json:"server_keys"`
	}
	if !json.Valid(r.Body) {
		return nil, Errorf(http.StatusBadRequest, "M_NOT_JSON", "The body is no JSON.")
	}
	if err := json.Unmarshal(r.Body, &q); err != nil || q.ServerKeys == nil {
		return nil, Errorf(http.StatusBadRequest, "M_BAD_JSON", "server_keys is no object of servers and keys.")
	}
	servers := make(map[string]time.Time, len(q.ServerKeys))
	for name, keys := range q.ServerKeys {
		var least time.Time
		for _, k := range keys {
			if at := time.UnixMilli(k.Least); k.Least > 0 && at.After(least) {
				least = at
			}
		}
		servers[name] = least
	}
	return s.notarise(r, queries, servers)
}

func (s *Server) notarise(r *Request, queries *pace, servers map[string]time.Time) (any, error) {
	if len(servers) > maxServers {
		return nil, Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "At most %d servers can be asked about at once.", maxServers)
	}
	for name := range servers {
		if err := wire.ParseServerName(name); err != nil {
			return nil, Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "%v", err)
		}
		if s.cfg.Refuses != nil && s.cfg.Refuses(name) {
			delete(servers, name)
		}
	}
	if wait := queries.takeN(remoteIP(r.HTTP).String(), float64(len(servers)), time.Now()); wait > 0 {
		return nil, tooMany(wait)
	}
	answers, err := s.cfg.Keys.Notarise(r.Context(), r.Destination, servers)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, len(answers))
	for i, a := range answers {
		out[i] = a
	}
	return map[string]any{"server_keys": out}, nil
}
