package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"parley/certs"
	"parley/config"
	"parley/netguard"
)

// checkTimeout bounds each look-up and request.
const checkTimeout = 10 * time.Second

type checkCmd struct{}

// Run says what is wrong and how to mend it. It fails when something is broken
// that keeps users or other servers out; warnings do not fail it.
func (checkCmd) Run(a *app) error {
	c := &checker{w: &errWriter{w: a.stdout}}
	c.run(a)
	if c.w.err != nil {
		return c.w.err
	}
	if c.broken > 0 {
		return errSaid
	}
	return nil
}

// checker prints findings as it makes them.
type checker struct {
	w              *errWriter
	cfg            *config.Config
	guard          *netguard.Guard
	certs          *certs.Manager
	running        bool
	broken, warned int
}

func (c *checker) ok(area, format string, args ...any) {
	c.w.printf("ok      %-14s %s\n", area, fmt.Sprintf(format, args...))
}

func (c *checker) warn(area, mend, format string, args ...any) {
	c.warned++
	c.say("warning", area, mend, fmt.Sprintf(format, args...))
}

func (c *checker) fail(area, mend, format string, args ...any) {
	c.broken++
	c.say("BROKEN", area, mend, fmt.Sprintf(format, args...))
}

func (c *checker) say(level, area, mend, what string) {
	for line := range strings.SplitSeq(what, "\n") {
		c.w.printf("%-7s %-14s %s\n", level, area, line)
	}
	if mend != "" {
		c.w.printf("%-7s %-14s -> %s\n", "", "", mend)
	}
}

func (c *checker) run(a *app) {
	var err error
	if c.cfg, err = a.load(); err != nil {
		c.fail("configuration", "", "%v", err)
		return
	}
	c.ok("configuration", "%s", a.dir.ConfigFile())
	if c.guard, err = openGuard(c.cfg); err != nil {
		c.fail("configuration", "", "%v", err)
		return
	}
	c.keys()
	c.process(a)
	c.database(a)
	c.certificates(a)
	c.ports(a.ctx)
	for _, d := range c.cfg.Domains {
		if config.IsLoopbackName(d) {
			c.ok("DNS", "%s is this machine", d)
			continue
		}
		c.dns(a.ctx, d)
		c.wellKnown(a.ctx, d)
	}
	c.w.printf("\n%d broken, %d warnings\n", c.broken, c.warned)
}

func (c *checker) keys() {
	if _, err := config.LoadKeys(c.cfg.Dir); err != nil {
		c.fail("keys", "", "%v", err)
		return
	}
	c.ok("keys", "%s", c.cfg.Dir.KeysDir())
	if info, err := os.Stat(string(c.cfg.Dir)); err == nil && info.Mode().Perm()&0o077 != 0 {
		c.warn("keys", "chmod 700 "+string(c.cfg.Dir), "%s can be read by others", c.cfg.Dir)
	}
}

func (c *checker) process(a *app) {
	client, err := dialAdmin(a.ctx, a.dir)
	if errors.Is(err, errNoServer) {
		c.ok("server", "not running")
		return
	}
	if err != nil {
		c.fail("server", "restart it, or run this as the server's user", "the admin socket does not answer: %v", err)
		return
	}
	s, err := client.Status(a.ctx)
	if err != nil {
		c.fail("server", "restart it", "the admin socket does not answer: %v", err)
		return
	}
	c.running = true
	c.ok("server", "running since %s, process %d, version %s", s.Since.Format(time.DateTime), s.PID, s.Version)
}

func (c *checker) database(a *app) {
	if c.running {
		c.ok("database", "in use by the running server")
		return
	}
	if c.cfg.Database.SQLite() {
		if _, err := os.Stat(c.cfg.Dir.DatabaseFile()); err != nil {
			c.fail("database", "restore it from a backup, or make a new server with `parley init` elsewhere", "%v", err)
			return
		}
	}
	db, err := openStore(a.ctx, c.cfg, newLogger(io.Discard, c.cfg.Log))
	if err != nil {
		c.fail("database", "see [database] url, and that the database server runs and lets Parley in", "%v", err)
		return
	}
	kind := db.Kind()
	if err := db.Close(); err != nil {
		c.fail("database", "look at the disk", "closing: %v", err)
		return
	}
	c.ok("database", "%s", kind)
}

func (c *checker) certificates(a *app) {
	var err error
	if c.certs, err = openCerts(c.cfg, newLogger(io.Discard, c.cfg.Log)); err != nil {
		c.fail("certificates", "see [tls]", "%v", err)
		return
	}
	for _, name := range c.certs.Names() {
		problems := c.certs.Inspect(name, time.Now())
		for _, p := range problems {
			c.certificate(name, p)
		}
		if len(problems) == 0 {
			c.ok("certificates", "%s", name)
		}
	}
	if c.cfg.TLS.Mode == config.TLSSelfSigned {
		for _, d := range c.cfg.Domains {
			if !config.IsLoopbackName(d) {
				c.warn("certificates", "set [tls] mode to \"acme\" or \"files\"",
					"%s has a self-signed certificate: no client or server trusts it unless told to", d)
			}
		}
	}
}

func (c *checker) certificate(name string, p certs.Problem) {
	mend := "renew the certificate, for " + strings.Join(c.certs.Names(), ", ")
	switch {
	case p.Soft:
		c.warn("certificates", "", "%s: %v", name, p.Err)
	case strings.HasPrefix(name, config.UploadPrefix):
		// Reached through the server's own connection, by no one directly.
		c.warn("certificates", mend, "%s: %v", name, p.Err)
	default:
		c.fail("certificates", mend, "%s: %v", name, p.Err)
	}
}

// ports tries to listen where the server will; where it does already, that it
// answers.
func (c *checker) ports(ctx context.Context) {
	l := c.cfg.Listen
	for _, p := range []struct {
		key  string
		addr config.ListenAddr
	}{
		{"http", l.HTTP}, {"https", l.HTTPS}, {"xmpp", l.XMPP}, {"xmpp_tls", l.XMPPTLS}, {"xmpp_s2s", l.XMPPS2S}, {"metrics", c.cfg.Metrics.Listen},
	} {
		if p.addr.Off() {
			continue
		}
		if c.running {
			c.answering(ctx, p.key, p.addr)
			continue
		}
		ln, err := listen(ctx, p.key, p.addr)
		if err != nil {
			c.fail("ports", "", "%v", err)
			continue
		}
		ln.Close()
		c.ok("ports", "%s on %s is free", p.key, p.addr)
	}
}

func (c *checker) answering(ctx context.Context, key string, addr config.ListenAddr) {
	if addr.Port() == 0 {
		return // the system chose one
	}
	host, port, err := net.SplitHostPort(string(addr))
	if err != nil {
		c.fail("ports", "", "%s: %v", key, err)
		return
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	d := net.Dialer{Timeout: checkTimeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		c.fail("ports", "restart the server, if the configuration has changed", "%s does not answer: %v", key, err)
		return
	}
	conn.Close()
	c.ok("ports", "%s answers on %s", key, addr)
}
