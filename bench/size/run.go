package size

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"parley/bench/matrixroom"
	"parley/bench/meter"
	"parley/core"
	"parley/hub"
	"parley/matrix/graph"
	"parley/matrix/mirror"
	"parley/matrix/shared"
	"parley/matrix/wire"
	"parley/store"
	"parley/store/hubstore"
)

// Cost is what something takes, by the clock and of the processor. On a machine that others
// use too, the second says more.
type Cost struct{ Time, CPU time.Duration }

// spent measures while f runs.
func spent(f func() error) (Cost, error) {
	began, cpu := time.Now(), meter.OwnTime()
	err := f()
	return Cost{time.Since(began), meter.OwnTime() - cpu}, err
}

// Result is what a room of one size costs.
type Result struct {
	Members, Servers int
	// First is until the room's first messages can be shown, Whole until all of
	// its members are known.
	First, Whole Cost
	// Message, Member and Fork are for one event of others: something said, a
	// member who joins, and one of a pair of topics that were set at once.
	Message, Member, Fork Cost
	// Own is for a message of ours, and Cold for the first event after a restart.
	Own, Cold Cost
	// Memory is what the room takes of the heap, in bytes, and Disk what the
	// database takes.
	Memory, Disk int64
	// States are the rows in which the states of the room are kept.
	States int64
}

// home is the server that enters.
const home = "home.test"

type nothing struct{}

func (nothing) Owe(hub.Tx, core.ConvID, string, core.Feed) error               { return nil }
func (nothing) OweTo(hub.Tx, string, ...string) error                          { return nil }
func (nothing) Peers(hub.Tx, core.ConvID, []string, []string, core.Feed) error { return nil }

// server is what takes part in the room.
type server struct {
	db    *store.DB
	hub   *hub.Hub
	rooms *shared.Rooms
	who   core.Address
}

func open(ctx context.Context, dir string, log *slog.Logger) (*server, error) {
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "db"), log)
	if err != nil {
		return nil, err
	}
	st, err := hubstore.New(ctx, db)
	if err != nil {
		return nil, err
	}
	s := &server{db: db, who: core.LocalAddress("alice", home)}
	s.hub = hub.New(hub.Config{Domains: []string{home}, Registration: "open"}, st, log, nil)
	_, key, err := wire.NewSigningKey()
	if err != nil {
		return nil, err
	}
	m, err := mirror.New(ctx, db, mirror.Config{Domains: []string{home}, Keys: map[string]*wire.SigningKey{home: key}})
	if err != nil {
		return nil, err
	}
	s.hub.AddMirror(m)
	if err := shared.Migrate(ctx, db); err != nil {
		return nil, err
	}
	s.rooms = shared.New(shared.Config{Hub: s.hub, Mirror: m, Outbox: nothing{}, Domains: []string{home}, Log: log})
	return s, nil
}

func (s *server) close() error {
	s.hub.Stop()
	return s.db.Close()
}

// Run measures a room of one size.
func Run(ctx context.Context, members, servers int) (res Result, err error) {
	res = Result{Members: members, Servers: servers}
	log := slog.New(slog.DiscardHandler)
	dir, err := os.MkdirTemp("", "parley-size-")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	r, err := newRoom(members, servers)
	if err != nil {
		return res, err
	}
	s, err := open(ctx, dir, log)
	if err != nil {
		return res, err
	}
	if err := s.hub.CreateAccount(ctx, s.who, "correct horse battery"); err != nil {
		return res, err
	}
	before := heap()
	conv, err := s.enter(ctx, r, &res)
	if err != nil {
		return res, err
	}
	if err := s.live(ctx, r, conv, &res); err != nil {
		return res, err
	}
	res.Memory = heap() - before
	runtime.KeepAlive(s)
	if err := s.close(); err != nil {
		return res, err
	}
	return res, s.after(ctx, r, conv, dir, log, &res)
}

// heap is what is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// batch is how many members are added in one turn.
const batch = 500

