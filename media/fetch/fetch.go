// Package fetch is the errand boy of the attic: it brings files here that so
// far have only been named, because a message of another network linked to them
// or another server keeps them, and keeps them as package media keeps all files.
//
// The first who wants to see a file waits for it; whoever asks meanwhile waits
// with her, and all others find it stored. Where a file is got from is for its
// [Source], one for each scheme of URLs. Sizes, times, and how many files are
// fetched at a time, altogether and from one server, are bounded; what could
// not be had is not asked for again at once.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"parley/core"
	"parley/hub"
	"parley/media"
	"parley/netguard"
)

var (
	// ErrNotFound is wrapped where the other server says that there is no such
	// file.
	ErrNotFound = errors.New("fetch: the other server has no such file")
	// ErrNotYet is wrapped where the file has been promised and not come.
	ErrNotYet = errors.New("fetch: the file has not come yet")
	// ErrTooLarge is wrapped for a file that is larger than is taken here.
	ErrTooLarge = errors.New("fetch: the file is too large")
	// ErrForged is wrapped for a file that is not what was announced.
	ErrForged = errors.New("fetch: the file is not what was announced")
	// ErrBusy is wrapped where too many files are waited for already.
	ErrBusy = errors.New("fetch: too many files are fetched at the moment")
	// ErrNowhere is wrapped for a file that no source could give.
	ErrNowhere = errors.New("fetch: the file is nowhere that this server fetches from")
)

// Bounds of what is fetched at a time, and of what is remembered.
const (
	maxSlots    = 32 // at a time
	maxOfHost   = 8  // of them from one server
	maxWaiting  = 1000
	failureLife = 30 * time.Second
	maxFailures = 10_000
)

// File is a file on its way.
type File struct {
	Body io.ReadCloser
	// Type and Name are what the other server says; any strings.
	Type, Name string
	// Owner is to whom the file is put down if nobody here has named it yet.
	Owner core.Address
}

// Source gets files. It refuses what must not be reached.
type Source interface {
	Open(ctx context.Context, url string) (*File, error)
}

// Config is what a [Fetcher] stands on.
type Config struct {
	Hub     *hub.Hub
	Files   *media.Files
	MaxSize int64 // bytes of one file
	// Timeout is for one file, from when it is asked for until it is here.
	Timeout time.Duration
	Log     *slog.Logger
	// Now is for tests; nil is time.Now.
	Now func() time.Time
}

// Fetcher fetches files. It is safe for concurrent use; nil fetches none.
type Fetcher struct {
	cfg     Config
	sources map[string]Source
	lasting map[string]bool
	ctx     context.Context
	cancel  context.CancelFunc
	flights singleflight.Group
	running sync.WaitGroup
	slots   chan struct{}

	mu      sync.Mutex
	closed  bool
	waiting int
	hosts   map[string]*host
	failed  map[core.MediaID]failure
}

// host bounds what is fetched from one server.
type host struct {
	slots chan struct{}
	users int
}

type failure struct {
	err   error
	until time.Time
}

// New makes a fetcher without sources.
func New(c Config) *Fetcher {
	if c.Now == nil {
		c.Now = time.Now
	}
	x := &Fetcher{
		cfg: c, sources: map[string]Source{}, lasting: map[string]bool{}, slots: make(chan struct{}, maxSlots),
		hosts: map[string]*host{}, failed: map[core.MediaID]failure{},
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	return x
}

// Add adds the source of the URLs of a scheme, "https", before anything is
// fetched. lasting says that such a URL never leads to another file: then a file
// needs no row before it is fetched. See [core.MediaIDOf].
func (x *Fetcher) Add(scheme string, s Source, lasting bool) {
	x.sources[scheme], x.lasting[scheme] = s, lasting
}

// Close breaks off what is being fetched, and waits for it.
func (x *Fetcher) Close() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.cancel()
	x.running.Wait()
}

// Find is what is known of a file that somebody refers to. One elsewhere that
// nobody here has named may be known by its URL alone; the result then has no
// owner. A refusal with [hub.NotFound] where there is nothing that could be
// brought.
func (x *Fetcher) Find(ctx context.Context, f core.File) (hub.Media, error) {
	if x == nil {
		return hub.Media{}, hub.Refuse(hub.NotFound, "there is no such file")
	}
	id := f.Media
	lasting := x.lasting[scheme(f.URL)]
	if id == "" && lasting {
		id = core.MediaIDOf(f.URL)
	}
	m, err := x.cfg.Hub.MediaByID(ctx, id)
	if hub.CodeOf(err) == hub.NotFound && lasting && id == core.MediaIDOf(f.URL) {
		return hub.Media{ID: id, File: core.File{Media: id, URL: f.URL}}, nil
	}
	return m, err
}

// Bring is Find, and the file is stored when it returns without an error.
func (x *Fetcher) Bring(ctx context.Context, f core.File) (hub.Media, error) {
	m, err := x.Find(ctx, f)
	if err != nil || m.Stored {
		return m, err
	}
	source := x.sources[scheme(m.File.URL)]
	if source == nil {
		return m, fmt.Errorf("%w: %.100q", ErrNowhere, m.File.URL)
	}
	if err := x.remembered(m.ID); err != nil {
		return m, err
	}
	done := x.flights.DoChan(string(m.ID), func() (any, error) { return x.flight(source, m) })
	select {
	case res := <-done:
		return res.Val.(hub.Media), res.Err
	case <-ctx.Done():
		return m, ctx.Err()
	}
}

