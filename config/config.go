package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Config is parley.toml, checked, with every default filled in.
type Config struct {
	// Domains that this server is for, in canonical spelling, at least one.
	// The first is the server's own name where a protocol knows only one.
	Domains []string `toml:"domains"`
	// Operators are the accounts that may run commands for operators from
	// their clients, as "alice@example.org".
	Operators []string `toml:"operators"`

	Listen       Listen       `toml:"listen"`
	TLS          TLS          `toml:"tls"`
	Database     Database     `toml:"database"`
	Registration Registration `toml:"registration"`
	Matrix       Matrix       `toml:"matrix"`
	XMPP         XMPP         `toml:"xmpp"`
	Federation   Federation   `toml:"federation"`
	Contact      Contact      `toml:"contact"`
	DNS          DNS          `toml:"dns"`
	Limits       Limits       `toml:"limits"`
	Metrics      Metrics      `toml:"metrics"`
	Log          Log          `toml:"log"`

	Components []Component       `toml:"component"`
	Services   []ExternalService `toml:"service"`

	// Dir is the server's directory, absolute. Relative paths in the file
	// have been made absolute against it.
	Dir Dir `toml:"-"`
}

// Listen says where the server takes connections; an empty address is off.
type Listen struct {
	HTTP    ListenAddr `toml:"http"`     // plain HTTP, for a reverse proxy
	HTTPS   ListenAddr `toml:"https"`    // HTTP over TLS
	XMPP    ListenAddr `toml:"xmpp"`     // clients, STARTTLS
	XMPPTLS ListenAddr `toml:"xmpp_tls"` // clients, TLS from the first byte
	XMPPS2S ListenAddr `toml:"xmpp_s2s"` // servers, STARTTLS and direct TLS
	// XMPPComponent is for [[component]], in the clear; off while there are none.
	XMPPComponent ListenAddr `toml:"xmpp_component"`

	// PublicURL is how clients reach the HTTP API from outside, without a
	// final slash. Empty: derived by [Config.BaseURL].
	PublicURL string `toml:"public_url"`
}

// TLS says where certificates come from and whom to trust.
type TLS struct {
	Mode TLSMode `toml:"mode"`
	// Cert and Key are PEM files, for mode "files".
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	// More has further certificates, for servers with many domains.
	More []KeyPair `toml:"more"`
	// ExtraCA is a PEM file with authorities to trust beside the system's.
	ExtraCA string `toml:"extra_ca"`
	// ACMEEmail is told to the certificate authority; may be empty.
	ACMEEmail string `toml:"acme_email"`
	// ACMEDirectory is the authority's directory URL; empty: Let's Encrypt.
	ACMEDirectory string `toml:"acme_directory"`
}

// KeyPair names a certificate chain and its private key, both PEM files.
type KeyPair struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// Pairs lists all certificates of mode "files".
func (t TLS) Pairs() []KeyPair {
	return append([]KeyPair{{Cert: t.Cert, Key: t.Key}}, t.More...)
}

// Database says where the data is kept.
type Database struct {
	// URL is empty for SQLite in DIR, or "postgres://…".
	URL string `toml:"url"`
}

// Registration says who may make an account from a client.
type Registration struct {
	Mode RegistrationMode `toml:"mode"`
	// Tokens are the registration tokens, for mode "token"; those of
	// TokensFile (one a line, # comments) have been added.
	Tokens     []string `toml:"tokens"`
	TokensFile string   `toml:"tokens_file"`
}

// Matrix has what only Matrix rooms and clients need.
type Matrix struct {
	RoomVersion RoomVersion    `toml:"room_version"`
	Encryption  EncryptionMode `toml:"encryption"`
	// Notaries are Matrix servers that are asked for, and believed about, the
	// keys of servers that do not answer.
	//
	// spec: MX 1.19 SS §2.3.2
	Notaries []string `toml:"notaries"`
}

// XMPP is what is decided for XMPP alone.
type XMPP struct {
	// Dialback takes the word of servers whose certificate nobody can check,
	// if DNS confirms it, and talks to such servers. Streams are encrypted all
	// the same, but not to a proven peer.
	//
	// spec: XEP-0220 §1.1
	Dialback bool `toml:"dialback"`
	// Push is how much push services, which others run, are told of messages.
	//
	// spec: XEP-0357 §11
	Push PushSummary `toml:"push"`
}

