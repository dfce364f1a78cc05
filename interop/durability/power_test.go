package durability

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/certs"
	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	matrixsync "parley/matrix/sync"
	"parley/matrix/wire"
	"parley/media"
	"parley/store"
	"parley/store/crashfs"
	"parley/store/hubstore"
	"parley/xmpp/c2s"
	"parley/xmpp/element"
	"parley/xmpp/muc"
	xmppstream "parley/xmpp/stream"
)

// machine is the server's parts in this process, on a disk that forgets what was not synced when the power goes. What it sends goes
// the same way: a machine without power says nothing.
type machine struct {
	target
	dir     string
	disk    *crashfs.Disk
	pragmas []string
	key     []byte
	certs   *certs.Manager
	files   *media.Files
	hub     *hub.Hub
	stops   []func()
}

// newMachine builds one, which is off.
func newMachine(t *testing.T, pragmas ...string) *machine {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	m := &machine{dir: dir, disk: crashfs.New(dir), pragmas: append([]string{"wal_autocheckpoint=40"}, pragmas...)}
	var err error
	m.key, _, err = wire.NewSigningKey()
	must(err)
	m.certs, err = certs.NewSelfSigned(certs.Options{Names: []string{domain}, Log: slog.New(slog.DiscardHandler)}, dir)
	must(err)
	m.files, err = media.Open(filepath.Join(dir, "media"), media.Limits{})
	must(err)
	ports := freePorts(t, 2)
	m.target = target{http: "http://" + ports[0], xmpp: ports[1], tls: trust(t, certs.SelfSignedFile(dir))}
	t.Cleanup(func() {
		m.stop()
		if !m.disk.Dead() {
			m.disk.Cut()
		}
		m.disk.Survivor(crashfs.LoseAll, rand.New(rand.NewPCG(1, 1))).Cut()
		if err := m.files.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// start starts the server. It is wired as the command wires it.
func (m *machine) start(ctx context.Context) error {
	log := slog.New(slog.DiscardHandler)
	db, err := store.OpenOptions(ctx, "sqlite:"+filepath.Join(m.dir, "parley.db"), log, store.Options{
		VFS: m.disk.Name, SyncDir: m.disk.SyncDir, Pragmas: m.pragmas,
	})
	if err != nil {
		return err
	}
	m.stops = append(m.stops, func() { _ = db.Close() }) // fails without power
	st, err := hubstore.New(ctx, db)
	if err != nil {
		return err
	}
	m.hub = hub.New(hub.Config{Domains: []string{domain}, Strangers: core.Hold}, st, log, nil)
	m.stops = append(m.stops, m.hub.Stop)
	api, err := m.matrix(ctx, db, log)
	if err != nil {
		return err
	}
	clients, jobs, err := m.xmppClients(ctx, db, log)
	if err != nil {
		return err
	}
	if err := m.hub.Start(ctx); err != nil {
		return err
	}
	return m.listen(ctx, api, clients, jobs)
}

func (m *machine) matrix(ctx context.Context, db *store.DB, log *slog.Logger) (http.Handler, error) {
	key, err := wire.ParseSigningKey(m.key)
	if err != nil {
		return nil, err
	}
	mir, err := mirror.New(ctx, db, mirror.Config{Domains: []string{domain}, Keys: map[string]*wire.SigningKey{domain: key}})
	if err != nil {
		return nil, err
	}
	m.hub.AddMirror(mir)
	if err := db.Migrate(ctx, client.Owner, client.Migrations()); err != nil {
		return nil, err
	}
	api := client.New(m.hub, m.files, client.Config{
		BaseURL: func(string) string { return m.target.http }, RoomVersion: "12", UploadSize: 1 << 20,
		MessagesPerMinute: 1_000_000, MessageBurst: 1_000_000,
	}, log)
	r := rooms.New(m.hub, mir, rooms.Config{Version: "12", Server: domain}, log)
	y := matrixsync.New(m.hub, mir, r, api, log)
	m.stops = append(m.stops, y.Close)
	api.Add(r.Routes(), y.Routes())
	return api, nil
}

func (m *machine) xmppClients(ctx context.Context, db *store.DB, log *slog.Logger) (*xmppstream.Clients, []func(context.Context) error, error) {
	if err := c2s.Migrate(ctx, db); err != nil {
		return nil, nil, err
	}
	if err := muc.Migrate(ctx, db); err != nil {
		return nil, nil, err
	}
	base := "https://" + domain
	sessions := c2s.New(c2s.Config{Hub: m.hub, Log: log, Files: m.files, Base: base, Version: "test"})
	inRooms := muc.New(muc.Config{
		Hub: m.hub, Names: sessions.Names(), Base: base, Secret: m.key, Log: log,
		Route: func(el *element.Element) { sessions.Deliver(ctx, el) },
	})
	sessions.AddService("rooms", muc.Local{Service: inRooms})
	return &xmppstream.Clients{
		Hosted: m.hub.Hosts, GetCertificate: m.certs.Server("xmpp-client").GetCertificate,
		Authenticator: c2s.Accounts{Hub: m.hub}, Secret: make([]byte, 32), ScramIterations: hub.ScramIterations,
		Features: sessions.Features, Handle: sessions.Handle, Log: log,
	}, []func(context.Context) error{sessions.Run, inRooms.Run}, nil
}

func (m *machine) listen(ctx context.Context, api http.Handler, clients *xmppstream.Clients, jobs []func(context.Context) error) error {
	web, err := net.Listen("tcp", strings.TrimPrefix(m.target.http, "http://"))
	if err != nil {
		return err
	}
	chat, err := net.Listen("tcp", m.target.xmpp)
	if err != nil {
		web.Close()
		return err
	}
	srv := &http.Server{Handler: api}
	running, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(powered{web, m.disk}) })
	wg.Go(func() { _ = clients.Serve(running, powered{chat, m.disk}) })
	for _, job := range jobs {
		wg.Go(func() { _ = job(running) })
	}
	m.stops = append(m.stops, func() {
		cancel()
		_ = srv.Close()
		wg.Wait()
	})
	return nil
}

// stop ends the server, in whatever state it is.
func (m *machine) stop() {
	for len(m.stops) > 0 {
		last := m.stops[len(m.stops)-1]
		m.stops = m.stops[:len(m.stops)-1]
		last()
	}
}

// powered is a listener whose connections say nothing when the power is cut.
type powered struct {
	net.Listener
	disk *crashfs.Disk
}

func (p powered) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return poweredConn{c, p.disk}, nil
}

