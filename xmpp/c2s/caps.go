package c2s

import (
	"context"
	"crypto/sha1" //nolint:gosec // the hash that entity capabilities are made with
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// capsCache knows what versions of clients want to hear of. Only what its hash vouches for is kept, so that nobody can put words
// into the mouths of others' clients.
//
// spec: XEP-0115 §5.4
type capsCache struct {
	mu     sync.Mutex
	wanted map[string]map[string]bool // nodes by verification string
	asked  map[string]capsAsked       // by id of the iq
}

type capsAsked struct {
	ver  string
	from translate.JID
	then func()
	at   time.Time
}

// Limits on what is remembered, and on one description.
const (
	maxCaps     = 2000
	maxAsked    = 500
	maxFeatures = 500
)

func newCapsCache() *capsCache {
	return &capsCache{wanted: map[string]map[string]bool{}, asked: map[string]capsAsked{}}
}

func capsKey(c *element.Element) string {
	if c.Attr("hash") != "sha-1" {
		return ""
	}
	return c.Attr("ver")
}

func (cc *capsCache) known(c *element.Element) bool { return cc.get(c) != nil }

func (cc *capsCache) get(c *element.Element) map[string]bool {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.wanted[capsKey(c)]
}

// wants says whether a client of these capabilities wants to hear of a node.
func (cc *capsCache) wants(c *element.Element, node string) bool { return c != nil && cc.get(c)[node] }

func (cc *capsCache) put(ver string, wanted map[string]bool) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if len(cc.wanted) >= maxCaps {
		clear(cc.wanted)
	}
	cc.wanted[ver] = wanted
}

// ask remembers that a client on another server is being asked; "" if too many are.
func (cc *capsCache) ask(c *element.Element, from translate.JID, then func()) (id string) {
	ver := capsKey(c)
	cc.mu.Lock()
	defer cc.mu.Unlock()
	for id, a := range cc.asked {
		if time.Since(a.at) > time.Minute {
			delete(cc.asked, id)
		}
	}
	if ver == "" || len(cc.asked) >= maxAsked {
		return ""
	}
	id = core.NewToken()
	cc.asked[id] = capsAsked{ver, from, then, time.Now()}
	return id
}

// answered takes the answer of a client on another server.
func (cc *capsCache) answered(st *element.Element) {
	cc.mu.Lock()
	a, ok := cc.asked[st.Attr("id")]
	if !ok || st.Attr("from") != a.from.String() {
		cc.mu.Unlock()
		return
	}
	delete(cc.asked, st.Attr("id"))
	cc.mu.Unlock()
	info := st.Child(nsDiscoInfo, "query")
	if st.Attr("type") != "result" || info == nil || verificationOf(info) != a.ver {
		return
	}
	cc.put(a.ver, nodesIn(info))
	a.then()
}

// nodesIn are the nodes of which a client wants to hear.
//
// spec: XEP-0163 §4.2
func nodesIn(info *element.Element) map[string]bool {
	out := map[string]bool{}
	for i, f := range info.ChildrenNamed("", "feature") {
		if node, ok := strings.CutSuffix(f.Attr("var"), "+notify"); ok && i < maxFeatures {
			out[node] = true
		}
	}
	return out
}

// verificationOf hashes the description that a client gave.
//
// spec: XEP-0115 §5.1
func verificationOf(info *element.Element) string {
	var ids, features, forms []string
	for _, i := range info.ChildrenNamed("", "identity") {
		ids = append(ids, i.Attr("category")+"/"+i.Attr("type")+"/"+i.Lang()+"/"+i.Attr("name")+"<")
	}
	for _, f := range info.ChildrenNamed("", "feature") {
		features = append(features, f.Attr("var")+"<")
	}
	for _, x := range info.ChildrenNamed(nsData, "x") {
		var fields []string
		formType := ""
		for _, f := range x.ChildrenNamed("", "field") {
			var values []string
			for _, v := range f.ChildrenNamed("", "value") {
				values = append(values, v.Text()+"<")
			}
			slices.Sort(values)
			if f.Attr("var") == "FORM_TYPE" {
				formType = strings.Join(values, "")
				continue
			}
			fields = append(fields, f.Attr("var")+"<"+strings.Join(values, ""))
		}
		slices.Sort(fields)
		forms = append(forms, formType+strings.Join(fields, ""))
	}
	slices.Sort(ids)
	slices.Sort(features)
	slices.Sort(forms)
	all := strings.Join(ids, "") + strings.Join(features, "") + strings.Join(forms, "")
	sum := sha1.Sum([]byte(all)) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// capsIn finds the capabilities in the native form of presence.
func capsIn(n *core.Native) *element.Element {
	if n == nil || n.Network != core.XMPP {
		return nil
	}
	st, err := element.Parse(n.Data, element.DefaultLimits)
	if err != nil {
		return nil
	}
	return st.Child(nsCaps, "c")
}

// capsQuestion asks for what capabilities stand for.
//
// spec: XEP-0115 §6.2
func capsQuestion(c *element.Element) *element.Element {
	iq := element.New(translate.NSClient, "iq").SetAttr("type", "get")
	iq.Add(nsDiscoInfo, "query").SetAttr("node", c.Attr("node")+"#"+c.Attr("ver"))
	return iq
}

// learnCaps finds out of what the client wants to hear, and tells it.
func (s *Session) learnCaps(st *element.Element) {
	c := st.Child(nsCaps, "c")
	if c == nil || c.Attr("ver") == s.capsVer {
		return
	}
	s.capsVer = c.Attr("ver")
	if known := s.srv.caps.get(c); known != nil {
		s.wants(known)
		return
	}
	s.request(capsQuestion(c).SetAttr("from", s.jid.Domain), func(res *element.Element) {
		info := res.Child(nsDiscoInfo, "query")
		if res.Attr("type") != "result" || info == nil {
			return
		}
		nodes := nodesIn(info)
		if ver := capsKey(c); ver != "" && verificationOf(info) == ver {
			s.srv.caps.put(ver, nodes)
		}
		s.wants(nodes)
	})
}

func (s *Session) wants(nodes map[string]bool) {
	s.notify = nodes
	clear(s.lastSent)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.lastItems(ctx); err != nil {
		s.Log().Error("sending last items", "err", err)
	}
}
