package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"parley/config"
	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/federation/carrier"
	"parley/matrix/federation/devices"
	"parley/matrix/federation/directory"
	"parley/matrix/federation/discovery"
	"parley/matrix/federation/ephemeral"
	"parley/matrix/federation/following"
	"parley/matrix/federation/incoming"
	"parley/matrix/federation/joining"
	"parley/matrix/federation/keyring"
	matrixmedia "parley/matrix/federation/media"
	"parley/matrix/federation/receiving"
	"parley/matrix/federation/sending"
	"parley/matrix/federation/serving"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/media/fetch"
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

// matrixHouse is what stands between this server and other Matrix servers.
type matrixHouse struct {
	s       *server
	mirror  *mirror.Mirror
	rooms   *rooms.Rooms
	clients *client.API

	signers   map[string]*wire.SigningKey
	caller    *federation.Client
	keys      *keyring.Keyring
	sender    *sending.Sender
	shared    *shared.Rooms
	api       *federation.Server
	directory *directory.Directory
	incoming  *incoming.Incoming
	doors     *joining.Joining
	ephemeral *ephemeral.Ephemeral
	devices   *devices.Devices
}

// addMatrixFederation adds what Matrix servers ask of one another, and the rooms
// that they share.
func (s *server) addMatrixFederation(ctx context.Context, m *mirror.Mirror, r *rooms.Rooms, clients *client.API) error {
	h := &matrixHouse{s: s, mirror: m, rooms: r, clients: clients}
	for _, add := range []func(context.Context) error{
		h.addCalls, h.addRooms, h.addQuestions, h.addIncoming, h.addDoors, h.addRemovals, h.addDevices, h.addLetterBox,
	} {
		if err := add(ctx); err != nil {
			return err
		}
	}
	s.mux.HandleFunc("GET "+matrixServerPath, s.matrixServer)
	for _, prefix := range federation.Prefixes() {
		s.mux.Handle(prefix, h.api)
	}
	return nil
}

// addCalls adds how other servers are found, called and known, and what answers
// them.
func (h *matrixHouse) addCalls(ctx context.Context) error {
	s := h.s
	if err := keyring.Migrate(ctx, s.db); err != nil {
		return err
	}
	key, old, err := matrixKeys(s.keys)
	if err != nil {
		return err
	}
	h.signers = map[string]*wire.SigningKey{}
	var own []keyring.Own
	for _, d := range s.cfg.Domains {
		h.signers[d] = key
		own = append(own, keyring.Own{Domain: d, Key: key, Old: old})
	}
	transport := federation.NewTransport(s.matrixDiscovery(), federation.Dialer{
		Dial: s.guard.DialContext, DialRoute: s.guard.DialRoute, TLS: s.certs.Client,
	})
	s.closers = append(s.closers, func() error { transport.Close(); return nil })
	refuses := refusesMatrix(s.cfg.Federation)
	h.caller = federation.NewClient(federation.ClientConfig{
		Transport: transport, Keys: h.signers, Refuses: refuses, Agent: "Parley/" + versionString(),
		Timeout: s.cfg.Limits.FetchTimeout.D(), MaxAnswer: s.cfg.Limits.FetchSize.Bytes(), Log: s.log,
	})
	h.keys = keyring.New(keyring.Config{DB: s.db, Fetch: h.caller, Own: own, Notaries: s.cfg.Matrix.Notaries, Log: s.log})
	h.api = federation.NewServer(federation.ServerConfig{
		Domains: s.cfg.Domains, Keys: h.keys, Heard: h.heard, Refuses: refuses, MaxBody: s.cfg.Limits.RequestSize.Bytes(),
		Version: versionString(), Log: s.log, PerAddress: federationPerAddress, PerServer: federationPerServer,
	})
	return nil
}

// heard is told of every server that calls: what waits for it may go.
func (h *matrixHouse) heard(server string) {
	h.caller.Heard(server)
	h.sender.Heard(server)
	h.s.hub.Reachable(hub.Destination{Network: core.Matrix, Dest: server})
}

// addRooms adds the queue to other servers and the rooms that are shared with
// them.
func (h *matrixHouse) addRooms(ctx context.Context) (err error) {
	s := h.s
	h.sender, err = sending.New(ctx, s.db, sending.Config{
		Hub: s.hub, Mirror: h.mirror, Client: h.caller, Domains: s.cfg.Domains, Log: s.log, Count: s.metrics,
	})
	if err != nil {
		return err
	}
	s.runs(h.sender.Start, h.sender.Stop)
	if err := shared.Migrate(ctx, s.db); err != nil {
		return err
	}
	h.shared = shared.New(shared.Config{
		Hub: s.hub, Mirror: h.mirror, Outbox: h.sender, Domains: s.cfg.Domains, Count: s.metrics, Log: s.log,
	})
	return nil
}