type poweredConn struct {
	net.Conn
	disk *crashfs.Disk
}

func (c poweredConn) Write(b []byte) (int, error) {
	if c.disk.Dead() {
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

// outage lets the clients work until the power goes, and starts the server again on what is left.
func (m *machine) outage(ctx context.Context, l *load, rng *rand.Rand) error {
	m.disk.CutAfter(1 + rng.IntN(12000))
	for !m.disk.Dead() {
		if len(l.failures()) > 0 { // who has lost a message works no more
			m.disk.Cut()
		}
		pause(ctx)
	}
	m.stop()
	m.disk = m.disk.Survivor(crashfs.Loss(rng.IntN(2)), rng)
	return m.start(ctx)
}

// outages runs a machine with clients over n cuts, and returns what is wrong in the end.
func outages(t *testing.T, seed uint64, n int, pragmas ...string) (l *load, total int, problems []string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	m := newMachine(t, pragmas...)
	if err := m.start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range people {
		if err := m.hub.CreateAccount(ctx, core.LocalAddress(name, domain), password); err != nil {
			t.Fatal(err)
		}
	}
	l = newLoad(t, &m.target)
	l.begin(ctx)
	defer l.end()
	rng := rand.New(rand.NewPCG(seed, 11))
	for range n {
		if err := m.outage(ctx, l, rng); err != nil {
			return l, 0, []string{fmt.Sprintf("starting after a cut: %v", err)}
		}
		if fails := l.failures(); len(fails) > 0 {
			return l, 0, fails
		}
	}
	l.end()
	total, problems = l.compare(ctx)
	return l, total, append(l.failures(), problems...)
}

// Wherever the power is cut, all that the whole server has acknowledged is on the disk, exactly once.
func TestPowerCuts(t *testing.T) {
	until := time.Now().Add(soak(t))
	cuts, there, acked := 0, 0, 0
	for seed := uint64(0); seed < 3 || time.Now().Before(until); seed++ {
		l, total, problems := outages(t, seed, 5)
		if len(problems) > 0 {
			t.Fatalf("seed %d: %s", seed, strings.Join(problems, "\n"))
		}
		cuts, there, acked = cuts+5, there+total, acked+l.count
	}
	if acked < cuts*20 {
		t.Errorf("only %d acknowledgements: the test shows little", acked)
	}
	t.Logf("%d cuts, %d messages, %d acknowledgements", cuts, there, acked)
}

// The test bites: a database that does not wait for the disk is found out.
func TestPowerCutsBite(t *testing.T) {
	for seed := range uint64(5) {
		if _, _, problems := outages(t, 100+seed, 3, "synchronous=off"); len(problems) > 0 {
			t.Logf("found: %d problems, the first: %s", len(problems), problems[0])
			return
		}
	}
	t.Error("no loss was found without syncing")
}
