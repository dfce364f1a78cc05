package adhoc

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

func asker(name string) Asker {
	return Asker{JID: translate.JID{Local: name, Domain: "example.org", Resource: "x"}, Account: core.LocalAddress(name, "example.org"),
		At: translate.JID{Domain: "example.org"}}
}

func fields(f ...Field) func(context.Context, *Call) ([]Field, error) {
	return func(context.Context, *Call) ([]Field, error) { return f, nil }
}

// dinner has two stages; the second depends on the first.
func dinner(ran *[]string) *Service {
	only := func(names ...string) func(Asker) bool {
		return func(a Asker) bool {
			for _, n := range names {
				if n == a.Account.Name {
					return true
				}
			}
			return false
		}
	}
	return &Service{Table: Table{
		{Node: "dinner", Name: "Dinner", May: only("alice", "bob"), Stages: []Stage{
			{Title: "What?", Fields: fields(Field{Name: "dish", Type: "list-single", Required: true, Options: []Option{{Value: "soup"}, {Value: "pie"}}})},
			{Title: "How much?", Fields: func(_ context.Context, c *Call) ([]Field, error) {
				return []Field{{Name: "amount", Label: "How much " + c.Get("dish"), Type: "text-single", Values: []string{"1"}}}, nil
			}, Check: func(_ context.Context, c *Call) error {
				if c.Get("amount") == "0" {
					return translate.Fail(translate.NotAcceptable, "nothing is no dinner")
				}
				return nil
			}},
		}, Run: func(_ context.Context, c *Call) (*Result, error) {
			*ran = append(*ran, c.Get("amount")+" "+c.Get("dish"))
			return &Result{Note: "Enjoy.", Fields: []Field{{Name: "dish", Values: c.All("dish")}}}, nil
		}},
		{Node: "time", Name: "Time", May: only("alice"), Run: func(context.Context, *Call) (*Result, error) {
			return &Result{Columns: []Field{{Name: "h"}}, Rows: [][]string{{"12"}, {"13"}}}, nil
		}},
		{Node: "refuse", May: only("alice"), Run: func(context.Context, *Call) (*Result, error) {
			return nil, hub.Refuse(hub.Conflict, "no more pie")
		}},
		{Node: "break", May: only("alice"), Run: func(context.Context, *Call) (*Result, error) { return nil, errors.New("disk") }},
	}}
}

func command(node, session, action string, answers ...string) *element.Element {
	el := element.New(Namespace, "command").SetAttr("node", node)
	for i, v := range []string{session, action} {
		if v != "" {
			el.SetAttr([]string{"sessionid", "action"}[i], v)
		}
	}
	if len(answers) > 0 {
		x := el.Add(nsData, "x").SetAttr("type", "submit")
		for i := 0; i < len(answers); i += 2 {
			x.Add("", "field").SetAttr("var", answers[i]).Append(element.NewText(nsData, "value", answers[i+1]))
		}
	}
	return el
}

// condition is the general and the specific condition of an error.
func condition(err error) string {
	te, ok := errors.AsType[*translate.Error](err)
	if !ok {
		return fmt.Sprint(err)
	}
	if te.Extra != nil {
		return te.Name + " " + te.Extra.Name.Local
	}
	return te.Name
}

// spec: XEP-0050 §2.4.2
func TestStages(t *testing.T) {
	var ran []string
	s := dinner(&ran)
	alice, ctx := asker("alice"), t.Context()
	do := func(session, action string, answers ...string) *element.Element {
		t.Helper()
		el, err := s.Execute(ctx, alice, command("dinner", session, action, answers...))
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		return el
	}
	refused := func(want, session, action string, answers ...string) {
		t.Helper()
		if _, err := s.Execute(ctx, alice, command("dinner", session, action, answers...)); condition(err) != want {
			t.Errorf("%s %v: %s, want %s", action, answers, condition(err), want)
		}
	}
	first := do("", "")
	id := first.Attr("sessionid")
	actions := first.Child("", "actions")
	if first.Attr("status") != "executing" || actions.Attr("execute") != "next" || actions.Child("", "prev") != nil || actions.Child("", "next") == nil {
		t.Errorf("the first stage is %s", first)
	}
	refused("bad-request bad-action", id, "prev")
	refused("bad-request bad-action", id, "complete", "dish", "pie")
	refused("bad-request malformed-action", id, "eat")
	refused("bad-request bad-payload", id, "next")
	refused("bad-request bad-payload", id, "next", "dish", "stone")
	second := do(id, "next", "dish", "pie")
	if second.Child("", "actions").Attr("execute") != "complete" || second.Child("", "actions").Child("", "prev") == nil {
		t.Errorf("the second stage is %s", second)
	}
	if f := second.Child(nsData, "x").ChildrenNamed("", "field"); len(f) != 1 || f[0].Attr("label") != "How much pie" || f[0].ChildText("", "value") != "1" {
		t.Errorf("its form is %s", second)
	}
	back := do(id, "prev")
	if back.Child(nsData, "x").Child("", "field").ChildText("", "value") != "pie" {
		t.Errorf("gone back, the answer is forgotten: %s", back)
	}
	do(id, "", "dish", "soup")
	refused("not-acceptable", id, "complete", "amount", "0")
	done := do(id, "execute", "amount", "3", "dish", "pie", "other", "x")
	if done.Attr("status") != "completed" || done.ChildText("", "note") != "Enjoy." || done.Child(nsData, "x").Attr("type") != "result" {
		t.Errorf("the end is %s", done)
	}
	if len(ran) != 1 || ran[0] != "3 soup" {
		t.Errorf("what ran is %q", ran)
	}
	refused("bad-request bad-sessionid", id, "complete", "amount", "3")

	id = do("", "execute").Attr("sessionid")
	if el := do(id, "cancel"); el.Attr("status") != "canceled" {
		t.Errorf("cancelled: %s", el)
	}
	refused("bad-request bad-sessionid", id, "next", "dish", "pie")
	refused("bad-request bad-action", "", "prev")
}

