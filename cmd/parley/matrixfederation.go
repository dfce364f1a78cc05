package main

import (
	"context"
	"net"
	"strings"
	"time"

	"parley/config"
	"parley/matrix/federation"
	"parley/matrix/federation/discovery"
	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
	"parley/media"
	"parley/netguard"
)

// Limits of federation that nobody has had to change so far.
const (
	// Of requests before it is known who makes them, and after.
	federationPerAddress = 100 // a second
	federationPerServer  = 50  // a second
	// wellKnownTime is for one /.well-known/matrix/server.
	wellKnownTime = 15 * time.Second
	wellKnownSize = 64 << 10 // bytes
)

// addMatrixFederation adds what Matrix servers ask of one another. It is not
// announced, by well-known or in the records that `init` prints, as long as
// rooms cannot be joined.
func (s *server) addMatrixFederation(ctx context.Context, _ *media.Files) error {
	if err := keyring.Migrate(ctx, s.db); err != nil {
		return err
	}
	key, old, err := matrixKeys(s.keys)
	if err != nil {
		return err
	}
	signers, own := map[string]*wire.SigningKey{}, []keyring.Own{}
	for _, d := range s.cfg.Domains {
		signers[d] = key
		own = append(own, keyring.Own{Domain: d, Key: key, Old: old})
	}
	transport := federation.NewTransport(s.matrixDiscovery(), federation.Dialer{
		Dial: s.guard.DialContext, DialRoute: s.guard.DialRoute, TLS: s.certs.Client,
	})
	s.closers = append(s.closers, func() error { transport.Close(); return nil })
	refuses := refusesMatrix(s.cfg.Federation)
	client := federation.NewClient(federation.ClientConfig{
		Transport: transport, Keys: signers, Refuses: refuses, Agent: "Parley/" + versionString(),
		Timeout: s.cfg.Limits.FetchTimeout.D(), MaxAnswer: s.cfg.Limits.FetchSize.Bytes(), Log: s.log,
	})
	keys := keyring.New(keyring.Config{DB: s.db, Fetch: client, Own: own, Notaries: s.cfg.Matrix.Notaries, Log: s.log})
	api := federation.NewServer(federation.ServerConfig{
		Domains: s.cfg.Domains, Keys: keys, Heard: client.Heard, Refuses: refuses, MaxBody: s.cfg.Limits.RequestSize.Bytes(),
		Version: versionString(), Log: s.log, PerAddress: federationPerAddress, PerServer: federationPerServer,
	})
	for _, prefix := range federation.Prefixes() {
		s.mux.Handle(prefix, api)
	}
	return nil
}

// matrixDiscovery finds Matrix servers, by static routes first.
func (s *server) matrixDiscovery() *discovery.Resolver {
	return discovery.New(discovery.Config{
		SRV: s.guard.Resolver(),
		WellKnown: s.guard.Client(netguard.ClientOptions{
			Timeout: wellKnownTime, MaxBytes: wellKnownSize, TLS: s.certs.Client(""),
		}),
		Routes: func(name string) (out []discovery.Endpoint) {
			for _, e := range s.cfg.DNS.Routes.Lookup(config.ServiceMatrix, strings.ToLower(name)) {
				out = append(out, discovery.Endpoint(e))
			}
			return out
		},
		Log: s.log,
	})
}

// refusesMatrix says with which Matrix servers nothing is exchanged.
func refusesMatrix(f config.Federation) func(name string) bool {
	has := func(list []string, host string) bool {
		for _, l := range list {
			if below, ok := strings.CutPrefix(l, "*"); l == host || ok && strings.HasSuffix(host, below) {
				return true
			}
		}
		return false
	}
	return func(name string) bool {
		host := strings.ToLower(name)
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		return has(f.Refuse, host) || len(f.Only) > 0 && !has(f.Only, host)
	}
}
