package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/gabriel-vasile/mimetype"
)

var (
	// ErrTooLarge is returned for a file over the size limit, and for an image
	// that would take too much memory to decode.
	ErrTooLarge = errors.New("media: too large")
	// ErrNotFound is returned for a file that is not here.
	ErrNotFound = errors.New("media: no such file")
	// ErrInUse is returned by Open while another process has the directory.
	ErrInUse = errors.New("media: the directory is in use by another process")
	// ErrStillUsed is returned by Remove for a file that a row still names.
	ErrStillUsed = errors.New("media: file is still in use")
)

// Limits bound what a file may cost. Zero values mean the defaults.
type Limits struct {
	MaxSize      int64 // of a file, in bytes (50 MiB)
	MaxPixels    int64 // of an image to make a thumbnail of (32 million)
	MaxDimension int   // width and height of such an image (16384)
	MaxDecode    int64 // bytes of memory for decoding one image (256 MiB)
	Decoders     int   // images decoded at a time (1)
}

func (l *Limits) defaults() {
	if l.MaxSize <= 0 {
		l.MaxSize = 50 << 20
	}
	if l.MaxPixels <= 0 {
		l.MaxPixels = 32_000_000
	}
	if l.MaxDimension <= 0 {
		l.MaxDimension = 16384
	}
	if l.MaxDecode <= 0 {
		l.MaxDecode = 256 << 20
	}
	if l.Decoders <= 0 {
		l.Decoders = 1
	}
}

// Hash is the SHA-256 of a file's content, and its name.
type Hash [sha256.Size]byte

// String is 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String writes, and nothing else.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != hex.EncodedLen(len(h)) || strings.ToLower(s) != s {
		return h, fmt.Errorf("media: %d bytes are not a hash", len(s))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fmt.Errorf("media: not a hash: %w", err)
	}
	return h, nil
}

// Blob describes a stored file.
type Blob struct {
	Hash          Hash
	Size          int64
	Type          string // as found by looking at the content
	Declared      string // as the uploader said, cleaned; "" if it makes no sense
	Width, Height int    // of an image whose header could be read, upright; else 0
}

// Upload is a file on its way in.
type Upload struct {
	Body     io.Reader
	Declared string // Content-Type that the uploader gave; not trusted
	// MaxSize lowers Limits.MaxSize for this file, for instance to what is left
	// of the uploader's quota. 0 does not.
	MaxSize int64
	// Keep commits the row that names the file. The file is durable and
	// protected from Remove and Sweep while it runs. If it fails, so does Put.
	// Quotas that count what is stored are decided in its transaction.
	Keep func(Blob) error
}

// Files is a directory of files. Its methods are safe for concurrent use.
type Files struct {
	dir      string
	limits   Limits
	lock     *os.File
	decoders chan struct{}
	// locks are shared by who brings or reads a file, and exclusive for who
	// removes it; by the first byte of the hash.
	locks [256]sync.RWMutex
}

// The directories below Files.dir.
const (
	blobDir  = "blobs"  // blobs/ab/cdef…
	thumbDir = "thumbs" // thumbs/ab/cdef…/320x240-scale.jpg
	tempDir  = "tmp"
)

// Open opens dir, making it if need be, takes its exclusive lock, and throws
// away uploads that a crash has interrupted.
func Open(dir string, limits Limits) (*Files, error) {
	limits.defaults()
	f := &Files{dir: dir, limits: limits, decoders: make(chan struct{}, limits.Decoders)}
	if err := f.makeDirs(); err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	f.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("media: locking: %w", err)
	}
	if err := f.sweepTemp(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("media: removing interrupted uploads: %w", err)
	}
	return f, nil
}

// Close gives up the directory.
func (f *Files) Close() error { return f.lock.Close() }

