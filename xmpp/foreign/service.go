package foreign

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the service's tables up to date.
func Migrate(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return db.Migrate(ctx, "xmpp-foreign", dir)
}

// Config is what a Service needs.
type Config struct {
	Hub   *hub.Hub
	Names translate.Names
	// Base is "https://" and the host under which stored files have links.
	Base string
	// Secret makes the resources by which rooms know our occupants; it must stay the same over restarts.
	Secret []byte
	// Route sends a stanza to a session here or to another server, by its `to`. It does not block.
	Route func(*element.Element)
	// Count may be nil. Counted are "foreign_dropped" (by why: unreadable, flood, unknown) and "foreign_entered" (by outcome).
	Count hub.Counter
	Log   *slog.Logger

	// Answer is how long a room may take to answer: 30 seconds.
	Answer time.Duration
	// Grace is how long an occupant who left without a word stays a member: 6 hours.
	Grace time.Duration
	// Ping is how often a quiet room is asked whether we are still in it: 10 minutes.
	Ping time.Duration
	// Fill is the most messages that are fetched to fill a gap: 2000. Deeper history is fetched when somebody asks for it.
	Fill int
	// MaxRooms bounds the foreign rooms of one account: 500. MaxOccupants is the most of whom a room is shown: 5000. MaxInvited bounds
	// the invitations of an account that it has not answered: 100. MaxLooked bounds how many new rooms an account looks at in an hour: 200.
	MaxRooms, MaxOccupants, MaxInvited, MaxLooked int
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	count := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	set(&c.Answer, 30*time.Second)
	set(&c.Grace, 6*time.Hour)
	set(&c.Ping, 10*time.Minute)
	count(&c.Fill, 2000)
	count(&c.MaxRooms, 500)
	count(&c.MaxOccupants, 5000)
	count(&c.MaxInvited, 100)
	count(&c.MaxLooked, 200)
	if c.Count == nil {
		c.Count = noCounter{}
	}
	return c
}

type noCounter struct{}

func (noCounter) Count(string, ...string) {}

// place is which room for whom.
type place struct {
	account core.Address
	room    translate.JID // bare
}

// Service holds the occupancies of local accounts. Its methods may be called by any goroutine.
type Service struct {
	Config
	mu     sync.Mutex
	ctx    context.Context // of Run; nil before and after it
	places map[place]*occupancy
	convs  map[core.ConvID]*occupancy
	looks  map[core.Address]looks
	wg     sync.WaitGroup
}

// keep contains what goes wrong where one piece of an occupancy's work is done.
func (s *Service) keep() contain.Keeper {
	return contain.Keeper{Where: "foreign", Log: s.Log, Count: s.Count}
}

// New makes the service.
func New(c Config) *Service {
	return &Service{
		Config: c.withDefaults(), places: map[place]*occupancy{}, convs: map[core.ConvID]*occupancy{}, looks: map[core.Address]looks{},
	}
}

// Run enters the rooms that the accounts were in when the server stopped, and keeps them until ctx ends. Until it is called no room is
// entered.
func (s *Service) Run(ctx context.Context) error {
	rows, err := s.load(ctx, "wanted = 1")
	if err != nil {
		return fmt.Errorf("reading which rooms elsewhere accounts are in: %w", err)
	}
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	for _, r := range rows {
		if o := s.begin(r); o != nil {
			o.later(o.reenter)
		}
	}
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// begin makes the occupancy of a row and its goroutine; the one that there is, if there is one; nil if the service does not run.
func (s *Service) begin(r row) *occupancy {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return nil
	}
	if o := s.places[r.place]; o != nil {
		return o
	}
	o := newOccupancy(s, r)
	s.places[r.place] = o
	if r.conv != "" {
		s.convs[r.conv] = o
	}
	s.wg.Add(1)
	go o.run(s.ctx)
	return o
}

// of returns the account's occupancy of a room, nil if it has none.
func (s *Service) of(account core.Address, room translate.JID) *occupancy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places[place{account, room.Bare()}]
}

// in returns the occupancy that a conversation projects.
func (s *Service) in(conv core.ConvID) *occupancy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.convs[conv]
}

// rooms counts an account's.
func (s *Service) rooms(account core.Address) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.places {
		if p.account == account {
			n++
		}
	}
	return n
}

// drop forgets an occupancy that is over.
func (s *Service) drop(o *occupancy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places[o.place] == o {
		delete(s.places, o.place)
	}
	if s.convs[o.conv] == o {
		delete(s.convs, o.conv)
	}
}

// Doubt has all occupants in the rooms of a domain find out whether they are still there: its server was lost, or has forgotten one
// of them, and may have been started anew.
func (s *Service) Doubt(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, o := range s.places {
		if p.room.Domain == domain {
			go o.later(o.doubt)
		}
	}
}