// enter joins with part of the state, and then takes the rest.
func (s *server) enter(ctx context.Context, r *matrixroom.Room, res *Result) (conv core.ConvID, err error) {
	first, rest := split(r, 10)
	me := "@alice:" + home
	join, err := r.After(r.Ends, wire.TypeMember, &me, me, `{"membership":"join"}`)
	if err != nil {
		return "", err
	}
	r.Take(join)
	res.First, err = spent(func() error {
		err := s.rooms.Turn(ctx, func(t *shared.Turn) (err error) {
			conv, err = t.Enter(shared.Entry{
				RoomID: r.ID, Version: r.Version, State: first, Join: shared.Incoming{PDU: join}, Partial: "server0.test",
			})
			return err
		})
		if err != nil {
			return err
		}
		return s.say(ctx, r, conv)
	})
	if err != nil {
		return conv, err
	}
	res.Whole, err = spent(func() error {
		for chunk := range slices.Chunk(rest, batch) {
			if err := s.rooms.Turn(ctx, func(t *shared.Turn) error { return t.Complete(conv, chunk, false) }); err != nil {
				return err
			}
		}
		return s.rooms.Turn(ctx, func(t *shared.Turn) error { return t.Complete(conv, nil, true) })
	})
	res.Whole.Time += res.First.Time
	res.Whole.CPU += res.First.CPU
	return conv, err
}

// say has a member of another server say something.
func (s *server) say(ctx context.Context, r *matrixroom.Room, conv core.ConvID) error {
	e, err := r.After(r.Ends, "m.room.message", nil, r.Users[1], `{"body":"hello","msgtype":"m.text"}`)
	if err != nil {
		return err
	}
	r.Take(e)
	return s.take(ctx, conv, e)
}

func (s *server) take(ctx context.Context, conv core.ConvID, e *wire.PDU) error {
	return s.rooms.Turn(ctx, func(t *shared.Turn) error {
		out, err := t.Accept(conv, shared.Incoming{PDU: e})
		if err == nil && out.Verdict != graph.Accepted {
			err = fmt.Errorf("%s: %v: %w", e.Type, out.Verdict, out.Why)
		}
		return err
	})
}

// rounds is how many events of a sort are taken.
const rounds = 100

// live takes what others do, and says something.
func (s *server) live(ctx context.Context, r *matrixroom.Room, conv core.ConvID, res *Result) error {
	took := func(c *Cost, events int, f func(i int) error) error {
		if err := f(-1); err != nil { // has all in memory that is needed
			return err
		}
		all, err := spent(func() error {
			for i := range rounds {
				if err := f(i); err != nil {
					return err
				}
			}
			return nil
		})
		*c = Cost{all.Time / time.Duration(rounds*events), all.CPU / time.Duration(rounds*events)}
		return err
	}
	if err := took(&res.Message, 1, func(int) error { return s.say(ctx, r, conv) }); err != nil {
		return err
	}
	err := took(&res.Member, 1, func(i int) error {
		who := fmt.Sprintf("@late%d:server%d.test", i+1, (i+1)%res.Servers)
		e, err := r.After(r.Ends, wire.TypeMember, &who, who, `{"membership":"join"}`)
		if err != nil {
			return err
		}
		r.Take(e)
		return s.take(ctx, conv, e)
	})
	if err != nil {
		return err
	}
	topic := ""
	err = took(&res.Fork, 3, func(i int) error {
		var branches []*wire.PDU
		for j := range 2 {
			e, err := r.After(r.Ends, "m.room.topic", &topic, r.Users[2+j], fmt.Sprintf(`{"topic":"%d of %d"}`, j, i))
			if err != nil {
				return err
			}
			if err := s.take(ctx, conv, e); err != nil {
				return err
			}
			branches = append(branches, e)
		}
		for _, e := range branches {
			r.Take(e)
		}
		return s.say(ctx, r, conv)
	})
	if err != nil {
		return err
	}
	return took(&res.Own, 1, func(int) error {
		_, err := s.hub.Submit(ctx, hub.Draft{Conv: conv, Sender: s.who, Content: core.Message{Body: core.TextBody("hello")}})
		return err
	})
}

// after restarts the server and takes one more event.
func (s *server) after(ctx context.Context, r *matrixroom.Room, conv core.ConvID, dir string, log *slog.Logger, res *Result) error {
	files, err := filepath.Glob(filepath.Join(dir, "db*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			return err
		}
		res.Disk += st.Size()
	}
	again, err := open(ctx, dir, log)
	if err != nil {
		return err
	}
	if res.Cold, err = spent(func() error { return again.say(ctx, r, conv) }); err != nil {
		return err
	}
	err = again.db.Read(ctx, func(q store.Querier) error {
		return q.QueryRow(`SELECT COUNT(*) FROM shared_states`).Scan(&res.States)
	})
	if err != nil {
		return err
	}
	return again.close()
}
