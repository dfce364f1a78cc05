package mirror

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/translate"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config is what a mirror needs to know of the server.
type Config struct {
	// Domains are hosted here, Home first; each has a signing key.
	Domains []string
	Keys    map[string]*wire.SigningKey
	// Count hears of what Matrix could not carry; nil counts nothing.
	Count hub.Counter
}

// Mirror implements [hub.Mirror] and reads what it wrote. It may be used from
// any goroutine.
type Mirror struct {
	cfg   Config
	graph Graph
	// The rest belongs to the writer's goroutine, in which Admit is called.
	// minted and adopted are what was built or came before the event is kept,
	// by its core ID and by its event ID.
	rooms       map[core.ConvID]*room
	minted      map[core.EventID]*minting
	adopted     map[string]Adopted
	corrections map[core.ConvID][]Piece
	// lost is what the PDU of an event that is being kept does not carry.
	lost map[core.EventID][]core.Loss
}

// Network implements [hub.Loser].
func (m *Mirror) Network() core.Network { return core.Matrix }

// Lost implements [hub.Loser].
func (m *Mirror) Lost(id core.EventID) []core.Loss {
	losses := m.lost[id]
	delete(m.lost, id)
	return losses
}

// New brings the mirror's tables up to date and returns the mirror on them.
func New(ctx context.Context, db *store.DB, cfg Config) (*Mirror, error) {
	for _, d := range cfg.Domains {
		if cfg.Keys[d] == nil {
			return nil, fmt.Errorf("the domain %s has no Matrix signing key", d)
		}
	}
	if len(cfg.Domains) == 0 {
		return nil, errors.New("no domains are hosted here")
	}
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "matrix-mirror", dir); err != nil {
		return nil, fmt.Errorf("migrating the Matrix mirror's tables: %w", err)
	}
	return &Mirror{
		cfg: cfg, rooms: map[core.ConvID]*room{}, minted: map[core.EventID]*minting{},
		adopted: map[string]Adopted{}, corrections: map[core.ConvID][]Piece{}, lost: map[core.EventID][]core.Loss{},
	}, nil
}

// Names turns user IDs and aliases into addresses and back, with the hashed
// spellings of v. It is good as long as v is.
func (m *Mirror) Names(v hub.View) translate.Names {
	q := hubstore.Querier(v)
	return translate.Names{
		Home:  m.cfg.Domains[0],
		Hosts: func(domain string) bool { return slices.Contains(m.cfg.Domains, domain) },
		Hashed: func(localpart string) (core.Address, bool) {
			var s string
			if err := q.QueryRow(`SELECT address FROM mirror_names WHERE localpart = $1`, localpart).Scan(&s); err != nil {
				return core.Address{}, false
			}
			a, err := core.ParseAddress(s)
			return a, err == nil
		},
	}
}

// Resolver is what package translate needs for events of conv, from v. It is
// good as long as v is.
func (m *Mirror) Resolver(v hub.View, conv core.ConvID) (translate.Resolver, error) {
	s, err := v.State(conv)
	if err != nil {
		return translate.Resolver{}, err
	}
	version, err := wire.VersionOf(s.Creation.Version)
	if err != nil {
		return translate.Resolver{}, err
	}
	return m.ResolverFor(v, version), nil
}

// ResolverFor is [Mirror.Resolver] for a room of a version.
func (m *Mirror) ResolverFor(v hub.View, version *wire.Version) translate.Resolver {
	return translate.Resolver{
		Names: m.Names(v), Version: version,
		CoreID: func(id string) (core.EventID, bool) {
			found, err := m.CoreID(v, id)
			return found, err == nil
		},
		EventID: func(id core.EventID) (string, bool) {
			found, err := m.EventID(v, id)
			return found, err == nil
		},
		Conv: func(room string) (core.ConvID, bool) {
			id, err := v.ConversationNative(core.Matrix, room)
			return id, err == nil
		},
		RoomID: func(id core.ConvID) (string, bool) {
			c, err := v.Conversation(id)
			room := c.Native[core.Matrix]
			return room, err == nil && room != ""
		},
	}
}

// EventID is the Matrix event ID of a core event, [hub.ErrNone] if none.
func (m *Mirror) EventID(v hub.View, id core.EventID) (string, error) {
	var s string
	err := hubstore.Querier(v).QueryRow(`SELECT event_id FROM mirror_pdus WHERE core_id = $1`, string(id)).Scan(&s)
	return s, noRow(err)
}

// CoreID is the core event with a Matrix event ID, [hub.ErrNone] if none.
func (m *Mirror) CoreID(v hub.View, eventID string) (core.EventID, error) {
	if wire.CheckEventID(eventID) != nil {
		return "", hub.ErrNone
	}
	var s string
	err := hubstore.Querier(v).QueryRow(`SELECT core_id FROM mirror_pdus WHERE event_id = $1`, eventID).Scan(&s)
	return core.EventID(s), noRow(err)
}

// noRow turns the database's word for "nothing" into the hub's.
func noRow(err error) error {
	if store.NotFound(err) {
		return hub.ErrNone
	}
	return err
}

const aliasTxn = "txn"

// TxnAlias names an event after the transaction ID of the request that sent
// it. path is the request's path without the transaction ID. The same ID with
// another body is another event. Put it among the aliases of the draft.
//
// spec: MX 1.19 CS §1.2
func TxnAlias(user core.Address, device, path, txn string, body []byte) core.Alias {
	sum := sha256.Sum256(body)
	return core.Alias{
		Network: core.Matrix, Kind: aliasTxn, Key: url.PathEscape(txn), Digest: hex.EncodeToString(sum[:16]),
		Scope: url.PathEscape(user.String()) + " " + url.PathEscape(device) + " " + url.PathEscape(path),
	}
}

// transaction reads what [TxnAlias] wrote.
func transaction(e *core.Event) (device, txn string) {
	a, ok := e.Alias(core.Matrix, aliasTxn)
	f := strings.Split(a.Scope, " ")
	if !ok || len(f) != 3 {
		return "", ""
	}
	device, err1 := url.PathUnescape(f[1])
	txn, err2 := url.PathUnescape(a.Key)
	if err1 != nil || err2 != nil || strings.IndexByte(device+txn, 0) >= 0 {
		return "", ""
	}
	return device, txn
}
