package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Names of the files in [Dir.KeysDir].
const (
	matrixKeyFile = "matrix-signing.key"
	matrixOldFile = "matrix-signing.old"
	dialbackFile  = "xmpp-dialback.secret"
	scramFile     = "scram-salt.secret"
)

// secretSize is the size of the symmetric secrets, in bytes.
const secretSize = 32

// Keys are the server's long-lived secrets. They are never logged.
type Keys struct {
	// Matrix is the text of the file with the key that signs Matrix events,
	// in Synapse's format, so that a key can move between servers.
	//
	// spec: MX 1.19 AP §3.2
	Matrix []byte
	// MatrixOld has a line for each key that once signed Matrix events:
	// "ed25519 VERSION PUBLIC EXPIRED", the public key in base64 and the moment
	// in milliseconds since 1970. Its absence is an empty list.
	MatrixOld []byte
	// Dialback is the secret from which dialback keys are derived.
	//
	// spec: XEP-0185 §2
	Dialback []byte
	// ScramSalt is the secret from which the salts that are shown for
	// accounts that do not exist are derived, so that they look real.
	//
	// spec: RFC 5802 §9
	ScramSalt []byte
}

// CreateKeys makes new keys in the directory; it never overwrites one. matrix
// is the text of a new Matrix signing key.
func CreateKeys(d Dir, matrix []byte) error {
	files := []struct{ name, text string }{
		{matrixKeyFile, string(matrix)},
		{dialbackFile, newSecret()},
		{scramFile, newSecret()},
	}
	for _, f := range files {
		if err := WriteNew(filepath.Join(d.KeysDir(), f.name), []byte(f.text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newSecret() string {
	b := make([]byte, secretSize)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b) + "\n"
}

// LoadKeys reads the keys; it refuses files that others than their owner can
// read.
func LoadKeys(d Dir) (*Keys, error) {
	var k Keys
	text, err := readSecret(d, matrixKeyFile)
	if err != nil {
		return nil, err
	}
	k.Matrix = []byte(text)
	if _, err := os.Lstat(filepath.Join(d.KeysDir(), matrixOldFile)); !errors.Is(err, fs.ErrNotExist) {
		if text, err = readSecret(d, matrixOldFile); err != nil {
			return nil, err
		}
		k.MatrixOld = []byte(text)
	}
	for name, dst := range map[string]*[]byte{dialbackFile: &k.Dialback, scramFile: &k.ScramSalt} {
		text, err := readSecret(d, name)
		if err != nil {
			return nil, err
		}
		if *dst, err = hex.DecodeString(text); err != nil || len(*dst) < secretSize {
			return nil, fmt.Errorf("reading %s: not %d bytes in hexadecimal", name, secretSize)
		}
	}
	return &k, nil
}

// RotateMatrixKey replaces the key that signs Matrix events. old is the whole
// text of the list of old keys, with the one that is replaced. The list is on
// disk first: a server that is cut off in between has its key, and a line too
// many that it passes over.
func RotateMatrixKey(d Dir, old, matrix []byte) error {
	for _, f := range []struct {
		name string
		text []byte
	}{{matrixOldFile, old}, {matrixKeyFile, matrix}} {
		path := filepath.Join(d.KeysDir(), f.name)
		if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotating the Matrix key: %w", err)
		}
		if err := WriteNew(path+".new", f.text, 0o600); err != nil {
			return err
		}
		if err := errors.Join(os.Rename(path+".new", path), syncDir(d.KeysDir())); err != nil {
			return fmt.Errorf("rotating the Matrix key: %w", err)
		}
	}
	return nil
}

func readSecret(d Dir, name string) (string, error) {
	path := filepath.Join(d.KeysDir(), name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s is missing: restore it from a backup (a new server gets it from `parley init`)", path)
	}
	if err != nil {
		return "", fmt.Errorf("reading a key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others: run `chmod 600 %s`", path, path)
	}
	data, err := readLimited(path)
	if err != nil {
		return "", fmt.Errorf("reading a key: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
