package shared

import (
	"net/netip"
	"strings"
	"sync"

	"parley/matrix/wire"
)

// serverList is the content of an m.room.server_acl: which servers may take part
// in a room.
//
// spec: MX 1.19 CS §10.32
type serverList struct {
	allow, deny []string // patterns in lower case
	noLiterals  bool
	redacted    bool

	mu sync.Mutex
	// said is what was found of servers. Whoever asks has proven to be the server,
	// so that nobody can ask for many.
	said map[string]bool
}

// Bounds of a list. A name of a server has at most [wire.MaxField] bytes, so a
// pattern that asks for more fits none.
const (
	maxSaid   = 1 << 12
	maxServer = wire.MaxField
)

// newServerList reads a content. What is not as it should be is left out, which
// lets nobody in.
func newServerList(content []byte) *serverList {
	l := &serverList{said: map[string]bool{}}
	o, err := wire.ParseObject(content)
	if err != nil {
		return l
	}
	l.noLiterals = string(o.Get("allow_ip_literals")) == "false"
	l.allow, l.deny = patterns(o.Get("allow")), patterns(o.Get("deny"))
	return l
}

// patterns reads a list of globs. Runs of * are made one, which matches the same.
func patterns(list []byte) (out []string) {
	elements, _ := wire.Elements(list)
	for _, raw := range elements {
		p, ok := wire.Unquote(raw)
		if !ok || len(p)-strings.Count(p, "*") > maxServer {
			continue
		}
		for strings.Contains(p, "**") {
			p = strings.ReplaceAll(p, "**", "*")
		}
		out = append(out, strings.ToLower(p))
	}
	return out
}

func (l *serverList) allows(server string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ok, known := l.said[server]; known {
		return ok
	}
	ok := l.judge(server)
	if len(l.said) >= maxSaid {
		clear(l.said)
	}
	l.said[server] = ok
	return ok
}

// judge applies the rules in their order. A port is no part of what is compared.
func (l *serverList) judge(server string) bool {
	host := strings.ToLower(server)
	if end := strings.LastIndexByte(host, ':'); end > strings.LastIndexByte(host, ']') {
		host = host[:end]
	}
	if l.noLiterals {
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
			return false
		}
	}
	fits := func(list []string) bool {
		for _, p := range list {
			if fitsGlob(p, host) {
				return true
			}
		}
		return false
	}
	return !fits(l.deny) && fits(l.allow)
}

// fitsGlob reports whether s is what a pattern asks for, in which * is any
// characters, also none, and ? is one. When the rest does not fit, only the last
// * takes one character more, so that it takes no longer than the lengths of both
// multiplied.
//
// spec: MX 1.19 AP §7
func fitsGlob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
