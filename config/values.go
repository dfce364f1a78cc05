package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as Go writes it: "90s", "72h".
// It is never negative.
//
// It is no plain integer, so that a number without a unit is an error.
type Duration struct{ d time.Duration }

// D is the value as a [time.Duration].
func (d Duration) D() time.Duration { return d.d }

// String leaves out the zero minutes and seconds that Go prints: "72h".
func (d Duration) String() string {
	s := d.d.String()
	if t, ok := strings.CutSuffix(s, "m0s"); ok {
		s = t + "m"
	}
	if t, ok := strings.CutSuffix(s, "h0m"); ok {
		s = t + "h"
	}
	return s
}

// MarshalText writes the form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "90s", "10m", "72h" and their combinations.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write it like \"90s\", \"10m\" or \"72h\"", b)
	}
	if v < 0 {
		return fmt.Errorf("%q is negative", b)
	}
	d.d = v
	return nil
}

// Size is a number of bytes, written with a unit: "64KiB", "50MB".
// kB, MB and GB are powers of 1,000; KiB, MiB and GiB powers of 1,024.
type Size struct{ bytes int64 }

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1},
}

// Bytes is the value as a count of bytes.
func (s Size) Bytes() int64 { return s.bytes }

func (s Size) String() string {
	for _, u := range sizeUnits {
		if n := s.bytes; n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(s.bytes, 10) + "B"
}

// MarshalText writes the form that UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a whole number followed by a unit.
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		s.bytes = n * u.bytes
		return nil
	}
	return fmt.Errorf("%q is not a size; write it like \"64KiB\" or \"50MB\"", b)
}

// ListenAddr is where a listener binds: "127.0.0.1:8008", ":5222",
// "[::1]:5222". The zero value means that the listener is off.
type ListenAddr string

// Off reports whether the listener is switched off.
func (a ListenAddr) Off() bool { return a == "" }

// Port is the port number, or 0 when the listener is off.
func (a ListenAddr) Port() int {
	_, port, err := net.SplitHostPort(string(a))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}

// check holds the value to IP:PORT, :PORT or nothing.
func (a ListenAddr) check() error {
	if a.Off() {
		return nil
	}
	host, port, err := net.SplitHostPort(string(a))
	if err != nil {
		return fmt.Errorf("%q is not an address to listen on; write \"IP:PORT\", \":PORT\", or \"\" for off", a)
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q: %q is not an IP address (leave it out to listen on all)", a, host)
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: %q is not a port number", a, port)
	}
	return nil
}

// Network is a range of addresses, written "10.0.0.0/8" or, for one address,
// "10.0.0.2".
type Network struct{ netip.Prefix }

// UnmarshalText reads a prefix in CIDR notation or a single address.
func (n *Network) UnmarshalText(b []byte) error {
	text := string(b)
	if addr, err := netip.ParseAddr(text); err == nil {
		n.Prefix = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("%q is not a network; write it like \"10.0.0.0/8\"", b)
	}
	if p.Masked() != p {
		return fmt.Errorf("%q has bits set behind its mask; did you mean %q?", b, p.Masked())
	}
	n.Prefix = p
	return nil
}

// Endpoint is a host, which is a name or an IP address, with a port.
type Endpoint struct {
	Host string
	Port uint16
}

func (e Endpoint) String() string {
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

// parseEndpoint reads HOST:PORT.
func parseEndpoint(text string) (Endpoint, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return Endpoint{}, fmt.Errorf("%q is not HOST:PORT", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Endpoint{}, fmt.Errorf("%q: %q is not a port number", text, port)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if host, err = CheckDomain(host); err != nil {
			return Endpoint{}, err
		}
	}
	return Endpoint{Host: host, Port: uint16(n)}, nil
}

// choice checks that a word is one of a fixed set, for the modes below.
func choice[T ~string](word T, set ...T) error {
	quoted := make([]string, len(set))
	for i, w := range set {
		if word == w {
			return nil
		}
		quoted[i] = strconv.Quote(string(w))
	}
	return fmt.Errorf("%q is not one of %s", word, strings.Join(quoted, ", "))
}

// TLSMode says where the server's certificates come from.
type TLSMode string

// The values of [tls] mode.
const (
	TLSSelfSigned TLSMode = "self-signed" // made by Parley in DIR
	TLSFiles      TLSMode = "files"       // PEM files that the operator renews
	TLSACME       TLSMode = "acme"        // got and renewed from a certificate authority
)

func (m TLSMode) check() error { return choice(m, TLSSelfSigned, TLSFiles, TLSACME) }

// RegistrationMode says who may make an account from a client.
type RegistrationMode string

// The values of [registration] mode.
const (
	RegistrationClosed RegistrationMode = "closed" // nobody; only `parley account add`
	RegistrationToken  RegistrationMode = "token"  // who knows a registration token
	RegistrationOpen   RegistrationMode = "open"   // everybody
)

func (m RegistrationMode) check() error {
	return choice(m, RegistrationClosed, RegistrationToken, RegistrationOpen)
}

// EncryptionMode tells Matrix clients whether to encrypt new directs by
// default.
type EncryptionMode string

// The values of [matrix] encryption.
const (
	// EncryptionInteroperable leaves directs readable, so that people on
	// other networks can be written to.
	EncryptionInteroperable EncryptionMode = "interoperable"
	// EncryptionPrivate asks clients to encrypt, at the price of reaching
	// only clients with the same scheme.
	EncryptionPrivate EncryptionMode = "private"
)

func (m EncryptionMode) check() error { return choice(m, EncryptionInteroperable, EncryptionPrivate) }

// PushSummary is how much push services are told.
type PushSummary string

// The values of [xmpp] push.
const (
	PushCount  PushSummary = "count"  // how many messages wait
	PushSender PushSummary = "sender" // also whose the last is
	PushBody   PushSummary = "body"   // also what it says
)

func (p PushSummary) check() error { return choice(p, PushCount, PushSender, PushBody) }

// RoomVersion is the Matrix room version of new rooms.
type RoomVersion string

// The room versions that Parley makes rooms in.
const (
	RoomVersion11 RoomVersion = "11" // spec: MX 1.19 RV v11
	RoomVersion12 RoomVersion = "12" // spec: MX 1.19 RV v12
)

func (v RoomVersion) check() error { return choice(v, RoomVersion11, RoomVersion12) }

// LogLevel is the least severe level that is logged.
type LogLevel string

// The values of [log] level.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

func (l LogLevel) check() error { return choice(l, LogDebug, LogInfo, LogWarn, LogError) }

// LogFormat is how log lines are written.
type LogFormat string

// The values of [log] format.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

func (f LogFormat) check() error { return choice(f, LogText, LogJSON) }
