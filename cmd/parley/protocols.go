package main

import "context"

// addProtocols gives the hub its protocols: each gets what it stands on, adds
// its services, its paths to the mux, and itself to the hub.
func (s *server) addProtocols(context.Context) error {
	return nil
}
