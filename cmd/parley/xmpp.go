package main

import (
	"context"
	"errors"
	"net"

	"parley/config"
	"parley/hub"
	"parley/media"
	"parley/store"
	"parley/xmpp/bosh"
	"parley/xmpp/c2s"
	"parley/xmpp/component"
	"parley/xmpp/element"
	"parley/xmpp/foreign"
	"parley/xmpp/guard"
	"parley/xmpp/muc"
	"parley/xmpp/s2s"
	"parley/xmpp/stream"
	"parley/xmpp/websocket"
)

// xmppHouse is the rooms of the XMPP house, which need each other. They are put
// up in the order of the fields.
type xmppHouse struct {
	s          *server
	base       string // of links to files
	guard      *guard.Guard
	components *component.Server
	carrier    *s2s.Carrier
	sessions   *c2s.Server
	rooms      *muc.Service
	abroad     *foreign.Service
	clients    *stream.Clients
}

// addXMPP adds XMPP for clients, between servers and for components.
func (s *server) addXMPP(ctx context.Context, files *media.Files) error {
	for _, migrate := range []func(context.Context, *store.DB) error{c2s.Migrate, muc.Migrate, foreign.Migrate} {
		if err := migrate(ctx, s.db); err != nil {
			return err
		}
	}
	x := &xmppHouse{s: s, base: s.cfg.BaseURL(s.hub.Home()), guard: newGuard(s.cfg, s.metrics)}
	x.toServers()
	x.toClients(files)
	x.addRooms()
	x.carrier.Attach(x.sessions, x.rooms)
	x.components.Attach(x.carrier)
	s.hub.AddCarrier(x.carrier)
	s.closers = append(s.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.DrainTimeout.D())
		defer cancel()
		return x.carrier.Close(ctx)
	})
	x.listen()
	return nil
}

// toServers makes what reaches other servers and components.
func (x *xmppHouse) toServers() {
	s := x.s
	x.components = component.New(component.Config{
		Secrets: secrets(s.cfg.Components), Hosted: s.hub.Hosts, GetCertificate: s.certs.Server("xmpp-client").GetCertificate,
		Settings: streamSettings(s.cfg), Log: s.log,
	})
	x.carrier = s2s.New(s2s.Config{
		Hub: s.hub, Federation: s.federation(), Base: x.base, Log: s.log, Count: s.metrics, Guard: x.guard,
		Idle: s.cfg.Limits.IdleTimeout.D(), Components: x.components,
	})
}

// toClients makes what holds the sessions of clients.
func (x *xmppHouse) toClients(files *media.Files) {
	s, l := x.s, x.s.cfg.Limits
	x.sessions = c2s.New(c2s.Config{
		Hub: s.hub, Log: s.log, Count: s.metrics, Router: x.carrier, Files: files, Remote: s.remote, Appear: s.appear, Base: x.base, Version: versionString(), Guard: x.guard,
		MaxSessions: l.SessionsPerAccount, MaxDirected: l.DirectedPresences, MaxGroups: l.RosterGroups, MaxPage: l.ArchivePage,
		External: externalServices(s.cfg.Services), Contact: s.cfg.Contact.Kinds(), Below: x.components.Below,
		Operators: operators(s.cfg.Operators), PushSummary: c2s.PushSummary(s.cfg.XMPP.Push),
		Resume: l.ResumeTimeout.D(), MaxUnacked: l.ClientQueue, MaxUpload: l.UploadSize.Bytes(), Quota: l.UploadQuota.Bytes(),
	})
	x.clients = &stream.Clients{
		Hosted: s.hub.Hosts, GetCertificate: s.certs.Server("xmpp-client").GetCertificate,
		Authenticator: c2s.Accounts{Hub: s.hub}, Secret: s.keys.ScramSalt, ScramIterations: hub.ScramIterations,
		Inline: x.sessions.Inline, Tokens: c2s.Tokens{Hub: s.hub, Secret: s.keys.ScramSalt},
		Register: x.sessions.Register, RegisterFeatures: x.sessions.RegisterFeatures,
		Features: x.sessions.Features, Handle: x.sessions.Handle, Log: s.log,
		Settings: clientSettings(s.cfg), Logins: guard.FailedLogins{Guard: x.guard},
	}
}

// addRooms adds the rooms here, and those of other servers.
func (x *xmppHouse) addRooms() {
	s, l := x.s, x.s.cfg.Limits
	x.rooms = muc.New(muc.Config{
		Hub: s.hub, Names: x.sessions.Names(), Base: x.base, Secret: s.keys.Dialback, Log: s.log, Count: s.metrics, Route: x.carrier.Route, Guard: x.guard,
		Grace: l.LeaveGrace.D(), MaxOccupants: l.RoomOccupants, MaxShown: l.RoomShown, MaxStanza: int(l.RoomStanzaSize.Bytes()), MaxHistory: l.RoomHistory,
		MaxPage: l.ArchivePage, MaxItems: l.DiscoPage,
	})
	x.sessions.AddService("rooms", muc.Local{Service: x.rooms})
	x.abroad = foreign.New(foreign.Config{
		Hub: s.hub, Names: x.sessions.Names(), Base: x.base, Secret: s.keys.Dialback, Grace: l.LeaveGrace.D(),
		MaxRooms: l.ForeignRooms, MaxOccupants: l.ForeignOccupants, MaxInvited: l.ForeignInvitations, MaxLooked: l.ForeignLooks,
		Route: x.carrier.Route, Count: s.metrics, Log: s.log,
	})
	x.sessions.AttachElsewhere(x.abroad)
	x.carrier.AttachForeign(x.abroad)
	s.hub.AddRemote(x.abroad)
}

