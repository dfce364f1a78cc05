package main

import (
	"context"
	"fmt"

	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/notice"
	"parley/matrix/rooms"
	"parley/matrix/sync"
	"parley/matrix/wire"
	"parley/media"
	"parley/media/fetch"
	"parley/netguard"
)

// addProtocols gives the hub its protocols: each gets what it stands on, adds
// its services, its paths to the mux, and itself to the hub.
func (s *server) addProtocols(ctx context.Context) error {
	files, err := media.Open(s.cfg.Dir.MediaDir(), media.Limits{MaxSize: s.cfg.Limits.UploadSize.Bytes()})
	if err != nil {
		return fmt.Errorf("opening the media directory: %w", err)
	}
	s.closers = append(s.closers, files.Close)
	s.addFetcher(files)
	for _, add := range []func(context.Context, *media.Files) error{s.addMatrix, s.addXMPP} {
		if err := add(ctx, files); err != nil {
			return err
		}
	}
	return nil
}

// fileTime is how many times as long as other answers a file may take.
const fileTime = 4

// addFetcher adds what brings files here that are elsewhere: on the web, and
// where protocols add.
func (s *server) addFetcher(files *media.Files) {
	l := s.cfg.Limits
	s.remote = fetch.New(fetch.Config{
		Hub: s.hub, Files: files, MaxSize: l.UploadSize.Bytes(), Timeout: fileTime * l.FetchTimeout.D(), Log: s.log,
	})
	s.closers = append(s.closers, func() error { s.remote.Close(); return nil })
	web := fetch.Web{Client: s.guard.Client(netguard.ClientOptions{
		Timeout: l.FetchTimeout.D(), MaxBytes: l.FetchSize.Bytes(), TLS: s.certs.Client(""),
	})}
	s.remote.Add("https", web, false)
	s.remote.Add("http", web, false)
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
		Contact:     "mailto:postmaster@" + s.hub.Home(),
		Remote:      s.remote,
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
	return s.addMatrixFederation(ctx, m, r, api)
}
