package client

import (
	"errors"
	"net/http"
	"strings"

	"parley/core"
	"parley/hub"
)

// minPassword is the shortest password of a new account, in bytes.
const minPassword = 8

func checkStrength(password string) error {
	if len(password) < minPassword {
		return Errorf(http.StatusBadRequest, WeakPassword, "A password needs at least %d characters.", minPassword)
	}
	return nil
}

// register makes an account.
//
// spec: MX 1.19 CS §4.9.3
func (a *API) register(r *Request) (any, error) {
	if kind := r.Query("kind"); kind != "" && kind != "user" {
		// spec: MX 1.19 CS §10.18
		return nil, Errorf(http.StatusForbidden, GuestForbidden, "There are no guests here.")
	}
	flows, err := a.registerFlows()
	if err != nil {
		return nil, err
	}
	// A name that cannot be had is said before anybody types a password.
	if _, err := a.wantedName(r); err != nil {
		return nil, err
	}
	finish, err := r.confirm(flows, true)
	if err != nil {
		return nil, err
	}
	answer, err := a.registered(r)
	finish(err)
	return answer, err
}

func (a *API) registerFlows() ([][]string, error) {
	switch a.config.Registration {
	case "open":
		return [][]string{{stageDummy}}, nil
	case "token":
		return [][]string{{stageToken}}, nil
	}
	return nil, Errorf(http.StatusForbidden, Forbidden, "Accounts are made by the operator of this server.")
}

// wantedName reads and checks the name of the account to be, a random one
// where the client leaves it to us.
func (a *API) wantedName(r *Request) (core.Address, error) {
	var body struct {
		Name string `json:"username"`
	}
	if err := r.JSON(&body); err != nil {
		return core.Address{}, err
	}
	if body.Name == "" {
		return core.LocalAddress(core.NewToken()[:12], a.domain(r)), nil
	}
	return a.checkName(r, body.Name)
}

func (a *API) checkName(r *Request, name string) (core.Address, error) {
	name = strings.ToLower(name)
	if strings.HasPrefix(name, "@") {
		name, _, _ = strings.Cut(name[1:], ":")
	}
	who := core.LocalAddress(name, a.domain(r))
	if err := core.CheckName(name); err != nil {
		return who, Errorf(http.StatusBadRequest, InvalidUsername,
			"A name has the letters a to z, digits, '.', '_' and '-', begins and ends with a letter or digit, and has at most %d of them.", core.MaxName)
	}
	if core.Reserved(name) {
		return who, Errorf(http.StatusBadRequest, Exclusive, "The name %s is reserved.", name)
	}
	switch _, err := a.hub.Account(r.Context(), who); {
	case err == nil:
		return who, errInUse(name)
	case !errors.Is(err, hub.ErrNone):
		return who, err
	}
	return who, nil
}

func errInUse(name string) error {
	return Errorf(http.StatusBadRequest, UserInUse, "The name %s is taken.", name)
}

// registered does what was confirmed.
func (a *API) registered(r *Request) (any, error) {
	var body struct {
		deviceWish
		Password string `json:"password"`
		NoLogin  bool   `json:"inhibit_login"`
	}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.Password == "" {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The password is missing.")
	}
	if err := checkStrength(body.Password); err != nil {
		return nil, err
	}
	who, err := a.wantedName(r)
	if err != nil {
		return nil, err
	}
	if err := limited(a.limits.take(Registers, r.IP.String(), now())); err != nil {
		return nil, err
	}
	err = a.hub.CreateAccount(r.Context(), who, body.Password)
	if hub.CodeOf(err) == hub.Conflict {
		return nil, errInUse(who.Name)
	}
	if err != nil {
		return nil, err
	}
	if body.NoLogin {
		return loginAnswer{UserID: a.UserID(who), HomeServer: who.Domain}, nil
	}
	return a.begin(r, who, body.deviceWish)
}

// available says whether a name can be had.
func (a *API) available(r *Request) (any, error) {
	if _, err := a.registerFlows(); err != nil {
		return nil, err
	}
	if r.Query("username") == "" {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The username is missing.")
	}
	_, err := a.checkName(r, r.Query("username"))
	return map[string]bool{"available": true}, err
}

// tokenValidity says whether a registration token would be taken.
//
// spec: MX 1.19 CS §4.9.1.3.7
func (a *API) tokenValidity(r *Request) (any, error) {
	if a.config.Registration != "token" {
		return nil, Errorf(http.StatusForbidden, Forbidden, "Registration tokens are not in use here.")
	}
	err := a.checkRegistrationToken(r, r.Query("token"))
	if e, internal := AsError(err); err != nil && !internal && e.Status == http.StatusUnauthorized {
		return map[string]bool{"valid": false}, nil
	}
	return map[string]bool{"valid": true}, err
}

// changePassword gives the account another password.
//
// spec: MX 1.19 CS §4.9.4.1
func (a *API) changePassword(r *Request) (any, error) {
	body := struct {
		New    string `json:"new_password"`
		Logout bool   `json:"logout_devices"`
	}{Logout: true}
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	if body.New == "" {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The new password is missing.")
	}
	if err := checkStrength(body.New); err != nil {
		return nil, err
	}
	if err := a.hub.SetPassword(r.Context(), r.Account, body.New); err != nil {
		return nil, err
	}
	if !body.Logout {
		return nil, nil
	}
	return nil, a.logoutOthers(r.Context(), r.Account, r.Device)
}

// deactivate ends the account for good.
//
// spec: MX 1.19 CS §4.9.4.2
func (a *API) deactivate(r *Request) (any, error) {
	if err := a.hub.DeleteAccount(r.Context(), r.Account); err != nil {
		return nil, err
	}
	err := a.hub.Write(r.Context(), func(tx hub.Tx) error { return a.forget(tx, r.Account) })
	return map[string]string{"id_server_unbind_result": "no-support"}, err
}

// forget deletes all that this package keeps for an account.
func (a *API) forget(tx hub.Tx, account core.Address) error {
	devices, err := column(tx, `SELECT device FROM mxc_devices WHERE account = $1`, key(account))
	if err != nil {
		return err
	}
	if err := a.deleteDevices(tx, account, devices...); err != nil {
		return err
	}
	for _, q := range []string{
		`DELETE FROM mxc_filters WHERE account = $1`, `DELETE FROM mxc_profile_fields WHERE account = $1`,
		`DELETE FROM mxc_pushers WHERE account = $1`, `DELETE FROM mxc_cross_keys WHERE account = $1`,
		`DELETE FROM mxc_key_signatures WHERE account = $1`, `DELETE FROM mxc_backup_keys WHERE account = $1`,
		`DELETE FROM mxc_backups WHERE account = $1`, `DELETE FROM mxc_openid WHERE account = $1`,
		`DELETE FROM mxc_txns WHERE account = $1`, `DELETE FROM mxc_signed WHERE account = $1`,
	} {
		if _, err := exec(tx, q, key(account)); err != nil {
			return err
		}
	}
	return nil
}
