package federation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"parley/bench/matrixclient"
	"parley/bench/meter"
)

// Size says how large a measurement is.
type Size struct {
	Version     string        // of the rooms
	Rooms       int           // of throughput
	Origins     int           // servers that send
	Senders     int           // who speak in each room, of the peer
	Window      int           // messages of a room that may be sent before its user was shown them
	Users       int           // of the server under test, who speak
	Pings       int           // messages of a measurement of latency
	JoinMembers int           // of the large room
	JoinServers int           // on which they are
	Warm        time.Duration // before a throughput is measured
	For         time.Duration // while it is measured
	Settle      time.Duration // before memory is measured
}

// Full is the size of the report.
var Full = Size{
	Version: "11", Rooms: 8, Origins: 4, Senders: 20, Window: 100, Users: 20, Pings: 100,
	JoinMembers: 10_000, JoinServers: 200, Warm: 5 * time.Second, For: 20 * time.Second, Settle: 10 * time.Second,
}

// Divide is a smaller size, for a quick look.
func (s Size) Divide(n int) Size {
	s.JoinMembers, s.JoinServers, s.Pings = max(s.JoinMembers/n, 20), max(s.JoinServers/n, 2), max(s.Pings/n, 1)
	return s
}

// Result is what was measured of one server; a scenario that was not run, or failed, is
// nil.
type Result struct {
	Name, Version string
	// Idle is the resident memory of the server with its accounts, in bytes, Loaded
	// that after the messages, and After that at the end of all.
	Idle, Loaded, After int64
	Received            *Received
	Sent                *Sent
	Join                *Join
	Failed              map[string]error // by scenario
}

// scenarios are what is measured, in this order.
var scenarios = []struct {
	name string
	run  func(context.Context, *Site, *world, *Result) error
}{
	{"received", func(ctx context.Context, s *Site, w *world, r *Result) (err error) {
		r.Received, err = s.received(ctx, w)
		return err
	}},
	{"sent", func(ctx context.Context, s *Site, w *world, r *Result) (err error) {
		r.Sent, err = s.sent(ctx, w)
		return err
	}},
	{"join", func(ctx context.Context, s *Site, w *world, r *Result) (err error) {
		if r.Loaded, err = s.settled(ctx, w.size); err != nil {
			return err
		}
		r.Join, err = s.join(ctx, w)
		return err
	}},
}

// Scenarios are the names of what there is to measure.
func Scenarios() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// world is what the scenarios share: the rooms, who is in them, and who watches.
type world struct {
	size    Size
	rooms   []*room
	users   []*matrixclient.Client
	watcher *watcher
}

// stopTimeout bounds how long a server may take to stop at the end.
const stopTimeout = time.Minute

// Measure builds a lab, runs one server in it through the scenarios that are wanted, and
// takes the lab down. A scenario that fails is told in the result; the others still run.
func Measure(ctx context.Context, name, binary, dir string, size Size, want func(string) bool, progress io.Writer) (r *Result, err error) {
	s, err := open(ctx, name, binary, dir, size)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r = &Result{Name: name, Failed: map[string]error{}}
	if r.Version, err = s.Version(ctx); err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	w, err := s.prepare(ctx, size, r)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.Log())
	}
	defer w.watcher.close()
	for _, sc := range scenarios {
		if !want(sc.name) {
			continue
		}
		began := time.Now()
		if err = meter.Rest(ctx, s.PID()); err == nil {
			err = sc.run(ctx, s, w, r)
		}
		if err != nil {
			r.Failed[sc.name] = err
			fmt.Fprintf(progress, "%s: %s: %v\n%s\n", name, sc.name, err, s.Log())
			continue
		}
		fmt.Fprintf(progress, "%s: %s: took %v: %s\n", name, sc.name, time.Since(began).Round(time.Second/10), r.line(sc.name))
	}
	if r.After, err = s.settled(ctx, size); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "%s: %d MiB idle, %d MiB at the end; the last /sync that failed: %v\n", name, r.Idle>>20, r.After>>20, w.watcher.failed())
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return r, s.Stop(ctx)
}

// settled is the resident memory of the server when it has had time to give some back.
func (s *Site) settled(ctx context.Context, size Size) (int64, error) {
	if err := meter.Rest(ctx, s.PID()); err != nil {
		return 0, err
	}
	if err := meter.Sleep(ctx, size.Settle); err != nil {
		return 0, err
	}
	rss, _, err := meter.Memory(s.PID())
	return rss, err
}

// prepare makes accounts and rooms: the first account is in all rooms and watches, each
// other one is in one.
func (s *Site) prepare(ctx context.Context, size Size, r *Result) (w *world, err error) {
	w = &world{size: size}
	names := []string{}
	for i := range size.Users + 1 {
		names = append(names, user(i))
	}
	if err := s.AddAccounts(ctx, names, password); err != nil {
		return nil, err
	}
	if r.Idle, err = s.settled(ctx, size); err != nil {
		return nil, err
	}
	if w.watcher, err = watch(ctx, s.clients, s.peer); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.watcher.close()
		}
	}()
	for i := range size.Rooms {
		rm, err := s.peer.newRoom(size.Version, i%size.Origins, size.Senders, size.Origins)
		if err != nil {
			return nil, err
		}
		if err := join(ctx, w.watcher.Client, rm); err != nil {
			return nil, err
		}
		w.rooms = append(w.rooms, rm)
	}
	for i := range size.Users {
		c, err := s.clients.Login(ctx, user(i+1), password)
		if err != nil {
			return nil, err
		}
		if err := join(ctx, c, w.rooms[i%len(w.rooms)]); err != nil {
			return nil, err
		}
		w.users = append(w.users, c)
	}
	return w, nil
}

// line is the result of a scenario in a line.
func (r *Result) line(name string) string {
	switch name {
	case "received":
		v := r.Received
		return fmt.Sprintf("shown %.0f/s, acknowledged %.0f/s, %v CPU an event, core %.0f %%, peer's %.0f %%; alone %v, p99 %v; then %v until all were shown",
			v.Rate(), float64(v.Acked)/v.Time.Seconds(), v.PerEvent(), v.Busy(), v.PeerBusy(), v.Median, v.P99, v.Drain)
	case "sent":
		v := r.Sent
		return fmt.Sprintf("%.0f/s arrived, %.0f/s answered to clients, %v CPU an event, core %.0f %%, peer's %.0f %%, %.1f transactions/s, %d lost",
			v.Rate(), float64(v.Said)/v.Time.Seconds(), v.PerEvent(), v.Busy(), v.PeerBusy(), float64(v.Transactions)/v.Time.Seconds(), v.Lost)
	}
	v := r.Join
	return fmt.Sprintf("answered after %v, first message after %v, all members after %v, CPU %v; %d MiB before, peak %d, after %d",
		v.Answered, v.First, v.Whole, v.CPU, r.Loaded>>20, v.Peak>>20, v.Rest>>20)
}
