// Package receiving is the letter box for other Matrix servers: the transactions
// that they send, each done once and answered, whatever else is in it.
//
// What the events in a transaction mean is for [Rooms] to say, and what its
// ephemeral data means for a table of [EDUHandler]s. Of one server one
// transaction is done at a time; one that comes again, because its answer was
// lost, gets the answer that there was, or waits with the first for it.
package receiving

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/matrix/federation"
	"parley/store"
)

// Bounds of a transaction.
//
// spec: MX 1.19 SS §4
const (
	maxPDUs = 50
	maxEDUs = 100
	// maxBody is for all of it, in bytes: as many of the largest events, and
	// the rest for EDUs.
	maxBody = 10 << 20
	maxTxn  = 255 // bytes of a transaction ID
)

// EDUHandler takes the content of one EDU, which is a JSON object. An error is
// for the log alone: the other server does not hear of it.
//
// spec: MX 1.19 SS §6
type EDUHandler func(ctx context.Context, origin string, content json.RawMessage) error

// ErrLater is wrapped by errors of [Rooms.Receive] that are no fault of the
// events: the other server is to send the whole transaction again.
var ErrLater = errors.New("this cannot be done now")

// Rooms is what knows the rooms that are shared with other servers.
type Rooms interface {
	// Receive takes PDUs that a server sent, of any rooms. It returns an entry
	// for each event ID: nil if it is dealt with (accepted, known, soft-failed),
	// else why not, in words for the other server.
	Receive(ctx context.Context, origin string, pdus []json.RawMessage) map[string]error
	// Allows reports whether a room's server ACL lets a server in.
	Allows(v hub.View, conv core.ConvID, server string) (bool, error)
}

// Config is what a [Receiver] stands on.
type Config struct {
	Rooms Rooms
	// EDUs has a handler for each type; those of other types are passed over.
	EDUs map[string]EDUHandler
	Log  *slog.Logger
	// Count hears "matrix_received" with the sort of thing, its type and its
	// outcome, and "panics". It may be nil.
	Count hub.Counter
	// AtOnce is how many transactions are done at a time, of all servers: 100.
	AtOnce int
}

// Receiver takes transactions.
type Receiver struct {
	cfg   Config
	keep  contain.Keeper
	slots chan struct{}
	lanes lanes
}

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// New makes a receiver.
func New(cfg Config) *Receiver {
	if cfg.Count == nil {
		cfg.Count = noCounter{}
	}
	if cfg.AtOnce == 0 {
		cfg.AtOnce = 100
	}
	return &Receiver{
		cfg: cfg, slots: make(chan struct{}, cfg.AtOnce), lanes: lanes{m: map[pair]*lane{}},
		keep: contain.Keeper{Where: "matrix-receiving", Log: cfg.Log, Count: cfg.Count},
	}
}

// Routes is the endpoint for transactions.
func (r *Receiver) Routes() []federation.Route {
	return []federation.Route{{Method: "PUT", Path: "/_matrix/federation/v1/send/{txnId}", MaxBody: maxBody, Handler: r.send}}
}

// transaction is what a server sends at once.
//
// spec: MX 1.19 SS §4
type transaction struct {
	Origin string            `json:"origin"`
	PDUs   []json.RawMessage `json:"pdus"`
	EDUs   []json.RawMessage `json:"edus"`
}

// read takes a transaction apart and holds it to its bounds.
func read(req *federation.Request) (*transaction, error) {
	t := &transaction{}
	if !json.Valid(req.Body) {
		return nil, federation.Errorf(http.StatusBadRequest, "M_NOT_JSON", "The body is no JSON.")
	}
	if err := json.Unmarshal(req.Body, t); err != nil {
		return nil, federation.Errorf(http.StatusBadRequest, "M_BAD_JSON", "The body is no transaction: pdus and edus are lists, and origin is a string.")
	}
	switch {
	case len(t.PDUs) > maxPDUs:
		return nil, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "A transaction has at most %d PDUs, and this one has %d.", maxPDUs, len(t.PDUs))
	case len(t.EDUs) > maxEDUs:
		return nil, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "A transaction has at most %d EDUs, and this one has %d.", maxEDUs, len(t.EDUs))
	case t.Origin != "" && t.Origin != req.Origin:
		return nil, federation.Errorf(http.StatusForbidden, "M_FORBIDDEN", "The transaction says that it is from another server than the one that signed the request.")
	case len(req.Var("txnId")) > maxTxn:
		return nil, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "A transaction ID has at most %d bytes.", maxTxn)
	}
	return t, nil
}

