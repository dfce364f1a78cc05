// Command parley is a home server for interoperable messaging: one account,
// one address, for every protocol.
//
// It is the hall of the house: the only place that knows every room. It reads
// flags and the configuration, builds the parts and connects them, and holds
// no logic of its own beyond that.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"

	"parley/config"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // the command failed, or check found something broken
	exitUsage = 2 // the command line is wrong
)

// cli is the command line; kong reads it off the tags.
type cli struct {
	Dir string `help:"The server's directory (default ./parley-data)." env:"PARLEY_DIR" default:"./parley-data" placeholder:"DIR"`

	Init    initCmd    `cmd:"" help:"Make a new server: its configuration, keys and database."`
	Serve   serveCmd   `cmd:"" help:"Run the server until SIGTERM; SIGHUP reloads certificates."`
	Account accountCmd `cmd:"" help:"Manage accounts, also while the server runs."`
	Keys    keysCmd    `cmd:"" help:"Manage the server's signing keys."`
	Check   checkCmd   `cmd:"" help:"Say what is wrong with configuration, DNS, certificates and ports, and how to mend it."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// app is what every command is given: the world outside.
type app struct {
	ctx    context.Context
	dir    config.Dir
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := realMain(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exited carries an exit code out of kong, which wants to end the process when
// it has printed help.
type exited int

// realMain is main without the process.
func realMain(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			c, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(c)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("parley"),
		kong.Description("A home server for interoperable messaging."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "parley:", err)
		return exitError
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "parley: %v\nRun `parley --help` for the commands.\n", err)
		return exitUsage
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		fmt.Fprintln(stderr, "parley:", err)
		return exitError
	}
	a := &app{ctx: ctx, dir: config.Dir(dir), stdin: stdin, stdout: stdout, stderr: stderr}
	if err := k.Run(a); err != nil {
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(stderr, "parley:", err)
		}
		return exitError
	}
	return exitOK
}

// errSaid fails a command that has already said what is wrong.
var errSaid = errors.New("already said")

// load reads the configuration, and says what to do if there is none.
func (a *app) load() (*config.Config, error) {
	cfg, err := config.Load(string(a.dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no server in %s; make one with `parley init --domain example.org --dir %s`, or name its directory with --dir or PARLEY_DIR", a.dir, a.dir)
	}
	return cfg, err
}
