package fetch_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/media"
	"parley/media/fetch"
	"parley/netguard"
	"parley/store/storetest"
)

// script is a source that does what the test says, by URL.
type script struct {
	asked atomic.Int32
	open  func(ctx context.Context, url string) (*fetch.File, error)
}

func (s *script) Open(ctx context.Context, url string) (*fetch.File, error) {
	s.asked.Add(1)
	return s.open(ctx, url)
}

func text(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type fixture struct {
	*fetch.Fetcher
	hub    *hub.Hub
	source *script
	now    time.Time
}

func setUp(t *testing.T, open func(ctx context.Context, url string) (*fetch.File, error)) *fixture {
	t.Helper()
	h, _ := hubtest.New(t)
	files, err := media.Open(t.TempDir(), media.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	f := &fixture{hub: h, source: &script{open: open}, now: time.Now()}
	guard, err := netguard.New(netguard.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.Fetcher = fetch.New(fetch.Config{
		Hub: h, Files: files, MaxSize: 1000, Timeout: time.Minute, Log: storetest.Log(t), Now: func() time.Time { return f.now },
	})
	f.Add("mxc", f.source, true)
	f.Add("http", fetch.Web{Client: guard.Client(netguard.ClientOptions{Timeout: time.Minute, MaxBytes: 1000})}, false)
	t.Cleanup(f.Close)
	return f
}

var server = core.Address{Network: core.Matrix, Domain: "other.test"}

// TestBring fetches a file that nobody has named: once, however many ask.
func TestBring(t *testing.T) {
	go1 := make(chan struct{})
	f := setUp(t, func(context.Context, string) (*fetch.File, error) {
		<-go1
		return &fetch.File{Body: text("hello"), Type: "Text/Plain; charset=utf-8", Name: "a.txt", Owner: server}, nil
	})
	want := core.File{URL: "mxc://other.test/x"}
	if m, err := f.Find(t.Context(), want); err != nil || m.Stored || m.ID != core.MediaIDOf(want.URL) {
		t.Fatalf("%+v, %v", m, err)
	}
	// One who does not wait takes nothing away from those who do.
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := f.Bring(gone, want); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone got %v", err)
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			m, err := f.Bring(t.Context(), want)
			if err != nil || !m.Stored || m.Owner != server || m.File.Name != "a.txt" || m.File.Type != "text/plain; charset=utf-8" || m.File.Size != 5 || m.File.URL != want.URL {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
	close(go1)
	all.Wait()
	m, err := f.Bring(t.Context(), core.File{Media: core.MediaIDOf(want.URL)})
	if err != nil || !m.Stored || f.source.asked.Load() != 1 {
		t.Errorf("%+v, %v; asked %d times", m, err, f.source.asked.Load())
	}
}

// TestHostileFiles are too large, endless, forged, or make the code that looks
// at them panic. Nothing is kept, and the server is not asked again at once.
func TestHostileFiles(t *testing.T) {
	open := map[string]func() (*fetch.File, error){
		"large":   func() (*fetch.File, error) { return &fetch.File{Body: text(strings.Repeat("x", 1001))}, nil },
		"endless": func() (*fetch.File, error) { return &fetch.File{Body: io.NopCloser(endless{})}, nil },
		"broken": func() (*fetch.File, error) {
			return &fetch.File{Body: io.NopCloser(io.MultiReader(strings.NewReader("x"), &broken{}))}, nil
		},
		"panic":  func() (*fetch.File, error) { panic("a bug") },
		"none":   func() (*fetch.File, error) { return nil, fmt.Errorf("%w: 404", fetch.ErrNotFound) },
		"later":  func() (*fetch.File, error) { return nil, fetch.ErrNotYet },
		"forged": func() (*fetch.File, error) { return &fetch.File{Body: text("not that")}, nil },
	}
	f := setUp(t, func(_ context.Context, url string) (*fetch.File, error) { return open[url[len("mxc://x.test/"):]]() })
	sum := sha256.Sum256([]byte("that"))
	forged := hub.Media{ID: core.NewMediaID(), Owner: server, File: core.File{URL: "mxc://x.test/forged", SHA256: hex.EncodeToString(sum[:])}}
	if err := f.hub.AddMedia(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"large": fetch.ErrTooLarge, "endless": fetch.ErrTooLarge, "broken": errBroken, "panic": fetch.ErrForged,
		"none": fetch.ErrNotFound, "later": fetch.ErrNotYet, "forged": fetch.ErrForged,
	} {
		ask := core.File{URL: "mxc://x.test/" + name}
		if name == "forged" {
			ask = core.File{Media: forged.ID}
		}
		before := f.source.asked.Load()
		for range 2 {
			if m, err := f.Bring(t.Context(), ask); !errors.Is(err, want) || m.Stored {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
		}
		times := f.source.asked.Load() - before
		if name == "later" && times != 2 || name != "later" && times != 1 {
			t.Errorf("%s: asked %d times", name, times)
		}
		if m, err := f.hub.MediaByID(t.Context(), core.MediaIDOf(ask.URL)); hub.CodeOf(err) != hub.NotFound {
			t.Errorf("%s: %+v is kept, %v", name, m, err)
		}
	}
	f.now = f.now.Add(time.Hour)
	before := f.source.asked.Load()
	if _, err := f.Bring(t.Context(), core.File{URL: "mxc://x.test/none"}); err == nil || f.source.asked.Load() == before {
		t.Errorf("an hour later it is not asked again: %v", err)
	}
}

var errBroken = errors.New("broken off")

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, errBroken }

// TestPlaces: what is not named, is nowhere, or is in the operator's own
// network is not fetched.
func TestPlaces(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") }))
	defer inside.Close()
	f := setUp(t, nil)
	private := hub.Media{ID: core.NewMediaID(), Owner: server, File: core.File{URL: inside.URL + "/x"}}
	odd := hub.Media{ID: core.NewMediaID(), Owner: server, File: core.File{URL: "file:///etc/passwd"}}
	for _, m := range []hub.Media{private, odd} {
		if err := f.hub.AddMedia(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Bring(t.Context(), core.File{Media: private.ID}); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("a file of our own network: %v", err)
	}
	if _, err := f.Bring(t.Context(), core.File{Media: odd.ID}); !errors.Is(err, fetch.ErrNowhere) {
		t.Errorf("a file of this machine: %v", err)
	}
	for _, none := range []core.File{{}, {Media: "x"}, {URL: "https://web.test/x"}, {Media: "x", URL: "mxc://other.test/y"}} {
		if _, err := f.Bring(t.Context(), none); hub.CodeOf(err) != hub.NotFound {
			t.Errorf("%+v: %v", none, err)
		}
	}
	var nobody *fetch.Fetcher
	if _, err := nobody.Bring(t.Context(), core.File{Media: "x"}); hub.CodeOf(err) != hub.NotFound {
		t.Error(err)
	}
}

// TestOneSlowServer takes no more than its share, and others are served.
func TestOneSlowServer(t *testing.T) {
	var slow atomic.Int32
	started := make(chan struct{}, 100)
	release := make(chan struct{})
	f := setUp(t, func(_ context.Context, url string) (*fetch.File, error) {
		if strings.HasPrefix(url, "mxc://slow.test/") {
			slow.Add(1)
			started <- struct{}{}
			<-release
		}
		return &fetch.File{Body: text(url), Owner: server}, nil
	})
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			if _, err := f.Bring(t.Context(), core.File{URL: fmt.Sprintf("mxc://slow.test/%d", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 {
		<-started
	}
	if _, err := f.Bring(t.Context(), core.File{URL: "mxc://quick.test/x"}); err != nil {
		t.Error(err)
	}
	if n := slow.Load(); n != 8 {
		t.Errorf("%d files of one server at a time", n)
	}
	close(release)
	all.Wait()
	f.Close()
	if _, err := f.Bring(t.Context(), core.File{URL: "mxc://quick.test/y"}); !errors.Is(err, fetch.ErrBusy) {
		t.Errorf("after the end: %v", err)
	}
}

func TestFileName(t *testing.T) {
	for in, want := range map[string]string{
		`attachment; filename="a b.txt"`: "a b.txt", `inline; filename*=utf-8''gr%C3%BC.txt`: "grü.txt",
		`inline`: "", `;;`: "", `inline; filename="` + strings.Repeat("x", 5000) + `"`: "",
	} {
		if got := fetch.FileName(in); got != want {
			t.Errorf("%.60q: %q", in, got)
		}
	}
}
