package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"parley/xmpp/element"
)

// pending counts the connections that have yet to authenticate, in all and per network address.
type pending struct {
	mu    sync.Mutex
	all   int
	perIP map[netip.Prefix]int
}

// enter counts a connection, or refuses it. The function returned must be called once it has authenticated or ended.
func (p *pending) enter(addr net.Addr, set Settings) (leave func(), ok bool) {
	key := prefixOf(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= set.MaxPending || p.perIP[key] >= set.MaxPendingPerIP {
		return nil, false
	}
	if p.perIP == nil {
		p.perIP = make(map[netip.Prefix]int)
	}
	p.all++
	p.perIP[key]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.perIP[key]--; p.perIP[key] == 0 {
			delete(p.perIP, key)
		}
	}), true
}

// prefixOf is the IPv4 address or the IPv6 /64, since who has one address of the latter has all of them.
func prefixOf(addr net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// acceptor is what serving clients and servers have in common.
type acceptor struct {
	set     Settings
	pending *pending
	log     *slog.Logger
	serve   func(ctx context.Context, c net.Conn, leave func())
}

// run accepts until ctx ends or the listener fails, and returns when the last of its connections has ended.
func (a *acceptor) run(ctx context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accepting XMPP connections: %w", err)
			}
			a.log.Warn("cannot accept a connection", "err", err) // out of file descriptors, most likely: it will pass
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		leave, ok := a.pending.enter(c.RemoteAddr(), a.set)
		if !ok {
			a.log.Debug("too many unauthenticated connections", "addr", c.RemoteAddr())
			_ = c.Close()
			continue
		}
		conns.Go(func() {
			defer leave()
			defer func() {
				if p := recover(); p != nil {
					a.log.Error("panic while serving a stream", "panic", p, "stack", string(debug.Stack()))
					_ = c.Close()
				}
			}()
			a.serve(ctx, c, leave)
		})
	}
}

// serverTLS makes a configuration for all connections of one kind. It takes down which certificate was shown, which tls-server-end-point
// needs; since a resumed session shows none, sessions are not resumed.
func serverTLS(get func(*tls.ClientHelloInfo) (*tls.Certificate, error), protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		NextProtos:             protocols,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			w, ok := hello.Conn.(*wire)
			if !ok {
				return nil, errors.New("TLS on a connection that is no wire")
			}
			if hello.ServerName == "" {
				hello.ServerName = w.host
			}
			cert, err := get(hello)
			if err == nil && cert != nil && len(cert.Certificate) > 0 {
				w.leaf = cert.Certificate[0]
			}
			return cert, err
		},
	}
}

// directTLS begins TLS before the stream.
//
// spec: XEP-0368 §3
func (c *Conn) directTLS(ctx context.Context, cfg *tls.Config) error {
	return c.startTLS(ctx, func() *tls.Conn { return tls.Server(c.wire, cfg) })
}

// upgrade answers starttls. The certificate is one for the domain of the stream, if the peer asks for none in TLS.
//
// spec: RFC 6120 §5.4.2.3
func (c *Conn) upgrade(ctx context.Context, cfg *tls.Config) error {
	if c.doc.Buffered() != 0 {
		return &Error{Condition: PolicyViolation, Err: errInjected}
	}
	if err := c.Send(element.New(NSTLS, "proceed")); err != nil {
		return err
	}
	c.wire.host = c.LocalDomain()
	return c.startTLS(ctx, func() *tls.Conn { return tls.Server(c.wire, cfg) })
}
