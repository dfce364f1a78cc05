package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"parley/core"
)

// maxPassword is the longest password, in bytes.
const maxPassword = 1024

// accounts is what can be done with accounts from the command line. It is the
// same for the hub in this process and for a running server behind its socket.
type accounts interface {
	Add(ctx context.Context, address, password string) error
	// List is in order of address.
	List(ctx context.Context) ([]accountInfo, error)
	// SetPassword replaces the password; who is logged in stays so.
	SetPassword(ctx context.Context, address, password string) error
	SetDisabled(ctx context.Context, address string, disabled bool) error
	// SetStrangers says what is done with first messages of people whom the
	// account does not know: deliver, hold or refuse.
	SetStrangers(ctx context.Context, address, policy string) error
	Delete(ctx context.Context, address string) error
}

// accountInfo is a line of the list.
type accountInfo struct {
	Address  string    `json:"address"`
	Created  time.Time `json:"created"`
	Disabled bool      `json:"disabled"`
}

type accountCmd struct {
	Add       accountAddCmd       `cmd:"" help:"Make an account."`
	List      accountListCmd      `cmd:"" help:"List the accounts."`
	Passwd    accountPasswdCmd    `cmd:"" help:"Set an account's password."`
	Disable   accountDisableCmd   `cmd:"" help:"Disable an account: nobody can log in to it, its data stay."`
	Enable    accountEnableCmd    `cmd:"" help:"Enable a disabled account."`
	Strangers accountStrangersCmd `cmd:"" help:"Say what is done with first messages of people whom the account does not know."`
	Delete    accountDeleteCmd    `cmd:"" help:"Delete an account and its data for good."`
}

// withAccounts gives f the running server's accounts, or opens the database if
// no server runs.
func (a *app) withAccounts(f func(accounts) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	client, err := dialAdmin(a.ctx, a.dir)
	if err == nil {
		return f(client)
	}
	if !errors.Is(err, errNoServer) {
		return err
	}
	direct, closeFn, err := openAccounts(a.ctx, cfg, newLogger(a.stderr, cfg.Log))
	if err != nil {
		return err
	}
	return errors.Join(f(direct), closeFn())
}

// passwordFlags says where a password comes from.
type passwordFlags struct {
	PasswordFile string `help:"Read the password from the first line of a file; - is standard input." placeholder:"FILE" xor:"password"`
	Generate     bool   `help:"Make a password and print it." xor:"password"`
}

// get returns the password, and whether it was made here and must be told.
func (p passwordFlags) get(a *app) (password string, made bool, err error) {
	switch {
	case p.Generate:
		return generatePassword(), true, nil
	case p.PasswordFile == "-":
		password, err = readLine(a.stdin)
	case p.PasswordFile != "":
		f, err := os.Open(p.PasswordFile)
		if err != nil {
			return "", false, fmt.Errorf("reading the password: %w", err)
		}
		defer f.Close()
		if password, err = readLine(f); err != nil {
			return "", false, err
		}
	default:
		password, err = a.prompt()
	}
	if err != nil {
		return "", false, err
	}
	return password, false, checkPassword(password)
}

func checkPassword(p string) error {
	switch {
	case p == "":
		return errors.New("the password is empty")
	case len(p) > maxPassword:
		return fmt.Errorf("the password is longer than %d bytes", maxPassword)
	}
	return nil
}

// prompt asks twice at a terminal; from anything else it reads one line.
func (a *app) prompt() (string, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		p, err := readLine(a.stdin)
		if errors.Is(err, io.EOF) {
			return "", errors.New("no password: type one at a terminal, or use --password-file or --generate")
		}
		return p, err
	}
	ask := func(text string) (string, error) {
		fmt.Fprint(a.stderr, text)
		p, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.stderr)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return string(p), nil
	}
	first, err := ask("Password: ")
	if err != nil {
		return "", err
	}
	second, err := ask("Again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two passwords differ")
	}
	return first, nil
}

// readLine reads the first line, without its end.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPassword+2)).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// generatePassword makes a password of more than 100 bits that can be read
// out and typed: groups of lower-case letters and the digits 2 to 7.
func generatePassword() string {
	s := strings.ToLower(rand.Text())[:24]
	return s[:6] + "-" + s[6:12] + "-" + s[12:18] + "-" + s[18:]
}

// checkAddress finds mistakes before a password is asked for.
func checkAddress(address string) error {
	_, err := core.ParseLocal(address)
	return err
}

// setPassword gets a password, hands it to set, and tells a password that was
// made here: alone on standard output, for scripts.
func (a *app) setPassword(p passwordFlags, address string, set func(accounts, string) error) error {
	if err := checkAddress(address); err != nil {
		return err
	}
	password, made, err := p.get(a)
	if err != nil {
		return err
	}
	if err := a.withAccounts(func(acc accounts) error { return set(acc, password) }); err != nil {
		return err
	}
	if made {
		_, err = fmt.Fprintln(a.stdout, password)
	}
	return err
}

type accountAddCmd struct {
	Address string `arg:"" help:"The account's address, as alice@example.org."`
	passwordFlags
}

func (c *accountAddCmd) Run(a *app) error {
	return a.setPassword(c.passwordFlags, c.Address, func(acc accounts, password string) error {
		return acc.Add(a.ctx, c.Address, password)
	})
}

type accountPasswdCmd struct {
	Address string `arg:"" help:"The account's address."`
	passwordFlags
}

func (c *accountPasswdCmd) Run(a *app) error {
	return a.setPassword(c.passwordFlags, c.Address, func(acc accounts, password string) error {
		return acc.SetPassword(a.ctx, c.Address, password)
	})
}

type accountListCmd struct{}

func (accountListCmd) Run(a *app) error {
	return a.withAccounts(func(acc accounts) error {
		list, err := acc.List(a.ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		for _, i := range list {
			state := "active"
			if i.Disabled {
				state = "disabled"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", i.Address, state, i.Created.UTC().Format(time.DateOnly))
		}
		return w.Flush()
	})
}

type accountDisableCmd struct {
	Address string `arg:"" help:"The account's address."`
}

func (c *accountDisableCmd) Run(a *app) error {
	return a.withAccounts(func(acc accounts) error { return acc.SetDisabled(a.ctx, c.Address, true) })
}

type accountEnableCmd struct {
	Address string `arg:"" help:"The account's address."`
}

func (c *accountEnableCmd) Run(a *app) error {
	return a.withAccounts(func(acc accounts) error { return acc.SetDisabled(a.ctx, c.Address, false) })
}

type accountStrangersCmd struct {
	Address string `arg:"" help:"The account's address."`
	Policy  string `arg:"" enum:"deliver,hold,refuse" help:"deliver: as anybody's; hold: as a request, until it is answered; refuse."`
}

func (c *accountStrangersCmd) Run(a *app) error {
	return a.withAccounts(func(acc accounts) error { return acc.SetStrangers(a.ctx, c.Address, c.Policy) })
}

type accountDeleteCmd struct {
	Address string `arg:"" help:"The account's address."`
}

func (c *accountDeleteCmd) Run(a *app) error {
	return a.withAccounts(func(acc accounts) error { return acc.Delete(a.ctx, c.Address) })
}
