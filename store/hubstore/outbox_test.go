package hubstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/store"
	"parley/store/storetest"
)

// postman is a carrier whose servers do as the test says.
type postman struct {
	mu      sync.Mutex
	outcome hub.Outcome
	got     []string
	losses  []core.Loss
	caps    core.Capabilities
	tried   chan struct{}
}

func newPostman(o hub.Outcome) *postman { return &postman{outcome: o, tried: make(chan struct{}, 100)} }

func (*postman) Network() core.Network                         { return core.XMPP }
func (p *postman) Capabilities(core.Address) core.Capabilities { return p.caps }
func (*postman) Whisper(hub.Whisper)                           {}
func (p *postman) Deliver(_ context.Context, _ string, ds []hub.Delivery) []hub.Result {
	p.mu.Lock()
	defer func() {
		p.mu.Unlock()
		p.tried <- struct{}{}
	}()
	var out []hub.Result
	for _, d := range ds {
		if p.outcome == hub.Accepted {
			if b, ok := core.BodyOf(d.Content.Content); ok {
				p.got = append(p.got, b.Plain())
			}
		}
		out = append(out, hub.Result{Outcome: p.outcome, Reason: "because", Losses: p.losses})
	}
	return out
}

func (p *postman) delivered() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.got, ",")
}

func (p *postman) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.tried:
	case <-time.After(time.Minute):
		t.Fatal("nothing was tried")
	}
}

var carol = core.Address{Network: core.XMPP, Name: "carol", Domain: "prosody.test"}

// What is owed survives a restart and arrives in order, once the other server
// is back.
func TestOutboxSurvivesRestart(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		ctx := context.Background()
		db, err := store.OpenOptions(ctx, url, storetest.Log(t), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h := hubtest.On(t, db)
		away := newPostman(hub.Retry)
		h.AddCarrier(away)
		if err := h.Start(ctx); err != nil {
			t.Fatal(err)
		}
		alice := hubtest.Account(t, h, "alice")
		for i := range 5 {
			must[core.Event](t)(h.SubmitDirect(ctx, carol, hub.Draft{Sender: alice, Content: say(fmt.Sprint(i))}))
		}
		away.wait(t)
		h.Stop()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		h = hubtest.On(t, storetest.Open(t, url, store.Options{}))
		back := newPostman(hub.Accepted)
		h.AddCarrier(back)
		if err := h.Start(ctx); err != nil {
			t.Fatal(err)
		}
		for back.delivered() != "0,1,2,3,4" {
			back.wait(t)
		}
	})
}

// A sender learns of a failure and of losses, and nothing is tried again.
func TestLateFailureIsToldToTheSender(t *testing.T) {
	each(t, func(t *testing.T, h *hub.Hub) {
		ctx := context.Background()
		p := newPostman(hub.Failed)
		p.losses = []core.Loss{{Feature: core.FeatureEdit}}
		h.AddCarrier(p)
		alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
		hers, his := must[*hub.Session](t)(h.Attach(hub.SessionSpec{Account: alice})), must[*hub.Session](t)(h.Attach(hub.SessionSpec{Account: bob}))
		e := must[core.Event](t)(h.SubmitDirect(ctx, carol, hub.Draft{Sender: alice, Content: say("hello")}))
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for {
			n := must[hub.News](t)(hers.Next(wait))
			r, ok := n.(hub.ReportNews)
			if !ok || r.Report.Event != e.ID {
				continue
			}
			if r.Report.Stage != core.StageFailed || r.Report.Reason != "because" || len(r.Report.Losses) != 1 || r.Report.To != carol {
				t.Errorf("the report is %+v", r.Report)
			}
			break
		}
		if n, ok := his.TryNext(); ok {
			t.Errorf("bob heard of it: %v", n)
		}
		err := h.Read(ctx, func(v hub.View) error {
			owed, err := v.Destinations()
			if len(owed) != 0 {
				t.Errorf("still owed: %v", owed)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// What a network cannot carry goes as its declared fallback or not at all, and
// the sender is told of either.
func TestLossesOfAPoorNetwork(t *testing.T) {
	h, _ := hubtest.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := newPostman(hub.Accepted)
	p.caps = core.Capabilities{Grades: map[core.Feature]core.Grade{core.FeatureEdit: core.Fallback}}
	h.AddCarrier(p)
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	alice := hubtest.Account(t, h, "alice")
	ears := must[*hub.Session](t)(h.Attach(hub.SessionSpec{Account: alice}))
	first := must[core.Event](t)(h.SubmitDirect(ctx, carol, hub.Draft{Sender: alice, Content: say("helo")}))
	want := map[core.EventID]core.Feature{}
	for f, c := range map[core.Feature]core.Content{
		core.FeatureReaction: core.Reaction{Target: first.ID, Key: "👍"},
		core.FeatureEdit:     core.Edit{Target: first.ID, Body: core.TextBody("hello")},
	} {
		want[must[core.Event](t)(h.SubmitDirect(ctx, carol, hub.Draft{Sender: alice, Content: c})).ID] = f
	}
	for len(want) > 0 {
		r, ok := must[hub.News](t)(ears.Next(ctx)).(hub.ReportNews)
		if !ok || want[r.Report.Event] == "" {
			continue
		}
		if l := r.Report.Losses; len(l) != 1 || l[0].Feature != want[r.Report.Event] || r.Report.Stage != core.StageThere {
			t.Errorf("the report is %+v, and should be about %s", r.Report, want[r.Report.Event])
		}
		delete(want, r.Report.Event)
	}
	if got := p.delivered(); got != "helo,corrected: hello" {
		t.Errorf("delivered: %q", got)
	}
}

// After the stated time the server gives up and says so.
func TestOutboxGivesUp(t *testing.T) {
	h, _ := hubtest.New(t, func(c *hub.Config) { c.GiveUp = time.Nanosecond })
	ctx := context.Background()
	h.AddCarrier(newPostman(hub.Retry))
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	alice := hubtest.Account(t, h, "alice")
	ears := must[*hub.Session](t)(h.Attach(hub.SessionSpec{Account: alice}))
	must[core.Event](t)(h.SubmitDirect(ctx, carol, hub.Draft{Sender: alice, Content: say("hello")}))
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if r, ok := must[hub.News](t)(ears.Next(wait)).(hub.ReportNews); ok {
			if r.Report.Stage != core.StageFailed || !strings.Contains(r.Report.Reason, "gave up") {
				t.Errorf("the report is %+v", r.Report)
			}
			return
		}
	}
}
