// Package crashfs is a disk for tests, under SQLite, on which the power can be
// cut. A process that is killed leaves what it wrote in the kernel's page
// cache, so killing it shows nothing about fsync; this disk keeps what was
// written since the last sync apart, and on a power cut throws away all of it
// or any part.
//
// What survives for certain is what POSIX promises: the content of a file as
// of its last Sync, and names as of the last sync of the directory
// ([Disk.SyncDir], or a deletion that asks for it). In particular a synced file
// of which the name was not synced is lost. What survives by chance
// ([LoseSome]) is any subset of the sectors written, cut anywhere when torn,
// of the truncations, and of the names made and removed. Neighbours of a
// written range stay as they are, which SQLite calls powersafe overwrite and
// assumes of the operating system too.
//
// The disk is in memory and has one directory. The log's index (-shm) is a
// real file in a temporary directory, mapped as always; it is not on the disk,
// as SQLite rebuilds it after a crash.
package crashfs

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// Loss is what a power cut does to what was not synced.
type Loss int

const (
	LoseAll  Loss = iota // nothing of it survives
	LoseSome             // any part of it survives
)

// Disk is a disk, registered as an SQLite VFS under Name. After the cut every
// operation fails.
type Disk struct {
	Name   string
	shmDir string

	mu      sync.Mutex
	names   map[string]*inode // as the running system sees them
	durable map[string]*inode // as of the last sync of the directory
	renames []naming          // between the two, in order
	fuse    int               // operations until the cut; 0 is never
	dead    bool
	full    bool
	ops     int // operations that change the disk, so far
}

// naming is a name made (inode) or removed (nil).
type naming struct {
	name  string
	inode *inode
}

// inode is a file, with or without a name.
type inode struct {
	data    []byte // as the running system sees it
	durable []byte // as of the last sync
	changes []change
	locks   lockState
}

// change is a write, or a truncation when data is nil.
type change struct {
	at   int64 // offset, or the new size
	data []byte
}

var disks atomic.Int64

// New makes an empty disk and registers it. shmDir is a real directory, empty
// at first, that several disks may share.
func New(shmDir string) *Disk {
	d := &Disk{
		Name:    fmt.Sprintf("crashfs-%d", disks.Add(1)),
		shmDir:  shmDir,
		names:   make(map[string]*inode),
		durable: make(map[string]*inode),
	}
	vfs.Register(d.Name, d)
	return d
}

// CutAfter cuts the power at the n-th operation from now that changes the
// disk; that operation fails.
func (d *Disk) CutAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fuse = n
}

// Cut cuts the power now.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

// SetFull makes the disk full, so that no file can grow, or gives it room
// again.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// Dead reports whether the power is cut.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Ops is how many operations have changed the disk.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Survivor returns a disk with what is left after the cut.
func (d *Disk) Survivor(loss Loss, rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dead {
		panic("crashfs: the power is still on")
	}
	vfs.Unregister(d.Name)
	names := make(map[string]*inode)
	for name, ino := range d.durable {
		names[name] = ino
	}
	for _, r := range d.renames {
		switch {
		case loss == LoseAll || rng.IntN(2) == 0:
		case r.inode == nil:
			delete(names, r.name)
		default:
			names[r.name] = r.inode
		}
	}
	left := New(d.shmDir)
	for name, ino := range names {
		content := ino.survive(loss, rng)
		fresh := &inode{data: content, durable: slices.Clone(content)}
		left.names[name], left.durable[name] = fresh, fresh
	}
	return left
}

// survive returns what is left of a file's content.
func (ino *inode) survive(loss Loss, rng *rand.Rand) []byte {
	content := slices.Clone(ino.durable)
	if loss == LoseAll {
		return content
	}
	sector := 512 << rng.IntN(4)
	keep := rng.Float64() // of this file, this time
	for _, c := range ino.changes {
		if c.data == nil {
			if rng.Float64() < keep {
				content = resize(content, c.at)
			}
			continue
		}
		for at := c.at; at < c.at+int64(len(c.data)); {
			end := min((at/int64(sector)+1)*int64(sector), c.at+int64(len(c.data)))
			part := c.data[at-c.at : end-c.at]
			if rng.Float64() < keep {
				if rng.IntN(8) == 0 { // torn
					part = part[:rng.IntN(len(part)+1)]
				}
				content = overwrite(content, at, part)
			}
			at = end
		}
	}
	return content
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func overwrite(b []byte, at int64, data []byte) []byte {
	if end := at + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[at:], data)
	return b
}

// operate counts an operation that changes the disk, and says whether there is
// power for it. The caller holds mu.
func (d *Disk) operate() error {
	d.ops++
	if d.fuse > 0 {
		if d.fuse--; d.fuse == 0 {
			d.dead = true
		}
	}
	if d.dead {
		return sqlite3.IOERR
	}
	return nil
}

// SyncDir makes names durable, as fsync of a directory does.
func (d *Disk) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncDir()
}

func (d *Disk) syncDir() error {
	if err := d.operate(); err != nil {
		return err
	}
	for _, r := range d.renames {
		if r.inode == nil {
			delete(d.durable, r.name)
		} else {
			d.durable[r.name] = r.inode
		}
	}
	d.renames = nil
	return nil
}

// Open implements [vfs.VFS].
func (d *Disk) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return nil, flags, sqlite3.IOERR
	}
	ino := d.names[name]
	switch {
	case name == "": // a temporary file without a name
		ino = &inode{}
	case ino == nil && flags&vfs.OPEN_CREATE == 0:
		return nil, flags, sqlite3.CANTOPEN
	case ino == nil:
		if err := d.operate(); err != nil {
			return nil, flags, err
		}
		ino = &inode{}
		d.names[name] = ino
		d.renames = append(d.renames, naming{name, ino})
	case flags&vfs.OPEN_EXCLUSIVE != 0:
		return nil, flags, sqlite3.CANTOPEN
	}
	f := &file{disk: d, inode: ino}
	f.shm = vfs.NewSharedMemory(d.shmPath(name), flags)
	return f, flags, nil
}

// shmPath is where the log's index of a database is kept, for this disk only.
func (d *Disk) shmPath(name string) string {
	return filepath.Join(d.shmDir, d.Name+strings.ReplaceAll(name, "/", "_")+"-shm")
}

// Delete implements [vfs.VFS].
func (d *Disk) Delete(name string, syncDir bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.operate(); err != nil {
		return err
	}
	if d.names[name] == nil {
		return sqlite3.IOERR_DELETE_NOENT
	}
	delete(d.names, name)
	d.renames = append(d.renames, naming{name, nil})
	if syncDir {
		return d.syncDir()
	}
	return nil
}

// Access implements [vfs.VFS].
func (d *Disk) Access(name string, _ vfs.AccessFlag) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return false, sqlite3.IOERR
	}
	return d.names[name] != nil, nil
}

// FullPathname implements [vfs.VFS].
func (d *Disk) FullPathname(name string) (string, error) { return name, nil }
