package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"parley/interop/lab"
	"parley/matrix/federation"
	"parley/matrix/federation/discovery"
	"parley/matrix/federation/keyring"
	"parley/matrix/wire"
	"parley/store"
)

// domain is under what all names of the [Peer] are.
const domain = "load.test"

// serverName is the n-th name of the [Peer].
func serverName(n int) string { return "s" + strconv.Itoa(n) + "." + domain }

// userID is a member of the n-th server.
func userID(n, member int) string { return "@m" + strconv.Itoa(member) + ":" + serverName(n) }

// callTimeout is for one call of the server under test, which may be busy.
const callTimeout = 5 * time.Minute

// Peer is other Matrix servers: many names, one program. All sign with one key.
type Peer struct {
	key    *wire.SigningKey
	target string // the server name of the server under test
	client *federation.Client
	db     *store.DB
	web    *http.Server
	port   net.Listener

	mu      sync.Mutex
	rooms   map[string]*room
	next    int          // for IDs of rooms and transactions
	arrived atomic.Int64 // messages of the server under test, each once
	news    atomic.Int64 // transactions of the server under test
}

// target is where a server under test answers other servers.
type target struct {
	name string // server name
	addr discovery.Endpoint
	tls  *tls.Config
}

// newPeer makes other servers of so many names in the lab, which can reach the target.
func newPeer(ctx context.Context, l *lab.Lab, names int, t target) (_ *Peer, err error) {
	all := make([]string, names)
	for i := range all {
		all[i] = serverName(i)
	}
	host, err := l.AddHost(ctx, "load", all...)
	if err != nil {
		return nil, err
	}
	cert, err := certificate(l, host)
	if err != nil {
		return nil, err
	}
	p := &Peer{target: t.name, rooms: map[string]*room{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if _, p.key, err = wire.NewSigningKey(); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if p.db, err = store.Open(ctx, "sqlite:"+filepath.Join(host.Dir, "keys.db"), log); err != nil {
		return nil, err
	}
	if err := keyring.Migrate(ctx, p.db); err != nil {
		return nil, err
	}
	keys := map[string]*wire.SigningKey{}
	var own []keyring.Own
	for _, name := range all {
		keys[name] = p.key
		own = append(own, keyring.Own{Domain: name, Key: p.key})
	}
	p.client = federation.NewClient(federation.ClientConfig{
		Transport: transport(host, t), Keys: keys, Agent: "Parley-bench", Timeout: callTimeout, MaxAnswer: maxAnswer, Log: log,
	})
	api := federation.NewServer(federation.ServerConfig{
		Domains: all, Keys: keyring.New(keyring.Config{DB: p.db, Fetch: p.client, Own: own, Log: log}),
		MaxBody: maxAnswer, Version: "bench", Log: log,
	})
	api.Add(p.routes()...)
	if p.port, err = host.Listen("tcp", net.JoinHostPort(host.Addr4.String(), strconv.Itoa(discovery.DefaultPort))); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	p.web = &http.Server{Handler: api, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: callTimeout, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go p.web.ServeTLS(p.port, "", "") //nolint:errcheck // ends with an error on close
	return p, nil
}

// certificate is one for all names.
func certificate(l *lab.Lab, host *lab.Host) (cert tls.Certificate, err error) {
	certFile, keyFile := filepath.Join(host.Dir, "cert.pem"), filepath.Join(host.Dir, "key.pem")
	if err := l.CA.Issue(certFile, keyFile, domain, "*."+domain); err != nil {
		return cert, err
	}
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		err = fmt.Errorf("bench: %w", err)
	}
	return cert, err
}

// roots are the authorities that the lab's clients and servers trust.
func roots(l *lab.Lab) (*x509.CertPool, error) {
	trust, err := os.ReadFile(l.CA.File)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trust)
	return pool, nil
}

// transport reaches the server under test and nobody else.
func transport(host *lab.Host, t target) *federation.Transport {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return host.Dial(ctx, network, address)
	}
	return federation.NewTransport(discovery.New(discovery.Config{
		Routes: func(string) []discovery.Endpoint { return []discovery.Endpoint{t.addr} },
		Log:    slog.New(slog.DiscardHandler),
	}), federation.Dialer{Dial: dial, DialRoute: dial, TLS: func(string) *tls.Config { return t.tls.Clone() }})
}

// close ends the servers.
func (p *Peer) close() error {
	var errs []error
	if p.web != nil {
		errs = append(errs, p.web.Close())
	}
	if p.db != nil {
		errs = append(errs, p.db.Close())
	}
	return errors.Join(errs...)
}

// id is a number that none had before.
func (p *Peer) id() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	return strconv.Itoa(p.next)
}
