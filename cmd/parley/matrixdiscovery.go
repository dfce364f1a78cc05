package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// matrixServerPath is where Matrix servers ask which server a domain has.
//
// spec: MX 1.19 SS §2.1
const matrixServerPath = "/.well-known/matrix/server"

// matrixServer tells other Matrix servers where the server of a domain is: where
// its clients go too. There is nothing to tell where that has no certificate.
func (s *server) matrixServer(w http.ResponseWriter, r *http.Request) {
	host, ok := delegated(s.cfg.BaseURL(s.domainOf(r.Host)))
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_ = json.NewEncoder(w).Encode(map[string]string{"m.server": host}) // the other end may be gone
}

// domainOf is the domain of ours that a Host header names, or else the first.
func (s *server) domainOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host = strings.ToLower(host); s.hub.Hosts(host) {
		return host
	}
	return s.hub.Home()
}

// delegated is the host and port of a base URL, if it is one of HTTPS.
func delegated(base string) (string, bool) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" {
		return "", false
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port), true
}
