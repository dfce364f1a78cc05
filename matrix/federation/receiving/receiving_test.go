package receiving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/internal/contain"
	"parley/matrix/federation"
	"parley/store"
	"parley/store/storetest"
)

// rooms are some of which every event has its ID as "id".
type rooms struct {
	mu   sync.Mutex
	got  []string
	err  func(id string) error
	gate chan bool // if set, read once for each call
	now  int
	most int
}

func (r *rooms) Allows(hub.View, core.ConvID, string) (bool, error) { return true, nil }

func (r *rooms) Receive(_ context.Context, _ string, pdus []json.RawMessage) map[string]error {
	r.mu.Lock()
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.now-- }()
	out := map[string]error{}
	for _, raw := range pdus {
		var e struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			panic(err)
		}
		r.got = append(r.got, e.ID)
		out[e.ID] = nil
		if r.err != nil {
			out[e.ID] = r.err(e.ID)
		}
	}
	return out
}

func (r *rooms) has() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.got...)
}

type counter struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counter) Count(name string, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]int{}
	}
	c.m[name+" "+strings.Join(labels, " ")]++
}

func (c *counter) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[what]
}

func newReceiver(t *testing.T, r *rooms, edus map[string]EDUHandler) (*Receiver, *counter) {
	c := &counter{}
	return New(Config{Rooms: r, EDUs: edus, Log: storetest.Log(t), Count: c}), c
}

// send is a transaction as the server of package federation hands it over.
func send(ctx context.Context, r *Receiver, origin, txn, body string) (string, error) {
	req := httptest.NewRequestWithContext(ctx, "PUT", "/_matrix/federation/v1/send/x", nil)
	req.SetPathValue("txnId", txn)
	out, err := r.Routes()[0].Handler(&federation.Request{HTTP: req, Origin: origin, Destination: "here.test", Body: []byte(body)})
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(out)
	return string(raw), err
}

func body(pdus, edus []string) string {
	return fmt.Sprintf(`{"origin":"a.test","origin_server_ts":1,"pdus":[%s],"edus":[%s]}`, strings.Join(pdus, ","), strings.Join(edus, ","))
}

func pdu(id string) string { return fmt.Sprintf(`{"id":%q}`, id) }

func status(err error) int {
	if e, ok := errors.AsType[*federation.Error](err); ok {
		return e.Status
	}
	return 0
}

// Every event has its own outcome, and the answer is the same when the
// transaction comes again, without anything being done again.
//
// spec: MX 1.19 SS §4
func TestOutcomesAndReplay(t *testing.T) {
	edus := 0
	rm := &rooms{err: func(id string) error {
		switch id {
		case "$bad":
			return errors.New(strings.Repeat("long ", 200))
		case "$ours":
			return &contain.Panic{Value: "a secret"}
		}
		return nil
	}}
	r, _ := newReceiver(t, rm, map[string]EDUHandler{"m.x": func(context.Context, string, json.RawMessage) error { edus++; return nil }})
	b := body([]string{pdu("$good"), pdu("$bad"), pdu("$ours")}, []string{`{"edu_type":"m.x","content":{}}`})
	first, err := send(t.Context(), r, "a.test", "1", b)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		PDUs map[string]struct {
			Error *string `json:"error"`
		} `json:"pdus"`
	}
	if err := json.Unmarshal([]byte(first), &answer); err != nil {
		t.Fatal(err)
	}
	bad, ours := answer.PDUs["$bad"].Error, answer.PDUs["$ours"].Error
	if len(answer.PDUs) != 3 || answer.PDUs["$good"].Error != nil || bad == nil || len(*bad) > 310 || ours == nil || strings.Contains(*ours, "secret") {
		t.Errorf("%s", first)
	}
	for _, again := range []string{b, strings.Replace(b, `_ts":1`, `_ts":2`, 1)} {
		if got, err := send(t.Context(), r, "a.test", "1", again); err != nil || got != first {
			t.Errorf("again: %s, %v", got, err)
		}
	}
	if len(rm.has()) != 3 || edus != 1 {
		t.Errorf("done again: %v, %d", rm.has(), edus)
	}
	// Another's transaction of that ID, another ID, and the ID with something
	// else in it are other transactions.
	for _, other := range []struct{ origin, txn, body string }{
		{"b.test", "1", strings.Replace(b, "a.test", "b.test", 1)}, {"a.test", "2", b}, {"a.test", "1", body([]string{pdu("$new")}, nil)},
	} {
		before := len(rm.has())
		if _, err := send(t.Context(), r, other.origin, other.txn, other.body); err != nil || len(rm.has()) == before {
			t.Errorf("%v: %v", other, err)
		}
	}
}

