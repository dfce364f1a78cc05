package discovery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is DNS and the web, as one resolver sees them.
type world struct {
	srv map[string][]*net.SRV // "_matrix-fed._tcp.name"; a nil list is a failing lookup
	web map[string]func() (*http.Response, error)
	now time.Time

	mu    sync.Mutex
	asked map[string]int
}

func (w *world) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	key := "_" + service + "._" + proto + "." + name
	records, ok := w.srv[key]
	if !ok {
		return "", nil, &net.DNSError{Err: "no such host", Name: key, IsNotFound: true}
	}
	if records == nil {
		return "", nil, &net.DNSError{Err: "server failure", Name: key, IsTemporary: true}
	}
	return key, records, nil
}

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked == nil {
		w.asked = map[string]int{}
	}
	w.asked[r.URL.Host]++
	f, ok := w.web[r.URL.Host]
	if !ok || r.URL.Path != "/.well-known/matrix/server" || r.URL.Scheme != "https" {
		return nil, errors.New("connection refused")
	}
	return f()
}

func (w *world) resolver(routes map[string][]Endpoint) *Resolver {
	return New(Config{
		SRV: w, WellKnown: &http.Client{Transport: w}, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return w.now }, Routes: func(s string) []Endpoint { return routes[s] },
	})
}

func says(status int, body string, headers ...string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(headers); i += 2 {
			h.Add(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: io.NopCloser(bytes.NewBufferString(body))}, nil
	}
}

func delegates(to string) func() (*http.Response, error) { return says(200, `{"m.server": "`+to+`"}`) }

func srv(host string, port uint16) *net.SRV { return &net.SRV{Target: host, Port: port} }

