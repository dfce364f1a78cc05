package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Component is an external program that serves a domain of its own over XMPP.
//
// spec: XEP-0114 §1
type Component struct {
	// Host is its domain, in canonical spelling.
	Host string `toml:"host"`
	// Secret is what it proves itself with; SecretFile is a file whose first
	// line it is. One of the two is given; Secret is what is used.
	Secret     string `toml:"secret"`
	SecretFile string `toml:"secret_file"`
}

// ExternalService is a service outside of Parley of which clients are told,
// such as a TURN server.
//
// spec: XEP-0215 §3
type ExternalService struct {
	Type      string `toml:"type"`      // "stun", "turn", "stuns", "turns" or another
	Host      string `toml:"host"`      // a name or an IP address
	Port      uint16 `toml:"port"`      // 0: the usual one of the type
	Transport string `toml:"transport"` // "udp", "tcp" or empty
	Name      string `toml:"name"`      // for people; may be empty
	// Secret is shared with the service, which takes credentials that are made
	// from it; SecretFile is a file whose first line it is. Empty: the service
	// needs no credentials, or Username and Password are.
	Secret     string `toml:"secret"`
	SecretFile string `toml:"secret_file"`
	Username   string `toml:"username"`
	Password   string `toml:"password"`
	// TTL is how long credentials are good for.
	TTL Duration `toml:"ttl"`
}

// Contact is where people who run other servers, or who use this one, reach
// its operator: addresses as URIs, by kind.
//
// spec: XEP-0157 §3
type Contact struct {
	Abuse    []string `toml:"abuse"`
	Admin    []string `toml:"admin"`
	Feedback []string `toml:"feedback"`
	Sales    []string `toml:"sales"`
	Security []string `toml:"security"`
	Status   []string `toml:"status"`
	Support  []string `toml:"support"`
}

// Kinds are the addresses by the names of their fields in XMPP.
func (c Contact) Kinds() map[string][]string {
	all := map[string][]string{"abuse": c.Abuse, "admin": c.Admin, "feedback": c.Feedback, "sales": c.Sales, "security": c.Security,
		"status": c.Status, "support": c.Support}
	for kind, addresses := range all {
		if len(addresses) == 0 {
			delete(all, kind)
		}
	}
	return all
}

// secret reads the file of a secret, if it is in one.
func (v *validator) secret(key, secret, file string) string {
	if file == "" {
		return secret
	}
	if secret != "" {
		v.fail(key, "has both secret and secret_file")
		return secret
	}
	data, err := readLimited(v.cfg.abs(file))
	if err != nil {
		v.fail(key+".secret_file", "%v", err)
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

func (v *validator) components() {
	var hosts []string
	for i := range v.cfg.Components {
		c, key := &v.cfg.Components[i], fmt.Sprintf("component.%d", i)
		host, err := CheckDomain(c.Host)
		if err != nil {
			v.fail(key+".host", "%v", err)
			continue
		}
		c.Host = host
		taken := slices.Contains(hosts, host)
		for _, d := range v.cfg.Domains {
			taken = taken || host == d || host == RoomsPrefix+d || host == UploadPrefix+d
		}
		if taken {
			v.fail(key+".host", "%q is served already", host)
		}
		hosts = append(hosts, host)
		if c.Secret = v.secret(key, c.Secret, c.SecretFile); len(c.Secret) < 8 {
			v.fail(key, "needs a secret of at least 8 characters")
		}
	}
}

func (v *validator) externalServices() {
	for i := range v.cfg.Services {
		s, key := &v.cfg.Services[i], fmt.Sprintf("service.%d", i)
		if s.Type == "" || strings.ContainsAny(s.Type, " <>&'\"") {
			v.fail(key+".type", "says what it is: \"stun\", \"turn\", …")
		}
		if _, err := netip.ParseAddr(s.Host); err != nil {
			if s.Host, err = CheckDomain(s.Host); err != nil {
				v.fail(key+".host", "%v", err)
			}
		}
		if t := s.Transport; t != "" && t != "udp" && t != "tcp" {
			v.fail(key+".transport", "%q is neither \"udp\" nor \"tcp\"", t)
		}
		s.Secret = v.secret(key, s.Secret, s.SecretFile)
		if s.Secret != "" && s.Password != "" {
			v.fail(key, "has both a secret and a password")
		}
		if s.TTL.D() == 0 {
			s.TTL = mustDuration("24h")
		}
	}
}

func (v *validator) contact() {
	for kind, addresses := range v.cfg.Contact.Kinds() {
		for _, a := range addresses {
			if u, err := url.Parse(a); err != nil || u.Scheme == "" {
				v.fail("contact."+kind, "%q is not a URI like \"mailto:abuse@example.org\" or \"xmpp:alice@example.org\"", a)
			}
		}
	}
}
