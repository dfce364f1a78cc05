package joining

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/translate"
	"parley/matrix/wire"
)

// errAnswer is wrapped where a server answered with what it must not. Another
// one may do better.
var errAnswer = errors.New("the answer cannot be used")

func unusable(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errAnswer, fmt.Sprintf(format, args...))
}

// asking is somebody here who asks other servers for a membership.
type asking struct {
	kind   *kind
	roomID string
	userID string
	who    core.Address
	member core.Membership
	native *core.Native
	// taken are the servers that have taken a join of which nothing came yet.
	taken []string
}

// origin is in whose name is asked.
func (a *asking) origin() string { return serverOf(a.userID) }

// maxTemplate bounds a template, in bytes.
const maxTemplate = 128 << 10

// template is what a server says that the event is to come after and to cite.
type template struct {
	version    *wire.Version
	prev, auth []string
	depth      int64
	via        string
}

// makeTemplate asks a server for a template, and holds it to what was asked for.
//
// spec: MX 1.19 SS §10
// spec: MX 1.19 SS §11
// spec: MX 1.19 SS §13
func (j *Joining) makeTemplate(ctx context.Context, server string, a *asking) (*template, error) {
	var query url.Values
	if a.kind.versioned {
		query = url.Values{"ver": wire.Versions()}
	}
	raw, err := j.cfg.Client.Do(ctx, federation.Call{
		Origin: a.origin(), Destination: server, Method: http.MethodGet, Insist: true,
		URI:       federation.URI(query, "_matrix", "federation", "v1", "make_"+a.kind.name, a.roomID, a.userID),
		MaxAnswer: maxTemplate, Timeout: j.cfg.AskTimeout,
	})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Version string          `json:"room_version"`
		Event   json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, unusable("no template: %v", err)
	}
	v, err := wire.VersionOf(answer.Version)
	if err != nil {
		return nil, &versionError{answer.Version}
	}
	return readTemplate(v, server, a, answer.Event)
}

// versionError says that a room has a version that is not known here.
type versionError struct{ version string }

func (e *versionError) Error() string {
	if e.version == "" {
		return "the room has a version that this server does not know"
	}
	return fmt.Sprintf("the room has version %.40q, which this server does not know", e.version)
}

// readTemplate takes from a template what only the room's servers know. All else
// is ours to say, so that nothing is signed that was not asked for.
func readTemplate(v *wire.Version, server string, a *asking, raw []byte) (*template, error) {
	o, err := wire.ParseObject(raw)
	if err != nil {
		return nil, unusable("%v", err)
	}
	content, err := wire.ParseObject(o.Get("content"))
	if err != nil {
		return nil, unusable("the template has no content")
	}
	for _, f := range []struct {
		in        wire.Object
		key, want string
	}{
		{o, "type", wire.TypeMember}, {o, "room_id", a.roomID}, {o, "sender", a.userID}, {o, "state_key", a.userID},
		{content, "membership", a.kind.membership},
	} {
		if got, _ := f.in.String(f.key); got != f.want {
			return nil, unusable("the template has the %s %.300q in place of %q", f.key, got, f.want)
		}
	}
	t := &template{version: v}
	var ok bool
	if t.depth, ok = o.Int("depth"); !ok || t.depth < 0 {
		return nil, unusable("the template has no depth")
	}
	if t.prev, err = eventIDs(o.Get("prev_events"), 1, maxPrev); err != nil {
		return nil, unusable("prev_events: %v", err)
	}
	if t.auth, err = eventIDs(o.Get("auth_events"), 0, maxAuth); err != nil {
		return nil, unusable("auth_events: %v", err)
	}
	if raw := content.Get(viaKey); raw != nil && a.kind == join && v.Restricted {
		t.via, _ = wire.Unquote(raw)
		if _, domain, err := wire.ParseUserID(t.via); err != nil || domain != server {
			return nil, unusable("%.300q, who is to let one in, is not of the server %s", t.via, server)
		}
	}
	return t, nil
}

// How many events one comes after and cites at most.
//
// spec: MX 1.19 SS §5
const (
	maxPrev = 20
	maxAuth = 10
)

// eventIDs reads a list of event IDs, each once.
func eventIDs(raw []byte, least, most int) ([]string, error) {
	list, ok := wire.Elements(raw)
	if !ok || len(list) < least || len(list) > most {
		return nil, fmt.Errorf("not a list of %d to %d events", least, most)
	}
	out := make([]string, len(list))
	seen := map[string]bool{}
	for i, e := range list {
		out[i], _ = wire.Unquote(e)
		if err := wire.CheckEventID(out[i]); err != nil {
			return nil, err
		}
		if seen[out[i]] {
			return nil, fmt.Errorf("%s is listed twice", out[i])
		}
		seen[out[i]] = true
	}
	return out, nil
}

// build makes the event of a template, and signs it.
func (j *Joining) build(ctx context.Context, a *asking, t *template) (*wire.PDU, error) {
	var content wire.Object
	err := j.cfg.Hub.Read(ctx, func(v hub.View) error {
		res := j.cfg.Mirror.ResolverFor(v, t.version)
		e, _, err := translate.OutNative(res, a.member, a.native)
		if err != nil {
			return err
		}
		content, err = wire.ParseObject(e.Content)
		return err
	})
	if err != nil {
		return nil, err
	}
	if content = content.Without(viaKey); t.via != "" {
		content = content.With(viaKey, wire.Quote(t.via))
	}
	pdu, err := wire.Build(t.version, wire.Proto{
		RoomID: a.roomID, Type: wire.TypeMember, StateKey: &a.userID, Sender: a.userID, Content: content.JSON(),
		PrevEvents: t.prev, AuthEvents: t.auth, Depth: t.depth, Time: time.Now().UnixMilli(),
	})
	if errors.Is(err, wire.ErrTooLarge) {
		return nil, hub.Refuse(hub.TooLarge, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	raw, err := j.cfg.Mirror.Signed(pdu)
	if err != nil {
		return nil, err
	}
	return wire.Parse(t.version, raw)
}

// sendURI is where the event of a template goes.
func (a *asking) sendURI(version string, pdu *wire.PDU, query url.Values) string {
	return federation.URI(query, "_matrix", "federation", version, "send_"+a.kind.name, a.roomID, pdu.EventID)
}
