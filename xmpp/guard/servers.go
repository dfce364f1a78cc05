package guard

import (
	"math"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"parley/xmpp/translate"
)

// Servers says which foreign servers are dealt with.
type Servers struct {
	// Refuse are domains with which nothing is exchanged, and Only, if there are any, are the only ones with which something is.
	// "*.example.org" is every domain below example.org, but not itself.
	Refuse, Only []string
	// HalfLife is after how long half of what spoils a server's name is forgotten: 24 hours.
	HalfLife time.Duration
	// RefuseAt is the score from which strangers of a server are refused altogether; 0 is never. What is over a limit for strangers
	// scores, [ScoreOver] once a day for each sender, being blocked by an account [ScoreBlocked], and being reported by one [ScoreReported].
	RefuseAt int
}

// What spoils a server's name, in points.
const (
	ScoreOver     = 1
	ScoreBlocked  = 2
	ScoreReported = 10
)

// Refuses says whether the operator has nothing exchanged with a server; the error says it to others. A refused server's subdomains are
// not refused with it, but by a pattern.
func (g *Guard) Refuses(domain string) error {
	if g == nil || !g.block.has(domain) && (len(g.only) == 0 || g.only.has(domain)) {
		return nil
	}
	g.Count(Refused)
	return translate.Fail(translate.PolicyViolation, "this server does not exchange anything with yours"+g.appeal())
}

// appeal says where one can complain of a refusal.
func (g *Guard) appeal() string {
	if g.cfg.Contact == "" {
		return ""
	}
	return "; write to " + g.cfg.Contact + " if you think that this is wrong"
}

// Approach is something that a person on a foreign server does to an account which does not know her.
type Approach struct {
	Limit  Limit  // Strangers or Requests
	Sender string // bare JID
	Domain string
	// Known says that somebody here has a contact on that server.
	Known bool
}

// Stranger holds an approach to what the sender, her server, and servers that nobody here knows may do. The worse the server's name,
// the less that is. What is over a limit spoils the name further, so that a server which goes on and on is refused altogether, until
// it has kept quiet for long enough.
func (g *Guard) Stranger(a Approach) error {
	if g == nil {
		return nil
	}
	now := g.cfg.Now()
	org := organisation(a.Domain)
	score := g.names.score(org, g.halfLife(), now)
	if at := g.cfg.Servers.RefuseAt; at > 0 && score >= float64(at) {
		g.Count(Reputation)
		return translate.Fail(translate.PolicyViolation, "this server takes nothing from strangers on yours for now, because of what came from there"+g.appeal())
	}
	cost := 1 + int(score/10)
	err := g.allow(StrangerSender, a.Sender, 1)
	if err == nil && !a.Known {
		err = g.allow(UnknownServer, org, cost)
	}
	if err == nil {
		err = g.allow(a.Limit, org, cost)
	}
	if err != nil {
		if g.names.first("of "+a.Sender, now) { // one person alone does not spoil the name of all her neighbours
			g.names.add(org, ScoreOver, g.halfLife(), now)
		}
		if e, ok := err.(*translate.Error); ok { //nolint:errorlint // it is made above
			e.Text += g.appeal()
		}
	}
	return err
}

// Blame notes that an account here wants nothing of a server, or of somebody there. An account is heard once a day for each server, so
// that nobody can spoil a name alone.
func (g *Guard) Blame(by, domain string, points int) {
	if g == nil {
		return
	}
	now := g.cfg.Now()
	org := organisation(domain)
	if g.names.first(by+" "+org, now) {
		g.names.add(org, float64(points), g.halfLife(), now)
	}
}

// Score is how bad a server's name is now.
func (g *Guard) Score(domain string) float64 {
	if g == nil {
		return 0
	}
	return g.names.score(organisation(domain), g.halfLife(), g.cfg.Now())
}

func (g *Guard) halfLife() time.Duration {
	if g.cfg.Servers.HalfLife > 0 {
		return g.cfg.Servers.HalfLife
	}
	return 24 * time.Hour
}

// organisation is the part of a domain that somebody had to register: who has one has all below it, as many as she likes.
func organisation(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// Organisation is who stands behind a domain: the part of it that somebody had to register.
func Organisation(domain string) string { return organisation(domain) }

// reputations are the bad names of servers. The zero value is ready.
type reputations struct {
	mu    sync.Mutex
	m     map[string]*name
	heard map[string]time.Time // of which account about which server
}

type name struct {
	score float64
	at    time.Time
}

// maxNames is how many servers' names are remembered; the best are forgotten first.
const maxNames = 10_000

func (n *name) now(half time.Duration, now time.Time) float64 {
	return n.score * math.Exp2(-now.Sub(n.at).Hours()/half.Hours())
}

func (r *reputations) score(org string, half time.Duration, now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.m[org]
	if n == nil {
		return 0
	}
	return n.now(half, now)
}

func (r *reputations) add(org string, points float64, half time.Duration, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = map[string]*name{}
	}
	n := r.m[org]
	if n == nil {
		for bar := 1.0; len(r.m) >= maxNames; bar *= 2 {
			for k, o := range r.m {
				if o.now(half, now) < bar {
					delete(r.m, k)
				}
			}
		}
		n = &name{}
		r.m[org] = n
	}
	n.score, n.at = min(n.now(half, now)+points, 1000), now
}

// first says whether an account has not been heard about a server for a day.
func (r *reputations) first(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil || len(r.heard) >= maxKeys {
		r.heard = map[string]time.Time{}
	}
	if at, ok := r.heard[key]; ok && now.Sub(at) < 24*time.Hour {
		return false
	}
	r.heard[key] = now
	return true
}

// domains is a set of domains and of patterns.
type domains map[string]bool

func newDomains(list []string) domains {
	d := domains{}
	for _, s := range list {
		d[s] = true
	}
	return d
}

func (d domains) has(domain string) bool {
	if d[domain] {
		return true
	}
	for rest := domain; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return false
		}
		if d["*."+parent] {
			return true
		}
		rest = parent
	}
}