func TestWhoMayAndHowItEnds(t *testing.T) {
	var ran []string
	s := dinner(&ran)
	ctx := t.Context()
	el, err := s.Execute(ctx, asker("alice"), command("time", "", "execute"))
	if err != nil || el.Attr("status") != "completed" || len(el.Child(nsData, "x").ChildrenNamed("", "item")) != 2 {
		t.Errorf("%v %v", el, err)
	}
	el, err = s.Execute(ctx, asker("alice"), command("refuse", "", ""))
	if err != nil || el.Attr("status") != "completed" || el.Child("", "note").Attr("type") != "error" || el.ChildText("", "note") != "no more pie" {
		t.Errorf("%v %v", el, err)
	}
	if _, err = s.Execute(ctx, asker("alice"), command("break", "", "")); err == nil || condition(err) != "disk" {
		t.Errorf("a failure of the server is %v", err)
	}
	if _, err = s.Execute(ctx, asker("bob"), command("time", "", "")); condition(err) != "forbidden" {
		t.Errorf("bob may: %v", err)
	}
	if _, err = s.Execute(ctx, asker("alice"), command("none", "", "")); condition(err) != "item-not-found" {
		t.Errorf("no such command: %v", err)
	}
	if n := len(s.Table.Items(asker("bob")).Elements()); n != 1 {
		t.Errorf("bob is shown %d commands", n)
	}
	if _, ok, err := s.Table.Info(asker("bob"), "time"); !ok || condition(err) != "forbidden" {
		t.Errorf("bob is told of a command that is not his: %v", err)
	}
	if info, ok, err := s.Table.Info(asker("alice"), "time"); !ok || err != nil || info.Child("", "identity").Attr("type") != "command-node" {
		t.Errorf("%v %v", info, err)
	}
	if _, ok, _ := s.Table.Info(asker("alice"), "other"); ok {
		t.Error("other nodes are no commands")
	}
	// A session is its asker's.
	el, _ = s.Execute(ctx, asker("alice"), command("dinner", "", ""))
	if _, err = s.Execute(ctx, asker("bob"), command("dinner", el.Attr("sessionid"), "next", "dish", "pie")); condition(err) != "bad-request bad-sessionid" {
		t.Errorf("bob goes on with alice's: %v", err)
	}
}

func TestSessionsAreBoundedAndExpire(t *testing.T) {
	var ran []string
	s := dinner(&ran)
	now := time.Now()
	s.now = func() time.Time { return now }
	ctx := t.Context()
	var last string
	for range maxPerAccount {
		el, err := s.Execute(ctx, asker("alice"), command("dinner", "", ""))
		if err != nil {
			t.Fatal(err)
		}
		last = el.Attr("sessionid")
	}
	if _, err := s.Execute(ctx, asker("alice"), command("dinner", "", "")); condition(err) != "resource-constraint" {
		t.Errorf("one more is %v", err)
	}
	if _, err := s.Execute(ctx, asker("bob"), command("dinner", "", "")); err != nil {
		t.Errorf("bob's first is %v", err)
	}
	now = now.Add(sessionExpires + time.Second)
	if _, err := s.Execute(ctx, asker("alice"), command("dinner", last, "next", "dish", "pie")); condition(err) != "not-allowed session-expired" {
		t.Errorf("an old one is %v", err)
	}
	if _, err := s.Execute(ctx, asker("alice"), command("dinner", "", "")); err != nil {
		t.Errorf("after the others have expired: %v", err)
	}
	if n := len(s.sessions); n != 1 {
		t.Errorf("%d sessions are kept", n)
	}
}
