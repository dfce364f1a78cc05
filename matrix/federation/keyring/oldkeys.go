package keyring

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/matrix/wire"
)

// ParseOldKeys reads the list of a server's former keys: a line each,
// "ed25519 VERSION PUBLIC EXPIRED", the moment in milliseconds since 1970. The
// key that is in use is passed over.
func ParseOldKeys(list []byte, current *wire.SigningKey) (map[string]OldKey, error) {
	out := map[string]OldKey{}
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 4 || f[0] != "ed25519" || !keyID.MatchString("ed25519:"+f[1]) {
			return nil, fmt.Errorf("old signing keys: want \"ed25519 VERSION PUBLIC EXPIRED\", not %.120q", line)
		}
		public, err := decode(f[2])
		ms, nerr := strconv.ParseInt(f[3], 10, 64)
		if err != nil || nerr != nil || len(public) != ed25519.PublicKeySize || ms < 0 {
			return nil, fmt.Errorf("old signing keys: bad key or moment in %.120q", line)
		}
		if id := "ed25519:" + f[1]; id != current.ID() {
			out[id] = OldKey{public, time.UnixMilli(ms)}
		}
	}
	return out, nil
}

// FormatOldKeys writes what [ParseOldKeys] reads, the latest last.
func FormatOldKeys(old map[string]OldKey) []byte {
	var ids []string
	for id := range old {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return old[a].Expired.Compare(old[b].Expired)*2 + strings.Compare(a, b)
	})
	var b []byte
	for _, id := range ids {
		b = fmt.Appendf(b, "ed25519 %s %s %d\n", strings.TrimPrefix(id, "ed25519:"),
			base64.RawStdEncoding.EncodeToString(old[id].Public), old[id].Expired.UnixMilli())
	}
	return b
}
