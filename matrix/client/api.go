package client

import (
	"bytes"
	"context"
	"encoding/json"
	"hash/maphash"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/translate"
	"parley/media"
	"parley/media/fetch"
)

// Config is what the operator decides.
type Config struct {
	// BaseURL is where clients of a domain reach this API, without a slash at
	// the end.
	BaseURL func(domain string) string
	// Registration is "closed", "token" or "open"; Tokens are for "token".
	Registration string
	Tokens       []string
	// RoomVersion is what new rooms have by default.
	RoomVersion string
	// Private asks clients to encrypt new direct conversations.
	Private bool
	// Contact is the mail address of an administrator, also as a "mailto:" URI;
	// empty for none.
	Contact string
	// SyncFeed reads the point of the feed in a token of /sync.
	SyncFeed func(token string) (core.Feed, error)
	// CheckFilter refuses a filter that /sync could not use; nil takes all.
	CheckFilter func(filter []byte) error

	// Remote brings files that are on other servers; nil brings none.
	Remote *fetch.Fetcher

	RequestSize int64 // bytes of one JSON body
	UploadSize  int64 // bytes of one file

	MessagesPerMinute, MessageBurst int // of one account
	LoginsPerMinute                 int // failed ones, of one IP address and of one account
	RegistersPerHour                int // of one IP address
}

// API answers Matrix clients. Tables of routes are added before it serves.
type API struct {
	Names

	hub    *hub.Hub
	others Others
	files  *media.Files
	config Config
	log    *slog.Logger
	router router
	limits *limits
	tokens tokenCache
	uia    uiaSessions
	locks  locks
	// profiles asks other Matrix servers; nil where there are none.
	profiles Profiles
	// pending are the files that were promised.
	pending pendingUploads
}

// New makes an API with the routes of this package. The database has this
// package's [Migrations].
func New(h *hub.Hub, files *media.Files, config Config, log *slog.Logger) *API {
	if config.RequestSize == 0 {
		config.RequestSize = 1 << 20
	}
	a := &API{
		Names:  Names{translate.Names{Home: h.Home(), Hosts: h.Hosts}},
		hub:    h,
		others: alone{},
		files:  files,
		config: config,
		log:    log,
		limits: newLimits(config.paces()),
		locks:  locks{seed: maphash.MakeSeed()},
	}
	a.Add(a.routes()...)
	return a
}

// paces are the limits by class. Reads, writes and searches are there to stop a
// client that runs wild.
func (c Config) paces() map[Class]pace {
	per := func(d time.Duration, n, burst int) pace {
		if n <= 0 {
			return pace{}
		}
		return pace{d / time.Duration(n), burst}
	}
	return map[Class]pace{
		Reads:     per(time.Second, 50, 500),
		Writes:    per(time.Second, 10, 200),
		Messages:  per(time.Minute, c.MessagesPerMinute, max(c.MessageBurst, 1)),
		Logins:    per(time.Minute, c.LoginsPerMinute, max(c.LoginsPerMinute, 1)),
		Registers: per(time.Hour, c.RegistersPerHour, max(c.RegistersPerHour, 1)),
		Uploads:   per(time.Second, 1, 60),
		Searches:  per(time.Second, 1, 30),
	}
}

// Add adds tables of routes.
func (a *API) Add(tables ...[]Route) {
	for _, t := range tables {
		for _, r := range t {
			a.router.add(r)
		}
	}
}

// ServeHTTP implements http.Handler for /_matrix, /.well-known/matrix and
// /_parley.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	rec := &recorder{ResponseWriter: w}
	cors(rec.Header())
	req := &Request{HTTP: r, API: a, IP: remoteIP(r), w: rec}
	defer func() {
		if p := recover(); p != nil {
			a.panicked(rec, req, p)
		}
		a.access(req, rec, time.Since(began))
	}()
	if r.Method == http.MethodOptions {
		rec.WriteHeader(http.StatusNoContent)
		return
	}
	answer, err := a.do(req)
	if err != nil {
		a.fail(rec, req, err)
		return
	}
	if reply, ok := answer.(Reply); ok {
		reply.WriteReply(rec, r)
		return
	}
	if answer == nil {
		answer = struct{}{}
	}
	writeJSON(rec, http.StatusOK, answer)
}

