package c2s

import (
	"context"
	"testing"
	"time"

	"parley/core"
)

// Away says that a client has lost its connection and may come back.
func (srv *Server) Away(account core.Address, resource string) bool {
	s, ok := srv.at(account, resource)
	return ok && s.away.Load() != 0
}

// EndWhile has a client's session end while it is asked for something that it does not come to: f has others ask.
func (srv *Server) EndWhile(t *testing.T, account core.Address, resource string, f func()) {
	s, ok := srv.at(account, resource)
	if !ok {
		t.Fatalf("%s has no session %q", account, resource)
	}
	asked := make(chan struct{})
	s.call(func(context.Context) {
		<-asked
		s.fail(errBye)
	})
	f()
	for len(s.calls) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(asked)
}
