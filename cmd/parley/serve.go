package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/certs"
	"parley/config"
	"parley/core"
	"parley/hub"
	"parley/media/fetch"
	"parley/netguard"
	"parley/store"
)

// certCheck is how often renewed certificate files are looked for.
const certCheck = 5 * time.Minute

type serveCmd struct{}

// Run serves until the context ends, which SIGTERM and SIGINT do.
func (serveCmd) Run(a *app) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	return run(a.ctx, cfg, newLogger(a.stderr, cfg.Log))
}

// service is one thing that takes connections on an address of [listen].
type service struct {
	name string // its key in [listen]
	addr config.ListenAddr
	// serve takes connections until stop is called, and then returns nil.
	serve func(net.Listener) error
	// stop takes no more connections, lets work under way finish until the
	// context ends, and then breaks it off.
	stop func(context.Context) error
}

// server is all parts of a running server, for the functions that connect
// them. It lives in this package only.
type server struct {
	cfg     *config.Config
	log     *slog.Logger
	keys    *config.Keys
	guard   *netguard.Guard
	certs   *certs.Manager
	metrics *metrics
	db      *store.DB
	hub     *hub.Hub
	remote  *fetch.Fetcher
	// appear asks other Matrix servers how their people appear.
	appear func(ctx context.Context, account, who core.Address) (core.Profile, error)
	// mux has the paths of the HTTP listeners.
	mux      *http.ServeMux
	services []service
	// jobs run beside the services until the context ends.
	jobs []func(context.Context) error
	// starts run once the hub has started, and stops before it stops, in reverse
	// order.
	starts []func(context.Context) error
	stops  []func()
	// closers undo what was opened; run in reverse order after the drain.
	closers []func() error
}

// run builds the server, serves until the context ends, drains and closes.
func run(ctx context.Context, cfg *config.Config, log *slog.Logger) (err error) {
	s := &server{cfg: cfg, log: log, metrics: newMetrics(log), mux: http.NewServeMux()}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, step := range []func(context.Context) error{
		s.openParts,
		s.openHub,
		s.addProtocols,
		s.addHTTP,
		s.addAdmin,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.serve(ctx)
}

func (s *server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	return errors.Join(errs...)
}

// runs has something begin when the hub has started and end before that stops.
func (s *server) runs(start func(context.Context) error, stop func()) {
	s.starts = append(s.starts, start)
	s.stops = append(s.stops, stop)
}

// openParts makes what the protocols stand on.
func (s *server) openParts(ctx context.Context) (err error) {
	if s.keys, err = config.LoadKeys(s.cfg.Dir); err != nil {
		return err
	}
	if s.guard, err = openGuard(s.cfg); err != nil {
		return err
	}
	if s.certs, err = openCerts(s.cfg, s.log); err != nil {
		return err
	}
	// The context of the database outlives the signal to stop: it is closed
	// when everything else has ended.
	if s.db, err = openStore(context.WithoutCancel(ctx), s.cfg, s.log); err != nil {
		return err
	}
	s.closers = append(s.closers, s.db.Close)
	return nil
}

// addHTTP adds the HTTP listeners, which share one mux, and the metrics.
func (s *server) addHTTP(context.Context) error {
	l := s.cfg.Listen
	plain := httpService("http", newHTTPServer(s.certs.HTTPHandler(s.mux), s.log), nil)
	plain.addr = l.HTTP
	secure := httpService("https", newHTTPServer(s.mux, s.log), s.certs.Server("h2", "http/1.1"))
	secure.addr = l.HTTPS
	watch := httpService("metrics", newHTTPServer(s.metrics.handler(s.cfg.Metrics.Profiles), s.log), nil)
	watch.addr = s.cfg.Metrics.Listen
	s.services = append(s.services, plain, secure, watch)
	return nil
}

// bound is a service with its listener.
type bound struct {
	service
	ln net.Listener
}

// bind opens all listeners, or none.
func (s *server) bind(ctx context.Context) (all []bound, err error) {
	for _, svc := range s.services {
		if svc.addr.Off() {
			continue
		}
		ln, err := listen(ctx, svc.name, svc.addr)
		if err != nil {
			for _, b := range all {
				b.ln.Close()
			}
			return nil, err
		}
		limited := limitPerIP(ln, s.cfg.Limits.ConnectionsPerIP,
			s.metrics.connections.WithLabelValues(svc.name).Add, s.metrics.denied.WithLabelValues(svc.name).Inc)
		all = append(all, bound{svc, limited})
	}
	return all, nil
}

// serve runs the services until the context ends or one of them fails, and
// then stops them all.
func (s *server) serve(ctx context.Context) error {
	all, err := s.bind(ctx)
	if err != nil {
		return err
	}
	if err := s.hub.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("starting the hub: %w", err)
	}
	for _, start := range s.starts {
		if err := start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, b := range all {
		s.log.Info("listening", "for", b.name, "address", b.ln.Addr().String())
		g.Go(func() error {
			if err := b.serve(b.ln); err != nil {
				return fmt.Errorf("serving %s: %w", b.name, err)
			}
			return nil
		})
	}
	for _, job := range s.jobs {
		g.Go(func() error { return untilStopped(gctx, job) })
	}
	g.Go(func() error { s.certs.Watch(gctx, certCheck); return nil })
	g.Go(func() error { s.reloadOnHangup(gctx); return nil })
	g.Go(func() error { tidy(gctx); return nil })
	g.Go(func() error {
		<-gctx.Done()
		return s.drain(context.WithoutCancel(gctx), all)
	})
	s.log.Info("serving", "domains", s.cfg.Domains, "version", versionString(), "database", s.db.Kind())
	err = g.Wait()
	s.log.Info("stopped")
	return err
}

// untilStopped does a job. That it is told to stop, in the middle of whatever it does, is no failure.
func untilStopped(ctx context.Context, job func(context.Context) error) error {
	err := job(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// drain stops the services and the hub's sessions together, because a client
// that waits for news lets go only when its session ends. What clients sent
// before is finished; the database closes after that.
func (s *server) drain(ctx context.Context, all []bound) error {
	s.log.Info("stopping", "drain_timeout", s.cfg.Limits.DrainTimeout.String())
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.DrainTimeout.D())
	defer cancel()
	var g errgroup.Group
	for _, b := range all {
		g.Go(func() error {
			if err := b.stop(ctx); err != nil {
				s.log.Warn("connections were broken off", "listener", b.name, "err", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		for i := len(s.stops) - 1; i >= 0; i-- {
			s.stops[i]()
		}
		s.hub.Stop()
		return nil
	})
	return g.Wait()
}

// reloadOnHangup reloads the certificates at each SIGHUP.
func (s *server) reloadOnHangup(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			if err := s.certs.Reload(); err != nil {
				s.log.Error("certificates not reloaded; the old ones stay in use", "err", err)
				continue
			}
			s.log.Info("certificates reloaded")
		}
	}
}

// addAdmin serves the admin socket for as long as the server runs.
func (s *server) addAdmin(ctx context.Context) error {
	ln, err := listenAdmin(ctx, s.cfg.Dir)
	if err != nil {
		return err
	}
	status := serverStatus{Version: versionString(), PID: os.Getpid(), Since: time.Now()}
	srv := newHTTPServer(adminHandler(hubAccounts{s.hub}, status), s.log)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	s.closers = append(s.closers, func() error {
		if err := errors.Join(srv.Close(), ignoreClosed(<-done)); err != nil {
			return fmt.Errorf("closing the admin socket: %w", err)
		}
		return nil
	})
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
