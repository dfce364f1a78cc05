package interop

import (
	"context"
	"strings"
	"testing"
	"time"
)

// steps types lines into a terminal, each followed by what the screen must then show.
func (t *terminal) steps(ctx context.Context, steps ...[2]string) error {
	for _, step := range steps {
		if err := t.typeLine(ctx, step[0]); err != nil {
			return err
		}
		if step[1] == "" {
			continue
		}
		if err := t.read(ctx, step[1]); err != nil {
			return err
		}
	}
	return nil
}

// TestOMEMO has Profanity and converse.js talk with their own end-to-end encryption through
// Parley: each reads what the other says, and the Matrix client of one of them is told that
// there is something it cannot read.
//
// spec: XEP-0384 §5
func TestOMEMO(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, Parts{Parley: true})
	alice, err := w.NewAccount(ctx, w.Parley, "alice")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := w.NewAccount(ctx, w.Parley, "bob")
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Login(ctx, Converse, w.Parley, bob)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	term := startProfanity(ctx, t, w, alice)
	if err := term.steps(ctx, [2]string{"/omemo trustmode blind", "blind"}, [2]string{"/omemo gen", "materials generated"}); err != nil {
		t.Fatal(err)
	}
	meetAtTerminal(ctx, t, term, alice, b)
	onMatrix, err := w.Login(ctx, driver(t, "matrixjs"), w.Parley, alice)
	if err != nil {
		t.Fatal(err)
	}
	defer onMatrix.Close()

	// From the terminal to the browser.
	atMatrix, watch, secret := onMatrix.Watch(), b.Watch(), "A secret "+token()
	if err := term.steps(ctx, [2]string{"/msg " + bob.String(), ""}, [2]string{"/omemo start", "[OMEMO]"}); err != nil {
		t.Fatal(err)
	}
	// Profanity keeps to itself what it is told before it has the other's keys: it is told again then.
	for tries := 1; ; tries++ {
		if err := term.steps(ctx, [2]string{secret, ""}); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 15*time.Second)
		_, err := watch.For(short, "the encrypted text", func(e *Event) bool {
			return e.Event == "message" && e.From == alice.String() && e.Body == secret && e.Encrypted
		})
		cancel()
		if err == nil {
			break
		}
		if tries == 4 {
			t.Fatal(err)
		}
	}
	// And back.
	if _, err := b.Do(ctx, "encrypt", Args{"to": alice}); err != nil {
		t.Fatal(err)
	}
	answer := "Another " + token()
	if _, err := b.Do(ctx, "send", Args{"to": alice, "body": answer}); err != nil {
		t.Fatal(err)
	}
	if err := term.read(ctx, answer); err != nil {
		t.Fatal(err)
	}
	for _, from := range []Address{alice, bob} {
		seen, err := atMatrix.For(ctx, "that "+from.String()+" said something encrypted", func(e *Event) bool {
			return e.Event == "message" && e.From == from.String()
		})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(seen.Body, "OMEMO") || strings.Contains(seen.raw, secret) || strings.Contains(seen.raw, answer) {
			t.Errorf("the Matrix client shows %s", seen.raw)
		}
	}
}

// meetAtTerminal makes contacts of a person at Profanity and one at another client.
func meetAtTerminal(ctx context.Context, t *testing.T, term *terminal, alice Address, b *Client) {
	t.Helper()
	watch := b.Watch()
	if err := term.typeLine(ctx, "/sub request "+b.Address.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "a contact request", func(e *Event) bool { return e.Event == "contact_request" }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Do(ctx, "approve_contact", Args{"user": alice}); err != nil {
		t.Fatal(err)
	}
	if err := term.steps(ctx, [2]string{"/sub allow " + b.Address.String(), ""}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.For(ctx, "a contact both ways", func(e *Event) bool {
		return e.Event == "contact" && e.State == "both" && e.User == alice.String()
	}); err != nil {
		t.Fatal(err)
	}
}
