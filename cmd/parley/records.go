package main

import (
	"fmt"
	"io"

	"parley/config"
)

// record is an SRV record that tells others where a service of ours is.
//
// spec: RFC 2782
type record struct {
	service string // "_xmpp-client._tcp"
	domain  string
	port    int
	// standard is the port that is tried without the record, on the domain's
	// own address; 0: without the record the service is not found.
	standard int
	what     string
}

func (r record) name() string { return r.service + "." + r.domain }

// records lists the SRV records for the listeners that are on. Users look for
// their server; servers look for ours and for its rooms.
//
// spec: RFC 6120 §3.2.1
// spec: XEP-0368 §3
// spec: MX 1.19 SS §2.1
func records(cfg *config.Config) []record {
	var out []record
	add := func(l config.ListenAddr, service, domain string, standard int, what string) {
		if p := l.Port(); p != 0 {
			out = append(out, record{service, domain, p, standard, what})
		}
	}
	for _, d := range cfg.Domains {
		add(cfg.Listen.XMPP, "_xmpp-client._tcp", d, 5222, "XMPP clients")
		add(cfg.Listen.XMPPTLS, "_xmpps-client._tcp", d, 0, "XMPP clients, direct TLS")
		add(cfg.Listen.HTTPS, "_matrix-fed._tcp", d, 8448, "other Matrix servers")
		for _, at := range []string{d, config.RoomsPrefix + d} {
			add(cfg.Listen.XMPPS2S, "_xmpp-server._tcp", at, 5269, "other XMPP servers")
			add(cfg.Listen.XMPPS2S, "_xmpps-server._tcp", at, 0, "other XMPP servers, direct TLS")
		}
	}
	return out
}

// writeRecords prints what to publish, as lines of a zone file.
func writeRecords(w io.Writer, cfg *config.Config) error {
	e := &errWriter{w: w}
	for _, d := range cfg.Domains {
		if config.IsLoopbackName(d) {
			e.printf("; %s needs no DNS records.\n", d)
			continue
		}
		e.printf("; DNS records to publish for %s. Put this server's addresses in place of\n", d)
		e.printf("; 192.0.2.1 and 2001:db8::1; if %s itself is another machine (a web site),\n", d)
		e.printf("; use another name for this server, here and as the target of the SRV records.\n")
		for _, name := range []string{d, config.RoomsPrefix + d} {
			e.printf("%-44s IN A     192.0.2.1\n", name+".")
			e.printf("%-44s IN AAAA  2001:db8::1\n", name+".")
		}
		for _, r := range records(cfg) {
			if r.domain == d || r.domain == config.RoomsPrefix+d {
				e.printf("%-44s IN SRV   5 0 %d %s.\n", r.name()+".", r.port, d)
			}
		}
		e.printf("; Matrix clients find the server by https://%s/.well-known/matrix/client and\n", d)
		e.printf("; XMPP clients in browsers by https://%s/.well-known/host-meta, both on port 443.\n", d)
		e.printf("; Matrix servers ask for https://%s/.well-known/matrix/server, and need not find it.\n", d)
		e.printf("; This server answers them: listen on :443, or let the web server of %s pass\n", d)
		e.printf("; /.well-known/matrix/, /.well-known/host-meta, /.well-known/host-meta.json,\n")
		e.printf("; /_matrix/ and /_parley/ on to %s.\n", cfg.Listen.HTTP)
	}
	return e.err
}

// errWriter keeps the first error, so that a text of many lines has one check.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) printf(format string, args ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, args...)
	}
}
