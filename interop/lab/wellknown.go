package lab

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
)

// Delegate has a domain say, at port 443 of the host, that its Matrix server is the one at
// server, a name with a port. The lab itself answers there, until it is closed.
//
// spec: MX 1.19 SS §2.1
func (l *Lab) Delegate(host *Host, domain, server string) error {
	certFile, keyFile := filepath.Join(host.Dir, "delegation.pem"), filepath.Join(host.Dir, "delegation-key.pem")
	if err := l.CA.Issue(certFile, keyFile, domain); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("lab: delegation of %s: %w", domain, err)
	}
	var listeners []net.Listener
	var errs []error
	if err := inNamespace(host.ns(), func() {
		for _, addr := range []netip.Addr{host.Addr4, host.Addr6} {
			listener, err := net.Listen("tcp", netip.AddrPortFrom(addr, 443).String())
			listeners, errs = append(listeners, listener), append(errs, err)
		}
	}); err != nil {
		return err
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: delegation of %s: %w", domain, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/matrix/server", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"m.server":"`+server+`"}`) // the asker went away: nobody to tell
	})
	web := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	for _, listener := range listeners {
		go web.ServeTLS(listener, "", "") //nolint:errcheck // ends with an error on Close
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.webs = append(l.webs, web)
	return nil
}
