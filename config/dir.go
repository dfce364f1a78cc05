package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Dir is the path of the server's directory, and knows what is where in it.
type Dir string

// ConfigFile is parley.toml.
func (d Dir) ConfigFile() string { return d.join("parley.toml") }

// KeysDir holds the secret keys; only its owner can look into it.
func (d Dir) KeysDir() string { return d.join("keys") }

// TLSDir holds the self-signed certificate and what ACME keeps.
func (d Dir) TLSDir() string { return d.join("tls") }

// MediaDir holds the media files.
func (d Dir) MediaDir() string { return d.join("media") }

// DatabaseFile is the SQLite database, when the embedded one is used.
func (d Dir) DatabaseFile() string { return d.join("parley.db") }

// AdminSocket is where a running server takes the account commands.
func (d Dir) AdminSocket() string { return d.join("parley.sock") }

func (d Dir) join(name string) string { return filepath.Join(string(d), name) }

// Create makes the directory and those under it, each for its owner alone.
func (d Dir) Create() error {
	for _, p := range []string{string(d), d.KeysDir(), d.TLSDir(), d.MediaDir()} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return fmt.Errorf("making %s: %w", p, err)
		}
	}
	return nil
}

// WriteNew writes a file that must not be there yet, and has it and its name
// on disk before it returns.
func WriteNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