// result is what became of one event.
type result struct {
	Error string `json:"error,omitempty"`
}

// do does a transaction and writes the answer.
func (r *Receiver) do(ctx context.Context, origin string, t *transaction) (json.RawMessage, error) {
	results, err := r.pdus(ctx, origin, t.PDUs)
	if err != nil {
		return nil, err
	}
	for _, raw := range t.EDUs {
		r.edu(ctx, origin, raw)
	}
	return json.Marshal(map[string]any{"pdus": results})
}

// pdus hands on the events. When the server itself fails, the whole transaction
// has failed. An event that makes us panic is found out and left out.
func (r *Receiver) pdus(ctx context.Context, origin string, pdus []json.RawMessage) (map[string]result, error) {
	results := map[string]result{}
	if len(pdus) == 0 {
		return results, nil
	}
	var errs map[string]error
	err := r.keep.Do(func() error {
		errs = r.cfg.Rooms.Receive(ctx, origin, pdus)
		return nil
	})
	if err != nil {
		if len(pdus) == 1 {
			r.cfg.Count.Count("matrix_received", "pdu", "", "failed")
			return results, nil
		}
		for i := range pdus {
			one, err := r.pdus(ctx, origin, pdus[i:i+1])
			if err != nil {
				return nil, err
			}
			for id, res := range one {
				results[id] = res
			}
		}
		return results, nil
	}
	for id, err := range errs {
		outcome := "taken"
		switch {
		case err == nil:
			results[id] = result{}
		case passing(err):
			r.cfg.Log.Error("events of a Matrix server could not be taken", "origin", origin, "event", id, "err", err)
			return nil, errLater
		default:
			outcome = "refused"
			r.cfg.Log.Debug("an event of a Matrix server is refused", "origin", origin, "event", id, "err", err)
			results[id] = result{words(err)}
		}
		r.cfg.Count.Count("matrix_received", "pdu", "", outcome)
	}
	return results, nil
}

var errLater = federation.Errorf(http.StatusServiceUnavailable, "M_UNKNOWN", "This server cannot take events at the moment.")

// passing says whether an error is about how we are and not about an event.
func passing(err error) bool {
	for _, e := range []error{ErrLater, context.Canceled, context.DeadlineExceeded, store.ErrClosed, store.ErrInDoubt, store.ErrLeaseLost} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

const maxWords = 300 // runes of a reason

// words is what another server reads of why an event was refused.
func words(err error) string {
	if contain.Contained(err) {
		return "internal error"
	}
	text := err.Error()
	if rs := []rune(text); len(rs) > maxWords {
		text = string(rs[:maxWords]) + "…"
	}
	if text == "" {
		text = "refused"
	}
	return text
}

// edu hands on one EDU. Whatever becomes of it, the next has its turn.
//
// spec: MX 1.19 SS §6
func (r *Receiver) edu(ctx context.Context, origin string, raw json.RawMessage) {
	var e struct {
		Type    string          `json:"edu_type"`
		Content json.RawMessage `json:"content"`
	}
	count := func(typ, outcome string) { r.cfg.Count.Count("matrix_received", "edu", typ, outcome) }
	if err := json.Unmarshal(raw, &e); err != nil || len(e.Content) == 0 || e.Content[0] != '{' {
		count("", "malformed")
		return
	}
	handle := r.cfg.EDUs[e.Type]
	if handle == nil {
		count("", "unknown")
		return
	}
	if err := r.keep.Do(func() error { return handle(ctx, origin, e.Content) }); err != nil {
		count(e.Type, "refused")
		r.cfg.Log.Debug("an EDU of a Matrix server is refused", "origin", origin, "type", e.Type, "err", err)
		return
	}
	count(e.Type, "taken")
}