// addQuestions adds what servers ask each other about rooms, people and files.
func (h *matrixHouse) addQuestions(context.Context) error {
	s := h.s
	h.directory = directory.New(directory.Config{
		Hub: s.hub, Mirror: h.mirror, API: h.clients, Rooms: h.rooms, Client: h.caller,
		Servers: h.sender.Servers, Allows: h.shared.Allows, Log: s.log,
	})
	h.rooms.UseDirectory(h.directory)
	s.appear = h.directory.Profile
	h.clients.UseProfiles(h.directory)
	s.closers = append(s.closers, func() error { h.directory.Close(); return nil })
	h.api.Add(h.directory.Routes()...)
	h.api.Add(serving.New(serving.Config{Hub: s.hub, Mirror: h.mirror, Rooms: h.shared, Log: s.log}).Routes()...)
	h.api.Add(matrixmedia.Routes(h.clients)...)
	l := s.cfg.Limits
	s.remote.Add("mxc", matrixmedia.NewSource(matrixmedia.SourceConfig{
		Client: h.caller, Origin: s.hub.Home(), MaxSize: l.UploadSize.Bytes(), Timeout: fileTime * l.FetchTimeout.D(),
		Web: fetch.Web{Client: s.guard.Client(netguard.ClientOptions{
			Timeout: l.FetchTimeout.D(), MaxBytes: l.UploadSize.Bytes(), TLS: s.certs.Client(""),
		})},
	}), true)
	return nil
}

// addIncoming adds what finds out what is missing and hands events on.
func (h *matrixHouse) addIncoming(ctx context.Context) (err error) {
	s := h.s
	h.incoming, err = incoming.New(ctx, s.db, incoming.Config{
		Hub: s.hub, Mirror: h.mirror, Shared: h.shared, Client: h.caller, Keys: h.keys, Access: h.shared,
		Domains: s.cfg.Domains, Log: s.log, Count: s.metrics,
	})
	if err == nil {
		s.runs(h.incoming.Start, h.incoming.Stop)
	}
	return err
}

// addDoors adds the way into rooms, and the carrier of invitations and of what
// is worth nothing later.
func (h *matrixHouse) addDoors(ctx context.Context) (err error) {
	s := h.s
	h.doors, err = joining.New(ctx, s.db, joining.Config{
		Hub: s.hub, Mirror: h.mirror, Rooms: h.shared, Outbox: h.sender, Client: h.caller, Keys: h.keys, Access: h.shared,
		Aliases: h.directory, History: h.incoming, Domains: s.cfg.Domains, Signers: h.signers, Log: s.log, Count: s.metrics,
	})
	if err != nil {
		return err
	}
	s.runs(h.doors.Start, h.doors.Stop)
	h.api.Add(h.doors.Routes()...)
	s.hub.AddRemote(h.doors)
	h.rooms.UseDoor(h.doors)
	h.ephemeral = ephemeral.New(ephemeral.Config{
		Hub: s.hub, Mirror: h.mirror, Post: h.sender, Gate: h.shared, Log: s.log, Count: s.metrics,
	})
	s.runs(func(ctx context.Context) error { h.ephemeral.Start(ctx); return nil }, h.ephemeral.Stop)
	s.hub.AddCarrier(&carrier.Carrier{
		Hub: s.hub, Mirror: h.mirror, Rooms: h.shared, Client: h.caller, Keys: h.keys, Ephemeral: h.ephemeral, Log: s.log,
	})
	return nil
}

// addRemovals adds what brings people along where their room goes on elsewhere.
func (h *matrixHouse) addRemovals(ctx context.Context) error {
	s := h.s
	f, err := following.New(ctx, s.db, following.Config{
		Hub: s.hub, Mirror: h.mirror, Door: h.doors, Servers: h.sender.Servers, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.hub.AddMirror(f)
	s.hub.UseFollower(f)
	s.runs(f.Start, f.Stop)
	return nil
}

// addDevices adds what encryption between users of different servers needs.
func (h *matrixHouse) addDevices(ctx context.Context) error {
	s := h.s
	if err := devices.Migrate(ctx, s.db); err != nil {
		return err
	}
	h.devices = devices.New(devices.Config{
		Hub: s.hub, API: h.clients, Client: h.caller, Sender: h.sender, Log: s.log, Count: s.metrics,
	})
	h.clients.UseOthers(h.devices)
	s.hub.AddMirror(h.devices)
	s.runs(h.devices.Start, h.devices.Stop)
	h.api.Add(h.devices.Routes()...)
	return nil
}

// addLetterBox adds what takes the transactions of other servers.
func (h *matrixHouse) addLetterBox(context.Context) error {
	edus := h.ephemeral.EDUs()
	for kind, f := range h.devices.EDUs() {
		if edus[kind] != nil {
			return fmt.Errorf("two packages take the ephemeral data %s", kind)
		}
		edus[kind] = f
	}
	box := receiving.New(receiving.Config{Rooms: h.doors.Lobby(h.incoming), EDUs: edus, Log: h.s.log, Count: h.s.metrics})
	h.api.Add(box.Routes()...)
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
