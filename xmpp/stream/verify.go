package stream

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/net/idna"
)

// Object identifiers of the names that a certificate may carry besides DNS names.
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidXMPPAddr       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 5}
	oidDNSSRV         = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7}
)

// verifyCertificate checks that a chain leads to one of roots (nil: the system's) and that its leaf was issued for a server of this
// XMPP domain. Certificates for either use of TLS will do, because most authorities issue none for clients any more.
//
// spec: RFC 6120 §13.7.2
// spec: XEP-0178 §3
func verifyCertificate(chain []*x509.Certificate, domain string, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return errors.New("no certificate was presented")
	}
	leaf := *chain[0]
	names, err := xmppNames(&leaf)
	if err != nil {
		return err
	}
	// We understand that extension, even if it holds no name that crypto/x509 knows.
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}); err != nil {
		return err
	}
	ascii, err := toASCII(domain)
	if err != nil {
		return err
	}
	if leaf.VerifyHostname(ascii) == nil {
		return nil
	}
	for _, n := range names {
		if n == domain || n == ascii {
			return nil
		}
	}
	return fmt.Errorf("certificate is not for %s", domain)
}

// toASCII is the domain as DNS and certificates have it.
func toASCII(domain string) (string, error) {
	a, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("domain %q: %w", domain, err)
	}
	return a, nil
}

// xmppNames returns the domains in names of the kinds id-on-xmppAddr and SRVName, lower-case.
//
// spec: RFC 6120 §13.7.1.4
// spec: RFC 6125 §6.5.1
func xmppNames(cert *x509.Certificate) ([]string, error) {
	var out []string
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(oidSubjectAltName) {
			continue
		}
		der := cryptobyte.String(ext.Value)
		var names cryptobyte.String
		if !der.ReadASN1(&names, cbasn1.SEQUENCE) || !der.Empty() {
			return nil, errors.New("certificate with malformed names")
		}
		for !names.Empty() {
			var name cryptobyte.String
			var tag cbasn1.Tag
			if !names.ReadAnyASN1(&name, &tag) {
				return nil, errors.New("certificate with malformed names")
			}
			if tag != cbasn1.Tag(0).Constructed().ContextSpecific() {
				continue
			}
			if domain := otherNameDomain(name); domain != "" {
				out = append(out, domain)
			}
		}
	}
	return out, nil
}

// otherNameDomain returns the domain in an otherName, or "" if it is of another kind or of another service.
func otherNameDomain(name cryptobyte.String) string {
	var oid asn1.ObjectIdentifier
	var explicit, value cryptobyte.String
	var tag cbasn1.Tag
	if !name.ReadASN1ObjectIdentifier(&oid) || !name.ReadASN1(&explicit, cbasn1.Tag(0).Constructed().ContextSpecific()) ||
		!explicit.ReadAnyASN1(&value, &tag) {
		return ""
	}
	s := strings.ToLower(string(value))
	switch {
	case oid.Equal(oidXMPPAddr) && tag == cbasn1.UTF8String:
		return s // one with a local part equals no domain
	case oid.Equal(oidDNSSRV) && tag == cbasn1.IA5String:
		if domain, ok := strings.CutPrefix(s, "_xmpp-server."); ok {
			return domain
		}
		domain, _ := strings.CutPrefix(s, "_xmpps-server.")
		if domain != s {
			return domain
		}
	}
	return ""
}
