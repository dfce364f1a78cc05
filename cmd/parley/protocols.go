package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"parley/config"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/notice"
	"parley/matrix/rooms"
	"parley/matrix/sync"
	"parley/matrix/wire"
	"parley/media"
	"parley/netguard"
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

// addProtocols gives the hub its protocols: each gets what it stands on, adds
// its services, its paths to the mux, and itself to the hub.
func (s *server) addProtocols(ctx context.Context) error {
	files, err := media.Open(s.cfg.Dir.MediaDir(), media.Limits{MaxSize: s.cfg.Limits.UploadSize.Bytes()})
	if err != nil {
		return fmt.Errorf("opening the media directory: %w", err)
	}
	s.closers = append(s.closers, files.Close)
	for _, add := range []func(context.Context, *media.Files) error{s.addMatrix, s.addXMPP} {
		if err := add(ctx, files); err != nil {
			return err
		}
	}
	return nil
}

// addMatrix adds Matrix for clients, and the mirror of every conversation as a
// Matrix room.
func (s *server) addMatrix(ctx context.Context, files *media.Files) error {
	key, err := wire.ParseSigningKey(s.keys.Matrix)
	if err != nil {
		return fmt.Errorf("reading the Matrix signing key: %w", err)
	}
	keys := map[string]*wire.SigningKey{}
	for _, d := range s.cfg.Domains {
		keys[d] = key
	}
	m, err := mirror.New(ctx, s.db, mirror.Config{Domains: s.cfg.Domains, Keys: keys, Count: s.metrics})
	if err != nil {
		return err
	}
	s.hub.AddMirror(m)
	contact := "mailto:postmaster@" + s.hub.Home()
	s.hub.AddInformer(notice.Notices{Hub: s.hub, Contact: contact, Log: s.log})
	if err := s.db.Migrate(ctx, client.Owner, client.Migrations()); err != nil {
		return err
	}
	l := s.cfg.Limits
	api := client.New(s.hub, files, client.Config{
		BaseURL:      s.cfg.BaseURL,
		Registration: string(s.cfg.Registration.Mode), Tokens: s.cfg.Registration.Tokens,
		RoomVersion: string(s.cfg.Matrix.RoomVersion), Private: s.cfg.Matrix.Encryption == "private",
		Contact: "mailto:postmaster@" + s.hub.Home(),
		Fetch: s.guard.Client(netguard.ClientOptions{
			Timeout: l.FetchTimeout.D(), MaxBytes: l.FetchSize.Bytes(), TLS: s.certs.Client(""),
		}),
		RequestSize: l.RequestSize.Bytes(), UploadSize: l.UploadSize.Bytes(),
		MessagesPerMinute: l.MessagesPerMinute, MessageBurst: l.MessageBurst,
		LoginsPerMinute: l.LoginsPerMinute, RegistersPerHour: l.RegistersPerHour,
		SyncFeed: rooms.Feed, CheckFilter: rooms.CheckFilter,
	}, s.log)
	r := rooms.New(s.hub, m, rooms.Config{Version: string(s.cfg.Matrix.RoomVersion), Server: s.hub.Home()}, s.log)
	y := sync.New(s.hub, m, r, api, s.log)
	s.closers = append(s.closers, func() error { y.Close(); return nil })
	api.Add(r.Routes(), y.Routes())
	for _, prefix := range []string{"/_matrix/", "/.well-known/matrix/", "/_parley/media/"} {
		s.mux.Handle(prefix, api)
	}
	return nil
}

