package sync

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"parley/core"
	"parley/hub"
)

// watch shows devices as present as long as they sync.
//
// spec: MX 1.19 CS §10.8
type watch struct {
	hub *hub.Hub
	log *slog.Logger

	mu     sync.Mutex
	m      map[deviceKey]*watched
	closed bool
}

type deviceKey struct {
	account core.Address
	device  string
}

type watched struct {
	running int // requests
	show    core.Show
	timer   *time.Timer
}

// grace is how long after its last request a device counts as present.
const grace = 40 * time.Second

func newWatch(h *hub.Hub, log *slog.Logger) *watch {
	return &watch{hub: h, log: log, m: map[deviceKey]*watched{}}
}

// begin notes that a request runs, and shows the device as it wants to appear.
func (w *watch) begin(account core.Address, device string, show core.Show) {
	k := deviceKey{account, device}
	w.mu.Lock()
	d := w.m[k]
	if d == nil {
		d = &watched{show: core.ShowOffline}
		w.m[k] = d
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	d.running++
	was := d.show
	if show == core.ShowOffline {
		show = was // it is not marked as present, and neither as gone
	}
	d.show = show
	w.mu.Unlock()
	if was != show {
		w.set(k, show)
	}
}

// end notes that a request is over.
func (w *watch) end(account core.Address, device string) {
	k := deviceKey{account, device}
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.m[k]
	if d == nil {
		return
	}
	d.running--
	switch {
	case d.running > 0:
	case d.show == core.ShowOffline || w.closed:
		delete(w.m, k)
	default:
		d.timer = time.AfterFunc(grace, func() { w.gone(k) })
	}
}

// gone shows a device as offline that has not come back.
func (w *watch) gone(k deviceKey) {
	w.mu.Lock()
	d := w.m[k]
	if d == nil || d.running > 0 {
		w.mu.Unlock()
		return
	}
	delete(w.m, k)
	w.mu.Unlock()
	w.set(k, core.ShowOffline)
}

func (w *watch) set(k deviceKey, show core.Show) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p := core.Presence{Show: show, Session: k.device, Active: time.Now()}
	// What the person says of herself stays as it was: a request says only
	// that the device is there.
	if all, err := w.hub.PresenceOf(ctx, k.account, k.account); err == nil {
		for _, was := range all {
			if was.Session == k.device {
				p.Status = was.Status
			}
		}
	}
	if err := w.hub.SetPresence(ctx, k.account, p); err != nil {
		w.log.Warn("setting the presence of a Matrix client", "err", err)
	}
}

func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, d := range w.m {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	clear(w.m)
}
