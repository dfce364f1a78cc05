package client

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"parley/hub"
)

// Limits of an account's own push rules.
const (
	maxRules      = 500 // of one kind
	maxConditions = 30
	maxActions    = 10
	maxPattern    = 500 // bytes
)

// rules reads the account's push rules.
func (a *API) rules(r *Request) (s *Ruleset, err error) {
	err = a.hub.Read(r.Context(), func(v hub.View) error {
		s, err = a.PushRules(v, r.Account)
		return err
	})
	return s, err
}

func (a *API) getRules(r *Request) (any, error) {
	s, err := a.rules(r)
	return map[string]any{"global": s}, err
}

func (a *API) getGlobalRules(r *Request) (any, error) { return a.rules(r) }

func errNoRule() error {
	return Errorf(http.StatusNotFound, NotFound, "There is no such push rule.")
}

// rule finds the rule of the path.
func (s *Ruleset) rule(r *Request) (*Rule, error) {
	list := s.Of(RuleKind(r.Var("kind")))
	if list == nil {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "There is no such kind of push rules.")
	}
	i := indexRule(*list, r.Var("ruleId"))
	if i < 0 {
		return nil, errNoRule()
	}
	return &(*list)[i], nil
}

// getRule answers with what pick takes from the rule of the path.
func (a *API) getRule(pick func(*Rule) any) Handler {
	return func(r *Request) (any, error) {
		s, err := a.rules(r)
		if err != nil {
			return nil, err
		}
		rule, err := s.rule(r)
		if err != nil {
			return nil, err
		}
		return pick(rule), nil
	}
}

// changeRules changes the account's push rules, which all of its clients then
// hear of.
//
// spec: MX 1.19 CS §10.15.3
func (a *API) changeRules(r *Request, f func(*Ruleset) error) (any, error) {
	l := a.locks.of(r.Account)
	l.Lock()
	defer l.Unlock()
	s, err := a.rules(r)
	if err != nil {
		return nil, err
	}
	if err := f(s); err != nil {
		return nil, err
	}
	b, err := json.Marshal(map[string]any{"global": s})
	if err != nil {
		return nil, err
	}
	return nil, a.hub.PutDatum(r.Context(), hub.Datum{Account: r.Account, Type: typePushRules, Data: b}, r.Device)
}

func (a *API) putRule(r *Request) (any, error) {
	rule, err := r.newRule()
	if err != nil {
		return nil, err
	}
	return a.changeRules(r, func(s *Ruleset) error {
		list := s.Of(RuleKind(r.Var("kind")))
		if i := indexRule(*list, rule.ID); i >= 0 {
			rule.Enabled = (*list)[i].Enabled
			if r.Query("before") == "" && r.Query("after") == "" {
				(*list)[i] = rule
				return nil
			}
			*list = slices.Delete(*list, i, i+1)
		}
		at := firstOwn(*list)
		for _, where := range []struct {
			param string
			step  int
		}{{"after", 1}, {"before", 0}} {
			id := r.Query(where.param)
			if id == "" {
				continue
			}
			i := indexRule(*list, id)
			if i < 0 || strings.HasPrefix(id, ".") {
				return Errorf(http.StatusBadRequest, Unknown, "There is no rule of yours with the ID that %s names.", where.param)
			}
			at = i + where.step
		}
		if len(*list) >= maxRules {
			return Errorf(http.StatusForbidden, Forbidden, "There can be at most %d rules of a kind.", maxRules)
		}
		*list = slices.Insert(*list, at, rule)
		return nil
	})
}