// makeDirs makes all directories at once, so that Put has only one to sync.
func (f *Files) makeDirs() error {
	for _, sub := range []string{blobDir, thumbDir, tempDir} {
		if err := os.MkdirAll(filepath.Join(f.dir, sub), 0o700); err != nil {
			return err
		}
	}
	for i := range 256 {
		for _, sub := range []string{blobDir, thumbDir} {
			err := os.Mkdir(filepath.Join(f.dir, sub, hex.EncodeToString([]byte{byte(i)})), 0o700)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	for _, dir := range []string{filepath.Join(f.dir, blobDir), f.dir, filepath.Dir(f.dir)} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (f *Files) sweepTemp() error {
	list, err := os.ReadDir(filepath.Join(f.dir, tempDir))
	for _, e := range list {
		err = errors.Join(err, os.Remove(filepath.Join(f.dir, tempDir, e.Name())))
	}
	return err
}

func (f *Files) blobPath(h Hash) string {
	s := h.String()
	return filepath.Join(f.dir, blobDir, s[:2], s[2:])
}

func (f *Files) thumbsOf(h Hash) string {
	s := h.String()
	return filepath.Join(f.dir, thumbDir, s[:2], s[2:])
}

// Put stores a file; one with the same content is stored once. It returns
// [ErrTooLarge] as soon as the limit is passed.
func (f *Files) Put(ctx context.Context, up Upload) (Blob, error) {
	temp, err := os.CreateTemp(filepath.Join(f.dir, tempDir), "upload-*")
	if err != nil {
		return Blob{}, fmt.Errorf("media: %w", err)
	}
	defer os.Remove(temp.Name()) // in vain once it is renamed
	defer temp.Close()
	blob, err := f.receive(ctx, temp, up)
	if err != nil {
		return Blob{}, err
	}
	mu := &f.locks[blob.Hash[0]]
	mu.RLock()
	defer mu.RUnlock()
	if err := f.install(temp, blob.Hash); err != nil {
		return Blob{}, fmt.Errorf("media: storing %s: %w", blob.Hash, err)
	}
	if up.Keep != nil {
		if err := up.Keep(blob); err != nil {
			return Blob{}, err
		}
	}
	return blob, nil
}

// receive streams the body to temp and learns what there is to know of it.
func (f *Files) receive(ctx context.Context, temp *os.File, up Upload) (Blob, error) {
	limit := f.limits.MaxSize
	if up.MaxSize > 0 {
		limit = min(limit, up.MaxSize)
	}
	sum := sha256.New()
	body := &io.LimitedReader{R: contextReader{ctx, up.Body}, N: limit + 1}
	size, err := io.Copy(io.MultiWriter(temp, sum), body)
	if err != nil {
		return Blob{}, fmt.Errorf("media: receiving: %w", err)
	}
	if size > limit {
		return Blob{}, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	blob := Blob{Size: size, Declared: cleanType(up.Declared)}
	sum.Sum(blob.Hash[:0])
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return Blob{}, fmt.Errorf("media: %w", err)
	}
	found, err := mimetype.DetectReader(temp)
	if err != nil {
		return Blob{}, fmt.Errorf("media: looking at the content: %w", err)
	}
	blob.Type = found.String()
	if cfg, err := readHeader(temp); err == nil {
		blob.Width, blob.Height = cfg.Width, cfg.Height
	}
	return blob, nil
}

// install makes temp durable under its name. A file that is there already was
// made so by the Put that brought it, or before a crash, when its name may not
// have been synced: so the directory is synced in any case.
func (f *Files) install(temp *os.File, h Hash) error {
	path := f.blobPath(h)
	if _, err := os.Lstat(path); err != nil {
		if err := temp.Sync(); err != nil {
			return err
		}
		if err := os.Rename(temp.Name(), path); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// Get opens a file. The result stays readable when the file is removed.
func (f *Files) Get(h Hash) (*os.File, error) {
	file, err := os.Open(f.blobPath(h))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	return file, nil
}

// Remove removes a file and its thumbnails, unless used says that a row names
// it; used runs while nobody can Put the same content, and may be nil. It
// returns [ErrStillUsed] or [ErrNotFound].
func (f *Files) Remove(h Hash, used func() (bool, error)) error {
	mu := &f.locks[h[0]]
	mu.Lock()
	defer mu.Unlock()
	if used != nil {
		switch still, err := used(); {
		case err != nil:
			return err
		case still:
			return ErrStillUsed
		}
	}
	err := os.Remove(f.blobPath(h))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	} else if err == nil {
		err = syncDir(filepath.Dir(f.blobPath(h)))
	}
	return errors.Join(err, os.RemoveAll(f.thumbsOf(h)))
}

// Sweep removes every file for which used says that no row names it, and
// returns how many. It may run while files come and go.
func (f *Files) Sweep(ctx context.Context, used func(Hash) (bool, error)) (removed int, err error) {
	for i := range 256 {
		prefix := hex.EncodeToString([]byte{byte(i)})
		list, err := os.ReadDir(filepath.Join(f.dir, blobDir, prefix))
		if err != nil {
			return removed, fmt.Errorf("media: %w", err)
		}
		for _, e := range list {
			if err := ctx.Err(); err != nil {
				return removed, err
			}
			h, err := ParseHash(prefix + e.Name())
			if err != nil {
				continue // not ours
			}
			switch err := f.Remove(h, func() (bool, error) { return used(h) }); {
			case err == nil:
				removed++
			case !errors.Is(err, ErrStillUsed) && !errors.Is(err, ErrNotFound):
				return removed, err
			}
		}
	}
	return removed, nil
}

// contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
