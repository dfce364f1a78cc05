package wire_test

import (
	"errors"
	"testing"

	"parley/matrix/wire"
)

func TestCountersigned(t *testing.T) {
	v, err := wire.VersionOf("11")
	if err != nil {
		t.Fatal(err)
	}
	_, ours, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	_, theirs, err := wire.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	bob := "@bob:b.test"
	build := func(reason string) *wire.PDU {
		p, err := wire.Build(v, wire.Proto{
			RoomID: "!room:a.test", Type: wire.TypeMember, StateKey: &bob, Sender: "@alice:a.test",
			Content: []byte(`{"membership":"invite","reason":"` + reason + `"}`), PrevEvents: []string{"$x"}, Depth: 5, Time: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	invite := build("tea")
	sent, err := invite.Sign(wire.Signer{Server: "a.test", Key: ours})
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.Parse(v, sent)
	if err != nil {
		t.Fatal(err)
	}
	returned, err := got.Sign(wire.Signer{Server: "b.test", Key: theirs})
	if err != nil {
		t.Fatal(err)
	}
	signed, keys, err := invite.Countersigned("b.test", returned)
	if err != nil || len(keys) != 1 || keys[0] != theirs.ID() {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if err := signed.Verify("b.test", keys[0], theirs.Public()); err != nil {
		t.Error(err)
	}
	again, err := signed.Sign(wire.Signer{Server: "a.test", Key: ours})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := wire.Parse(v, again)
	if err != nil || whole.EventID != invite.EventID {
		t.Fatalf("the event with both signatures is another: %v", err)
	}
	if err := whole.Verify("a.test", ours.ID(), ours.Public()); err != nil {
		t.Error(err)
	}
	if err := whole.Verify("b.test", theirs.ID(), theirs.Public()); err != nil {
		t.Error(err)
	}

	if _, _, err := invite.Countersigned("b.test", sent); !errors.Is(err, wire.ErrSignature) {
		t.Errorf("what is not signed: %v", err)
	}
	other, err := build("coffee").Sign(wire.Signer{Server: "b.test", Key: theirs})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := invite.Countersigned("b.test", other); !errors.Is(err, wire.ErrFormat) {
		t.Errorf("another event: %v", err)
	}
}
