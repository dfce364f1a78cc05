package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func openTest(t testing.TB, limits Limits) *Files {
	t.Helper()
	f, err := Open(filepath.Join(t.TempDir(), "media"), limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func put(t testing.TB, f *Files, content []byte, declared string) Blob {
	t.Helper()
	b, err := f.Put(context.Background(), Upload{Body: bytes.NewReader(content), Declared: declared})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// names lists the files below a part of the directory.
func names(t testing.TB, f *Files, sub string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(filepath.Join(f.dir, sub), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPutGet(t *testing.T) {
	f := openTest(t, Limits{})
	rapid.Check(t, func(rt *rapid.T) {
		content := rapid.SliceOf(rapid.Byte()).Draw(rt, "content")
		b := put(t, f, content, "text/html; charset=utf-8; evil=\"x\"")
		if b.Hash != Hash(sha256.Sum256(content)) || b.Size != int64(len(content)) {
			rt.Fatalf("blob %+v", b)
		}
		if b.Declared != "text/html; charset=utf-8" {
			rt.Fatalf("declared %q", b.Declared)
		}
		r, err := f.Get(b.Hash)
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) {
			rt.Fatalf("%q, %v", got, err)
		}
	})
	if left := names(t, f, tempDir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestSameContentOnce(t *testing.T) {
	f := openTest(t, Limits{})
	a, b := put(t, f, []byte("same"), "text/plain"), put(t, f, []byte("same"), "image/png")
	if a.Hash != b.Hash || len(names(t, f, blobDir)) != 1 {
		t.Errorf("%v %v: %q", a, b, names(t, f, blobDir))
	}
}

func TestSizeLimit(t *testing.T) {
	f := openTest(t, Limits{MaxSize: 1000})
	for _, c := range []struct {
		size  int
		max   int64
		large bool
	}{{1000, 0, false}, {1001, 0, true}, {10, 10, false}, {11, 10, true}, {1001, 5000, true}} {
		_, err := f.Put(t.Context(), Upload{Body: bytes.NewReader(make([]byte, c.size)), MaxSize: c.max})
		if errors.Is(err, ErrTooLarge) != c.large || err != nil && !c.large {
			t.Errorf("%d bytes, limit %d: %v", c.size, c.max, err)
		}
	}
	endless := iotest.OneByteReader(neverEnding('x'))
	if _, err := f.Put(t.Context(), Upload{Body: endless}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("endless: %v", err)
	}
	if left := names(t, f, tempDir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// A broken upload and a failed row leave no trace, a cancelled one ends.
func TestFailedPut(t *testing.T) {
	f := openTest(t, Limits{})
	broken := errors.New("connection lost")
	_, err := f.Put(t.Context(), Upload{Body: io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = f.Put(ctx, Upload{Body: neverEnding('x')}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(names(t, f, blobDir)); n != 0 {
		t.Errorf("%d files", n)
	}
	refused := errors.New("over quota")
	_, err = f.Put(t.Context(), Upload{Body: strings.NewReader("abc"), Keep: func(b Blob) error {
		if file, err := f.Get(b.Hash); err != nil {
			t.Errorf("not there when the row is written: %v", err)
		} else {
			file.Close()
		}
		return refused
	}})
	if !errors.Is(err, refused) {
		t.Error(err)
	}
	n, err := f.Sweep(t.Context(), func(Hash) (bool, error) { return false, nil })
	if n != 1 || err != nil || len(names(t, f, blobDir)) != 0 {
		t.Errorf("swept %d, %v", n, err)
	}
}

// A row and its file come and go together, however uploads and removals of one
// content race.
func TestRemoveRace(t *testing.T) {
	f := openTest(t, Limits{})
	var mu sync.Mutex
	rows := map[Hash]int{}
	content := []byte("wanted and not")
	h := Hash(sha256.Sum256(content))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				b, err := f.Put(context.Background(), Upload{Body: bytes.NewReader(content), Keep: func(b Blob) error {
					mu.Lock()
					defer mu.Unlock()
					rows[b.Hash]++
					return nil
				}})
				if err != nil {
					t.Error(err)
					return
				}
				if file, err := f.Get(b.Hash); err != nil {
					t.Errorf("a row without a file: %v", err)
				} else {
					file.Close()
				}
				mu.Lock()
				rows[h]--
				mu.Unlock()
				err = f.Remove(h, func() (bool, error) {
					mu.Lock()
					defer mu.Unlock()
					return rows[h] > 0, nil
				})
				if err != nil && !errors.Is(err, ErrStillUsed) && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := f.Get(h); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file without a row: %v", err)
	}
}

func TestReopen(t *testing.T) {
	f := openTest(t, Limits{})
	b := put(t, f, []byte("kept"), "")
	if _, err := Open(f.dir, Limits{}); !errors.Is(err, ErrInUse) {
		t.Errorf("second opening: %v", err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, tempDir, "upload-x"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Close()
	g, err := Open(f.dir, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if left := names(t, g, tempDir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	r, err := g.Get(b.Hash)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestParseHash(t *testing.T) {
	h := Hash(sha256.Sum256(nil))
	if got, err := ParseHash(h.String()); got != h || err != nil {
		t.Error(got, err)
	}
	for _, s := range []string{"", "..", strings.ToUpper(h.String()), h.String() + "0", h.String()[2:],
		"../" + h.String()[3:], strings.Repeat("/", 64), strings.Repeat("g", 64), strings.Repeat("\x00", 64)} {
		if _, err := ParseHash(s); err == nil {
			t.Errorf("%q is a hash", s)
		}
	}
}

func TestType(t *testing.T) {
	f := openTest(t, Limits{})
	for _, c := range []struct{ content, declared, want string }{
		{"<!DOCTYPE html><script>alert(1)</script>", "image/png", "text/html"},
		{"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "text/plain", "image/png"},
		{"\x00\x01\x02", "video/mp4", "application/octet-stream"},
		{"", "", "text/plain"},
	} {
		b := put(t, f, []byte(c.content), c.declared)
		if !strings.HasPrefix(b.Type, c.want) || b.Declared != c.declared {
			t.Errorf("%q: %+v", c.content, b)
		}
	}
}