// resource is by which a room knows the account's occupant: the same as long as the secret is, and not to be guessed, because who
// knows it could send to the account past what it wants done with strangers.
func (s *Service) resource(p place) string {
	m := hmac.New(sha256.New, s.Secret)
	m.Write([]byte("occupant\x00" + p.account.String() + "\x00" + p.room.String()))
	return "parley." + base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}

// Take takes a stanza from another server that is for an occupant of ours; false if it is for none.
func (s *Service) Take(st *element.Element, from, to translate.JID, account core.Address) bool {
	if !strings.HasPrefix(to.Resource, "parley.") {
		return false
	}
	o := s.of(account, from)
	if o == nil || o.me.Resource != to.Resource {
		return false
	}
	o.later(func() { o.receive(st, from) })
	return true
}

// row is what is kept of an occupancy.
type row struct {
	place
	conv     core.ConvID
	nick     string
	password string
	wanted   bool
}

// load reads the rows for which a condition holds.
func (s *Service) load(ctx context.Context, where string, args ...any) (rows []row, err error) {
	err = s.Hub.Read(ctx, func(v hub.View) error {
		q, err := hubstore.Querier(v).Query(`SELECT account, room, conv, nick, password, wanted FROM foreign_rooms
			WHERE `+where+` ORDER BY account, room`, args...)
		if err != nil {
			return err
		}
		defer q.Close()
		for q.Next() {
			var r row
			var account, room, conv string
			var wanted int64
			if err := q.Scan(&account, &room, &conv, &r.nick, &r.password, &wanted); err != nil {
				return err
			}
			if r.account, err = core.ParseAddress(account); err != nil {
				return err
			}
			if r.room, err = translate.ParseJID(room); err != nil {
				return err
			}
			r.conv, r.wanted = core.ConvID(conv), wanted != 0
			rows = append(rows, r)
		}
		return q.Err()
	})
	return rows, err
}

// keep writes a row.
func (r row) keep(tx hub.Tx) error {
	wanted := 0
	if r.wanted {
		wanted = 1
	}
	_, err := hubstore.Tx(tx).Exec(`INSERT INTO foreign_rooms (account, room, conv, nick, password, wanted)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (account, room) DO UPDATE SET conv = $3, nick = $4, password = $5, wanted = $6`,
		r.account.String(), r.room.String(), string(r.conv), r.nick, r.password, wanted)
	return err
}

// occupants reads who has which occupant-id.
func occupants(v hub.View, conv core.ConvID) (map[string]core.Address, error) {
	q, err := hubstore.Querier(v).Query(`SELECT occupant, address FROM foreign_occupants WHERE conv = $1`, string(conv))
	if err != nil {
		return nil, err
	}
	defer q.Close()
	out := map[string]core.Address{}
	for q.Next() {
		var id, address string
		if err := q.Scan(&id, &address); err != nil {
			return nil, err
		}
		if out[id], err = core.ParseAddress(address); err != nil {
			return nil, err
		}
	}
	return out, q.Err()
}

// occupantID is the occupant-id that the room gives somebody, "" if none is known.
func occupantID(v hub.View, conv core.ConvID, a core.Address) (id string, err error) {
	err = hubstore.Querier(v).QueryRow(`SELECT occupant FROM foreign_occupants WHERE conv = $1 AND address = $2`, string(conv), a.String()).Scan(&id)
	if store.NotFound(err) {
		err = nil
	}
	return id, err
}

// keepOccupant notes who has an occupant-id.
func keepOccupant(tx hub.Tx, conv core.ConvID, id string, a core.Address) error {
	_, err := hubstore.Tx(tx).Exec(`INSERT INTO foreign_occupants (conv, occupant, address) VALUES ($1, $2, $3)
		ON CONFLICT (conv, occupant) DO UPDATE SET address = $3`, string(conv), id, a.String())
	return err
}

// refusal turns a room's error into a refusal of the hub's.
func refusal(err error) error {
	var e *translate.Error
	if !errors.As(err, &e) {
		return err
	}
	code, ok := map[string]hub.Code{
		"forbidden": hub.Outcast, "registration-required": hub.MembersOnly, "not-authorized": hub.Forbidden,
		"conflict": hub.Conflict, "item-not-found": hub.NotFound, "gone": hub.Gone, "not-allowed": hub.Forbidden,
		"not-acceptable": hub.NotMember, "service-unavailable": hub.Unable, "jid-malformed": hub.Bad, "bad-request": hub.Bad,
		"policy-violation": hub.Forbidden, "resource-constraint": hub.TooMany,
		"remote-server-timeout": hub.Unreachable, "remote-server-not-found": hub.NoServer,
	}[e.Name]
	if !ok {
		code = hub.Unable
	}
	return hub.Refuse(code, "the room says: %s", e.Reason())
}