// TestSteps goes through the steps of the specification.
//
// spec: MX 1.19 SS §2.1
func TestSteps(t *testing.T) {
	w := &world{
		web: map[string]func() (*http.Response, error){
			"ip.test": delegates("10.0.0.9"), "ip6.test": delegates("[fd00::9]:99"), "port.test": delegates("Hs.example:443"),
			"srv.test": delegates("hs.srv"), "old.test": delegates("hs.old"), "plain.test": delegates("hs.plain"),
			"broken.test": says(200, `{"m.server": 12}`), "missing.test": says(404, `{"m.server": "hs.plain"}`),
			"nonsense.test": delegates("a b/c"), "huge.test": says(200, `{"x":"`+strings.Repeat("a", maxWellKnown)+`"}`),
		},
		srv: map[string][]*net.SRV{
			"_matrix-fed._tcp.hs.srv":     {srv("a.hs.srv.", 1001), srv("b.hs.srv.", 1002)},
			"_matrix._tcp.hs.srv":         {srv("never.", 1)},
			"_matrix._tcp.hs.old":         {srv("a.hs.old.", 1003)},
			"_matrix-fed._tcp.fed.test":   {srv("a.fed.test.", 1004)},
			"_matrix._tcp.deprecated":     {srv("a.deprecated.", 1005)},
			"_matrix-fed._tcp.ip.test":    {srv("never.", 1)},
			"_matrix-fed._tcp.hs.example": {srv("never.", 1)},
			"_matrix-fed._tcp.none.test":  {srv(".", 0)},
			"_matrix-fed._tcp.ill.test":   nil,
		},
	}
	routes := map[string][]Endpoint{"route.test": {{"10.0.0.1", 1}, {"10.0.0.2", 2}}}
	for _, c := range []struct {
		server, host, tls string
		at                string // endpoints, or "" for an error
	}{
		{"10.1.2.3", "10.1.2.3", "10.1.2.3", "10.1.2.3:8448"},                 // 1
		{"10.1.2.3:5", "10.1.2.3:5", "10.1.2.3", "10.1.2.3:5"},                // 1
		{"[fd00::1]", "[fd00::1]", "fd00::1", "[fd00::1]:8448"},               // 1
		{"[fd00::1]:77", "[fd00::1]:77", "fd00::1", "[fd00::1]:77"},           // 1
		{"port.test:80", "port.test:80", "port.test", "port.test:80"},         // 2
		{"ip.test", "10.0.0.9", "10.0.0.9", "10.0.0.9:8448"},                  // 3.1
		{"ip6.test", "[fd00::9]:99", "fd00::9", "[fd00::9]:99"},               // 3.1
		{"port.test", "Hs.example:443", "hs.example", "hs.example:443"},       // 3.2
		{"srv.test", "hs.srv", "hs.srv", "a.hs.srv:1001 b.hs.srv:1002"},       // 3.3
		{"old.test", "hs.old", "hs.old", "a.hs.old:1003"},                     // 3.4
		{"plain.test", "hs.plain", "hs.plain", "hs.plain:8448"},               // 3.5
		{"fed.test", "fed.test", "fed.test", "a.fed.test:1004"},               // 4
		{"deprecated", "deprecated", "deprecated", "a.deprecated:1005"},       // 5
		{"nothing.test", "nothing.test", "nothing.test", "nothing.test:8448"}, // 6
		{"broken.test", "broken.test", "broken.test", "broken.test:8448"},
		{"missing.test", "missing.test", "missing.test", "missing.test:8448"},
		{"nonsense.test", "nonsense.test", "nonsense.test", "nonsense.test:8448"},
		{"huge.test", "huge.test", "huge.test", "huge.test:8448"},
		{"route.test", "route.test", "route.test", "10.0.0.1:1 10.0.0.2:2"},
		{"none.test", "none.test", "none.test", ""},
		{"ill.test", "ill.test", "ill.test", ""}, // a lookup that failed says nothing
	} {
		r := w.resolver(routes)
		p, err := r.Locate(t.Context(), c.server)
		if err != nil || p.Host != c.host || p.TLSName != c.tls || p.Server != c.server {
			t.Errorf("%s: %+v, %v", c.server, p, err)
		}
		if p.Static() != (c.server == "route.test") {
			t.Errorf("%s: static is %v", c.server, p.Static())
		}
		all, err := r.Endpoints(t.Context(), p)
		var at []string
		for _, e := range all {
			at = append(at, e.String())
		}
		if (err != nil) != (c.at == "") || strings.Join(at, " ") != c.at {
			t.Errorf("%s: at %v, %v; want %q", c.server, at, err, c.at)
		}
	}
	for _, bad := range []string{"", "a b", "a/b", "a:0", "a:70000", "[::1", "user@host", "a?b", "::1"} {
		if p, err := w.resolver(nil).Locate(t.Context(), bad); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
	for _, host := range []string{"10.1.2.3", "port.test:80", "route.test", "hs.plain"} {
		if w.asked[host] > 0 {
			t.Errorf("%s was asked for a well-known", host)
		}
	}
}

// TestLifetime is how long answers are remembered.
//
// spec: MX 1.19 SS §2.1
func TestLifetime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		headers []string
		want    time.Duration
	}{
		{nil, 24 * time.Hour},
		{[]string{"Cache-Control", "max-age=3600"}, time.Hour},
		{[]string{"Cache-Control", "public, MAX-AGE=\"3600\", immutable", "Age", "600"}, 50 * time.Minute},
		{[]string{"Cache-Control", "max-age=31536000"}, 48 * time.Hour},
		{[]string{"Cache-Control", "no-store"}, minLife},
		{[]string{"Cache-Control", "max-age=7200, no-cache"}, minLife},
		{[]string{"Cache-Control", "max-age=0"}, minLife},
		{[]string{"Cache-Control", "max-age=-5"}, minLife},
		{[]string{"Cache-Control", "max-age=99999999999999999999"}, minLife},
		{[]string{"Cache-Control", "max-age=5", "Age", "77777"}, minLife},
		{[]string{"Expires", now.Add(2 * time.Hour).Format(http.TimeFormat)}, 2 * time.Hour},
		{[]string{"Expires", "0"}, minLife},
		{[]string{"Expires", now.Add(2 * time.Hour).Format(http.TimeFormat), "Cache-Control", "max-age=3600"}, time.Hour},
		{[]string{"Cache-Control", "private", "Cache-Control", "max-age=3600"}, time.Hour},
	} {
		h := http.Header{}
		for i := 0; i < len(c.headers); i += 2 {
			h.Add(c.headers[i], c.headers[i+1])
		}
		if got := lifetime(h, now); got != c.want {
			t.Errorf("%v: %v, want %v", c.headers, got, c.want)
		}
	}
}

