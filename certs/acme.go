package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// ACMEOptions are for [NewACME].
type ACMEOptions struct {
	// Dir is where the account key and the certificates are kept.
	Dir string
	// Email is told to the authority; may be empty.
	Email string
	// Directory is the authority's directory URL; empty: Let's Encrypt.
	Directory string
}

// NewACME makes a manager for certificates that are got from an authority when
// a name is first asked for, and renewed. Having it in the configuration is
// taken as agreement to the authority's terms.
//
// spec: RFC 8555 §7
func NewACME(o Options, a ACMEOptions) (*Manager, error) {
	m, err := newManager(o)
	if err != nil {
		return nil, err
	}
	client := &acme.Client{
		DirectoryURL: a.Directory,
		UserAgent:    "parley",
		HTTPClient: &http.Client{
			Timeout: time.Minute,
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.roots},
				ForceAttemptHTTP2:     true,
				ResponseHeaderTimeout: 30 * time.Second,
			},
		},
	}
	if client.DirectoryURL == "" {
		client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	m.acme = &acmeSource{dir: a.Dir, manager: m, auto: &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(a.Dir),
		HostPolicy: autocert.HostWhitelist(o.Names...),
		Email:      a.Email,
		Client:     client,
	}}
	m.src = m.acme
	return m, nil
}

type acmeSource struct {
	dir     string
	auto    *autocert.Manager
	manager *Manager
}

func (s *acmeSource) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := s.auto.GetCertificate(hello)
	if err != nil {
		return nil, fmt.Errorf("getting a certificate for %q by ACME: %w", hello.ServerName, err)
	}
	return c, nil
}

// reload has nothing to do: renewing is the library's.
func (s *acmeSource) reload() error { return nil }

// isChallenge recognises the authority's own handshake.
//
// spec: RFC 8737 §3
func (s *acmeSource) isChallenge(hello *tls.ClientHelloInfo) bool {
	return slices.Equal(hello.SupportedProtos, s.protocols())
}

func (s *acmeSource) protocols() []string { return []string{acme.ALPNProto} }

func (s *acmeSource) httpHandler(next http.Handler) http.Handler { return s.auto.HTTPHandler(next) }

// inspect looks at the certificates that were got so far, without asking the
// authority for one.
func (s *acmeSource) inspect(name string, now time.Time) []Problem {
	path := filepath.Join(s.dir, name) // where autocert's DirCache keeps it
	c, err := tls.LoadX509KeyPair(path, path)
	if errors.Is(err, os.ErrNotExist) {
		return []Problem{{Name: name, Soft: true, Err: errors.New("no certificate was got yet; one will be when it is first needed")}}
	}
	if err != nil {
		return []Problem{{Name: name, Err: fmt.Errorf("reading %s: %w", path, err)}}
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return []Problem{{Name: name, Err: fmt.Errorf("reading %s: %w", path, err)}}
		}
	}
	return s.manager.inspect(name, &c, now)
}