// Transactions that are too large, or none, are refused as a whole.
func TestLimits(t *testing.T) {
	many := func(n int, what string) (list []string) {
		for range n {
			list = append(list, what)
		}
		return list
	}
	edu := `{"edu_type":"m.x","content":{}}`
	rm := &rooms{}
	r, _ := newReceiver(t, rm, nil)
	for name, c := range map[string]struct {
		txn, body string
		status    int
	}{
		"PDUs":                    {"1", body(many(51, pdu("$a")), nil), 400},
		"EDUs":                    {"1", body(nil, many(101, edu)), 400},
		"no JSON":                 {"1", `{`, 400},
		"nothing":                 {"1", ``, 400},
		"a list":                  {"1", `[]`, 400},
		"no list":                 {"1", `{"pdus":{}}`, 400},
		"other origin":            {"1", `{"origin":"b.test","pdus":[]}`, 403},
		"long ID":                 {strings.Repeat("x", 256), body(nil, nil), 400},
		"as much as there may be": {"1", body(many(50, pdu("$a")), many(100, edu)), 0},
		"without what may lack":   {"2", `{}`, 0},
	} {
		if _, err := send(t.Context(), r, "a.test", c.txn, c.body); status(err) != c.status || (err == nil) != (c.status == 0) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(rm.has()) != 50 {
		t.Errorf("%d PDUs were taken", len(rm.has()))
	}
}

// One bad EDU, or one that nobody knows, does not spoil the others.
//
// spec: MX 1.19 SS §6
func TestEDUs(t *testing.T) {
	var got []string
	r, c := newReceiver(t, &rooms{}, map[string]EDUHandler{
		"m.good": func(_ context.Context, origin string, content json.RawMessage) error {
			got = append(got, origin+string(content))
			return nil
		},
		"m.bad":   func(context.Context, string, json.RawMessage) error { return errors.New("no") },
		"m.panic": func(context.Context, string, json.RawMessage) error { panic("a mistake") },
	})
	b := body(nil, []string{
		`7`, `null`, `{"edu_type":"m.good"}`, `{"edu_type":"m.good","content":[]}`, `{"edu_type":7,"content":{}}`,
		`{"edu_type":"m.unknown","content":{}}`, `{"edu_type":"m.bad","content":{}}`, `{"edu_type":"m.panic","content":{}}`,
		`{"edu_type":"m.good","content":{"n":1},"more":1}`, `{"edu_type":"m.good","content":{"n":2}}`,
	})
	if out, err := send(t.Context(), r, "a.test", "1", b); err != nil || out != `{"pdus":{}}` {
		t.Errorf("%s, %v", out, err)
	}
	if strings.Join(got, " ") != `a.test{"n":1} a.test{"n":2}` {
		t.Errorf("%v", got)
	}
	for what, n := range map[string]int{
		"matrix_received edu  malformed": 5, "matrix_received edu  unknown": 1, "matrix_received edu m.bad refused": 1,
		"matrix_received edu m.panic refused": 1, "matrix_received edu m.good taken": 2, "panics matrix-receiving": 1,
	} {
		if c.of(what) != n {
			t.Errorf("%s: %d", what, c.of(what))
		}
	}
}

// The same transaction twice at the same time is done once; another of the same
// server waits; more than a few are sent away; other servers go on.
func TestOneAtATime(t *testing.T) {
	rm := &rooms{gate: make(chan bool)}
	r, _ := newReceiver(t, rm, nil)
	type outcome struct {
		answer string
		err    error
	}
	results := make(chan outcome)
	start := func(origin, txn, id string) {
		go func() {
			out, err := send(t.Context(), r, origin, txn, `{"pdus":[`+pdu(id)+`]}`)
			results <- outcome{out, err}
		}()
	}
	calls := func(n int) func() bool {
		return func() bool { rm.mu.Lock(); defer rm.mu.Unlock(); return rm.now == n }
	}
	start("a.test", "1", "$1")
	eventually(t, "the first is being done", calls(1))
	for range 3 {
		start("a.test", "1", "$1")
	}
	for i := 2; i <= maxUnderWay; i++ {
		start("a.test", fmt.Sprint(i), fmt.Sprintf("$%d", i))
	}
	eventually(t, "they wait", func() bool {
		r.lanes.mu.Lock()
		defer r.lanes.mu.Unlock()
		return len(r.lanes.m[pair{"a.test", "here.test"}].flights) == maxUnderWay
	})
	if _, err := send(t.Context(), r, "a.test", "5", `{"pdus":[]}`); status(err) != http.StatusTooManyRequests {
		t.Errorf("one too many: %v", err)
	}
	start("b.test", "1", "$b")
	eventually(t, "another server's is done beside it", calls(2))
	close(rm.gate)
	counts := map[string]int{}
	for range 3 + maxUnderWay + 1 {
		o := <-results
		if o.err != nil {
			t.Error(o.err)
		}
		counts[o.answer]++
	}
	if counts[`{"pdus":{"$1":{}}}`] != 4 || len(rm.has()) != maxUnderWay+1 || rm.most != 2 {
		t.Errorf("%v, %v, %d at once", counts, rm.has(), rm.most)
	}
}

// A server that goes away in the middle gets the answer when it comes again; one
// that goes away before its turn has nothing done.
func TestHalfDelivered(t *testing.T) {
	rm := &rooms{gate: make(chan bool)}
	r, _ := newReceiver(t, rm, nil)
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := send(first, r, "a.test", "1", body([]string{pdu("$1")}, nil))
		gone <- err
	}()
	eventually(t, "it is being done", func() bool { rm.mu.Lock(); defer rm.mu.Unlock(); return rm.now == 1 })
	second, leave2 := context.WithCancel(t.Context())
	leave2()
	if _, err := send(second, r, "a.test", "2", body([]string{pdu("$2")}, nil)); err == nil {
		t.Error("an answer to nobody")
	}
	leave()
	rm.gate <- true
	<-gone
	if got, err := send(t.Context(), r, "a.test", "1", body([]string{pdu("$1")}, nil)); err != nil || got != `{"pdus":{"$1":{}}}` {
		t.Errorf("%s, %v", got, err)
	}
	if got := rm.has(); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// What fails because of us is not answered as if it had been looked at, and is
// done when it comes again.
func TestOurOwnFailure(t *testing.T) {
	for _, failure := range []error{fmt.Errorf("reading: %w", store.ErrClosed), ErrLater, context.DeadlineExceeded} {
		failing := true
		rm := &rooms{err: func(id string) error {
			if failing && id == "$2" {
				return failure
			}
			return nil
		}}
		r, _ := newReceiver(t, rm, nil)
		b := body([]string{pdu("$1"), pdu("$2")}, nil)
		if _, err := send(t.Context(), r, "a.test", "1", b); status(err) != http.StatusServiceUnavailable {
			t.Errorf("%v: %v", failure, err)
		}
		failing = false
		if got, err := send(t.Context(), r, "a.test", "1", b); err != nil || got != `{"pdus":{"$1":{},"$2":{}}}` {
			t.Errorf("%s, %v", got, err)
		}
	}
}

// An event that makes us panic does not keep the others out.
func TestPanic(t *testing.T) {
	rm := &rooms{}
	r, _ := newReceiver(t, rm, nil)
	got, err := send(t.Context(), r, "a.test", "1", body([]string{pdu("$1"), `7`, pdu("$2")}, nil))
	if err != nil || got != `{"pdus":{"$1":{},"$2":{}}}` {
		t.Errorf("%s, %v", got, err)
	}
}

// What is remembered is bounded.
func TestMemoryIsBounded(t *testing.T) {
	r, _ := newReceiver(t, &rooms{}, nil)
	for i := range 50 {
		if _, err := send(t.Context(), r, "a.test", fmt.Sprint(i), body(nil, nil)); err != nil {
			t.Fatal(err)
		}
	}
	l := r.lanes.m[pair{"a.test", "here.test"}]
	if len(l.answers) != maxAnswers {
		t.Errorf("%d answers of one server", len(l.answers))
	}
	for i := range maxLanes + 10 {
		_, f, _, err := r.lanes.enter(pair{fmt.Sprint(i), "here.test"}, name{})
		if err != nil {
			t.Fatal(err)
		}
		f.answer = make(json.RawMessage, 10_000)
		r.lanes.leave(r.lanes.m[pair{fmt.Sprint(i), "here.test"}], name{}, f)
	}
	held := 0
	for _, l := range r.lanes.m {
		for _, old := range l.answers {
			held += len(old.answer)
		}
	}
	if len(r.lanes.m) > maxLanes || held > maxBytes || held != r.lanes.bytes {
		t.Errorf("%d lanes, %d bytes, counted %d", len(r.lanes.m), held, r.lanes.bytes)
	}
}

func FuzzSend(f *testing.F) {
	f.Add(body([]string{pdu("$1")}, []string{`{"edu_type":"m.x","content":{}}`}))
	f.Add(`{"pdus":[null,{}],"edus":[[],{"edu_type":"m.x","content":null}]}`)
	f.Fuzz(func(t *testing.T, b string) {
		r, _ := newReceiver(t, &rooms{}, map[string]EDUHandler{"m.x": func(_ context.Context, _ string, content json.RawMessage) error {
			if content[0] != '{' {
				t.Errorf("content %q", content)
			}
			return nil
		}})
		if out, err := send(t.Context(), r, "a.test", "1", b); err == nil && !json.Valid([]byte(out)) || err != nil && status(err) == 0 {
			t.Errorf("%s, %v", out, err)
		}
	})
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
