package client

import (
	"net/http"
	"time"

	"parley/core"
)

// PresenceContent is the content of m.presence.
//
// spec: MX 1.19 CS §10.8
type PresenceContent struct {
	Presence string `json:"presence"`
	Status   string `json:"status_msg,omitempty"`
	// ActiveAgo is in milliseconds.
	ActiveAgo int64 `json:"last_active_ago,omitempty"`
	Active    bool  `json:"currently_active,omitempty"`
}

// activeFor is how long one counts as active after doing something.
const activeFor = 5 * time.Minute

// PresenceOf tells the presence of one with several clients in the words of
// Matrix: that of the most available one, and the status of any that has one.
func PresenceOf(sessions []core.Presence, at time.Time) PresenceContent {
	out := PresenceContent{Presence: "offline"}
	var active time.Time
	best := -1
	for _, p := range sessions {
		rank, word := matrixShow(p.Show)
		if rank > best {
			best, out.Presence = rank, word
		}
		if out.Status == "" {
			out.Status = p.Status
		}
		if p.Active.After(active) {
			active = p.Active
		}
	}
	if !active.IsZero() {
		out.ActiveAgo = max(at.Sub(active).Milliseconds(), 0)
		out.Active = out.Presence == "online" && at.Sub(active) < activeFor
	}
	return out
}

// matrixShow is the nearest word for an availability; who does not want to be
// disturbed is there, but not to be reached.
func matrixShow(s core.Show) (rank int, word string) {
	switch s {
	case core.ShowOnline, core.ShowChat:
		return 2, "online"
	case core.ShowAway, core.ShowXA, core.ShowDND:
		return 1, "unavailable"
	}
	return 0, "offline"
}

// maxStatus is the longest status message, in bytes.
const maxStatus = 1024

// putPresence sets the presence of the device that asks.
func (a *API) putPresence(r *Request) (any, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	var body struct {
		Presence string `json:"presence"`
		Status   string `json:"status_msg"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if len(body.Status) > maxStatus {
		return nil, Errorf(http.StatusBadRequest, TooLarge, "A status has at most %d bytes.", maxStatus)
	}
	show, ok := map[string]core.Show{
		"online": core.ShowOnline, "unavailable": core.ShowAway, "offline": core.ShowOffline,
	}[body.Presence]
	if !ok {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "A presence is online, unavailable or offline.")
	}
	return nil, a.hub.SetPresence(r.Context(), r.Account, core.Presence{
		Show: show, Status: clean(body.Status), Session: r.Device, Active: now(),
	})
}

// getPresence tells what the account may see of another's presence. It is the
// same for who does not exist and who has not consented.
func (a *API) getPresence(r *Request) (any, error) {
	who, err := a.Address(r.Var("userId"))
	if err != nil {
		return nil, err
	}
	list, err := a.hub.PresenceOf(r.Context(), r.Account, who)
	return PresenceOf(list, now()), err
}
