package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
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
	dialbackFile  = "xmpp-dialback.secret"
	scramFile     = "scram-salt.secret"
)

// secretSize is the size of the symmetric secrets, in bytes.
const secretSize = 32

// Keys are the server's long-lived secrets. They are never logged.
type Keys struct {
	// MatrixKeyID is the identifier of MatrixKey, "ed25519:a1b2c3".
	//
	// spec: MX 1.19 AP §3.2
	MatrixKeyID string
	MatrixKey   ed25519.PrivateKey
	// Dialback is the secret from which dialback keys are derived.
	//
	// spec: XEP-0185 §3
	Dialback []byte
	// ScramSalt is the secret from which the salts that are shown for
	// accounts that do not exist are derived, so that they look real.
	//
	// spec: RFC 5802 §9
	ScramSalt []byte
}

// CreateKeys makes new keys in the directory; it never overwrites one.
func CreateKeys(d Dir) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making the Matrix signing key: %w", err)
	}
	// The format is Synapse's, so that a key can move between servers.
	line := fmt.Sprintf("ed25519 a_%s %s\n", rand.Text()[:6], base64.RawStdEncoding.EncodeToString(key.Seed()))
	files := []struct{ name, text string }{
		{matrixKeyFile, line},
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
	if k.MatrixKeyID, k.MatrixKey, err = parseSigningKey(text); err != nil {
		return nil, fmt.Errorf("reading %s: %w", matrixKeyFile, err)
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

// parseSigningKey reads "ed25519 VERSION SEED". Errors do not quote the seed.
//
// spec: MX 1.19 AP §3.2
func parseSigningKey(line string) (id string, key ed25519.PrivateKey, err error) {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "ed25519" {
		return "", nil, errors.New("not of the form \"ed25519 VERSION SEED\"")
	}
	for _, c := range []byte(f[1]) {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "", nil, errors.New("the key's version has a character other than letters, digits and _")
		}
	}
	seed, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(f[2], "="))
	if err != nil || len(seed) != ed25519.SeedSize {
		return "", nil, fmt.Errorf("the seed is not %d bytes in base64", ed25519.SeedSize)
	}
	return "ed25519:" + f[1], ed25519.NewKeyFromSeed(seed), nil
}
