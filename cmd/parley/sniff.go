package main

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// sniffTime is how long a connection may keep silent about which of two
// protocols it speaks.
const sniffTime = 30 * time.Second

// tlsFirst is the first byte of every TLS connection: the type of a handshake
// record.
//
// spec: RFC 8446 §5.1
const tlsFirst = 0x16

// serveEither serves one port for connections that begin with TLS and for such
// as begin in the clear. It returns when both have.
func serveEither(ctx context.Context, ln net.Listener, plain, tls func(context.Context, net.Listener) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inClear, inTLS := newBranch(ln), newBranch(ln)
	var wg sync.WaitGroup
	errs := make(chan error, 3)
	for b, serve := range map[*branch]func(context.Context, net.Listener) error{inClear: plain, inTLS: tls} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs <- serve(ctx, b)
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		errs <- split(ctx, ln, inClear, inTLS)
	}()
	err := <-errs
	cancel()
	ln.Close()
	wg.Wait()
	return err
}

// split accepts connections and looks at the first byte of each.
func split(ctx context.Context, ln net.Listener, plain, tls *branch) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			r := bufio.NewReaderSize(conn, 16)
			_ = conn.SetReadDeadline(time.Now().Add(sniffTime))
			first, err := r.Peek(1)
			if err != nil {
				conn.Close()
				return
			}
			_ = conn.SetReadDeadline(time.Time{})
			to := plain
			if first[0] == tlsFirst {
				to = tls
			}
			select {
			case to.conns <- &peeked{conn, r}:
			case <-ctx.Done():
				conn.Close()
			case <-to.closed:
				conn.Close()
			}
		}()
	}
}

// peeked is a connection of which a few bytes have been read.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// branch is a listener for one kind of a port's connections.
type branch struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newBranch(ln net.Listener) *branch {
	return &branch{addr: ln.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the port itself stays open.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }
