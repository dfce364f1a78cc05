package interop

import "testing"

func TestAddressSpelling(t *testing.T) {
	for _, test := range []struct {
		address Address
		network Network
		home    string
		want    string
	}{
		{Address{"alice", "parley.test"}, Matrix, ParleyDomain, "@alice:parley.test"},
		{Address{"alice", "parley.test"}, XMPP, ParleyDomain, "alice@parley.test"},
		{Address{"alice", "parley.test"}, XMPP, ProsodyDomain, "alice@parley.test"},
		{Address{"alice", "parley.test"}, Matrix, DendriteDomain, "@alice:parley.test"},
		{Address{"carol", "prosody.test"}, Matrix, ParleyDomain, "@_xmpp_carol=40prosody.test:parley.test"},
		{Address{"zoë+x", "prosody.test"}, Matrix, ParleyDomain, "@_xmpp_zo=c3=ab=2bx=40prosody.test:parley.test"},
		{Address{"dave", "dendrite.test"}, Matrix, ParleyDomain, "@dave:dendrite.test"},
		{Address{"dave", "dendrite.test"}, XMPP, ParleyDomain, "_matrix_dave=40dendrite.test@parley.test"},
		{Address{"bob", "second.test"}, XMPP, ParleyDomain, "_matrix_bob=40second.test@parley.test"},
		// Whose servers have no network in common meets by way of Parley.
		{Address{"dave", "dendrite.test"}, XMPP, ProsodyDomain, "_matrix_dave=40dendrite.test@parley.test"},
		{Address{"carol", "prosody.test"}, Matrix, DendriteDomain, "@_xmpp_carol=40prosody.test:parley.test"},
	} {
		got := test.address.Spell(test.network, test.home)
		if got != test.want {
			t.Errorf("%v on %s at %s is spelled %s, want %s", test.address, test.network, test.home, got, test.want)
		}
		back, err := ParseAddress(got, test.network)
		if err != nil || back != test.address {
			t.Errorf("%s is read as %v, %v, want %v", got, back, err, test.address)
		}
	}
}

// TestAddressOfAddress reads what a second Parley's XMPP client calls somebody of prosody.test
// whom it knows as a Matrix user of the first.
func TestAddressOfAddress(t *testing.T) {
	got, err := ParseAddress("_matrix__xmpp_carol=3d40prosody.test=40parley.test@second.test", XMPP)
	if want := (Address{"carol", "prosody.test"}); err != nil || got != want {
		t.Errorf("it is read as %v, %v, want %v", got, err, want)
	}
}

func TestRoomSpelling(t *testing.T) {
	here := RoomAddress{Local: "garden", Domain: ParleyDomain, Service: "rooms.parley.test"}
	prosody := RoomAddress{Local: "garden", Domain: ProsodyDomain, Service: "conference.prosody.test"}
	dendrite := RoomAddress{Local: "garden", Domain: DendriteDomain}
	for _, test := range []struct {
		room    RoomAddress
		network Network
		home    string
		want    string
	}{
		{here, Matrix, ParleyDomain, "#garden:parley.test"},
		{here, XMPP, ParleyDomain, "garden@rooms.parley.test"},
		{here, XMPP, ProsodyDomain, "garden@rooms.parley.test"},
		{here, Matrix, DendriteDomain, "#garden:parley.test"},
		{here, XMPP, SecondDomain, "_matrix_garden=40parley.test@rooms.second.test"},
		{prosody, Matrix, ParleyDomain, "#_xmpp_garden=40conference.prosody.test:parley.test"},
		{prosody, XMPP, ParleyDomain, "garden@conference.prosody.test"},
		{dendrite, Matrix, ParleyDomain, "#garden:dendrite.test"},
		{dendrite, XMPP, ParleyDomain, "_matrix_garden=40dendrite.test@rooms.parley.test"},
	} {
		if got := test.room.Spell(test.network, test.home); got != test.want {
			t.Errorf("%v on %s at %s is spelled %s, want %s", test.room, test.network, test.home, got, test.want)
		}
	}
}
