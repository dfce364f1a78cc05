package wire

// StateKey names one piece of a room's state.
type StateKey struct{ Type, Key string }

// AuthTypes are the pieces of the state that give the sender the right to send
// the event, and whose events are therefore its auth_events, where they exist.
// In versions with HashedRoomID the create event is not among them.
//
// spec: MX 1.19 SS §5.1.2
func AuthTypes(v *Version, eventType string, stateKey *string, sender string, content []byte) []StateKey {
	if eventType == TypeCreate {
		return nil
	}
	keys := make([]StateKey, 0, 6)
	if !v.HashedRoomID {
		keys = append(keys, StateKey{TypeCreate, ""})
	}
	keys = append(keys, StateKey{TypePowerLevels, ""}, StateKey{TypeMember, sender})
	if eventType != TypeMember || stateKey == nil {
		return keys
	}
	add := func(k StateKey) {
		for _, have := range keys {
			if have == k {
				return
			}
		}
		keys = append(keys, k)
	}
	add(StateKey{TypeMember, *stateKey})
	o, err := members(content)
	if err != nil {
		return keys
	}
	membership, _ := o.String("membership")
	switch membership {
	case "join", "invite", "knock":
		add(StateKey{TypeJoinRules, ""})
	}
	if membership == "invite" {
		if token, ok := thirdPartyToken(o); ok {
			add(StateKey{TypeThirdParty, token})
		}
	}
	if via, ok := o.String(viaKey); ok && membership == "join" && v.Restricted {
		add(StateKey{TypeMember, via})
	}
	return keys
}

func thirdPartyToken(content Object) (string, bool) {
	invite, err := members(content.Get(invite3pid))
	if err != nil {
		return "", false
	}
	signed, err := members(invite.Get("signed"))
	if err != nil {
		return "", false
	}
	return signed.String("token")
}
