package meter

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// Machine is what the measurements ran on.
type Machine struct {
	CPU, Cores, Memory, Kernel, Commit string
}

// ThisMachine describes the machine and the tree; what it cannot find out is "unknown".
func ThisMachine(ctx context.Context, tree string) Machine {
	m := Machine{CPU: "unknown", Memory: "unknown", Kernel: "unknown", Commit: "unknown"}
	if v := field("/proc/cpuinfo", "model name"); v != "" {
		m.CPU = v
	}
	m.Cores = strings.TrimSpace(output(ctx, tree, "nproc", "--all"))
	if v := field("/proc/meminfo", "MemTotal"); v != "" {
		m.Memory = v
	}
	if v := output(ctx, tree, "uname", "-sr"); v != "" {
		m.Kernel = v + " " + runtime.GOARCH
	}
	if v := output(ctx, tree, "git", "describe", "--always", "--dirty"); v != "" {
		m.Commit = v
	}
	return m
}

// field is the value of the first "name : value" line of a file; empty if there is none.
func field(file, name string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func output(ctx context.Context, dir, name string, args ...string) string {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
