package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Names of the self-signed certificate's files.
const (
	selfCert = "self-signed.pem"
	selfKey  = "self-signed.key"
)

// selfLife is for how long a self-signed certificate is made. Some clients
// take none of more than 825 days.
const selfLife = 820 * 24 * time.Hour

// NewSelfSigned makes a manager for a certificate that Parley makes itself, in
// a directory of its own. It makes a new one when there is none, when a name
// is missing from it, and before it ends.
func NewSelfSigned(o Options, dir string) (*Manager, error) {
	m, err := newManager(o)
	if err != nil {
		return nil, err
	}
	src := &selfSource{names: o.Names, dir: dir, now: time.Now}
	if err := src.reload(); err != nil {
		return nil, err
	}
	m.src = src
	return m, nil
}

// SelfSignedFile is where the self-signed certificate of a directory is, for
// clients that are to trust it.
func SelfSignedFile(dir string) string { return filepath.Join(dir, selfCert) }

type selfSource struct {
	names []string
	dir   string
	now   func() time.Time

	mu   sync.RWMutex
	cert *tls.Certificate
}

func (s *selfSource) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cert, nil
}

func (s *selfSource) reload() error {
	pair := Pair{Cert: filepath.Join(s.dir, selfCert), Key: filepath.Join(s.dir, selfKey)}
	c, err := loadPair(pair)
	switch {
	case err == nil && s.good(c.Leaf):
	case err == nil || errors.Is(err, fs.ErrNotExist):
		if err := s.make(pair); err != nil {
			return fmt.Errorf("making a self-signed certificate: %w", err)
		}
		if c, err = loadPair(pair); err != nil {
			return err
		}
	default:
		return err // broken, perhaps the operator's own: not ours to overwrite
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cert = c
	return nil
}

func (s *selfSource) good(leaf *x509.Certificate) bool {
	for _, n := range s.names {
		if leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	return leaf.NotAfter.Sub(s.now()) > renewBefore
}

// make writes a new certificate, which is its own authority. It is for servers
// and for clients, since a server is both to another server.
//
// spec: RFC 6120 §13.7.1.2
func (s *selfSource) make(pair Pair) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	now := s.now()
	cert := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: s.names[0], Organization: []string{"Parley self-signed"}},
		DNSNames:              s.names,
		NotBefore:             now.Add(-time.Hour), // for clocks that are behind
		NotAfter:              now.Add(selfLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	// A crash between the two leaves a pair that does not match; the next
	// start says so instead of serving.
	if err := writePEM(pair.Key, "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	return writePEM(pair.Cert, "CERTIFICATE", der, 0o644)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
