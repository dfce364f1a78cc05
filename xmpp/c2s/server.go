package c2s

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/media"
	"parley/media/fetch"
	"parley/store"
	"parley/xmpp/adhoc"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/pep"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the tables of the sessions up to date.
func Migrate(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx, "xmpp-c2s", dir); err != nil {
		return err
	}
	if err := migratePush(ctx, db); err != nil {
		return err
	}
	if err := migrateFast(ctx, db); err != nil {
		return err
	}
	return pep.Migrate(ctx, db)
}

// Router takes stanzas of local clients to entities of other servers. It does not block: what cannot be sent comes back to the
// client as an error stanza by [Server.Deliver].
type Router interface {
	Route(stanza *element.Element)
}

// Service serves the addresses of a domain of its own, such as rooms. Its methods are called by the session's own goroutine.
type Service interface {
	// Stanza takes a stanza of a local client. An error is told to the client, unless the stanza is of type error or result.
	Stanza(ctx context.Context, s *Session, st *element.Element) error
	// News takes what the hub tells of conversations that are not direct.
	News(ctx context.Context, s *Session, n hub.News) error
	// Gone is told when the client is no longer available.
	Gone(s *Session)
}

// Config is what a Server is made of.
type Config struct {
	Hub *hub.Hub
	Log *slog.Logger
	// Count gets "panics"; it may be nil.
	Count hub.Counter
	// Router reaches other servers; nil where there are none.
	Router Router
	// Files keeps uploads and avatars; nil for none.
	Files *media.Files
	// Appear asks how one on another network than XMPP appears, on behalf of an account; nil for what is known. Remote brings the
	// pictures here that are elsewhere; nil brings none.
	Appear func(ctx context.Context, account, who core.Address) (core.Profile, error)
	Remote *fetch.Fetcher
	// Base is "https://" and the host of links to files.
	Base string
	// Version is told in answer to XEP-0092.
	Version string
	// Resume is for how long a session waits for its client to come back: 5 minutes.
	Resume time.Duration
	// MaxUnacked bounds what waits for a client that does not acknowledge, in stanzas: 2000.
	MaxUnacked int
	// Guard holds what is a rate; nil for none.
	Guard *guard.Guard
	// MaxSessions bounds the clients of one account, those that have lost their connection among them: 50. MaxDirected is to how many
	// entities one client's presence may be directed at a time: 500. MaxGroups bounds the groups of a contact: 50. MaxPage is how many
	// messages a page of the archive has: 200.
	MaxSessions, MaxDirected, MaxGroups, MaxPage int
	// MaxUpload is the largest file: 50 MiB. Quota is what one account's files may come to: 2 GiB.
	MaxUpload, Quota int64
	// PushSummary is how much push services are told: how many messages wait. PushGap is between two publications to one of them: 2
	// seconds.
	PushSummary PushSummary
	PushGap     time.Duration
	// Operators are the accounts that may use the commands for operators.
	Operators []core.Address
	// External are the services elsewhere of which clients are told.
	External []ExternalService
	// Contact is where the operator is reached: URIs, by kinds as XEP-0157 has them ("abuse", "support").
	Contact map[string][]string
	// Below lists further services of a domain, by their domains; nil for none.
	Below func(domain string) []string
}

// Server holds the sessions of all local clients.
type Server struct {
	Config
	names     translate.Names
	services  map[string]Service // by the first label of their domain
	elsewhere Elsewhere
	caps      *capsCache
	cursors   *cursors
	profiles  *profiles
	push      *pusher
	commands  *adhoc.Service
	keep      contain.Keeper
	moves     chan struct{}  // as many as are looked into at a time
	errands   sync.WaitGroup // what nobody waits for but the end of the server
	stopping  chan struct{}  // closed at the end of the server

	mu       sync.Mutex
	sessions map[core.Address]map[string]*Session // by resource
	streams  map[string]*Session                  // by resumption ID
	wg       sync.WaitGroup
}