// Federation says with which foreign servers anything is exchanged. A name
// like "*.example.org" is every domain below it, but not itself.
type Federation struct {
	// Refuse are servers with which nothing is exchanged.
	Refuse []string `toml:"refuse"`
	// Only are the only servers with which something is, if there are any.
	Only []string `toml:"only"`
}

// DNS says how names are resolved.
type DNS struct {
	// Resolver is the IP:PORT of a DNS server; empty: the system's.
	Resolver string `toml:"resolver"`
	// Static is the table as written; [Routes] is what it means.
	Static map[string]string `toml:"static"`
	Routes Routes            `toml:"-"`
}

// Metrics says where Prometheus finds the metrics.
type Metrics struct {
	Listen ListenAddr `toml:"listen"`
	// Profiles serves Go's profiles of the running server at /debug/pprof/
	// beside the metrics, which then must listen on a loopback address.
	Profiles bool `toml:"profiles"`
}

// Log says what is logged, and how, on standard error.
type Log struct {
	Level  LogLevel  `toml:"level"`
	Format LogFormat `toml:"format"`
}

// Limits bound what others can make this server do. All are positive.
type Limits struct {
	// PrivateNetworks are the networks out of the private, loopback and
	// other special ranges that outgoing connections may reach all the same.
	PrivateNetworks []Network `toml:"private_networks"`

	UploadSize  Size `toml:"upload_size"`  // one media file
	UploadQuota Size `toml:"upload_quota"` // all files that an account has uploaded over XMPP, and is about to
	MessageSize Size `toml:"message_size"` // one event's content, in canonical bytes
	StanzaSize  Size `toml:"stanza_size"`  // one XMPP stanza from a client or server
	RequestSize Size `toml:"request_size"` // one HTTP request body other than media
	FetchSize   Size `toml:"fetch_size"`   // one answer fetched from elsewhere

	FetchTimeout     Duration `toml:"fetch_timeout"`     // one request to elsewhere, whole
	HandshakeTimeout Duration `toml:"handshake_timeout"` // from connecting to being logged in
	IdleTimeout      Duration `toml:"idle_timeout"`      // silence before a connection is closed
	ResumeTimeout    Duration `toml:"resume_timeout"`    // how long a lost XMPP session can resume
	DrainTimeout     Duration `toml:"drain_timeout"`     // how long a stopping server waits for work under way

	ConnectionsPerIP  int `toml:"connections_per_ip"`  // open at one time
	MessagesPerMinute int `toml:"messages_per_minute"` // an account's, sustained
	MessageBurst      int `toml:"message_burst"`       // an account's, at once
	LoginsPerMinute   int `toml:"logins_per_minute"`   // failed ones, by IP and by account
	RegistersPerHour  int `toml:"registers_per_hour"`  // by IP
	ClientQueue       int `toml:"client_queue"`        // items waiting for one client before it must resync

	// What one XMPP client, account or occupant may do, and one foreign server
	// may send. What is per minute or hour may also come at once. See
	// docs/limits.md.
	ClientRate              Size `toml:"client_bytes_per_second"` // of one client's stream, which is read no faster
	ClientBurst             Size `toml:"client_byte_burst"`
	ServerRate              Size `toml:"server_bytes_per_second"` // of one foreign server's stream
	ServerBurst             Size `toml:"server_byte_burst"`
	StanzasPerSecond        int  `toml:"stanzas_per_second"` // of one client's stream
	StanzaBurst             int  `toml:"stanza_burst"`
	AccountStanzasPerSecond int  `toml:"account_stanzas_per_second"` // of all streams of an account
	AccountStanzaBurst      int  `toml:"account_stanza_burst"`
	ServerStanzasPerSecond  int  `toml:"server_stanzas_per_second"` // of one foreign server
	ServerStanzaBurst       int  `toml:"server_stanza_burst"`

	Unauthenticated      int `toml:"unauthenticated"`        // XMPP connections at one time that have yet to log in
	UnauthenticatedPerIP int `toml:"unauthenticated_per_ip"` // the same, of one IPv4 address or IPv6 /64
	SessionsPerAccount   int `toml:"sessions_per_account"`   // XMPP clients, those that have lost their connection among them

	PresencesPerMinute        int `toml:"presences_per_minute"` // broadcast by one client
	DirectedPresences         int `toml:"directed_presences"`   // of one client, at one time
	ContactPresencesPerMinute int `toml:"contact_presences_per_minute"`
	RoomPresencesPerMinute    int `toml:"room_presences_per_minute"` // of one occupant in one room
	NicksPerMinute            int `toml:"nicks_per_minute"`          // of one occupant in one room
	Contacts                  int `toml:"contacts"`                  // of one account
	RosterGroups              int `toml:"roster_groups"`             // of one contact
	AsksPerHour               int `toml:"asks_per_hour"`             // for consent, by one account
	AsksPending               int `toml:"asks_pending"`              // for consent, that wait for one account

	ArchivePagesPerMinute       int `toml:"archive_pages_per_minute"` // by one person
	ServerArchivePagesPerMinute int `toml:"server_archive_pages_per_minute"`
	ArchivePage                 int `toml:"archive_page"` // messages
	DiscoPage                   int `toml:"disco_page"`   // items, such as rooms
	ServerIQsPerMinute          int `toml:"server_iqs_per_minute"`

	RoomsPerHour          int  `toml:"rooms_per_hour"`        // made by one account
	RoomJoinsPerMinute    int  `toml:"room_joins_per_minute"` // by one person
	ServerJoinsPerMinute  int  `toml:"server_joins_per_minute"`
	RoomMessagesPerMinute int  `toml:"room_messages_per_minute"` // by one person, to all rooms
	RoomOccupants         int  `toml:"room_occupants"`
	RoomShown             int  `toml:"room_shown"`
	RoomStanzaSize        Size `toml:"room_stanza_size"` // what is said in a room, as XML
	RoomHistory           int  `toml:"room_history"`     // messages on entering

	// What accounts have of rooms of other servers.
	ForeignRooms       int `toml:"foreign_rooms"`       // of one account
	ForeignOccupants   int `toml:"foreign_occupants"`   // shown of one room
	ForeignInvitations int `toml:"foreign_invitations"` // that wait for one account
	ForeignLooks       int `toml:"foreign_looks"`       // at new rooms, of one account in an hour

	// What foreign servers may send to accounts that do not know the sender.
	StrangersPerHour      int      `toml:"strangers_per_hour"` // messages, of one server
	RequestsPerHour       int      `toml:"requests_per_hour"`  // for consent, of one server
	StrangerSenderPerHour int      `toml:"stranger_sender_per_hour"`
	UnknownServerPerHour  int      `toml:"unknown_server_per_hour"` // of a server on which nobody here has a contact
	ReputationHalfLife    Duration `toml:"reputation_half_life"`
	ReputationRefuse      int      `toml:"reputation_refuse"` // the score from which a server's strangers are refused

	OutboxGiveUp   Duration `toml:"outbox_give_up"`   // undeliverable messages are returned after this
	OutboxRetryMax Duration `toml:"outbox_retry_max"` // longest wait between two tries
	LeaveGrace     Duration `toml:"leave_grace"`      // a foreign occupant gone this long has left the room
}

