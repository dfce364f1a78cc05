package config

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// Names that Parley puts in front of each of its domains.
const (
	RoomsPrefix  = "rooms."  // local rooms for XMPP: garden@rooms.example.org
	UploadPrefix = "upload." // the file upload service for XMPP
)

// CheckDomain returns the canonical spelling of a domain: lower case, without
// a final dot, each label within the letters, digits and hyphens of DNS.
// Internationalised names are given and kept in their ASCII form ("xn--…"),
// so that one domain has one spelling in every protocol.
//
// spec: RFC 5891 §4
// spec: RFC 1123 §2.1
func CheckDomain(s string) (string, error) {
	d := strings.ToLower(strings.TrimSuffix(s, "."))
	if d == "" {
		return "", fmt.Errorf("a domain is empty")
	}
	if _, err := netip.ParseAddr(strings.Trim(d, "[]")); err == nil {
		return "", fmt.Errorf("%q is an IP address, not a domain", s)
	}
	ascii, err := idna.Lookup.ToASCII(d)
	if err != nil {
		return "", fmt.Errorf("%q is not a domain: %w", s, err)
	}
	if ascii != d {
		return "", fmt.Errorf("%q must be written in its ASCII form %q", s, ascii)
	}
	if len(d) > 253 {
		return "", fmt.Errorf("%q is longer than the 253 bytes of a domain", s)
	}
	for label := range strings.SplitSeq(d, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("%q is not a domain: %w", s, err)
		}
	}
	return d, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return fmt.Errorf("it has an empty label")
	case len(label) > 63:
		return fmt.Errorf("label %q is longer than 63 bytes", label)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q begins or ends with a hyphen", label)
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("character %q is not allowed", c)
		}
	}
	return nil
}

// ServiceNames lists every name under which this server answers for the given
// domains: the domain itself and its rooms and upload services.
func ServiceNames(domains []string) []string {
	names := make([]string, 0, 3*len(domains))
	for _, d := range domains {
		names = append(names, d, RoomsPrefix+d, UploadPrefix+d)
	}
	return names
}

// IsLoopbackName reports whether a domain is reserved for this very machine.
//
// spec: RFC 6761 §6.3
func IsLoopbackName(domain string) bool {
	return domain == "localhost" || strings.HasSuffix(domain, ".localhost")
}