// New makes a server. Add services before it serves.
func New(cfg Config) *Server {
	if cfg.Resume == 0 {
		cfg.Resume = 5 * time.Minute
	}
	if cfg.MaxUnacked == 0 {
		cfg.MaxUnacked = 2000
	}
	cfg.MaxSessions, cfg.MaxDirected = cmp.Or(cfg.MaxSessions, 50), cmp.Or(cfg.MaxDirected, 500)
	cfg.MaxGroups, cfg.MaxPage = cmp.Or(cfg.MaxGroups, 50), cmp.Or(cfg.MaxPage, 200)
	if cfg.MaxUpload == 0 {
		cfg.MaxUpload = 50 << 20
	}
	if cfg.Quota == 0 {
		cfg.Quota = 2 << 30
	}
	if cfg.PushGap == 0 {
		cfg.PushGap = defaultPushGap
	}
	srv := &Server{
		Config: cfg, services: map[string]Service{}, caps: newCapsCache(),
		moves:    make(chan struct{}, maxMoves),
		stopping: make(chan struct{}),
		names:    translate.Names{Home: cfg.Hub.Home(), Hosts: cfg.Hub.Hosts},
		keep:     contain.Keeper{Where: "c2s", Log: cfg.Log, Count: cfg.Count},
		cursors:  newCursors(cfg.Hub),
		sessions: map[core.Address]map[string]*Session{}, streams: map[string]*Session{},
	}
	srv.push, srv.commands, srv.profiles = newPusher(srv), newCommands(srv), newProfiles(srv)
	return srv
}

// AddService has svc serve label.DOMAIN for every domain that is hosted here.
func (srv *Server) AddService(label string, svc Service) { srv.services[label] = svc }

// Names spells addresses as JIDs.
func (srv *Server) Names() translate.Names { return srv.names }

// service finds who serves a domain.
func (srv *Server) service(domain string) (svc Service, ok bool) {
	label, parent, found := strings.Cut(domain, ".")
	if !found || !srv.Hub.Hosts(parent) {
		return nil, false
	}
	svc, ok = srv.services[label]
	return svc, ok
}

// Run keeps the sessions' house until ctx ends, and then waits until all of them have ended.
func (srv *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(cursorDelay)
	defer tick.Stop()
	clean := time.NewTicker(time.Hour)
	defer clean.Stop()
	defer srv.profiles.watch(context.WithoutCancel(ctx))()
	defer srv.Hub.Listen(srv.meet)()
	srv.clean(ctx)
	srv.wg.Go(func() { srv.push.run(ctx) })
	for {
		select {
		case <-tick.C:
			srv.cursors.flush(ctx, srv.Log)
		case <-clean.C:
			srv.clean(ctx)
		case <-ctx.Done():
			srv.mu.Lock()
			close(srv.stopping)
			srv.mu.Unlock()
			srv.wg.Wait()
			srv.errands.Wait()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			srv.cursors.flush(last, srv.Log)
			return nil
		}
	}
}

// joins adds one to those for whom Run waits, unless it has begun to.
func (srv *Server) joins(wg *sync.WaitGroup) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	select {
	case <-srv.stopping:
		return false
	default:
		wg.Add(1)
		return true
	}
}

// start begins a session, which ends at once if the server does.
func (srv *Server) start(ctx context.Context, s *Session) {
	if srv.joins(&srv.wg) {
		go s.run(ctx)
		return
	}
	s.fail(errOver)
	s.end(context.WithoutCancel(ctx))
}

// clean deletes what nobody will ask for any more.
func (srv *Server) clean(ctx context.Context) {
	srv.push.forget()
	err := srv.Hub.Write(ctx, func(tx hub.Tx) error {
		if err := cleanStreams(tx); err != nil {
			return err
		}
		if err := cleanTokens(tx); err != nil {
			return err
		}
		return cleanSlots(tx)
	})
	if err != nil && ctx.Err() == nil {
		srv.Log.Error("deleting old rows", "err", err)
	}
}

// of returns the account's sessions.
func (srv *Server) of(account core.Address) []*Session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	out := make([]*Session, 0, len(srv.sessions[account]))
	for _, s := range srv.sessions[account] {
		out = append(out, s)
	}
	return out
}

// at returns the session with that resource.
func (srv *Server) at(account core.Address, resource string) (*Session, bool) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	s, ok := srv.sessions[account][resource]
	return s, ok
}

// add notes a session, unless its account has too many by now.
func (srv *Server) add(s *Session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	m := srv.sessions[s.account]
	if len(m) >= srv.MaxSessions {
		return false
	}
	if m == nil {
		m = map[string]*Session{}
		srv.sessions[s.account] = m
	}
	m[s.jid.Resource] = s
	return true
}

