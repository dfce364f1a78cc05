// Package guard is the doorman of the XMPP house: it counts how often each client, account, occupant and server does what is cheap for
// it and dear for others, says when that is too often, and remembers which servers have sent what nobody wanted. It knows no stanzas
// but the errors that it returns, which its callers send; sizes and depths are the parser's business, not its.
//
// What it counts lives in memory and fades: after a restart everybody has a clean slate, which an attacker cannot bring about.
package guard

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/hub"
	"parley/xmpp/translate"
)

// Limit names a limit, as the configuration and the metric "limited" do.
type Limit string

// The limits. Each is of one key: a stream, an account, a person, a server.
const (
	Stanzas            Limit = "stanzas_per_second"         // of one client's stream
	AccountStanzas     Limit = "account_stanzas_per_second" // of all streams of an account
	ServerStanzas      Limit = "server_stanzas_per_second"  // of a foreign server
	Logins             Limit = "logins_per_minute"          // failed, by address of the network and by account
	Registrations      Limit = "registers_per_hour"         // tries to make an account, by address of the network
	Sessions           Limit = "sessions_per_account"
	Presences          Limit = "presences_per_minute"         // broadcast by one client
	DirectedPresences  Limit = "directed_presences"           // of one client, at a time
	ContactPresences   Limit = "contact_presences_per_minute" // of one foreign person
	RoomPresences      Limit = "room_presences_per_minute"    // of one occupant in one room
	Nicks              Limit = "nicks_per_minute"             // of one occupant in one room
	Asks               Limit = "asks_per_hour"                // requests for consent of an account
	RosterGroups       Limit = "roster_groups"
	Strangers          Limit = "strangers_per_hour"       // messages to accounts that do not know the sender, of a server
	Requests           Limit = "requests_per_hour"        // requests for consent, of a server
	StrangerSender     Limit = "stranger_sender_per_hour" // both, of one person
	UnknownServer      Limit = "unknown_server_per_hour"  // both, of a server on which nobody here has a contact
	ArchivePages       Limit = "archive_pages_per_minute" // of one person
	ServerArchivePages Limit = "server_archive_pages_per_minute"
	ServerRequests     Limit = "server_iqs_per_minute"    // of a foreign server to this one, its accounts and its rooms
	Joins              Limit = "room_joins_per_minute"    // of one person
	ServerJoins        Limit = "server_joins_per_minute"  // of a foreign server
	Rooms              Limit = "rooms_per_hour"           // made by one account
	RoomMessages       Limit = "room_messages_per_minute" // of one person
	UploadQuota        Limit = "upload_quota"
	RoomOccupants      Limit = "room_occupants"
	RoomStanza         Limit = "room_stanza_size"
	Reputation         Limit = "reputation_refuse"
	Refused            Limit = "refuse" // the operator's list, not a number
)

// said tells who is held by a limit what there is too much of.
var said = map[Limit]string{
	Presences:          "your client changes its presence too often",
	RoomPresences:      "you change your presence in this room too often",
	Nicks:              "you change your nick too often",
	Registrations:      "too many accounts are being made from your network; try later",
	Asks:               "you ask too many people to be your contacts",
	Strangers:          "this server takes no more messages from yours to people who do not know the sender",
	Requests:           "this server takes no more requests from yours",
	StrangerSender:     "you have written to too many people here who do not know you",
	UnknownServer:      "this server has heard enough from yours, on which nobody here has a contact",
	ArchivePages:       "you read the archive too fast",
	ServerArchivePages: "your server reads the archives here too fast",
	ServerRequests:     "your server asks too much",
	RoomMessages:       "you say too much in rooms",
	Joins:              "you enter rooms too often",
	ServerJoins:        "too many people of your server enter rooms here",
	Rooms:              "you have made too many rooms",
}

// Rate is how often something may happen: N times in Per, and Burst times at once. A rate without N does not limit.
type Rate struct {
	N     int
	Per   time.Duration
	Burst int // zero: N
}

func (r Rate) limiter() *rate.Limiter {
	if r.N <= 0 {
		return nil
	}
	burst := r.Burst
	if burst == 0 {
		burst = r.N
	}
	return rate.NewLimiter(rate.Limit(float64(r.N)/r.Per.Seconds()), burst)
}

// Config is what a Guard is made of.
type Config struct {
	// Rates are the limits that are rates; one that is not there does not hold.
	Rates map[Limit]Rate
	// Count may be nil. What is refused or slowed down is counted as "limited", with the limit's name.
	Count hub.Counter
	// Contact is where a refused server's people can appeal, as a URI; told with the refusal.
	//
	// spec: XEP-0157 §2
	Contact string
	// Servers says which foreign servers are dealt with, and what spoils their name.
	Servers Servers
	// Now is the clock; nil is the system's.
	Now func() time.Time
}

// Guard holds the limits. Its methods may be called by any goroutine. A nil Guard limits nothing.
type Guard struct {
	cfg    Config
	sheets map[Limit]*sheet
	names  reputations
	block  domains
	only   domains
}

// New makes a guard.
func New(cfg Config) *Guard {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	g := &Guard{cfg: cfg, sheets: map[Limit]*sheet{}, block: newDomains(cfg.Servers.Refuse), only: newDomains(cfg.Servers.Only)}
	for l, r := range cfg.Rates {
		if r.N > 0 {
			g.sheets[l] = &sheet{rate: r, m: map[string]*entry{}}
		}
	}
	return g
}

// Count counts that a limit has held somebody. For limits that are not rates it is the caller who finds out.
func (g *Guard) Count(l Limit) {
	if g != nil && g.cfg.Count != nil {
		g.cfg.Count.Count("limited", string(l))
	}
}