// TestRemembered checks that a host is asked no more often than it says, and
// less and less often while it fails.
func TestRemembered(t *testing.T) {
	w := &world{now: time.Unix(1_800_000_000, 0), web: map[string]func() (*http.Response, error){
		"a.test": says(200, `{"m.server":"hs.test:1"}`, "Cache-Control", "max-age=3600"),
	}}
	r := w.resolver(nil)
	var asked []int
	look := func(after time.Duration, want string) {
		t.Helper()
		w.now = w.now.Add(after)
		p, err := r.Locate(t.Context(), "a.test")
		if err != nil || p.Host != want {
			t.Errorf("%+v, %v; want %s", p, err, want)
		}
		asked = append(asked, w.asked["a.test"])
	}
	look(0, "hs.test:1")
	look(59*time.Minute, "hs.test:1")
	look(2*time.Minute, "hs.test:1")
	delete(w.web, "a.test") // it does not answer any more
	look(2*time.Hour, "hs.test:1")
	look(50*time.Second, "hs.test:1")
	look(11*time.Second, "hs.test:1") // the first pause is over, the second is twice as long
	look(2*time.Minute, "hs.test:1")
	look(47*time.Hour, "a.test") // 48 hours are over
	w.web["a.test"] = says(404, "")
	look(time.Hour+time.Second, "a.test")
	w.web["a.test"] = delegates("back.test:2")
	look(15*time.Minute, "a.test") // the fifth pause is 16 minutes
	look(time.Minute, "back.test:2")
	w.web["a.test"] = says(404, "")
	look(25*time.Hour, "a.test") // that is a word, and not a failure
	if want := []int{1, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9}; !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %v times, want %v", asked, want)
	}
}

// TestAskedOnce checks that many who want the same make one request.
func TestAskedOnce(t *testing.T) {
	release := make(chan struct{})
	w := &world{web: map[string]func() (*http.Response, error){"a.test": func() (*http.Response, error) {
		<-release
		return delegates("hs.test:1")()
	}}}
	r := w.resolver(nil)
	gone, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := r.Locate(gone, "a.test")
		first <- err
	}()
	var g sync.WaitGroup
	for range 20 {
		g.Go(func() {
			if p, err := r.Locate(t.Context(), "a.test"); err != nil || p.Host != "hs.test:1" {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	cancel() // who asked first goes away; the others are served all the same
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(release)
	g.Wait()
	if w.asked["a.test"] != 1 {
		t.Errorf("asked %d times", w.asked["a.test"])
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	now := time.Unix(1_800_000_000, 0)
	for i := range maxCached + 500 {
		c.put("host"+time.Duration(i).String(), entry{expires: now.Add(time.Duration(i%3-1) * time.Hour)}, now)
	}
	if len(c.entries) > maxCached {
		t.Errorf("%d entries", len(c.entries))
	}
}

func FuzzWellKnown(f *testing.F) {
	for _, s := range []string{`{"m.server":"a.test:8448"}`, `{"m.server":"[::1]:1"}`, `{"m.server":null}`, `[]`, `{"m.server":"a:b"}`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		name, err := parseWellKnown(body)
		if err != nil {
			return
		}
		host, _, _, err := split(name)
		if err != nil || host == "" || strings.ContainsAny(host, "/ @\x00\r\n?#") {
			t.Errorf("%q gave %q", body, name)
		}
	})
}
