package c2s

import "parley/core"

// Away says that a client has lost its connection and may come back.
func (srv *Server) Away(account core.Address, resource string) bool {
	s, ok := srv.at(account, resource)
	return ok && s.away.Load() != 0
}