// addXMPP adds XMPP for clients and between servers.
func (s *server) addXMPP(ctx context.Context, files *media.Files) error {
	if err := c2s.Migrate(ctx, s.db); err != nil {
		return err
	}
	if err := muc.Migrate(ctx, s.db); err != nil {
		return err
	}
	l := s.cfg.Limits
	base := s.cfg.BaseURL(s.hub.Home())
	guards := newGuard(s.cfg, s.metrics)
	attached := component.New(component.Config{Secrets: secrets(s.cfg.Components), Settings: streamSettings(s.cfg), Log: s.log})
	carrier := s2s.New(s2s.Config{
		Guard: guards,
		Hub:   s.hub, Federation: s.federation(), Base: base, Log: s.log, Count: s.metrics, Idle: l.IdleTimeout.D(),
		Components: attached,
	})
	sessions := c2s.New(c2s.Config{
		Guard: guards, MaxSessions: l.SessionsPerAccount, MaxDirected: l.DirectedPresences, MaxGroups: l.RosterGroups, MaxPage: l.ArchivePage,
		Hub: s.hub, Log: s.log, Router: carrier, Files: files, Base: base, Version: versionString(),
		External: externalServices(s.cfg.Services), Contact: s.cfg.Contact.Kinds(), Below: attached.Below,
		Operators: operators(s.cfg.Operators), PushSummary: c2s.PushSummary(s.cfg.XMPP.Push),
		Resume: l.ResumeTimeout.D(), MaxUnacked: l.ClientQueue, MaxUpload: l.UploadSize.Bytes(), Quota: l.UploadQuota.Bytes(),
	})
	rooms := muc.New(muc.Config{
		Guard: guards, MaxOccupants: l.RoomOccupants, MaxStanza: int(l.RoomStanzaSize.Bytes()), MaxHistory: l.RoomHistory,
		MaxPage: l.ArchivePage, MaxItems: l.DiscoPage,
		Hub: s.hub, Names: sessions.Names(), Base: base, Secret: s.keys.Dialback, Grace: l.LeaveGrace.D(), Log: s.log, Route: carrier.Route,
	})
	sessions.AddService("rooms", muc.Local{Service: rooms})
	abroad, err := s.foreignRooms(ctx, sessions, carrier)
	if err != nil {
		return err
	}
	carrier.Attach(sessions, rooms)
	attached.Attach(carrier)
	s.hub.AddCarrier(carrier)
	s.closers = append(s.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), l.DrainTimeout.D())
		defer cancel()
		return carrier.Close(ctx)
	})
	for _, method := range []string{"PUT", "OPTIONS"} { // web clients ask first. spec: XEP-0363 §8
		s.mux.HandleFunc(method+" "+c2s.UploadPath, sessions.Upload)
	}
	clients := &stream.Clients{
		Hosted: s.hub.Hosts, GetCertificate: s.certs.Server("xmpp-client").GetCertificate,
		Authenticator: c2s.Accounts{Hub: s.hub}, Secret: s.keys.ScramSalt, ScramIterations: hub.ScramIterations,
		Inline: sessions.Inline, Tokens: c2s.Tokens{Hub: s.hub, Secret: s.keys.ScramSalt},
		Register: sessions.Register, RegisterFeatures: sessions.RegisterFeatures,
		Features: sessions.Features, Handle: sessions.Handle, Log: s.log,
		Settings: clientSettings(s.cfg), Logins: guard.FailedLogins{Guard: guards},
	}
	sockets := websocket.New(websocket.Config{
		Streams: clients, Home: s.hub.Home(), BaseURL: s.cfg.BaseURL, Log: s.log, Others: map[string]string{bosh.Relation: bosh.Path},
	})
	sockets.Register(s.mux)
	bodies := bosh.New(bosh.Config{Streams: clients, Origin: websocket.Origin, Log: s.log, SessionsPerIP: l.ConnectionsPerIP})
	bodies.Register(s.mux)
	s.jobs = append(s.jobs, sessions.Run, rooms.Run, abroad.Run, sockets.Run, bodies.Run)
	s.services = append(s.services,
		streamService("xmpp", s.cfg.Listen.XMPP, clients.Serve),
		streamService("xmpp_tls", s.cfg.Listen.XMPPTLS, clients.ServeTLS),
		streamService("xmpp_s2s", s.cfg.Listen.XMPPS2S, func(ctx context.Context, ln net.Listener) error {
			return serveEither(ctx, ln, carrier.Serve, carrier.ServeTLS)
		}),
		s.componentService(attached))
	return nil
}

// foreignRooms adds the rooms of other servers.
func (s *server) foreignRooms(ctx context.Context, sessions *c2s.Server, carrier *s2s.Carrier) (*foreign.Service, error) {
	if err := foreign.Migrate(ctx, s.db); err != nil {
		return nil, err
	}
	l := s.cfg.Limits
	f := foreign.New(foreign.Config{
		Hub: s.hub, Names: sessions.Names(), Base: s.cfg.BaseURL(s.hub.Home()), Secret: s.keys.Dialback, Grace: l.LeaveGrace.D(),
		Route: carrier.Route, Count: s.metrics, Log: s.log,
	})
	sessions.AttachElsewhere(f)
	carrier.AttachForeign(f)
	s.hub.AddRemote(f)
	return f, nil
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
