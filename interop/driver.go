package interop

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"parley/interop/lab"
)

// Driver is a real client, or client library, and how to run it.
type Driver struct {
	Name    string
	Network Network
	Title   string // for the report, e.g. "matrix-nio (Python)"
	Web     bool   // XMPP over HTTP (WebSocket, BOSH), which in the lab only Parley serves

	command []string // the first path is relative to the drivers folder
	env     []string // CA is replaced by the lab's authority
	version []string // a command that prints the library's version
}

// Drivers are all the clients, in the order of the report's columns.
var Drivers = []*Driver{
	{
		Name: "nio", Network: Matrix, Title: "matrix-nio",
		command: []string{"/usr/bin/python3", "nio_driver.py"},
		version: []string{"dpkg-query", "-W", "-f", "${Version}", "python3-matrix-nio"},
	},
	{
		Name: "matrixjs", Network: Matrix, Title: "matrix-js-sdk with Rust crypto",
		command: []string{"node", "js/matrix.mjs"},
		env:     []string{"NODE_EXTRA_CA_CERTS=CA"},
		version: []string{"node", "-p", "require('./js/node_modules/matrix-js-sdk/package.json').version"},
	},
	{
		Name: "slixmpp", Network: XMPP, Title: "slixmpp",
		command: []string{"/usr/bin/python3", "slixmpp_driver.py"},
		env:     []string{"SSL_CERT_FILE=CA"},
		version: []string{"dpkg-query", "-W", "-f", "${Version}", "python3-slixmpp"},
	},
	{
		Name: "xmppjs", Network: XMPP, Title: "xmpp.js (@xmpp/client)",
		command: []string{"node", "js/xmpp.mjs"},
		env:     []string{"NODE_EXTRA_CA_CERTS=CA"},
		version: []string{"node", "-p", "require('./js/node_modules/@xmpp/client/package.json').version"},
	},
	{
		Name: "stanza", Network: XMPP, Web: true, Title: "stanza (WebSocket)",
		command: []string{"node", "js/stanza.mjs"},
		env:     []string{"NODE_EXTRA_CA_CERTS=CA"},
		version: []string{"node", "-p", "require('./js/node_modules/stanza/package.json').version"},
	},
}

// Converse is a web client in a browser of its own. It is not among [Drivers]: what its page
// has no control for cannot be done by it, and a browser for each session is too much for
// all of them. Its sessions are in TestConverse.
var Converse = &Driver{
	Name: "converse", Network: XMPP, Web: true, Title: "converse.js in Chromium (WebSocket)",
	command: []string{"node", "js/converse.mjs"},
	env:     []string{"NODE_EXTRA_CA_CERTS=CA"},
	version: []string{"node", "-p", "require('./js/node_modules/converse.js/package.json').version"},
}

// DriverByName returns a driver of Drivers.
func DriverByName(name string) (*Driver, error) {
	for _, d := range Drivers {
		if d.Name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("interop: no driver %q", name)
}

// Version returns the version of the client.
func (d *Driver) Version(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, d.version[0], d.version[1:]...)
	cmd.Dir = driversDir()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("interop: version of %s: %w", d.Name, err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "-")
	return version, nil
}

func driversDir() string { return filepath.Join(lab.Root(), "drivers") }

// cmd prepares the driver's process on a host of the lab.
func (d *Driver) cmd(host *lab.Host, ca string) *exec.Cmd {
	// The process ends when its standard input does, or is killed; not by a context.
	cmd := host.Command(context.Background(), d.command[0], d.command[1:]...)
	cmd.Dir = driversDir()
	for _, e := range d.env {
		cmd.Env = append(cmd.Env, strings.Replace(e, "=CA", "="+ca, 1))
	}
	cmd.Env = append(cmd.Environ(), cmd.Env...)
	return cmd
}
