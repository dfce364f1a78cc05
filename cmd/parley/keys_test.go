package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"parley/config"
	"parley/matrix/federation/keyring"
)

// TestKeysRotate rotates twice, and asks a server what it publishes then.
//
// spec: MX 1.19 SS §2.3.1
func TestKeysRotate(t *testing.T) {
	dir := shortDir(t)
	parley(t, "", "init", "--domain", "example.org", "--domain", "example.net", "--dir", dir).want(t, 0)
	var ids []string
	for range 3 {
		keys, err := config.LoadKeys(config.Dir(dir))
		if err != nil {
			t.Fatal(err)
		}
		current, old, err := matrixKeys(keys)
		if err != nil || len(old) != len(ids) {
			t.Fatalf("%v, %v", old, err)
		}
		for _, id := range ids {
			if at := old[id].Expired; at.IsZero() || time.Since(at) < 0 {
				t.Errorf("%s: %v", id, at)
			}
		}
		if ids = append(ids, current.ID()); len(ids) < 3 {
			parley(t, "", "keys", "rotate", "--dir", dir).want(t, 0, current.ID()+" is published as an old one")
		}
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	edit(t, dir, "[listen]\n", "[listen]\nhttp = \"\"\nhttps = \""+addr+"\"\nxmpp = \"\"\nxmpp_tls = \"\"\nxmpp_s2s = \"\"\n")
	r := start(t, dir)
	web := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its own certificate
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}
	defer web.CloseIdleConnections()
	for _, domain := range []string{"example.org", "example.net"} {
		resp, err := web.Get("https://" + domain + ":8448/_matrix/key/v2/server")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		a, err := keyring.ParseAnswer(domain, body)
		if err != nil || len(a.Verify) != 1 || a.Verify[ids[2]] == nil || len(a.Old) != 2 || a.Old[ids[0]].Public == nil {
			t.Errorf("%s publishes %s, %v", domain, body, err)
		}
	}
	parley(t, "", "keys", "rotate", "--dir", dir).want(t, 1, "a server is running")
	r.stop(t, syscall.SIGTERM)
}
