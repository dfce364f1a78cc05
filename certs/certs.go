package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"
)

// Pair names a certificate chain and its private key, both PEM files.
type Pair struct{ Cert, Key string }

// Options are what the operator configured.
type Options struct {
	// Names are all the DNS names that the server answers for; the first is
	// used for a client that names none.
	Names []string
	// ExtraCA is a PEM file of authorities trusted beside the system's; may
	// be empty.
	ExtraCA string
	Log     *slog.Logger
}

// source gets the certificate for a name.
type source interface {
	// get is called for each handshake.
	get(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	// reload looks for renewed certificates; on an error those that were
	// there stay in use.
	reload() error
}

// Manager hands out certificates and TLS configurations. It is safe for
// concurrent use.
type Manager struct {
	names []string
	known map[string]bool
	roots *x509.CertPool
	src   source
	acme  *acmeSource // nil for the other modes
	log   *slog.Logger
}

func newManager(o Options) (*Manager, error) {
	if len(o.Names) == 0 {
		return nil, errors.New("no name to have a certificate for")
	}
	roots, err := loadRoots(o.ExtraCA)
	if err != nil {
		return nil, err
	}
	m := &Manager{names: o.Names, known: make(map[string]bool), roots: roots, log: o.Log}
	for _, n := range o.Names {
		m.known[n] = true
	}
	return m, nil
}

// loadRoots is the system's authorities and those of a PEM file.
func loadRoots(extra string) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
	}
	if extra == "" {
		return roots, nil
	}
	pem, err := os.ReadFile(extra)
	if err != nil {
		return nil, fmt.Errorf("reading extra_ca: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading extra_ca: %s has no certificate in PEM form", extra)
	}
	return roots, nil
}

// Names are the DNS names that the server answers for.
func (m *Manager) Names() []string { return m.names }

// Roots are the authorities whose certificates are believed.
func (m *Manager) Roots() *x509.CertPool { return m.roots }

// Reload looks for renewed certificates and keeps the old ones if the new are
// broken.
func (m *Manager) Reload() error { return m.src.reload() }

// Watch reloads whenever a file has changed, until the context ends. It looks
// every interval, which costs a few stat calls.
func (m *Manager) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := m.Reload(); err != nil {
				m.log.Error("certificates not reloaded; the old ones stay in use", "err", err)
			}
		}
	}
}

// Certificate is what a client that asks for the name is shown. XMPP needs it
// for the tls-server-end-point channel binding, and to show it as a client to
// another server.
//
// spec: RFC 5929 §4
func (m *Manager) Certificate(name string) (*tls.Certificate, error) {
	if !m.known[name] {
		return nil, fmt.Errorf("no certificate for %q: not a name of this server", name)
	}
	return m.src.get(helloFor(name))
}

// helloFor stands in for the handshake of a modern client.
func helloFor(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        name,
		SupportedVersions: []uint16{tls.VersionTLS13},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.PSSWithSHA256, tls.PKCS1WithSHA256, tls.Ed25519},
		CipherSuites:      []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}
}

// getCertificate picks by the name that the client asks for. A client that
// names none, or a name that is not ours, is shown the first name's: it will
// see for itself that the certificate is not the one it wants.
//
// spec: RFC 6066 §3
func (m *Manager) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if m.acme != nil && m.acme.isChallenge(hello) {
		return m.acme.get(hello)
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if !m.known[name] {
		name = m.names[0]
	}
	if name != hello.ServerName {
		h := *hello
		h.ServerName = name
		hello = &h
	}
	return m.src.get(hello)
}

// Server is the configuration of a listener; protos are its ALPN protocols in
// order of preference. It is the caller's to change.
//
// spec: RFC 7590 §3.1
// spec: RFC 9325 §3.1.1
func (m *Manager) Server(protos ...string) *tls.Config {
	if m.acme != nil {
		protos = append(protos, m.acme.protocols()...)
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: m.getCertificate,
		NextProtos:     protos,
	}
}

// Client is the configuration for connecting to a server of the given name,
// whose certificate is verified. It is the caller's to change.
func (m *Manager) Client(serverName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: serverName,
		RootCAs:    m.roots,
	}
}

// ServerToServer is the configuration for connecting to another server as one
// of our domains, whose certificate is shown if asked for.
//
// spec: XEP-0178 §3
func (m *Manager) ServerToServer(local, remote string) *tls.Config {
	c := m.Client(remote)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return m.Certificate(local)
	}
	return c
}

// HTTPHandler answers the challenges of ACME's http-01 and gives all else to
// next. In the other modes it is next.
//
// spec: RFC 8555 §8.3
func (m *Manager) HTTPHandler(next http.Handler) http.Handler {
	if m.acme == nil {
		return next
	}
	return m.acme.httpHandler(next)
}
