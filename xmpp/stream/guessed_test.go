package stream

import (
	"context"
	"testing"

	"github.com/xdg-go/scram"
)

// What a client says wrong about channel binding is no guess at a password, and is not counted as one: slixmpp 1.8 names a binding
// that TLS 1.3 does not have, and then says that we offered none, each time that it logs in.
func TestNoGuess(t *testing.T) {
	mechanism := func(plus bool) *scramMechanism {
		return &scramMechanism{
			id: &identity{domain: "example.org"}, auth: nobody{}, hash: ScramSHA256, plus: plus,
			bindings: []scram.ChannelBinding{{Type: scram.ChannelBindingTLSExporter, Data: []byte("data")}},
			fake: func(string) ScramKeys {
				return ScramKeys{Salt: make([]byte, 16), Iterations: 4096, StoredKey: make([]byte, 32)}
			},
		}
	}
	for name, c := range map[string]struct {
		plus  bool
		first string
	}{
		"another binding":            {true, "p=tls-unique,,n=alice,r=nonce"},
		"an offer that was not seen": {false, "y,,n=alice,r=nonce"},
	} {
		if _, _, err := mechanism(c.plus).step(t.Context(), []byte(c.first)); err == nil || guessed(err) {
			t.Errorf("%s: %v is taken for a guess", name, err)
		}
	}
	m := mechanism(false)
	if _, _, err := m.step(t.Context(), []byte("n,,n=alice,r=nonce")); err != nil {
		t.Fatal(err)
	}
	proof := "c=biws,r=" + m.conv.nonce + ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if _, _, err := m.step(t.Context(), []byte(proof)); !guessed(err) {
		t.Errorf("a wrong proof is no guess: %v", err)
	}
}

// nobody is a house without accounts.
type nobody struct{}

func (nobody) ScramKeys(context.Context, string, string, ScramHash) (ScramKeys, error) {
	return ScramKeys{}, ErrNoAccount
}
func (nobody) Plain(context.Context, string, string, string) error { return ErrNoAccount }