// Over counts that a limit which is no rate has held somebody, and makes the error that tells it.
func (g *Guard) Over(l Limit, c translate.Condition, format string, args ...any) error {
	g.Count(l)
	return translate.Fail(c, fmt.Sprintf(format, args...))
}

// Allow notes that key has done once what the limit counts. Where that is once too often, nothing is noted but in the metrics, and the
// error says so and for how long.
//
// spec: XEP-0205 §5
func (g *Guard) Allow(l Limit, key string) error { return g.allow(l, key, 1) }

// allow takes cost of what key has.
func (g *Guard) allow(l Limit, key string, cost int) error {
	if g == nil || g.sheets[l] == nil {
		return nil
	}
	wait, ok := g.sheets[l].take(key, cost, g.cfg.Now())
	if ok {
		return nil
	}
	g.Count(l)
	return translate.Fail(translate.ResourceConstraint, said[l]+"; try again in "+inWords(wait))
}

// Wait notes likewise, but waits until it is not too often: how streams are read slowly, so that nothing of them is lost. It fails only
// when ctx ends.
//
// spec: XEP-0205 §4
func (g *Guard) Wait(ctx context.Context, l Limit, key string) error {
	if g == nil || g.sheets[l] == nil {
		return nil
	}
	lim := g.sheets[l].of(key, g.cfg.Now())
	if lim.Allow() {
		return nil
	}
	g.Count(l)
	return lim.Wait(ctx)
}

// Exhausted says for how long key has used up what it may do; it notes nothing. See [Guard.Use].
func (g *Guard) Exhausted(l Limit, key string) (wait time.Duration, exhausted bool) {
	if g == nil || g.sheets[l] == nil {
		return 0, false
	}
	now := g.cfg.Now()
	lim := g.sheets[l].of(key, now)
	if have := lim.TokensAt(now); have < 1 {
		g.Count(l)
		return time.Duration((1 - have) / float64(lim.Limit()) * float64(time.Second)), true
	}
	return 0, false
}

// Use notes that key has done something, whether it may or not: a login that has failed cannot be refused any more.
func (g *Guard) Use(l Limit, key string) {
	if g != nil && g.sheets[l] != nil {
		now := g.cfg.Now()
		g.sheets[l].of(key, now).AllowN(now, 1)
	}
}

// FailedLogins are the failed logins, for package stream.
type FailedLogins struct{ *Guard }

// Exhausted says whether too many logins have failed under a name.
func (f FailedLogins) Exhausted(name string) bool {
	_, exhausted := f.Guard.Exhausted(Logins, name)
	return exhausted
}

// Failed notes one.
func (f FailedLogins) Failed(name string) { f.Use(Logins, name) }

// Pace is a rate of one stream, kept with it. A nil Pace does not limit.
type Pace struct {
	g   *Guard
	l   Limit
	lim *rate.Limiter
}

// Pace makes the rate of one stream.
func (g *Guard) Pace(l Limit) *Pace {
	if g == nil || g.sheets[l] == nil {
		return nil
	}
	return &Pace{g: g, l: l, lim: g.sheets[l].rate.limiter()}
}

// Wait is [Guard.Wait] for this stream.
func (p *Pace) Wait(ctx context.Context) error {
	if p == nil || p.lim.Allow() {
		return nil
	}
	p.g.Count(p.l)
	return p.lim.Wait(ctx)
}

// sheet holds one limit's count of every key that was heard of lately.
type sheet struct {
	rate  Rate
	mu    sync.Mutex
	m     map[string]*entry
	swept time.Time
}

type entry struct {
	lim  *rate.Limiter
	used time.Time
}

// maxKeys is how many keys one limit counts. With more at a time, some begin anew: limits of servers and of connections bound how fast
// anybody can come by keys.
const maxKeys = 100_000

// full is after how long of doing nothing a key is as good as new.
func (s *sheet) full() time.Duration {
	burst := max(s.rate.Burst, s.rate.N)
	return time.Duration(float64(s.rate.Per) * float64(burst) / float64(s.rate.N))
}

func (s *sheet) of(key string, now time.Time) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.swept) > s.full() || len(s.m) >= maxKeys {
		s.sweep(now)
	}
	e := s.m[key]
	if e == nil {
		e = &entry{lim: s.rate.limiter()}
		s.m[key] = e
	}
	e.used = now
	return e.lim
}

// sweep forgets the keys that are as good as new, and if that is not enough, a tenth of the rest.
func (s *sheet) sweep(now time.Time) {
	s.swept = now
	full := s.full()
	maps.DeleteFunc(s.m, func(_ string, e *entry) bool { return now.Sub(e.used) > full })
	for key := range s.m {
		if len(s.m) < maxKeys*9/10 {
			return
		}
		delete(s.m, key)
	}
}

// take takes cost of the key's allowance, or says for how long there is too little.
func (s *sheet) take(key string, cost int, now time.Time) (wait time.Duration, ok bool) {
	lim := s.of(key, now)
	cost = min(cost, lim.Burst())
	r := lim.ReserveN(now, cost)
	if wait = r.DelayFrom(now); wait == 0 {
		return 0, true
	}
	r.CancelAt(now)
	return wait, false
}

// inWords rounds up: who comes back then is not refused again.
func inWords(d time.Duration) string {
	unit := func(n float64, name string) string {
		if n = math.Ceil(n); n != 1 {
			name += "s"
		}
		return fmt.Sprintf("%.0f %s", n, name)
	}
	if d > 90*time.Second {
		return unit(d.Minutes(), "minute")
	}
	return unit(max(d.Seconds(), 1), "second")
}