// do finds the route, lets in who may come in, and runs the handler.
func (a *API) do(r *Request) (any, error) {
	route, vars, allowed, err := a.router.find(r.HTTP.Method, r.HTTP.URL.EscapedPath())
	switch {
	case err != nil:
		return nil, err
	case route == nil && allowed != nil:
		r.w.Header().Set("Allow", strings.Join(allowed, ", "))
		return nil, Errorf(http.StatusMethodNotAllowed, Unrecognized, "This method is not for this path.")
	case route == nil:
		return nil, Errorf(http.StatusNotFound, Unrecognized, "There is no such endpoint.")
	}
	r.route, r.vars, r.query = route, vars, r.HTTP.URL.Query()
	if err := a.authenticate(r); err != nil {
		return nil, err
	}
	// Failed logins are counted where they fail; see passwords.
	if route.Limit != Logins {
		if err := r.Take(route.Limit); err != nil {
			return nil, err
		}
	}
	return route.Handler(r)
}

// Take counts one against the requester's limit of a class.
func (r *Request) Take(c Class) error {
	return limited(r.API.limits.take(c, r.who(), time.Now()))
}

func (r *Request) who() string {
	if !r.Account.IsZero() {
		return r.Account.String()
	}
	return r.IP.String()
}

func limited(wait time.Duration) error {
	if wait == 0 {
		return nil
	}
	e := Errorf(http.StatusTooManyRequests, LimitExceeded, "Too many requests; wait a little.")
	e.RetryAfter = wait
	return e
}

// authenticate reads the access token, as the route asks.
//
// spec: MX 1.19 CS §4.4
func (a *API) authenticate(r *Request) error {
	if r.route.Auth == None {
		return nil
	}
	token := accessToken(r)
	if token == "" {
		if r.route.Auth == Optional {
			return nil
		}
		return Errorf(http.StatusUnauthorized, MissingToken, "There is no access token in the request.")
	}
	login, err := a.identify(r, token)
	if err != nil {
		return err
	}
	r.Account, r.Device, r.Token = login.Account, login.Device, login.Token
	r.UserID = a.UserID(login.Account)
	return nil
}

// accessToken reads the header, or the query as older clients have it.
//
// spec: MX 1.19 CS §4.4
func accessToken(r *Request) string {
	scheme, token, _ := strings.Cut(r.HTTP.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") && token != "" {
		return strings.TrimSpace(token)
	}
	return r.query.Get("access_token")
}

// fail answers with an error.
func (a *API) fail(w http.ResponseWriter, r *Request, err error) {
	if gone := context.Cause(r.Context()); gone != nil {
		err = gone // whatever came of it: nobody waits for the answer
	}
	e, internal := AsError(err)
	if internal {
		a.log.ErrorContext(r.Context(), "matrix client request failed", "route", r.pattern(), "err", err)
	}
	if e.RetryAfter > 0 {
		// spec: MX 1.19 CS §1.1.3
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	writeJSON(w, e.Status, e.body())
}

func (a *API) panicked(w *recorder, r *Request, p any) {
	a.log.Error("panic in a matrix client request", "route", r.pattern(), "panic", p, "stack", string(debug.Stack()))
	if w.status != 0 {
		// The answer has begun; all that is left is to break it off.
		panic(http.ErrAbortHandler)
	}
	writeJSON(w, http.StatusInternalServerError, Errorf(0, Unknown, "Internal server error.").body())
}

// access logs what was asked, by whom, and what came of it: never the path or
// the query, which hold secrets.
func (a *API) access(r *Request, w *recorder, took time.Duration) {
	a.log.Debug("matrix client", "method", r.HTTP.Method, "route", r.pattern(), "status", w.status,
		"user", r.UserID, "device", r.Device, "ip", r.IP, "bytes", w.bytes, "took", took)
}

func (r *Request) pattern() string {
	if r.route == nil {
		return "(unknown)"
	}
	return r.route.Path
}

// cors lets web clients of any origin in.
//
// spec: MX 1.19 CS §2
func cors(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization")
	h.Set("Access-Control-Expose-Headers", "Retry-After")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // a value of ours that has no JSON: a bug
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	// The client may have gone; there is nobody to tell.
	_, _ = w.Write(b.Bytes())
}

// remoteIP is the client's address. A proxy on this machine is believed about
// for whom it asks: it is the operator's.
func remoteIP(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if ip = ip.Unmap(); !ip.IsLoopback() {
		return ip
	}
	forwarded := r.Header.Values("X-Forwarded-For")
	if len(forwarded) == 0 {
		return ip
	}
	all := forwarded[len(forwarded)-1]
	if last, err := netip.ParseAddr(strings.TrimSpace(all[strings.LastIndexByte(all, ',')+1:])); err == nil {
		return last.Unmap()
	}
	return ip
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
