package lab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS is the lab's name server, authoritative for every name there is. It answers on
// port 53 of the bridge, over UDP and TCP.
type DNS struct {
	mu      sync.RWMutex
	records map[string][]dns.RR // by lower-case fully qualified name

	servers []*dns.Server
}

// ttl is in seconds, short because tests change records.
const ttl = 1

func startDNS(ns string) (*DNS, error) {
	d := &DNS{records: make(map[string][]dns.RR)}
	addr := netip.AddrPortFrom(address(network4, dnsHost), 53).String()
	var udp net.PacketConn
	var tcp net.Listener
	var udpErr, tcpErr error
	if err := inNamespace(ns, func() {
		if udp, udpErr = net.ListenPacket("udp", addr); udpErr == nil {
			tcp, tcpErr = net.Listen("tcp", addr)
		}
	}); err != nil {
		return nil, err
	}
	if udpErr != nil {
		return nil, udpErr
	}
	if tcpErr != nil {
		udp.Close()
		return nil, tcpErr
	}
	d.servers = []*dns.Server{
		{PacketConn: udp, Handler: d},
		{Listener: tcp, Handler: d},
	}
	for _, s := range d.servers {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go s.ActivateAndServe() //nolint:errcheck // ends with an error on Shutdown
		<-ready
	}
	return d, nil
}

func (d *DNS) close() {
	for _, s := range d.servers {
		_ = s.Shutdown() // the sockets go with their namespace in any case
	}
}

// Add adds records in zone file syntax, e.g. "a.test. 1 IN TXT \"x\"".
func (d *DNS) Add(records ...string) error {
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			return fmt.Errorf("lab: DNS record %q: %w", text, err)
		}
		d.add(rr)
	}
	return nil
}

// Remove removes every record of a name.
func (d *DNS) Remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.records, key(name))
}

// AddAddress gives a name its A and AAAA records.
func (d *DNS) AddAddress(name string, addrs ...netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			d.add(&dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
		} else {
			d.add(&dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
}

// AddService gives a domain an SRV record, e.g. service "_xmpp-server._tcp".
func (d *DNS) AddService(service, domain, target string, port uint16) {
	name := service + "." + domain
	d.add(&dns.SRV{
		Hdr: header(name, dns.TypeSRV), Priority: 10, Weight: 10,
		Port: port, Target: dns.Fqdn(target),
	})
}

func (d *DNS) add(rr dns.RR) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := key(rr.Header().Name)
	d.records[k] = append(d.records[k], rr)
}

func key(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: dns.Fqdn(name), Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// ServeDNS answers one query: the records of the name and type, an empty answer for a
// name that has others, or NXDOMAIN.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m) // the asker went away: nobody to tell
		return
	}
	question := q.Question[0]
	d.mu.RLock()
	records, found := d.records[key(question.Name)]
	for _, rr := range records {
		if rr.Header().Rrtype == question.Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	d.mu.RUnlock()
	if !found {
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m) // the asker went away: nobody to tell
}
