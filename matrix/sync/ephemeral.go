package sync

import (
	"encoding/json"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/rooms"
)

// foreign reports whether a type of private data belongs to another protocol:
// those have the protocol before a colon.
func foreign(typ string) bool {
	network, _, ok := strings.Cut(typ, ":")
	return ok && slices.Contains(core.Networks, core.Network(network))
}

// ephemeral is what is in no timeline: receipts, typing, and what became of the
// account's own messages.
func (r *roomBuild) ephemeral() error {
	f := &r.q.filter.Room.Ephemeral
	if !f.WantsRoom(r.id) {
		return nil
	}
	after := r.q.feed()
	if r.fresh {
		after = 0
	}
	var err error
	if r.readings, err = r.v.Readings(r.conv, r.q.account, after); err != nil {
		return err
	}
	var out []json.RawMessage
	for _, g := range []struct {
		typ  string
		make func() ([]json.RawMessage, error)
	}{{"m.receipt", r.receipts}, {"m.typing", r.typing}, {typeSendStatus, r.failed}, {typeSendStatus, r.delivered}} {
		if !f.WantsType(g.typ) {
			continue
		}
		events, err := g.make()
		if err != nil {
			return err
		}
		out = append(out, events...)
	}
	r.out.Ephemeral = eventsOf(out)
	return nil
}

// receipt is one user's in an m.receipt.
type receipt struct {
	TS     int64  `json:"ts"`
	Thread string `json:"thread_id,omitempty"`
}

// receipts are the members' read positions that are newer than the token, in
// one event for each thread, because a user may have one receipt of each sort
// on one event.
//
// spec: MX 1.19 CS §10.6.1
func (r *roomBuild) receipts() ([]json.RawMessage, error) {
	ids, err := r.eventIDs(r.readings)
	if err != nil {
		return nil, err
	}
	type content map[string]map[string]map[string]receipt
	byThread := map[string]content{}
	for _, rd := range r.readings {
		thread := rd.Thread
		if thread != "" && thread != rooms.MainThread {
			thread = ids[core.EventID(thread)]
		}
		id := ids[rd.Event]
		if rd.Stage != core.StageDisplayed || id == "" || rd.Thread != "" && thread == "" || r.blocks1(rd.Who) {
			continue
		}
		sort := "m.read"
		if rd.Private {
			sort = "m.read.private"
		}
		c := byThread[thread]
		if c == nil {
			c = content{}
			byThread[thread] = c
		}
		if c[id] == nil {
			c[id] = map[string]map[string]receipt{}
		}
		if c[id][sort] == nil {
			c[id][sort] = map[string]receipt{}
		}
		user, _ := r.names.UserID(rd.Who)
		c[id][sort][user] = receipt{rd.Time.UnixMilli(), thread}
	}
	var out []json.RawMessage
	for _, c := range byThread {
		e, err := event("m.receipt", c, "")
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// eventIDs finds the Matrix IDs of what readings are about.
func (r *roomBuild) eventIDs(readings []hub.Reading) (map[core.EventID]string, error) {
	var ids []core.EventID
	for _, rd := range readings {
		if rd.Stage != core.StageDisplayed {
			continue
		}
		ids = append(ids, rd.Event)
		if rd.Thread != "" && rd.Thread != rooms.MainThread {
			ids = append(ids, core.EventID(rd.Thread))
		}
	}
	slices.Sort(ids)
	events, err := r.s.mirror.ByCore(r.v, slices.Compact(ids)...)
	out := make(map[core.EventID]string, len(events))
	for _, e := range events {
		out[e.ID] = e.EventID
	}
	return out, err
}

// typing is who writes now, if that is not what the client knows.
//
// spec: MX 1.19 CS §10.5
func (r *roomBuild) typing() ([]json.RawMessage, error) {
	who, serial := r.s.hub.TypingIn(r.conv)
	if r.q.since != nil && serial <= r.q.since.Typing || r.q.since == nil && len(who) == 0 {
		return nil, nil
	}
	if serial > r.now.Typing {
		return nil, nil // it changed after this answer began: the next one tells, and only it
	}
	users := []string{}
	for _, a := range who {
		if !r.blocks1(a) {
			id, _ := r.names.UserID(a)
			users = append(users, id)
		}
	}
	e, err := event("m.typing", map[string]any{"user_ids": users}, "")
	return []json.RawMessage{e}, err
}

// typeSendStatus tells a sender what became of her event; clients of bridges
// know it.
const typeSendStatus = "com.beeper.message_send_status"

// failed tells of the account's own messages that could not be delivered, or
// not with everything that was in them. Only she hears of it.
func (r *roomBuild) failed() ([]json.RawMessage, error) {
	var out []json.RawMessage
	for _, rep := range r.reports[r.conv] {
		events, err := r.s.mirror.ByCore(r.v, rep.Event)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			continue
		}
		to, _ := r.names.UserID(rep.To)
		content := map[string]any{
			"m.relates_to": map[string]any{"rel_type": "m.reference", "event_id": events[0].EventID},
			"network":      string(rep.To.Network),
		}
		if rep.Stage == core.StageFailed {
			content["status"], content["reason"] = "FAIL_PERMANENT", "m.event_not_handled"
			content["message"], content["internal_error"] = to+": "+rep.Reason, rep.Reason
		} else {
			content["status"], content["message"] = "SUCCESS", to+" gets it without: "+core.Losses(rep.Losses)
		}
		e, err := event(typeSendStatus, content, r.q.userID)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}
