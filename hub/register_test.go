package hub_test

import (
	"testing"

	"parley/hub"
	"parley/hub/hubtest"
)

// Who may make an account is one rule for all protocols.
func TestMayRegister(t *testing.T) {
	for _, c := range []struct {
		mode, token string
		offered, ok bool
	}{
		{"open", "", true, true}, {"closed", "right", false, false}, {"", "", false, false},
		{"token", "right", true, true}, {"token", "wrong", true, false}, {"token", "", true, false},
	} {
		h, _ := hubtest.New(t, func(cfg *hub.Config) { cfg.Registration, cfg.RegistrationTokens = c.mode, []string{"other", "right"} })
		if h.Registers() != c.offered {
			t.Errorf("%s: offered is %v", c.mode, h.Registers())
		}
		if err := h.MayRegister(c.token); (err == nil) != c.ok || err != nil && hub.CodeOf(err) != hub.Forbidden {
			t.Errorf("%s with %q: %v", c.mode, c.token, err)
		}
	}
}
