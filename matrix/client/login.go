package client

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/wire"
)

func isNone(err error) bool { return errors.Is(err, hub.ErrNone) }

// maxDevices is the most devices of one account.
const maxDevices = 200

// identifier says which account is meant. Older clients have the user beside
// it.
//
// spec: MX 1.19 CS §4.9.1.5
type identifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// account finds the account that is meant: by a name, by a user ID, or by the
// mail address, which is the account's one address as well. home is the domain
// for a bare name.
func (id identifier) account(a *API, home string) (core.Address, error) {
	name := id.User
	switch id.Type {
	case "m.id.user", "":
	case "m.id.thirdparty":
		if id.Medium != "email" {
			return core.Address{}, Errorf(http.StatusBadRequest, Unknown, "Only mail addresses are known here.")
		}
		name = id.Address
	default:
		return core.Address{}, Errorf(http.StatusBadRequest, Unknown, "Unknown kind of identifier.")
	}
	if name == "" {
		return core.Address{}, Errorf(http.StatusBadRequest, MissingParam, "The user is missing.")
	}
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "@") {
		local, domain, err := wire.ParseUserID(name)
		if err != nil {
			return core.Address{}, Errorf(http.StatusBadRequest, InvalidParam, "That is not a valid user ID.")
		}
		return core.LocalAddress(local, domain), nil
	}
	if local, domain, ok := strings.Cut(name, "@"); ok {
		return core.LocalAddress(local, domain), nil
	}
	return core.LocalAddress(name, home), nil
}

// domain is the one of our domains at which the client looks for us.
func (a *API) domain(r *Request) string {
	host := strings.ToLower(r.HTTP.Host)
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	if a.hub.Hosts(host) {
		return host
	}
	return a.hub.Home()
}

// checkPassword checks a password, within the limits of failing by account and
// by address.
func (a *API) checkPassword(r *Request, who core.Address, password string) error {
	return a.guess([]string{r.IP.String(), who.String()}, func() (wrong bool, err error) {
		err = a.hub.CheckPassword(r.Context(), who, password)
		if hub.CodeOf(err) == hub.Forbidden {
			return true, Errorf(http.StatusForbidden, Forbidden, "Wrong name or password.")
		}
		return false, err
	})
}

// loginFlows says how one can log in.
//
// spec: MX 1.19 CS §4.9.2
func loginFlows(*Request) (any, error) {
	return map[string]any{"flows": []map[string]any{{"type": stagePassword}}}, nil
}

// deviceWish is what a client says about its device when it logs in.
type deviceWish struct {
	Device  string `json:"device_id"`
	Name    string `json:"initial_device_display_name"`
	Refresh bool   `json:"refresh_token"`
}

// login logs a client in.
//
// spec: MX 1.19 CS §4.9.2
func (a *API) login(r *Request) (any, error) {
	var body struct {
		deviceWish
		Type       string      `json:"type"`
		Identifier *identifier `json:"identifier"`
		User       string      `json:"user"`
		Medium     string      `json:"medium"`
		Address    string      `json:"address"`
		Password   *string     `json:"password"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Type != stagePassword {
		return nil, Errorf(http.StatusBadRequest, Unknown, "Unknown login type; there is m.login.password.")
	}
	if body.Password == nil {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The password is missing.")
	}
	id := identifier{User: body.User, Medium: body.Medium, Address: body.Address}
	if body.Identifier != nil {
		id = *body.Identifier
	} else if body.Medium != "" {
		id.Type = "m.id.thirdparty"
	}
	account, err := id.account(a, a.domain(r))
	if err != nil {
		return nil, err
	}
	if err := a.checkPassword(r, account, *body.Password); err != nil {
		return nil, err
	}
	return a.begin(r, account, body.deviceWish)
}

// loginAnswer is what login and registration answer.
type loginAnswer struct {
	UserID string `json:"user_id"`
	*tokenPair
	Device     string         `json:"device_id,omitempty"`
	HomeServer string         `json:"home_server"`
	WellKnown  map[string]any `json:"well_known,omitempty"`
}

// begin gives a device tokens, and makes it where there is none of that ID.
// Tokens that it had are no longer valid.
//
// spec: MX 1.19 CS §4.5
func (a *API) begin(r *Request, account core.Address, wish deviceWish) (any, error) {
	if !textual(wish.Device) || len(wish.Name) > maxDeviceName {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "The device's ID or name is too long or not allowed.")
	}
	if wish.Device == "" {
		wish.Device = strings.ToUpper(core.NewToken()[:10])
	}
	answer := loginAnswer{UserID: a.UserID(account), Device: wish.Device, HomeServer: account.Domain, WellKnown: a.wellKnown(account.Domain)}
	err := a.hub.Write(r.Context(), func(tx hub.Tx) error {
		if err := a.putDevice(tx, r, account, wish); err != nil {
			return err
		}
		if _, err := exec(tx, `DELETE FROM mxc_tokens WHERE account = $1 AND device = $2`, key(account), wish.Device); err != nil {
			return err
		}
		pair, err := mint(tx, account, wish.Device, "", wish.Refresh)
		answer.tokenPair = &pair
		tx.OnCommit(a.tokens.clear)
		return err
	})
	return answer, err
}

// putDevice makes a device, if there is none of its ID.
func (a *API) putDevice(tx hub.Tx, r *Request, account core.Address, wish deviceWish) error {
	var n int
	if _, err := row(tx, into(&n), `SELECT COUNT(*) FROM mxc_cross_keys WHERE account = $1 AND id = $2`, key(account), wish.Device); err != nil {
		return err
	}
	if n > 0 {
		return Errorf(http.StatusForbidden, Forbidden, "A device cannot be named as a cross-signing key is.")
	}
	at := now().UnixMilli()
	made, err := exec(tx, `INSERT INTO mxc_devices (account, device, name, created, seen, seen_ip) VALUES ($1, $2, $3, $4, $4, $5)
		ON CONFLICT (account, device) DO NOTHING`, key(account), wish.Device, clean(wish.Name), at, r.IP.String())
	if err != nil || made == 0 {
		return err
	}
	if _, err := row(tx, into(&n), `SELECT COUNT(*) FROM mxc_devices WHERE account = $1`, key(account)); err != nil {
		return err
	}
	if n > maxDevices {
		return Errorf(http.StatusForbidden, Forbidden, "This account has %d devices, the most there may be; log one out first.", maxDevices)
	}
	return nil
}

// clean leaves out what no column of text holds.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "") }

// logout ends the device whose token it is.
//
// spec: MX 1.19 CS §4.9.2
func (a *API) logout(r *Request) (any, error) {
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		return a.deleteDevices(tx, r.Account, r.Device)
	})
}

// logoutAll ends all of the account's devices.
func (a *API) logoutAll(r *Request) (any, error) {
	return nil, a.logoutOthers(r.Context(), r.Account, "")
}

// logoutOthers ends all devices but one.
func (a *API) logoutOthers(ctx context.Context, account core.Address, but string) error {
	return a.hub.Write(ctx, func(tx hub.Tx) error {
		devices, err := column(tx, `SELECT device FROM mxc_devices WHERE account = $1 AND device <> $2`, key(account), but)
		if err != nil {
			return err
		}
		return a.deleteDevices(tx, account, devices...)
	})
}

// whoami says whose token it is.
//
// spec: MX 1.19 CS §4.13
func whoami(r *Request) (any, error) {
	return map[string]any{"user_id": r.UserID, "device_id": r.Device, "is_guest": false}, nil
}