// Prefixes is PrivateNetworks as the network guard wants them.
func (l Limits) Prefixes() []netip.Prefix {
	out := make([]netip.Prefix, len(l.PrivateNetworks))
	for i, n := range l.PrivateNetworks {
		out[i] = n.Prefix
	}
	return out
}

// Default is the configuration of an empty file, but for the domains.
func Default() Config {
	return Config{
		Listen: Listen{
			HTTP:    "127.0.0.1:8008",
			HTTPS:   ":8448",
			XMPP:    ":5222",
			XMPPTLS: ":5223",
			XMPPS2S: ":5269",

			XMPPComponent: "127.0.0.1:5347",
		},
		TLS:          TLS{Mode: TLSSelfSigned},
		Registration: Registration{Mode: RegistrationClosed},
		XMPP:         XMPP{Push: PushCount},
		Matrix:       Matrix{RoomVersion: RoomVersion12, Encryption: EncryptionInteroperable},
		Limits:       defaultLimits(),
		Log:          Log{Level: LogInfo, Format: LogText},
	}
}

// IsLocal reports whether a domain, in canonical spelling, is one of ours.
func (c *Config) IsLocal(domain string) bool {
	for _, d := range c.Domains {
		if d == domain {
			return true
		}
	}
	return false
}

// BaseURL is the address of the HTTP API that clients of a domain are told,
// without a final slash: public_url if it is set, else the HTTPS listener on
// the domain itself; the plain one where there is no other, and for
// localhost, for which no client would trust a certificate.
func (c *Config) BaseURL(domain string) string {
	l := c.Listen
	switch {
	case l.PublicURL != "":
		return l.PublicURL
	case l.HTTPS.Off() && l.HTTP.Off():
		return "https://" + domain
	case l.HTTPS.Off() || (IsLoopbackName(domain) && !l.HTTP.Off()):
		return "http://" + hostPort(domain, l.HTTP.Port(), 80)
	default:
		return "https://" + hostPort(domain, l.HTTPS.Port(), 443)
	}
}

