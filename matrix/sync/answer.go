package sync

import (
	"encoding/json"
)

// answer is the body of /sync.
//
// spec: MX 1.19 CS §7.6
type answer struct {
	Next        string         `json:"next_batch"`
	AccountData *eventList     `json:"account_data,omitempty"`
	Presence    *eventList     `json:"presence,omitempty"`
	Rooms       *roomLists     `json:"rooms,omitempty"`
	ToDevice    *eventList     `json:"to_device,omitempty"`
	DeviceLists *deviceLists   `json:"device_lists,omitempty"`
	KeyCounts   map[string]int `json:"device_one_time_keys_count"`
	Fallbacks   []string       `json:"device_unused_fallback_key_types"`
}

type eventList struct {
	Events []json.RawMessage `json:"events"`
}

type deviceLists struct {
	Changed []string `json:"changed,omitempty"`
	Left    []string `json:"left,omitempty"`
}

type roomLists struct {
	Join   map[string]*roomAnswer `json:"join,omitempty"`
	Invite map[string]*roomAnswer `json:"invite,omitempty"`
	Knock  map[string]*roomAnswer `json:"knock,omitempty"`
	Leave  map[string]*roomAnswer `json:"leave,omitempty"`
}

// roomAnswer is one room, in any of the lists.
type roomAnswer struct {
	Summary       *roomSummary       `json:"summary,omitempty"`
	State         *eventList         `json:"state,omitempty"`
	StateAfter    *eventList         `json:"state_after,omitempty"`
	Timeline      *timeline          `json:"timeline,omitempty"`
	Ephemeral     *eventList         `json:"ephemeral,omitempty"`
	AccountData   *eventList         `json:"account_data,omitempty"`
	Unread        *counts            `json:"unread_notifications,omitempty"`
	UnreadThreads map[string]*counts `json:"unread_thread_notifications,omitempty"`
	InviteState   *eventList         `json:"invite_state,omitempty"`
	KnockState    *eventList         `json:"knock_state,omitempty"`
}

type timeline struct {
	Events    []json.RawMessage `json:"events"`
	Limited   bool              `json:"limited"`
	PrevBatch string            `json:"prev_batch,omitempty"`
}

type roomSummary struct {
	Heroes  []string `json:"m.heroes,omitempty"`
	Joined  int      `json:"m.joined_member_count"`
	Invited int      `json:"m.invited_member_count"`
}

type counts struct {
	Notify    int `json:"notification_count"`
	Highlight int `json:"highlight_count"`
}

// empty reports whether the answer tells nothing that is worth waking a client
// for.
func (a *answer) empty() bool {
	return a.AccountData == nil && a.Presence == nil && a.Rooms == nil && a.ToDevice == nil && a.DeviceLists == nil
}

// eventsOf is a list for an answer, nil for none.
func eventsOf(events []json.RawMessage) *eventList {
	if len(events) == 0 {
		return nil
	}
	return &eventList{events}
}

// event is one that is not of a timeline: type and content, and its sender
// where it has one.
func event(typ string, content any, sender string) (json.RawMessage, error) {
	return json.Marshal(struct {
		Type    string `json:"type"`
		Sender  string `json:"sender,omitempty"`
		Content any    `json:"content"`
	}{typ, sender, content})
}

func put(in *map[string]*roomAnswer, id string, r *roomAnswer) {
	if *in == nil {
		*in = map[string]*roomAnswer{}
	}
	(*in)[id] = r
}

func (l *roomLists) empty() bool {
	return len(l.Join) == 0 && len(l.Invite) == 0 && len(l.Knock) == 0 && len(l.Leave) == 0
}
