package c2s

import (
	"context"
	"testing"

	"parley/core"
)

// PushTargets is how many push services an account of the test's domain has enabled.
func (srv *Server) PushTargets(t *testing.T, name string) int {
	all, err := srv.push.targets(t.Context(), core.LocalAddress(name, srv.Hub.Home()))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// PushDealt waits until the pusher has dealt with all that it has heard.
func (srv *Server) PushDealt() {
	done := make(chan struct{})
	srv.push.do(func(context.Context) { close(done) })
	<-done
}

// NotifyWish is notifyWish.
var NotifyWish = notifyWish