func hostPort(host string, port, usual int) string {
	if port == usual {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// defaultLimits are chosen for a server of some hundred accounts.
func defaultLimits() Limits {
	return Limits{
		UploadSize:  mustSize("50MB"),
		UploadQuota: mustSize("2GiB"),
		MessageSize: mustSize("60KiB"), // leaves room for the envelope in the 65,536 bytes of a Matrix event
		StanzaSize:  mustSize("256KiB"),
		RequestSize: mustSize("1MiB"),
		FetchSize:   mustSize("10MB"),

		FetchTimeout:     mustDuration("30s"),
		HandshakeTimeout: mustDuration("30s"),
		IdleTimeout:      mustDuration("30m"),
		ResumeTimeout:    mustDuration("10m"),
		DrainTimeout:     mustDuration("15s"),

		ConnectionsPerIP:  100,
		MessagesPerMinute: 600,
		MessageBurst:      100,
		LoginsPerMinute:   10,
		RegistersPerHour:  10,
		ClientQueue:       1000,

		ClientRate: mustSize("256KiB"), ClientBurst: mustSize("4MiB"),
		ServerRate: mustSize("2MiB"), ServerBurst: mustSize("32MiB"),
		StanzasPerSecond: 100, StanzaBurst: 1000,
		AccountStanzasPerSecond: 300, AccountStanzaBurst: 3000,
		ServerStanzasPerSecond: 500, ServerStanzaBurst: 5000,

		Unauthenticated: 1000, UnauthenticatedPerIP: 100,
		SessionsPerAccount: 50,

		PresencesPerMinute: 120, DirectedPresences: 500, ContactPresencesPerMinute: 120,
		RoomPresencesPerMinute: 60, NicksPerMinute: 10,
		Contacts: 5000, RosterGroups: 50, AsksPerHour: 300, AsksPending: 500,

		ArchivePagesPerMinute: 300, ServerArchivePagesPerMinute: 600, ArchivePage: 200,
		DiscoPage: 200, ServerIQsPerMinute: 3000,

		RoomsPerHour: 100, RoomJoinsPerMinute: 300, ServerJoinsPerMinute: 3000,
		RoomMessagesPerMinute: 600, RoomOccupants: 5000, RoomShown: 1000, RoomStanzaSize: mustSize("64KiB"), RoomHistory: 500,
		ForeignRooms: 500, ForeignOccupants: 5000, ForeignInvitations: 100, ForeignLooks: 200,

		StrangersPerHour: 200, RequestsPerHour: 200, StrangerSenderPerHour: 20, UnknownServerPerHour: 50,
		ReputationHalfLife: mustDuration("24h"), ReputationRefuse: 50,

		OutboxGiveUp:   mustDuration("72h"),
		OutboxRetryMax: mustDuration("1h"),
		LeaveGrace:     mustDuration("6h"),
	}
}

// mustDuration is for the constants above.
func mustDuration(s string) (d Duration) {
	if err := d.UnmarshalText([]byte(s)); err != nil {
		panic(err)
	}
	return d
}

// mustSize is for the constants above.
func mustSize(s string) (v Size) {
	if err := v.UnmarshalText([]byte(s)); err != nil {
		panic(err)
	}
	return v
}

// abs makes a path of the file absolute against DIR; empty stays empty.
func (c *Config) abs(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(string(c.Dir), path)
}

// SQLite reports whether the database is the embedded one.
func (d Database) SQLite() bool { return d.URL == "" }

// Redacted is the URL without its password, for logs and messages.
func (d Database) Redacted() string {
	scheme, rest, ok := strings.Cut(d.URL, "://")
	if !ok {
		return d.URL
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, _, _ := strings.Cut(rest[:i], ":")
		rest = user + rest[i:]
	}
	return scheme + "://" + rest
}
