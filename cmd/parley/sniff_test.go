package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
)

// Each connection reaches the server that speaks its protocol, with every byte
// that it sent, and the port closes for both.
func TestServeEither(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]chan []byte{"plain": make(chan []byte, 1), "tls": make(chan []byte, 1)}
	server := func(name string) func(context.Context, net.Listener) error {
		return func(ctx context.Context, ln net.Listener) error {
			go func() { <-ctx.Done(); ln.Close() }()
			for {
				c, err := ln.Accept()
				if err != nil {
					return err
				}
				b, _ := io.ReadAll(c)
				c.Close()
				got[name] <- b
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveEither(ctx, ln, server("plain"), server("tls")) }()
	for name, sent := range map[string][]byte{"plain": []byte("<?xml version='1.0'?>"), "tls": {tlsFirst, 3, 1, 0, 5}} {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if b := <-got[name]; !bytes.Equal(b, sent) {
			t.Errorf("%s got %q", name, b)
		}
	}
	cancel()
	<-done
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}
