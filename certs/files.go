package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// NewFiles makes a manager for certificates that the operator renews.
func NewFiles(o Options, pairs []Pair) (*Manager, error) {
	m, err := newManager(o)
	if err != nil {
		return nil, err
	}
	src := &fileSource{pairs: pairs}
	if err := src.reload(); err != nil {
		return nil, err
	}
	m.src = src
	return m, nil
}

// fileSource keeps the certificates of PEM files in memory.
type fileSource struct {
	pairs []Pair

	mu     sync.RWMutex
	certs  []*tls.Certificate // never empty
	stamps []stamp
}

// stamp tells whether a file has changed.
type stamp struct {
	mtime time.Time
	size  int64
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

func (s *fileSource) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, c := range s.certs {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	// Not the right one, or not for this client's algorithms: the closest is
	// the one of the name.
	for _, c := range s.certs {
		if c.Leaf.VerifyHostname(hello.ServerName) == nil {
			return c, nil
		}
	}
	return s.certs[0], nil
}

func (s *fileSource) reload() error {
	stamps, err := s.look()
	if err != nil {
		return err
	}
	if s.unchanged(stamps) {
		return nil
	}
	certs := make([]*tls.Certificate, 0, len(s.pairs))
	for _, p := range s.pairs {
		c, err := loadPair(p)
		if err != nil {
			return err
		}
		certs = append(certs, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certs, s.stamps = certs, stamps
	return nil
}

func (s *fileSource) look() ([]stamp, error) {
	var stamps []stamp
	for _, p := range s.pairs {
		for _, path := range []string{p.Cert, p.Key} {
			st, err := stampOf(path)
			if err != nil {
				return nil, fmt.Errorf("reading a certificate: %w", err)
			}
			stamps = append(stamps, st)
		}
	}
	return stamps, nil
}

func (s *fileSource) unchanged(stamps []stamp) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.stamps) != len(stamps) {
		return false
	}
	for i, st := range stamps {
		if !st.mtime.Equal(s.stamps[i].mtime) || st.size != s.stamps[i].size {
			return false
		}
	}
	return true
}

func loadPair(p Pair) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s with key %s: %w", p.Cert, p.Key, err)
	}
	return &c, nil
}

// Problem is something about a certificate that the operator should mend.
type Problem struct {
	Name string // the DNS name that is affected
	Err  error
	// Soft problems do not keep clients from connecting now.
	Soft bool
}

// renewBefore is how long before its end a certificate is called old.
const renewBefore = 14 * 24 * time.Hour

// Inspect says what others will find wrong with the certificate of a name.
// Self-signed ones are taken as trusted.
func (m *Manager) Inspect(name string, now time.Time) []Problem {
	if m.acme != nil {
		return m.acme.inspect(name, now)
	}
	c, err := m.src.get(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return []Problem{{Name: name, Err: err}}
	}
	return m.inspect(name, c, now)
}

func (m *Manager) inspect(name string, c *tls.Certificate, now time.Time) []Problem {
	var out []Problem
	hard := func(err error) { out = append(out, Problem{Name: name, Err: err}) }
	if err := c.Leaf.VerifyHostname(name); err != nil {
		hard(fmt.Errorf("the certificate is not for %s but for %v", name, c.Leaf.DNSNames))
	}
	switch left := c.Leaf.NotAfter.Sub(now); {
	case left <= 0:
		hard(fmt.Errorf("the certificate ended on %s", c.Leaf.NotAfter.Format(time.DateOnly)))
	case left < renewBefore:
		out = append(out, Problem{Name: name, Soft: true,
			Err: fmt.Errorf("the certificate ends on %s and should be renewed", c.Leaf.NotAfter.Format(time.DateOnly))})
	}
	if err := m.verifyChain(c, now); err != nil {
		hard(err)
	}
	return out
}

// verifyChain checks that the chain that is sent leads to a trusted authority.
func (m *Manager) verifyChain(c *tls.Certificate, now time.Time) error {
	if _, self := m.src.(*selfSource); self {
		return nil
	}
	chain := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("the chain has a broken certificate: %w", err)
		}
		chain.AddCert(cert)
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: chain, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return errors.New("others will not trust the certificate: its chain leads to no known authority (does cert hold the full chain?)")
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return nil // said already
	}
	return err
}
