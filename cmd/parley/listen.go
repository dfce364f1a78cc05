package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"parley/config"
)

// listen binds one address, and says what to do if it cannot.
func listen(ctx context.Context, key string, addr config.ListenAddr) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", string(addr))
	if err == nil {
		return ln, nil
	}
	return nil, fmt.Errorf("[listen] %s = %q: %w%s", key, addr, err, listenAdvice(err, addr))
}

// listenAdvice says how to mend a failure to bind.
func listenAdvice(err error, addr config.ListenAddr) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("; another program uses port %d (`ss -ltnp 'sport = :%d'` names it)", addr.Port(), addr.Port())
	case errors.Is(err, os.ErrPermission):
		return "; ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= in the systemd unit, or `setcap cap_net_bind_service=+ep` on the binary)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; no network interface has this address"
	}
	return ""
}

// limitedListener refuses connections from an address that has too many open.
// Loopback is exempt: there a reverse proxy speaks for everybody.
type limitedListener struct {
	net.Listener
	max    int
	gauge  func(delta float64) // told of each connection opened and closed
	denied func()              // told of each one refused

	mu   sync.Mutex
	open map[netip.Addr]int
}

func limitPerIP(ln net.Listener, perIP int, gauge func(float64), denied func()) net.Listener {
	return &limitedListener{Listener: ln, max: perIP, gauge: gauge, denied: denied, open: make(map[netip.Addr]int)}
}

// Accept returns the next connection that is within the limit.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		key := limitKey(conn.RemoteAddr())
		if !l.enter(key) {
			l.denied()
			conn.Close()
			continue
		}
		l.gauge(1)
		return &limitedConn{Conn: conn, leave: sync.OnceFunc(func() {
			l.leave(key)
			l.gauge(-1)
		})}, nil
	}
}

// limitKey is the address that is counted: of IPv6 the /64, which is what one
// subscriber has. The zero key is not limited.
func limitKey(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return netip.Addr{}
	}
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

func (l *limitedListener) enter(key netip.Addr) bool {
	if !key.IsValid() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key] >= l.max {
		return false
	}
	l.open[key]++
	return true
}

func (l *limitedListener) leave(key netip.Addr) {
	if !key.IsValid() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[key]--; l.open[key] <= 0 {
		delete(l.open, key)
	}
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn, by which XMPP streams are waited for.
func (c *limitedConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