// newRule reads a rule that an account makes.
func (r *Request) newRule() (Rule, error) {
	bad := func(format string, args ...any) (Rule, error) {
		return Rule{}, Errorf(http.StatusBadRequest, InvalidParam, format, args...)
	}
	var body struct {
		Actions    []Action    `json:"actions"`
		Conditions []Condition `json:"conditions"`
		Pattern    *string     `json:"pattern"`
	}
	kind, id := RuleKind(r.Var("kind")), r.Var("ruleId")
	if !slices.Contains(RuleKinds, kind) {
		return bad("There is no such kind of push rules.")
	}
	if strings.HasPrefix(id, ".") || strings.ContainsAny(id, `/\`) || !textual(id) {
		return bad("A rule's ID does not begin with a dot, has no slash and at most %d bytes.", maxTextual)
	}
	if err := r.JSON(&body); err != nil {
		return Rule{}, err
	}
	if body.Actions == nil {
		return Rule{}, Errorf(http.StatusBadRequest, MissingParam, "The actions are missing.")
	}
	if err := checkActions(body.Actions); err != nil {
		return Rule{}, err
	}
	rule := Rule{ID: id, Enabled: true, Actions: body.Actions}
	switch kind {
	case Override, Underride:
		if rule.Conditions = body.Conditions; rule.Conditions == nil {
			rule.Conditions = []Condition{}
		}
		if len(rule.Conditions) > maxConditions {
			return bad("A rule has at most %d conditions.", maxConditions)
		}
		for _, c := range rule.Conditions {
			if c.Kind == "" || c.Pattern != nil && len(*c.Pattern) > maxPattern || len(c.Key) > maxPattern {
				return bad("A condition has no kind, or is too long.")
			}
		}
	case Content:
		if body.Pattern == nil || *body.Pattern == "" || len(*body.Pattern) > maxPattern {
			return bad("The pattern is missing or too long.")
		}
		rule.Pattern = *body.Pattern
	}
	return rule, nil
}

func checkActions(actions []Action) error {
	if len(actions) > maxActions {
		return Errorf(http.StatusBadRequest, InvalidParam, "A rule has at most %d actions.", maxActions)
	}
	for _, a := range actions {
		// The latter two are old and mean nothing more.
		if a.Tweak == "" && !slices.Contains([]string{"notify", "dont_notify", "coalesce"}, a.Name) {
			return Errorf(http.StatusBadRequest, InvalidParam, "An action is neither \"notify\" nor a tweak.")
		}
	}
	return nil
}

func (a *API) deleteRule(r *Request) (any, error) {
	return a.changeRules(r, func(s *Ruleset) error {
		rule, err := s.rule(r)
		if err != nil {
			return err
		}
		if rule.Default {
			return Errorf(http.StatusBadRequest, InvalidParam, "Rules of the server can be disabled, not deleted.")
		}
		list := s.Of(RuleKind(r.Var("kind")))
		i := indexRule(*list, rule.ID)
		*list = slices.Delete(*list, i, i+1)
		return nil
	})
}

func (a *API) enableRule(r *Request) (any, error) {
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Enabled == nil {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "It is not said whether the rule is enabled.")
	}
	return a.changeRules(r, func(s *Ruleset) error {
		rule, err := s.rule(r)
		if err == nil {
			rule.Enabled = *body.Enabled
		}
		return err
	})
}

func (a *API) setActions(r *Request) (any, error) {
	var body struct {
		Actions []Action `json:"actions"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Actions == nil {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The actions are missing.")
	}
	if err := checkActions(body.Actions); err != nil {
		return nil, err
	}
	return a.changeRules(r, func(s *Ruleset) error {
		rule, err := s.rule(r)
		if err == nil {
			rule.Actions = body.Actions
		}
		return err
	})
}

// maxPushers is the most pushers of one account.
const maxPushers = 50

// pusher is how an account's client asks to be woken. It is kept and listed;
// this server does not call push gateways.
//
// spec: MX 1.19 CS §10.15.5
type pusher struct {
	Key     string         `json:"pushkey"`
	Kind    string         `json:"kind"`
	App     string         `json:"app_id"`
	AppName string         `json:"app_display_name"`
	Device  string         `json:"device_display_name"`
	Profile string         `json:"profile_tag,omitempty"`
	Lang    string         `json:"lang"`
	Data    map[string]any `json:"data"`
}

func (a *API) pushers(r *Request) (any, error) {
	list := []json.RawMessage{}
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		return rows(v, func(scan func(...any) error) error {
			var b []byte
			err := scan(&b)
			list = append(list, b)
			return err
		}, `SELECT pusher FROM mxc_pushers WHERE account = $1 ORDER BY app, pushkey`, key(r.Account))
	})
	return map[string]any{"pushers": list}, err
}

func (a *API) setPusher(r *Request) (any, error) {
	var body struct {
		pusher
		Append bool `json:"append"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	p := body.pusher
	if p.App == "" || p.Key == "" || len(p.App) > 64 || len(p.Key) > 512 {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "The app_id (64 bytes) or pushkey (512 bytes) is missing or too long.")
	}
	p.App, p.Key = clean(p.App), clean(p.Key)
	if p.Kind == "" {
		return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
			_, err := exec(tx, `DELETE FROM mxc_pushers WHERE account = $1 AND app = $2 AND pushkey = $3`, key(r.Account), p.App, p.Key)
			return err
		})
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		if !body.Append {
			if _, err := exec(tx, `DELETE FROM mxc_pushers WHERE app = $1 AND pushkey = $2 AND account <> $3`, p.App, p.Key, key(r.Account)); err != nil {
				return err
			}
		}
		if _, err := exec(tx, `INSERT INTO mxc_pushers (account, app, pushkey, device, pusher) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (account, app, pushkey) DO UPDATE SET device = $4, pusher = $5`,
			key(r.Account), p.App, p.Key, r.Device, b); err != nil {
			return err
		}
		var n int
		_, err := row(tx, into(&n), `SELECT COUNT(*) FROM mxc_pushers WHERE account = $1`, key(r.Account))
		if err == nil && n > maxPushers {
			return Errorf(http.StatusForbidden, Forbidden, "An account has at most %d pushers.", maxPushers)
		}
		return err
	})
}

func (p *pusher) check() error {
	if p.AppName == "" || p.Device == "" || p.Lang == "" || p.Data == nil {
		return Errorf(http.StatusBadRequest, MissingParam, "app_display_name, device_display_name, lang and data are needed.")
	}
	if p.Kind != "http" {
		return Errorf(http.StatusBadRequest, InvalidParam, "Only pushers of the kind http are known here.")
	}
	s, _ := p.Data["url"].(string)
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "/_matrix/push/v1/notify" {
		return Errorf(http.StatusBadRequest, InvalidParam, "The url in data must be an https URL with the path /_matrix/push/v1/notify.")
	}
	return nil
}
