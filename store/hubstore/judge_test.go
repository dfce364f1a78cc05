package hubstore_test

import (
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
)

// judge is an authority that says what it is told to and counts how often it
// was asked.
type judge struct {
	err   error
	asked int
}

func (j *judge) Verdict(hub.Tx, *core.Conversation, *core.State, *core.Event) error {
	j.asked++
	return j.err
}

// A conversation has one authority, which is asked once for each event; the
// hub's own rules are not asked where they do not govern.
func TestOneAuthority(t *testing.T) {
	h, _ := hubtest.New(t)
	j := &judge{}
	h.AddJudge(core.Graph, j)
	alice, eve := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "eve")
	room := must[core.Conversation](t)(h.Open(t.Context(), hub.Opening{Creator: alice, Shape: core.Group}))
	if j.asked != 0 {
		t.Errorf("another's authority was asked %d times about a room of ours", j.asked)
	}
	give := func(a core.Authority) {
		room.Authority = a
		if err := h.Write(t.Context(), func(tx hub.Tx) error { return tx.PutConversation(room) }); err != nil {
			t.Fatal(err)
		}
	}
	give(core.Graph)
	// By the hub's rules eve, who is not in the room, might say nothing there.
	must[core.Event](t)(h.Submit(t.Context(), hub.Draft{Conv: room.ID, Sender: eve, Content: say("by the other's rules")}))
	if j.asked != 1 {
		t.Errorf("the authority was asked %d times about one event", j.asked)
	}
	j.err = hub.Refuse(hub.Forbidden, "no")
	if _, err := h.Submit(t.Context(), hub.Draft{Conv: room.ID, Sender: alice, Content: say("refused")}); hub.CodeOf(err) != hub.Forbidden {
		t.Errorf("against the authority's verdict: %v", err)
	}
	give(core.Elsewhere)
	if _, err := h.Submit(t.Context(), hub.Draft{Conv: room.ID, Sender: alice, Content: say("nobody decides")}); hub.CodeOf(err) != hub.Unable {
		t.Errorf("without an authority: %v", err)
	}
}
