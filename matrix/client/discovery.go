package client

import (
	"net/http"
	"strings"

	"parley/matrix/wire"
)

// versions are the versions of the specification that clients may count on.
// Each means that what clients use every day is here as that version has it;
// what is absent answers M_UNRECOGNIZED, as the specification has it.
//
// spec: MX 1.19 CS §3.2
var versions = []string{
	"r0.5.0", "r0.6.0", "r0.6.1",
	"v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
	"v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
}

func (a *API) versions(*Request) (any, error) {
	return map[string]any{
		"versions": versions,
		"unstable_features": map[string]bool{
			// What clients ask for by its old name although it is in the specification.
			"org.matrix.e2e_cross_signing": true,
			"org.matrix.msc3440.stable":    true,
			"org.matrix.msc3771":           true,
			"org.matrix.msc3773":           true,
			"org.matrix.msc3827.stable":    true,
			"org.matrix.msc3916.stable":    true,
			"uk.tcpip.msc4133.stable":      true,
		},
	}, nil
}

// capabilities say what this server does for the account.
//
// spec: MX 1.19 CS §5
func (a *API) capabilities(*Request) (any, error) {
	stable := map[string]string{}
	for _, v := range wire.Made() {
		stable[v] = "stable"
	}
	enabled := func(b bool) map[string]bool { return map[string]bool{"enabled": b} }
	return map[string]any{"capabilities": map[string]any{
		"m.room_versions":            map[string]any{"default": a.config.RoomVersion, "available": stable},
		"m.change_password":          enabled(true),
		"m.set_displayname":          enabled(true),
		"m.set_avatar_url":           enabled(true),
		"m.profile_fields":           enabled(true),
		"m.3pid_changes":             enabled(false),
		"m.get_login_token":          enabled(false),
		"m.forget_forced_upon_leave": enabled(false),
	}}, nil
}

// wellKnown is what a client needs to know that knows only a domain.
//
// spec: MX 1.19 CS §3.1
func (a *API) wellKnown(domain string) map[string]any {
	w := map[string]any{"m.homeserver": map[string]string{"base_url": a.config.BaseURL(domain)}}
	if !a.config.Private {
		// New direct conversations start readable, so that they reach people
		// on every network; Element's own key for that.
		w["io.element.e2ee"] = map[string]bool{"default": false}
	}
	return w
}

func (a *API) discover(r *Request) (any, error) { return a.wellKnown(a.domain(r)), nil }

// support says whom to turn to.
//
// spec: MX 1.19 CS §3.1
func (a *API) support(*Request) (any, error) {
	if a.config.Contact == "" {
		return nil, Errorf(http.StatusNotFound, NotFound, "The operator has named nobody to turn to.")
	}
	mail := strings.TrimPrefix(a.config.Contact, "mailto:")
	return map[string]any{"contacts": []map[string]string{
		{"role": "m.role.admin", "email_address": mail},
		{"role": "m.role.security", "email_address": mail},
	}}, nil
}
