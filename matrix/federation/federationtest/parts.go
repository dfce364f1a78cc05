package federationtest

import (
	"context"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation/carrier"
	"parley/matrix/federation/directory"
	"parley/matrix/federation/incoming"
	"parley/matrix/federation/joining"
	"parley/matrix/federation/receiving"
	"parley/matrix/federation/serving"
	"parley/matrix/wire"
	"parley/store/storetest"
)

// own are the parts that every server has.
func own() []Part { return []Part{addDirectory, addJoining, addReceiving, addServing} }

// addDirectory adds what servers ask each other about rooms and people.
func addDirectory(s *Server) {
	s.Directory = directory.New(directory.Config{
		Hub: s.Hub, Mirror: s.Mirror, API: s.Clients, Rooms: s.Rooms, Client: s.Client,
		Servers: s.Sender.Servers, Allows: s.access().Allows, Log: storetest.Log(s.T).With("server", s.Domain),
	})
	s.Rooms.UseDirectory(s.Directory)
	s.API.Add(s.Directory.Routes()...)
	s.OnStop(s.Directory.Close)
}

// addJoining adds the door, and the carrier of invitations.
func addJoining(s *Server) {
	s.T.Helper()
	log := storetest.Log(s.T).With("server", s.Domain)
	cfg := joining.Config{
		Hub: s.Hub, Mirror: s.Mirror, Rooms: s.Shared, Outbox: s.Sender, Client: s.Client, Keys: s.Keys, Access: s.access(),
		Aliases: s.Directory, History: s, Domains: []string{s.Domain}, Signers: map[string]*wire.SigningKey{s.Domain: s.Key}, Log: log,
		FirstRetry: 20 * time.Millisecond, MaxRetry: 100 * time.Millisecond, Linger: 20 * time.Millisecond,
		Patience: time.Second,
	}
	if s.World.Tune != nil {
		s.World.Tune(&cfg)
	}
	var err error
	s.Joining, err = joining.New(background(), s.DB, cfg)
	s.must(err)
	s.API.Add(s.Joining.Routes()...)
	s.Hub.AddRemote(s.Joining)
	s.Rooms.UseDoor(s.Joining)
	s.Hub.AddCarrier(&carrier.Carrier{Hub: s.Hub, Mirror: s.Mirror, Rooms: s.Shared, Client: s.Client, Keys: s.Keys, Log: log})
	s.OnStart(func() error { return s.Joining.Start(background()) })
	s.OnStop(s.Joining.Stop)
}

// Older implements [joining.History] by what [Server.History] is set to, else as
// the real server does.
func (s *Server) Older(ctx context.Context, c core.Conversation, limit int) (bool, error) {
	if s.History != nil {
		return s.History.Older(ctx, c, limit)
	}
	return s.Incoming.Older(ctx, c, limit)
}

// Reach implements [hub.Reacher].
func (s *Server) Reach(ctx context.Context, c core.Conversation, at time.Time, forward bool) error {
	return s.Incoming.Reach(ctx, c, at, forward)
}

// everybody lets every server in.
type everybody struct{}

func (everybody) Allows(hub.View, core.ConvID, string) (bool, error) { return true, nil }

func (s *Server) access() joining.Access {
	if a, ok := any(s.Shared).(joining.Access); ok {
		return a
	}
	return everybody{}
}

// addReceiving takes transactions, fills gaps, and asks for history.
func addReceiving(s *Server) {
	s.T.Helper()
	log := storetest.Log(s.T).With("server", s.Domain)
	cfg := incoming.Config{
		Hub: s.Hub, Mirror: s.Mirror, Shared: s.Shared, Client: s.Client, Keys: s.Keys, Access: s.access(),
		Domains: []string{s.Domain}, Log: log, FirstRetry: 50 * time.Millisecond, MaxRetry: 200 * time.Millisecond,
	}
	if s.World.TuneIncoming != nil {
		s.World.TuneIncoming(&cfg)
	}
	var err error
	s.Incoming, err = incoming.New(background(), s.DB, cfg)
	s.must(err)
	s.API.Add(receiving.New(receiving.Config{Rooms: s.Joining.Lobby(s.Incoming), Log: log}).Routes()...)
	s.OnStart(func() error { return s.Incoming.Start(background()) })
	s.OnStop(s.Incoming.Stop)
}

// addServing answers what others ask about rooms.
func addServing(s *Server) {
	s.API.Add(serving.New(serving.Config{
		Hub: s.Hub, Mirror: s.Mirror, Rooms: s.Shared, Log: storetest.Log(s.T).With("server", s.Domain),
	}).Routes()...)
}
