package joining

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/wire"
)

// maxCandidates is how many servers are asked for one thing.
const maxCandidates = 12

// candidates are the servers of some lists that can be asked, each once, the
// first of the lists first.
func candidates(ours func(string) bool, lists ...[]string) []string {
	out := []string{}
	for _, server := range slices.Concat(lists...) {
		if len(out) == maxCandidates {
			break
		}
		if wire.ParseServerName(server) == nil && !ours(server) && !slices.Contains(out, server) {
			out = append(out, server)
		}
	}
	return out
}

// fault is an error of our own, for which no other server is asked.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }

// ownFault marks an error that is neither a refusal nor another server's fault.
func ownFault(err error) error {
	if err == nil || hub.CodeOf(err) != "" {
		return err
	}
	return fault{err}
}

// byAny has one server after the other do something, until one does. Of their
// errors the one is told that says most.
func (j *Joining) byAny(ctx context.Context, a *asking, servers []string, f func(server string) error) error {
	var best *refusal
	for _, server := range servers {
		err := f(server)
		if err == nil {
			j.count(a.kind.name, "done")
			return nil
		}
		if own, ok := errors.AsType[fault](err); ok {
			j.count(a.kind.name, "failed")
			return own.error
		}
		if ctx.Err() != nil {
			break
		}
		j.cfg.Log.Info("a Matrix server does not do what it is asked", "server", server, "to", a.kind.name, "room", a.roomID, "err", err)
		if r := refusalOf(server, err); best == nil || r.rank > best.rank {
			best = r
		}
	}
	j.count(a.kind.name, "refused")
	switch {
	case len(servers) == 0:
		return hub.Refuse(hub.NotFound, "there is no such room, as far as this server knows")
	case best == nil:
		return ctx.Err()
	}
	return best.told
}

// refusal is what one server's answer means to the one who asked.
type refusal struct {
	rank int // of two, the higher one is told
	told error
}

// byErrcode are the refusals of other servers, by their error codes.
var byErrcode = map[string]struct {
	rank int
	code hub.Code
	text string
}{
	"M_FORBIDDEN":                 {7, hub.Forbidden, "the room does not let you in"},
	"M_INCOMPATIBLE_ROOM_VERSION": {6, hub.Unable, "the room has a version that this server does not know"},
	"M_UNABLE_TO_GRANT_JOIN":      {5, hub.MembersOnly, "nobody on the servers that were asked can let you in"},
	"M_UNABLE_TO_AUTHORISE_JOIN":  {4, hub.MembersOnly, "the servers that were asked cannot see whether you may come in"},
	"M_NOT_FOUND":                 {3, hub.NotFound, "there is no such room"},
}

func refusalOf(server string, err error) *refusal {
	if hub.CodeOf(err) != "" {
		return &refusal{8, err}
	}
	if v, ok := errors.AsType[*versionError](err); ok {
		return &refusal{6, hub.Refuse(hub.Unable, "%v", v)}
	}
	if errors.Is(err, errAnswer) {
		return &refusal{2, hub.Refuse(hub.Unable, "%s answers with what it must not", server)}
	}
	e, ok := errors.AsType[*federation.Error](err)
	if !ok && federation.Missing(err) {
		return &refusal{0, hub.Refuse(hub.NoServer, "there is no Matrix server %s", server)}
	}
	if !ok {
		return &refusal{1, hub.Refuse(hub.Unreachable, "%s cannot be reached", server)}
	}
	known, ok := byErrcode[e.Errcode]
	if !ok && e.Status == http.StatusForbidden {
		known, ok = byErrcode["M_FORBIDDEN"], true
	}
	if !ok {
		return &refusal{2, hub.Refuse(hub.Unable, "%s cannot do that: %s", server, e.Words())}
	}
	text := known.text
	if said := e.Words(); said != "" {
		text += ": " + said
	}
	return &refusal{known.rank, hub.Refuse(known.code, "%s", text)}
}