// listen opens the ways in: sockets, WebSocket, BOSH, uploads, other servers,
// components.
func (x *xmppHouse) listen() {
	s := x.s
	for _, method := range []string{"PUT", "OPTIONS"} { // web clients ask first. spec: XEP-0363 §8
		s.mux.HandleFunc(method+" "+c2s.UploadPath, x.sessions.Upload)
	}
	sockets := websocket.New(websocket.Config{
		Streams: x.clients, Home: s.hub.Home(), BaseURL: s.cfg.BaseURL, Log: s.log, Others: map[string]string{bosh.Relation: bosh.Path},
	})
	sockets.Register(s.mux)
	bodies := bosh.New(bosh.Config{
		Streams: x.clients, Origin: websocket.Origin, Log: s.log, SessionsPerIP: s.cfg.Limits.ConnectionsPerIP,
	})
	bodies.Register(s.mux)
	s.jobs = append(s.jobs, x.sessions.Run, x.rooms.Run, x.abroad.Run, sockets.Run, bodies.Run)
	s.services = append(s.services,
		streamService("xmpp", s.cfg.Listen.XMPP, x.clients.Serve),
		streamService("xmpp_tls", s.cfg.Listen.XMPPTLS, x.clients.ServeTLS),
		streamService("xmpp_s2s", s.cfg.Listen.XMPPS2S, func(ctx context.Context, ln net.Listener) error {
			return serveEither(ctx, ln, x.carrier.Serve, x.carrier.ServeTLS)
		}),
		s.componentService(x.components))
}

// componentService is off while there are no components.
func (s *server) componentService(c *component.Server) service {
	addr := s.cfg.Listen.XMPPComponent
	if len(s.cfg.Components) == 0 {
		addr = ""
	}
	return streamService("xmpp_component", addr, c.Serve)
}

// secrets are those of the components.
func secrets(all []config.Component) map[string]string {
	m := make(map[string]string)
	for _, c := range all {
		m[c.Host] = c.Secret
	}
	return m
}

// externalServices are those of which clients are told.
func externalServices(all []config.ExternalService) []c2s.ExternalService {
	var out []c2s.ExternalService
	for _, e := range all {
		out = append(out, c2s.ExternalService{
			Type: e.Type, Host: e.Host, Port: e.Port, Transport: e.Transport, Name: e.Name,
			Secret: e.Secret, Username: e.Username, Password: e.Password, TTL: e.TTL.D(),
		})
	}
	return out
}

// federation opens and accepts streams of other XMPP servers. Static routes of
// the configuration are not looked up, and are the only private addresses that
// are reached beside the private networks that it allows.
func (s *server) federation() *stream.Federation {
	routes := xmppRoutes{Guard: s.guard, routes: s.cfg.DNS.Routes}
	return &stream.Federation{
		GetCertificate: s.certs.Server("xmpp-server").GetCertificate, Roots: s.certs.Roots(),
		Secret: s.keys.Dialback, AllowDialback: s.cfg.XMPP.Dialback,
		Resolver: routes, Dialer: routes.dial, Settings: streamSettings(s.cfg), Log: s.log,
	}
}

// streamSettings are the bounds of every XMPP stream, and how fast another
// server may send.
//
// spec: XEP-0205 §4
func streamSettings(cfg *config.Config) stream.Settings {
	l := cfg.Limits
	limits := element.DefaultLimits
	limits.Bytes = int(l.StanzaSize.Bytes())
	return stream.Settings{
		NegotiationTimeout: l.HandshakeTimeout.D(), IdleTimeout: l.IdleTimeout.D(), Limits: limits,
		MaxPending: l.Unauthenticated, MaxPendingPerIP: l.UnauthenticatedPerIP,
		BytesPerSecond: int(l.ServerRate.Bytes()), Burst: int(l.ServerBurst.Bytes()),
	}
}

// clientSettings say how fast a client may send.
func clientSettings(cfg *config.Config) stream.Settings {
	st := streamSettings(cfg)
	st.BytesPerSecond, st.Burst = int(cfg.Limits.ClientRate.Bytes()), int(cfg.Limits.ClientBurst.Bytes())
	return st
}

// streamService is a [service] of XMPP streams, which end when they are told
// that the server does.
func streamService(name string, addr config.ListenAddr, serve func(context.Context, net.Listener) error) service {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	return service{
		name: name, addr: addr,
		serve: func(ln net.Listener) error {
			defer close(done)
			err := serve(ctx, ln)
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		},
		stop: func(limit context.Context) error {
			cancel()
			select {
			case <-done:
				return nil
			case <-limit.Done():
				return limit.Err()
			}
		},
	}
}
