package client

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley/core"
)

// The stages of user-interactive authentication that there are here.
//
// spec: MX 1.19 CS §4.9.1.3
const (
	stagePassword = "m.login.password"
	stageDummy    = "m.login.dummy"
	stageToken    = "m.login.registration_token"
)

// uiaLife is how long an authentication may take, and maxSessions how many may
// be under way, from one requester and in all.
const (
	uiaLife        = 15 * time.Minute
	maxSessions    = 10_000
	maxSessionsWho = 20
)

// uiaSession is one authentication under way. It belongs to one endpoint (with
// its path's variables) and, where the endpoint wants a login, to one device.
// From the first stage that is done on, it belongs to one request body as well,
// so that what was confirmed is what is done.
//
// spec: MX 1.19 CS §4.9.1.2
type uiaSession struct {
	id       string
	endpoint string
	who      string
	bound    [sha256.Size]byte
	body     []byte // of the first request, for clients that do not repeat it
	done     []string
	busy     bool // the request is being done
	expires  time.Time
}

type uiaSessions struct {
	mu sync.Mutex
	m  map[string]*uiaSession
}

// uiaAuth is the auth member of a request.
type uiaAuth struct {
	Type       string      `json:"type"`
	Session    string      `json:"session"`
	Identifier *identifier `json:"identifier"`
	User       string      `json:"user"`
	Password   string      `json:"password"`
	Token      string      `json:"token"`
}

// confirm lets a request pass that has gone through one of the flows; the
// error of any other is the 401 that asks for more. free leaves the body open:
// for registration, where who fails because of a name tries another one. After
// the request call the function that it returns, with what came of it.
func (r *Request) confirm(flows [][]string, free bool) (finish func(error), err error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	var in struct {
		Auth *uiaAuth `json:"auth"`
	}
	if err := DecodeJSON(body, &in); err != nil {
		return nil, err
	}
	plain, err := withoutAuth(body)
	if err != nil {
		return nil, err
	}
	a := r.API
	s, err := a.uia.open(r, in.Auth, plain)
	if err != nil {
		return nil, err
	}
	if in.Auth == nil || in.Auth.Session != "" && in.Auth.Session != s.id {
		return nil, s.more(flows, nil)
	}
	if in.Auth.Type != "" && !a.uia.has(s, in.Auth.Type) {
		if err := r.stage(in.Auth, flows); err != nil {
			e, internal := AsError(err)
			if internal || e.Status == http.StatusTooManyRequests {
				return nil, err
			}
			return nil, s.more(flows, e)
		}
	}
	if plain, err = a.uia.finishStage(s, in.Auth.Type, plain, free); err != nil {
		return nil, err
	}
	if !a.uia.claim(s, flows) {
		return nil, s.more(flows, nil)
	}
	r.body = plain
	return func(err error) { a.uia.release(s, err == nil) }, nil
}

// stage tries one stage of authentication.
func (r *Request) stage(auth *uiaAuth, flows [][]string) error {
	if !slices.ContainsFunc(flows, func(f []string) bool { return slices.Contains(f, auth.Type) }) {
		return Errorf(http.StatusUnauthorized, Forbidden, "That stage is in none of the flows.")
	}
	switch auth.Type {
	case stageDummy:
		return nil
	case stageToken:
		return r.API.checkRegistrationToken(r, auth.Token)
	}
	id := identifier{User: auth.User}
	if auth.Identifier != nil {
		id = *auth.Identifier
	}
	if id.User != "" || id.Address != "" {
		who, err := id.account(r.API, r.Account.Domain)
		if err != nil {
			return err
		}
		if who != r.Account {
			return Errorf(http.StatusUnauthorized, Forbidden, "That is another account.")
		}
	}
	return r.API.checkPassword(r, r.Account, auth.Password)
}

