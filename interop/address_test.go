package interop

import "testing"

func TestAddressSpelling(t *testing.T) {
	for _, test := range []struct {
		address Address
		network Network
		want    string
	}{
		{Address{"alice", "parley.test"}, Matrix, "@alice:parley.test"},
		{Address{"alice", "parley.test"}, XMPP, "alice@parley.test"},
		{Address{"carol", "prosody.test"}, Matrix, "@_xmpp_carol=40prosody.test:parley.test"},
		{Address{"zoë+x", "prosody.test"}, Matrix, "@_xmpp_zo=c3=ab=2bx=40prosody.test:parley.test"},
	} {
		got := test.address.Spell(test.network, "parley.test")
		if got != test.want {
			t.Errorf("%v on %s is spelled %s, want %s", test.address, test.network, got, test.want)
		}
		back, err := ParseAddress(got, test.network)
		if err != nil || back != test.address {
			t.Errorf("%s is read as %v, %v, want %v", got, back, err, test.address)
		}
	}
}
