package stream

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // SCRAM-SHA-1 is what older clients speak
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"unicode/utf8"
)

// scramConversation is the server's side of the messages of SCRAM. It is ours, and not the library's that has the channel bindings,
// because the latter has no room for the attribute that protects from downgrades.
//
// spec: RFC 5802 §5
type scramConversation struct {
	hash ScramHash
	// binding is the data of the channel binding that the client must prove; nil if it uses none.
	binding []byte
	// offer is the digest of what was offered, told to the client within what its proof covers.
	offer string

	gs2, authcid, authzid string
	clientBare, nonce     string
	serverFirst           string
	keys                  ScramKeys
}

// Errors of a conversation: what the peer sent cannot be read, or proves nothing.
var (
	errScramMessage = errors.New("not a SCRAM message")
	errScramProof   = errors.New("proof is wrong")
)

func (h ScramHash) new() hash.Hash {
	if h == ScramSHA1 {
		return sha1.New()
	}
	return sha256.New()
}

// first reads the client's first message: gs2-header, then n= and r=. An extension that we must understand and do not is refused.
//
// spec: RFC 5802 §7
func (c *scramConversation) first(msg string) error {
	parts := strings.SplitN(msg, ",", 3)
	if len(parts) != 3 || !utf8.ValidString(msg) {
		return errScramMessage
	}
	c.gs2, c.clientBare = parts[0]+","+parts[1]+",", parts[2]
	flag, authzid := parts[0], parts[1]
	if flag != "n" && flag != "y" && !strings.HasPrefix(flag, "p=") {
		return errScramMessage
	}
	var ok bool
	if authzid != "" {
		if authzid, ok = strings.CutPrefix(authzid, "a="); !ok {
			return errScramMessage
		}
		if c.authzid, ok = saslName(authzid); !ok {
			return errScramMessage
		}
	}
	attrs := strings.Split(c.clientBare, ",")
	if len(attrs) < 2 {
		return errScramMessage
	}
	name, isName := strings.CutPrefix(attrs[0], "n=")
	nonce, isNonce := strings.CutPrefix(attrs[1], "r=")
	if c.authcid, ok = saslName(name); !ok || !isName || !isNonce || nonce == "" {
		return errScramMessage
	}
	c.nonce = nonce + rand.Text()
	return nil
}

// saslName undoes the escapes of a name.
//
// spec: RFC 5802 §5.1
func saslName(s string) (string, bool) {
	plain := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s)
	bare := strings.NewReplacer("=2C", "", "=3D", "").Replace(s)
	return plain, s != "" && !strings.ContainsAny(bare, "=\x00")
}

// challenge is the server's first message.
func (c *scramConversation) challenge(k ScramKeys) string {
	c.keys = k
	c.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", c.nonce, base64.StdEncoding.EncodeToString(k.Salt), k.Iterations)
	if c.offer != "" {
		c.serverFirst += ",h=" + c.offer
	}
	return c.serverFirst
}

// final checks the client's last message and returns ours.
//
// spec: RFC 5802 §3
func (c *scramConversation) final(msg string) (string, error) {
	bare, proof, ok := cutLast(msg, ",p=")
	if !ok {
		return "", errScramMessage
	}
	attrs := strings.Split(bare, ",")
	if len(attrs) < 2 || !strings.HasPrefix(attrs[0], "c=") || !strings.HasPrefix(attrs[1], "r=") {
		return "", errScramMessage
	}
	bound, err1 := base64.StdEncoding.Strict().DecodeString(attrs[0][2:])
	sent, err2 := base64.StdEncoding.Strict().DecodeString(proof)
	if err1 != nil || err2 != nil {
		return "", errScramMessage
	}
	if subtle.ConstantTimeCompare(bound, slices.Concat([]byte(c.gs2), c.binding)) != 1 || attrs[1][2:] != c.nonce {
		return "", errScramProof
	}
	auth := []byte(c.clientBare + "," + c.serverFirst + "," + bare)
	key := c.mac(c.keys.StoredKey, auth)
	if len(sent) != len(key) {
		return "", errScramProof
	}
	subtle.XORBytes(key, key, sent)
	h := c.hash.new()
	h.Write(key)
	if !hmac.Equal(h.Sum(nil), c.keys.StoredKey) {
		return "", errScramProof
	}
	return "v=" + base64.StdEncoding.EncodeToString(c.mac(c.keys.ServerKey, auth)), nil
}

func (c *scramConversation) mac(key, data []byte) []byte {
	m := hmac.New(c.hash.new, key)
	m.Write(data)
	return m.Sum(nil)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// offered digests the mechanisms and the channel bindings that were announced, so that a client sees whether somebody between has
// taken some away.
//
// spec: XEP-0474 §6.1
func offered(h ScramHash, mechanisms, bindings []string) string {
	var s bytes.Buffer
	s.WriteString(strings.Join(slices.Sorted(slices.Values(mechanisms)), "\x1e"))
	if len(bindings) > 0 {
		s.WriteString("\x1f" + strings.Join(slices.Sorted(slices.Values(bindings)), "\x1e"))
	}
	sum := h.new()
	sum.Write(s.Bytes())
	return base64.StdEncoding.EncodeToString(sum.Sum(nil))
}
