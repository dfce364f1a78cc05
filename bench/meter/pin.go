package meter

import (
	"errors"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pin has this process run on core mine only, beside a server on the core other. The threads
// that exist already stay where they are, so it starts again.
func Pin(mine, other int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return err
	}
	if set.Count() == 1 && set.IsSet(mine) {
		return nil
	}
	if runtime.NumCPU() <= max(mine, other) {
		return errors.New("needs two cores, one for the servers and one for the clients")
	}
	set.Zero()
	set.Set(mine)
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
