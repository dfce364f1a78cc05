package adhoc

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The measures of sessions.
const (
	maxSessions    = 2000             // of all
	maxPerAccount  = 10               // of one account
	sessionExpires = 10 * time.Minute // after the last word
)

// Service runs the commands of a table.
type Service struct {
	Table Table
	// FormType is that of the forms of a command, "" for none.
	FormType func(node string) string

	mu       sync.Mutex
	sessions map[string]*session
	now      func() time.Time // for tests; nil for the clock
}

// session is one command that waits for a form.
type session struct {
	id      string
	command *Command
	asker   Asker
	stage   int
	answers map[string][]string
	last    time.Time
	busy    bool // a request of it is being dealt with
}

// Execute takes a <command/> and returns the one that answers it.
//
// spec: XEP-0050 §2.4
func (s *Service) Execute(ctx context.Context, who Asker, el *element.Element) (*element.Element, error) {
	cmd, err := s.Table.find(who, el.Attr("node"))
	if err != nil {
		return nil, err
	}
	action := el.Attr("action")
	switch action {
	case "":
		action = "execute"
	case "execute", "next", "prev", "complete", "cancel":
	default:
		return nil, badRequest("malformed-action", "there is no such action")
	}
	if el.Attr("sessionid") == "" {
		return s.begin(ctx, who, cmd, action)
	}
	se, err := s.take(who, cmd, el.Attr("sessionid"))
	if err != nil {
		return nil, err
	}
	answer, over, err := s.advance(ctx, se, action, el.Child(nsData, "x"))
	s.give(se, over)
	return answer, err
}

// begin starts a command: with its first form, or, if it has none, by running it.
//
// spec: XEP-0050 §2.4.1
func (s *Service) begin(ctx context.Context, who Asker, cmd *Command, action string) (*element.Element, error) {
	if action == "cancel" || action == "prev" {
		return nil, badRequest("bad-action", "this command has not begun")
	}
	se := &session{id: core.NewToken(), command: cmd, asker: who, answers: map[string][]string{}, busy: true}
	if len(cmd.Stages) == 0 {
		return s.run(ctx, se)
	}
	answer, err := s.show(ctx, se)
	if err != nil {
		return nil, err
	}
	return answer, s.keep(se)
}

// keep remembers a new session, unless there are too many.
func (s *Service) keep(se *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.time()
	mine := 0
	for id, o := range s.sessions {
		if !o.busy && now.Sub(o.last) > sessionExpires {
			delete(s.sessions, id)
		} else if o.asker.Account == se.asker.Account {
			mine++
		}
	}
	if mine >= maxPerAccount || len(s.sessions) >= maxSessions {
		return translate.Fail(translate.ResourceConstraint, "too many commands wait for their forms")
	}
	if s.sessions == nil {
		s.sessions = map[string]*session{}
	}
	se.last, se.busy = now, false
	s.sessions[se.id] = se
	return nil
}

// take finds a session of the asker's, for one request at a time.
//
// spec: XEP-0050 §3.3
func (s *Service) take(who Asker, cmd *Command, id string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	se := s.sessions[id]
	switch {
	case se == nil || se.asker != who || se.command != cmd:
		return nil, badRequest("bad-sessionid", "there is no such session, or it is over")
	case se.busy:
		return nil, translate.Fail(translate.UnexpectedRequest, "this session is at work")
	case s.time().Sub(se.last) > sessionExpires:
		delete(s.sessions, id)
		return nil, &translate.Error{Condition: translate.NotAllowed, Text: "this took too long: begin again",
			Extra: element.New(Namespace, "session-expired")}
	}
	se.busy = true
	return se, nil
}

func (s *Service) give(se *session, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	se.busy, se.last = false, s.time()
	if over {
		delete(s.sessions, se.id)
	}
}

func (s *Service) time() time.Time {
	if s.now != nil {
		return s.now()
	}
	return time.Now()
}

// advance does one action of a session. An error of the form leaves it where it is.
//
// spec: XEP-0050 §2.4.2
func (s *Service) advance(ctx context.Context, se *session, action string, x *element.Element) (answer *element.Element, over bool, err error) {
	last := se.stage == len(se.command.Stages)-1
	if action == "execute" {
		action = "next"
		if last {
			action = "complete"
		}
	}
	switch {
	case action == "cancel":
		return se.element("canceled"), true, nil
	case action == "prev" && se.stage > 0:
		se.stage--
		answer, err = s.show(ctx, se)
		return answer, false, err
	case action == "prev", action == "next" && last, action == "complete" && !last:
		return nil, false, badRequest("bad-action", "this cannot be done now")
	}
	if err := se.read(ctx, x); err != nil {
		return nil, false, err
	}
	if last {
		answer, err = s.run(ctx, se)
		return answer, true, err
	}
	se.stage++
	answer, err = s.show(ctx, se)
	return answer, err != nil, err
}

// read takes the answers to the stage.
func (se *session) read(ctx context.Context, x *element.Element) error {
	st := &se.command.Stages[se.stage]
	call := se.call()
	fields, err := st.Fields(ctx, call)
	if err != nil {
		return err
	}
	given, err := read(x, fields)
	if err != nil {
		return err
	}
	maps.Copy(call.answers, given)
	if st.Check != nil {
		if err := st.Check(ctx, call); err != nil {
			return err
		}
	}
	se.answers = call.answers
	return nil
}

func (se *session) call() *Call { return &Call{Asker: se.asker, answers: maps.Clone(se.answers)} }

// show writes the form of the stage, and what may be done with it.
//
// spec: XEP-0050 §3.4
func (s *Service) show(ctx context.Context, se *session) (*element.Element, error) {
	st := &se.command.Stages[se.stage]
	fields, err := st.Fields(ctx, se.call())
	if err != nil {
		return nil, err
	}
	el := se.element("executing")
	actions := el.Add("", "actions")
	forward := "next"
	if se.stage == len(se.command.Stages)-1 {
		forward = "complete"
	}
	actions.SetAttr("execute", forward)
	if se.stage > 0 {
		actions.Add("", "prev")
	}
	actions.Add("", forward)
	return el.Append(st.form(fields, s.formType(se), se.answers)), nil
}

func (s *Service) formType(se *session) string {
	if s.FormType == nil {
		return ""
	}
	return s.FormType(se.command.Node)
}

func (se *session) element(status string) *element.Element {
	return element.New(Namespace, "command").SetAttr("node", se.command.Node).SetAttr("sessionid", se.id).SetAttr("status", status)
}

// run does the command. That it could not be done is its outcome, in words; that the server failed is an error.
//
// spec: XEP-0050 §3.6
func (s *Service) run(ctx context.Context, se *session) (*element.Element, error) {
	res, err := se.command.Run(ctx, se.call())
	el := se.element("completed")
	if err != nil {
		if te, ok := errors.AsType[*translate.Error](err); ok {
			return el.Append(note("error", te.Text)), nil
		}
		if refusal, ok := errors.AsType[*hub.Refusal](err); ok {
			return el.Append(note("error", refusal.Text)), nil
		}
		return nil, err
	}
	if res.Note != "" {
		el.Append(note("info", res.Note))
	}
	return el.Append(res.form(s.formType(se))), nil
}

func note(typ, text string) *element.Element {
	return element.NewText(Namespace, "note", text).SetAttr("type", typ)
}
