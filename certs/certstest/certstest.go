// Package certstest is a certificate authority for tests.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// Authority issues certificates that are good for a day.
type Authority struct {
	Cert *x509.Certificate
	// Pool has nothing but Cert.
	Pool *x509.CertPool

	key *ecdsa.PrivateKey
}

// New makes an authority. It panics if it cannot, so that a package's tests can keep one in a variable.
func New() *Authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, SerialNumber: big.NewInt(1),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	a := &Authority{Pool: x509.NewCertPool(), key: key}
	if a.Cert, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	a.Pool.AddCert(a.Cert)
	return a
}

// Issue makes a certificate for DNS names, for servers that accept connections and open them.
func (a *Authority) Issue(t testing.TB, names ...string) *tls.Certificate {
	t.Helper()
	return a.Sign(t, &x509.Certificate{DNSNames: names})
}

// Sign makes a certificate from a template, of which it sets the dates and what the key is for.
func (a *Authority) Sign(t testing.TB, template *x509.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
