package meter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is what a server took from the machine in a time.
type Usage struct {
	Time  time.Duration // how long it was watched
	CPU   time.Duration // user and system time of the process and its children
	Mine  time.Duration // the same of the clients
	Syncs int64         // fsync and fdatasync calls; -1 if they could not be counted
}

// Watch measures while f runs what the process and its descendants take.
func Watch(ctx context.Context, pid int, f func() error) (Usage, error) {
	u := Usage{Syncs: -1}
	stop := countSyncs(ctx, pid)
	before, err := CPUTime(pid)
	if err != nil {
		stop()
		return u, err
	}
	mine := OwnTime()
	start := time.Now()
	runErr := f()
	u.Time = time.Since(start)
	after, err := CPUTime(pid)
	u.CPU = after - before
	u.Mine = OwnTime() - mine
	u.Syncs = stop()
	return u, errors.Join(runErr, err)
}

// Busy is how much of a core the server had, in percent.
func (u Usage) Busy() float64 { return 100 * u.CPU.Seconds() / u.Time.Seconds() }

// Sleep returns early, with an error, if the context ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WaitFor asks until the answer is yes and reports whether it came in time.
func WaitFor(ctx context.Context, limit time.Duration, yes func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !yes() {
		if Sleep(ctx, 20*time.Millisecond) != nil {
			return yes()
		}
	}
	return true
}

// A server is at rest when it has taken less than restShare of a core for restFor.
const (
	restFor   = time.Second
	restShare = 0.1
	restLimit = 10 * time.Minute
)

// Rest waits until a server has done what the last scenario left it, such as telling
// each of many occupants that the others have gone, so that the next finds it at rest.
func Rest(ctx context.Context, pid int) error {
	for limit := time.Now().Add(restLimit); time.Now().Before(limit); {
		before, err := CPUTime(pid)
		if err != nil {
			return err
		}
		if err := Sleep(ctx, restFor); err != nil {
			return err
		}
		after, err := CPUTime(pid)
		if err != nil {
			return err
		}
		if (after - before).Seconds() < restShare*restFor.Seconds() {
			return nil
		}
	}
	return fmt.Errorf("meter: the server is not at rest %v after the last scenario", restLimit)
}

// OwnTime is the user and system time that this process has taken.
func OwnTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// countSyncs counts the calls that wait for a disk, with the kernel's tracepoints and not
// by stopping the process at each call, until stop is called.
func countSyncs(ctx context.Context, pid int) (stop func() int64) {
	tree, err := processTree(pid)
	if err != nil {
		return func() int64 { return -1 }
	}
	pids := make([]string, len(tree))
	for i, pid := range tree {
		pids[i] = strconv.Itoa(pid)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-p", strings.Join(pids, ","),
		"-e", "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync,syscalls:sys_enter_sync_file_range,syscalls:sys_enter_msync")
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return func() int64 { return -1 }
	}
	return func() int64 {
		_ = cmd.Process.Signal(syscall.SIGINT) // perf prints and ends
		_ = cmd.Wait()                         // with a status of its own for the signal
		return perfTotal(out.String())
	}
}

// perfTotal adds the counts that perf stat printed; -1 if there are none.
func perfTotal(text string) int64 {
	total := int64(-1)
	for line := range strings.Lines(text) {
		first, _, _ := strings.Cut(line, ",")
		if n, err := strconv.ParseInt(first, 10, 64); err == nil {
			total = max(total, 0) + n
		}
	}
	return total
}

// ticks is how many times a second the kernel counts processor time (USER_HZ), the same on
// every Linux machine that Go runs on.
const ticks = 100

// CPUTime is the user and system time that a process and its descendants have taken.
func CPUTime(pid int) (time.Duration, error) {
	tree, err := processTree(pid)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, p := range tree {
		f, err := statFields(p)
		if errors.Is(err, os.ErrNotExist) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, err
		}
		for _, s := range f[11:13] { // utime, stime
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("meter: /proc/%d/stat: %w", p, err)
			}
			total += n
		}
	}
	return time.Duration(total) * (time.Second / ticks), nil
}

// statFields are the fields of /proc/PID/stat from the third, the state, on.
func statFields(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return nil, fmt.Errorf("meter: /proc/%d/stat: %q", pid, data)
	}
	return f, nil
}

// processTree is a process and its descendants.
func processTree(pid int) ([]int, error) {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", all[i]))
		if err != nil {
			if i == 0 {
				return nil, fmt.Errorf("meter: %w", err)
			}
			continue
		}
		for _, t := range tasks {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", all[i], t.Name()))
			if err != nil {
				continue // the thread ended
			}
			for _, child := range strings.Fields(string(data)) {
				if n, err := strconv.Atoi(child); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all, nil
}

// Memory is what a process and its descendants occupy, in bytes: resident, and with pages
// that are shared divided among those who share them.
func Memory(pid int) (rss, pss int64, err error) {
	tree, err := processTree(pid)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range tree {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			return 0, 0, fmt.Errorf("meter: %w", err)
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) < 3 || f[0] != "Rss:" && f[0] != "Pss:" {
				continue
			}
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("meter: /proc/%d/smaps_rollup: %w", p, err)
			}
			if f[0] == "Rss:" {
				rss += n << 10
			} else {
				pss += n << 10
			}
		}
	}
	return rss, pss, nil
}

// clearPeak is what /proc/PID/clear_refs takes to begin the peak of the resident memory anew.
const clearPeak = "5"

// ResetPeak begins the peak of a process's resident memory anew.
func ResetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte(clearPeak), 0); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	return nil
}

// Peak is the most memory that a process has had resident since [ResetPeak], in bytes.
func Peak(pid int) (int64, error) {
	text, _, _ := strings.Cut(field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM"), " ")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("meter: /proc/%d/status: %w", pid, err)
	}
	return n << 10, nil
}