// checkRegistrationToken checks a token that allows to register.
//
// spec: MX 1.19 CS §4.9.1.3.7
func (a *API) checkRegistrationToken(r *Request, token string) error {
	return a.guess([]string{r.IP.String()}, func() (wrong bool, err error) {
		ok := 0
		for _, t := range a.config.Tokens {
			ok |= subtle.ConstantTimeCompare(digest(t), digest(token))
		}
		if ok == 1 {
			return false, nil
		}
		return true, Errorf(http.StatusUnauthorized, Forbidden, "That is not a registration token.")
	})
}

// withoutAuth is a body without its auth member, in canonical order.
func withoutAuth(body []byte) ([]byte, error) {
	var m map[string]json.RawMessage
	if err := DecodeJSON(body, &m); err != nil {
		return nil, err
	}
	delete(m, "auth")
	for k, v := range m {
		var b bytes.Buffer
		if err := json.Compact(&b, v); err != nil {
			return nil, err
		}
		m[k] = b.Bytes()
	}
	return json.Marshal(m)
}

// open finds the session that auth names, or begins one.
func (u *uiaSessions) open(r *Request, auth *uiaAuth, body []byte) (*uiaSession, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := time.Now()
	endpoint, who := r.TxnScope(), r.who()
	if auth != nil && auth.Session != "" {
		if s := u.m[auth.Session]; s != nil && s.endpoint == endpoint && s.who == who && at.Before(s.expires) {
			return s, nil
		}
	}
	if u.m == nil {
		u.m = map[string]*uiaSession{}
	}
	mine := 0
	for id, s := range u.m {
		if !at.Before(s.expires) {
			delete(u.m, id)
		} else if s.who == who {
			mine++
		}
	}
	if len(u.m) >= maxSessions || mine >= maxSessionsWho {
		return nil, limited(time.Minute)
	}
	s := &uiaSession{id: core.NewToken(), endpoint: endpoint, who: who, body: body, expires: at.Add(uiaLife)}
	u.m[s.id] = s
	return s, nil
}

func (u *uiaSessions) has(s *uiaSession, stage string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Contains(s.done, stage)
}

// finishStage notes a stage as done and returns the body to go on with: that
// of the first request, where this one brings none.
func (u *uiaSessions) finishStage(s *uiaSession, stage string, body []byte, free bool) ([]byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if string(body) == "{}" {
		body = s.body
	}
	sum := sha256.Sum256(body)
	if !free && len(s.done) > 0 && s.bound != sum {
		return nil, Errorf(http.StatusForbidden, Forbidden, "The request is not the one that was authenticated.")
	}
	s.bound = sum
	if stage != "" && !slices.Contains(s.done, stage) {
		s.done = append(s.done, stage)
	}
	return body, nil
}

// claim reports whether all stages of a flow are done and nobody else is doing
// the request.
func (u *uiaSessions) claim(s *uiaSession, flows [][]string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.busy || u.m[s.id] != s {
		return false
	}
	s.busy = slices.ContainsFunc(flows, func(f []string) bool {
		return !slices.ContainsFunc(f, func(stage string) bool { return !slices.Contains(s.done, stage) })
	})
	return s.busy
}

// release ends a session whose request was done; one that failed may be tried
// again.
func (u *uiaSessions) release(s *uiaSession, done bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.busy = false; done {
		delete(u.m, s.id)
	}
}

// more is the answer that asks for further stages; failed is why the last one
// was not passed.
func (s *uiaSession) more(flows [][]string, failed *Error) error {
	list := make([]map[string]any, len(flows))
	for i, f := range flows {
		list[i] = map[string]any{"stages": f}
	}
	e := &Error{Status: http.StatusUnauthorized, Fields: map[string]any{
		"flows": list, "params": struct{}{}, "session": s.id, "completed": append([]string{}, s.done...),
	}}
	if failed != nil {
		e.Errcode, e.Text = failed.Errcode, failed.Text
	}
	return e
}

// withPassword asks for the account's password before the handler runs.
func withPassword(h Handler) Handler {
	return func(r *Request) (any, error) {
		finish, err := r.confirm([][]string{{stagePassword}}, false)
		if err != nil {
			return nil, err
		}
		answer, err := h(r)
		finish(err)
		return answer, err
	}
}
