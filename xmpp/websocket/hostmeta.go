package websocket

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"parley/xmpp/element"
)

// relation is the type of the link to a WebSocket.
//
// spec: XEP-0156 §2.1
const relation = "urn:xmpp:alt-connections:websocket"

// link is one link of a host-meta document.
type link struct {
	Rel  string `json:"rel"`
	Href string `json:"href"`
}

// form is one of the two forms of the document.
type form struct {
	media string
	write func([]link) ([]byte, error)
}

var (
	// spec: RFC 6415 §3
	xrd = form{"application/xrd+xml; charset=utf-8", func(links []link) ([]byte, error) {
		doc := element.New("http://docs.oasis-open.org/ns/xri/xrd-1.0", "XRD")
		for _, l := range links {
			doc.Add("", "Link").SetAttr("rel", l.Rel).SetAttr("href", l.Href)
		}
		return append([]byte("<?xml version='1.0' encoding='utf-8'?>\n"), element.Marshal(doc)...), nil
	}}
	// spec: RFC 6415 §A
	jrd = form{"application/json", func(links []link) ([]byte, error) {
		return json.Marshal(map[string][]link{"links": links})
	}}
)

// hostMeta tells web clients, from any site, how to connect.
//
// spec: RFC 6415 §2
// spec: XEP-0156 §3
func (s *Server) hostMeta(f form) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Accept, Content-Type")
		switch r.Method {
		case http.MethodGet, http.MethodHead:
		case http.MethodOptions:
			w.WriteHeader(http.StatusNoContent)
			return
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			http.Error(w, "this can only be read", http.StatusMethodNotAllowed)
			return
		}
		body, err := f.write(s.links(s.domain(r.Host)))
		if err != nil {
			s.cfg.Log.Error("cannot write host-meta", "err", err)
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		h.Set("Content-Type", f.media)
		_, _ = w.Write(body) // who asked has gone, if it fails
	}
}

// domain is the hosted domain that was asked.
func (s *Server) domain(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(host)
	if s.cfg.Streams.Hosted(host) {
		return host
	}
	return s.cfg.Home
}

// links are those for a domain. A URL without TLS is one only for this machine.
//
// spec: XEP-0156 §2.2
func (s *Server) links(domain string) []link {
	u, err := url.Parse(s.cfg.BaseURL(domain))
	if err != nil {
		return []link{}
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLocal(u.Hostname())) {
		return []link{}
	}
	base := u.String()
	links := []link{{Rel: relation, Href: "ws" + strings.TrimPrefix(base, "http") + Path}}
	for _, rel := range slices.Sorted(maps.Keys(s.cfg.Others)) {
		links = append(links, link{Rel: rel, Href: base + s.cfg.Others[rel]})
	}
	return links
}

// isLocal says whether a host is this very machine.
//
// spec: RFC 6761 §6.3
func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}
