package client

import "net/http"

const (
	get  = http.MethodGet
	post = http.MethodPost
	put  = http.MethodPut
	del  = http.MethodDelete

	v1 = "/_matrix/client/v1"
	v3 = "/_matrix/client/v3"
)

// routes are the tables of this package.
func (a *API) routes() [][]Route {
	return [][]Route{a.discoveryRoutes(), a.accountRoutes()}
}

func (a *API) discoveryRoutes() []Route {
	return []Route{
		{Method: get, Path: "/.well-known/matrix/client", Auth: None, Handler: a.discover},
		{Method: get, Path: "/.well-known/matrix/support", Auth: None, Handler: a.support},
		{Method: get, Path: "/_matrix/client/versions", Auth: None, Handler: a.versions},
		{Method: get, Path: v3 + "/capabilities", Handler: a.capabilities},
	}
}

func (a *API) accountRoutes() []Route {
	return []Route{
		{Method: get, Path: v3 + "/login", Auth: None, Handler: loginFlows},
		{Method: post, Path: v3 + "/login", Auth: None, Limit: Logins, Handler: a.login},
		{Method: post, Path: v3 + "/refresh", Auth: None, Limit: Logins, Handler: a.refresh},
		{Method: post, Path: v3 + "/logout", Auth: EvenLocked, Limit: Writes, Handler: a.logout},
		{Method: post, Path: v3 + "/logout/all", Auth: EvenLocked, Limit: Writes, Handler: a.logoutAll},
		{Method: get, Path: v3 + "/account/whoami", Handler: whoami},

		{Method: post, Path: v3 + "/register", Auth: None, Limit: Writes, Handler: a.register},
		{Method: get, Path: v3 + "/register/available", Auth: None, Limit: Searches, Handler: a.available},
		{Method: get, Path: v1 + "/register/m.login.registration_token/validity", Auth: None, Limit: Logins, Handler: a.tokenValidity},
		{Method: post, Path: v3 + "/account/password", Limit: Writes, Handler: withPassword(a.changePassword)},
		{Method: post, Path: v3 + "/account/deactivate", Limit: Writes, Handler: withPassword(a.deactivate)},
		{Method: get, Path: v3 + "/account/3pid", Handler: noThirdParties},

		{Method: get, Path: v3 + "/devices", Handler: a.devices},
		{Method: get, Path: v3 + "/devices/{deviceId}", Handler: a.device},
		{Method: put, Path: v3 + "/devices/{deviceId}", Limit: Writes, Handler: a.renameDevice},
		{Method: del, Path: v3 + "/devices/{deviceId}", Limit: Writes, Handler: withPassword(a.deleteDevice)},
		{Method: post, Path: v3 + "/delete_devices", Limit: Writes, Handler: withPassword(a.bulkDelete)},
	}
}

// noThirdParties is the list of the account's mail addresses and telephone
// numbers elsewhere: no such are kept here.
//
// spec: MX 1.19 CS §4.12
func noThirdParties(*Request) (any, error) {
	return map[string]any{"threepids": []any{}}, nil
}