// flight fetches a file for all who wait for it: it does not end with who asked
// first.
func (x *Fetcher) flight(source Source, m hub.Media) (got hub.Media, err error) {
	if err := x.begin(); err != nil {
		return m, err
	}
	defer x.end()
	defer func() {
		if p := recover(); p != nil {
			x.cfg.Log.Error("panic while a file was fetched", "media", m.ID, "panic", p, "stack", string(debug.Stack()))
			got, err = m, fmt.Errorf("%w: it cannot be looked at", ErrForged)
		}
		if err != nil {
			x.cfg.Log.Info("a file of another server was not fetched", "media", m.ID, "err", err)
			x.remember(m.ID, err)
		}
	}()
	ctx, cancel := context.WithTimeout(x.ctx, x.cfg.Timeout)
	defer cancel()
	return x.fetch(ctx, source, m)
}

func (x *Fetcher) begin() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.waiting >= maxWaiting {
		return ErrBusy
	}
	x.waiting++
	x.running.Add(1)
	return nil
}

func (x *Fetcher) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.waiting--
	x.running.Done()
}

// fetch waits for its turn and stores the file.
func (x *Fetcher) fetch(ctx context.Context, source Source, m hub.Media) (hub.Media, error) {
	leave, err := x.enter(ctx, m.File.URL)
	if err != nil {
		return m, err
	}
	defer leave()
	// Another flight may just have landed.
	if now, err := x.cfg.Hub.MediaByID(ctx, m.ID); err == nil {
		if m = now; m.Stored {
			return m, nil
		}
	} else if hub.CodeOf(err) != hub.NotFound {
		return m, err
	}
	file, err := source.Open(ctx, m.File.URL)
	if err != nil {
		return m, err
	}
	defer file.Body.Close()
	return x.keep(ctx, m, file)
}

// keep stores a file; its row is written when the bytes are on disk.
func (x *Fetcher) keep(ctx context.Context, m hub.Media, file *File) (hub.Media, error) {
	got := m
	if got.Created.IsZero() {
		got.Owner, got.Created = file.Owner, x.cfg.Now().UTC().Truncate(time.Millisecond)
	}
	declared := m.File.Type
	if declared == "" {
		declared = file.Type
	}
	_, err := x.cfg.Files.Put(ctx, media.Upload{
		Body: file.Body, Declared: declared, MaxSize: x.cfg.MaxSize,
		Keep: func(b media.Blob) error {
			if m.File.SHA256 != "" && m.File.SHA256 != b.Hash.String() {
				return fmt.Errorf("%w: its hash is another", ErrForged)
			}
			got.Stored = true
			got.File = stored(m.File, file, b)
			return x.cfg.Hub.AddMedia(ctx, got)
		},
	})
	if errors.Is(err, media.ErrTooLarge) || errors.Is(err, netguard.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	if err != nil {
		return m, err
	}
	return got, nil
}

// maxName is how many bytes of a name from another server are kept.
const maxName = 255

// stored adds to what was said of a file what is known once it is here.
func stored(f core.File, file *File, b media.Blob) core.File {
	f.Size, f.SHA256 = b.Size, b.Hash.String()
	if f.Type == "" {
		f.Type = b.Declared
	}
	if f.Type == "" || f.Type == "application/octet-stream" {
		f.Type = b.Type
	}
	if f.Name == "" && len(file.Name) <= maxName {
		f.Name = strings.ToValidUTF8(strings.ReplaceAll(file.Name, "\x00", ""), "\uFFFD")
	}
	if f.Width == 0 {
		f.Width, f.Height = b.Width, b.Height
	}
	return f
}

// enter waits until a file may be fetched from a server. The server's own bound
// comes first, so that a slow one holds up no other.
func (x *Fetcher) enter(ctx context.Context, rawURL string) (leave func(), err error) {
	name := rawURL
	if u, err := url.Parse(rawURL); err == nil {
		name = strings.ToLower(u.Host)
	}
	x.mu.Lock()
	h := x.hosts[name]
	if h == nil {
		h = &host{slots: make(chan struct{}, maxOfHost)}
		x.hosts[name] = h
	}
	h.users++
	x.mu.Unlock()
	forget := func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(x.hosts, name)
		}
	}
	for i, slots := range []chan struct{}{h.slots, x.slots} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-h.slots
			}
			forget()
			return nil, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		}
	}
	return func() { <-x.slots; <-h.slots; forget() }, nil
}

// remembered is why a file could not be had a short while ago.
func (x *Fetcher) remembered(id core.MediaID) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	f, ok := x.failed[id]
	switch {
	case !ok:
		return nil
	case x.cfg.Now().After(f.until):
		delete(x.failed, id)
		return nil
	}
	return f.err
}

// remember notes why a file could not be had, if that is likely to stay so.
func (x *Fetcher) remember(id core.MediaID, err error) {
	if errors.Is(err, ErrNotYet) || errors.Is(err, ErrBusy) || x.ctx.Err() != nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.cfg.Now()
	if len(x.failed) >= maxFailures {
		for old, f := range x.failed {
			if now.After(f.until) || len(x.failed) >= maxFailures {
				delete(x.failed, old)
			}
		}
	}
	x.failed[id] = failure{err, now.Add(failureLife)}
}

func scheme(u string) string {
	s, _, ok := strings.Cut(u, "://")
	if !ok {
		return ""
	}
	return s
}
