package crashfs

import (
	"io"
	"slices"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// file is an open file. The disk's mutex guards all but lock, which belongs to
// the connection.
type file struct {
	disk  *Disk
	inode *inode
	shm   vfs.SharedMemory
	lock  vfs.LockLevel
}

var (
	_ vfs.FileLockState    = (*file)(nil)
	_ vfs.FileSharedMemory = (*file)(nil)
)

// lockState is how the connections to one file have locked it.
type lockState struct {
	shared            int
	reserved, pending bool
}

func (f *file) Close() error {
	if f.shm != nil {
		f.shm.Close()
	}
	return f.Unlock(vfs.LOCK_NONE)
}

func (f *file) SharedMemory() vfs.SharedMemory { return f.shm }
func (f *file) LockState() vfs.LockLevel       { return f.lock }
func (f *file) SectorSize() int                { return 4096 }

func (f *file) DeviceCharacteristics() vfs.DeviceCharacteristic {
	return vfs.IOCAP_POWERSAFE_OVERWRITE | vfs.IOCAP_SUBPAGE_READ
}

func (f *file) ReadAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.dead {
		return 0, sqlite3.IOERR_READ
	}
	if at >= int64(len(f.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.inode.data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.full && at+int64(len(p)) > int64(len(f.inode.data)) {
		return 0, sqlite3.FULL
	}
	err := f.disk.operate()
	// The write at which the power goes may still reach the disk in part.
	f.inode.changes = append(f.inode.changes, change{at, slices.Clone(p)})
	if err != nil {
		return 0, sqlite3.IOERR_WRITE
	}
	f.inode.data = overwrite(f.inode.data, at, p)
	return len(p), nil
}

func (f *file) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.operate(); err != nil {
		return sqlite3.IOERR_TRUNCATE
	}
	f.inode.changes = append(f.inode.changes, change{at: size})
	f.inode.data = resize(f.inode.data, size)
	return nil
}

func (f *file) Sync(vfs.SyncFlag) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.operate(); err != nil {
		return sqlite3.IOERR_FSYNC
	}
	f.inode.durable = slices.Clone(f.inode.data)
	f.inode.changes = nil
	return nil
}

func (f *file) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.dead {
		return 0, sqlite3.IOERR_FSTAT
	}
	return int64(len(f.inode.data)), nil
}

func (f *file) Lock(level vfs.LockLevel) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	l := &f.inode.locks
	if f.lock >= level {
		return nil
	}
	switch level {
	case vfs.LOCK_SHARED:
		if l.pending {
			return sqlite3.BUSY
		}
		l.shared++
	case vfs.LOCK_RESERVED:
		if l.reserved {
			return sqlite3.BUSY
		}
		l.reserved = true
	case vfs.LOCK_EXCLUSIVE:
		if l.pending && f.lock < vfs.LOCK_PENDING {
			return sqlite3.BUSY
		}
		l.pending = true
		if l.shared > 1 {
			f.lock = vfs.LOCK_PENDING
			return sqlite3.BUSY
		}
	}
	f.lock = level
	return nil
}

func (f *file) Unlock(level vfs.LockLevel) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	l := &f.inode.locks
	if f.lock <= level {
		return nil
	}
	if f.lock >= vfs.LOCK_PENDING {
		l.pending = false
	}
	if f.lock >= vfs.LOCK_RESERVED {
		l.reserved = false
	}
	if level == vfs.LOCK_NONE {
		l.shared--
	}
	f.lock = level
	return nil
}

func (f *file) CheckReservedLock() (bool, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.inode.locks.reserved, nil
}