func (srv *Server) remove(s *Session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if m := srv.sessions[s.account]; m[s.jid.Resource] == s {
		delete(m, s.jid.Resource)
		if len(m) == 0 {
			delete(srv.sessions, s.account)
		}
	}
	if s.smID != "" && srv.streams[s.smID] == s {
		delete(srv.streams, s.smID)
	}
}

// Deliver brings a stanza of another server, authenticated and to an address on one of our domains, to whom it is for: a client, or
// the server on behalf of an account. Answers go by the Router. Messages that are to be kept, presence and consent go to the hub and
// not here.
func (srv *Server) Deliver(ctx context.Context, st *element.Element) {
	to, err := translate.ParseJID(st.Attr("to"))
	if err != nil || !srv.Hub.Hosts(to.Domain) {
		return
	}
	if st.Name.Local == "iq" && to.Resource == "" {
		if isRequest(st) {
			srv.answerForeign(ctx, st, to)
		} else if !srv.push.answered(st) {
			if !srv.profiles.answered(ctx, st) {
				srv.caps.answered(st)
			}
		}
		return
	}
	if account, err := srv.names.Address(to.Bare()); err == nil {
		srv.push.withdrawn(st, account)
	}
	if st.Name.Local == "message" {
		srv.profiles.published(ctx, st)
	}
	if err := srv.route(st, to); err != nil {
		srv.bounceForeign(st, err)
	}
}

// bounceForeign sends the error for a stanza back to another server, if it is one that gets errors.
func (srv *Server) bounceForeign(st *element.Element, err error) {
	if srv.Router != nil && wantsError(st) {
		srv.Router.Route(translate.Bounce(st, err))
	}
}

// wantsError says whether an error may be sent in answer.
//
// spec: RFC 6120 §8.3.1
func wantsError(st *element.Element) bool {
	switch st.Attr("type") {
	case "error", "result":
		return false
	}
	return st.Name.Local != "presence"
}

func isRequest(iq *element.Element) bool {
	t := iq.Attr("type")
	return t == "get" || t == "set"
}

// errNobody is told where no client is there to take a stanza, or nobody may know whether one is.
var errNobody = translate.Fail(translate.ServiceUnavailable, "")

// route hands a stanza as it stands to the clients of a local account that it is for.
//
// spec: RFC 6121 §8.5
func (srv *Server) route(st *element.Element, to translate.JID) error {
	account, err := srv.names.Address(to.Bare())
	if err != nil || !account.IsLocal() {
		return errNobody
	}
	if to.Resource != "" {
		if s, ok := srv.at(account, to.Resource); ok && s.post(st) {
			return nil
		}
		if st.Name.Local != "message" {
			return errNobody
		}
	}
	for _, s := range srv.of(account) {
		if s.state.takesBare() {
			s.post(st)
		}
	}
	return nil
}

// Accounts authenticates clients against the hub's accounts.
type Accounts struct{ Hub *hub.Hub }

// ScramKeys implements [stream.Authenticator].
func (a Accounts) ScramKeys(ctx context.Context, domain, local string, hash stream.ScramHash) (stream.ScramKeys, error) {
	acc, err := a.Hub.Account(ctx, core.LocalAddress(local, domain))
	if errors.Is(err, hub.ErrNone) {
		return stream.ScramKeys{}, stream.ErrNoAccount
	} else if err != nil {
		return stream.ScramKeys{}, err
	}
	c := acc.Credentials
	k := stream.ScramKeys{Salt: c.Salt, Iterations: c.Iterations, StoredKey: c.StoredKey256, ServerKey: c.ServerKey256, Disabled: acc.Disabled}
	if hash == stream.ScramSHA1 {
		k.StoredKey, k.ServerKey = c.StoredKey1, c.ServerKey1
	}
	if len(k.StoredKey) == 0 {
		return stream.ScramKeys{}, stream.ErrNoAccount
	}
	return k, nil
}

// Plain implements [stream.Authenticator].
func (a Accounts) Plain(ctx context.Context, domain, local, password string) error {
	err := a.Hub.CheckPassword(ctx, core.LocalAddress(local, domain), password)
	if errors.Is(err, hub.ErrPassword) {
		return stream.ErrNoAccount
	}
	return err
}
