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
	return [][]Route{
		a.discoveryRoutes(), a.accountRoutes(), a.userRoutes(), a.pushRoutes(), a.keyRoutes(), a.mediaRoutes(),
	}
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

func (a *API) userRoutes() []Route {
	const user = v3 + "/user/{userId}"
	return []Route{
		{Method: get, Path: v3 + "/profile/{userId}", Auth: Optional, Handler: a.getProfile},
		{Method: get, Path: v3 + "/profile/{userId}/{keyName}", Auth: Optional, Handler: a.getField},
		{Method: put, Path: v3 + "/profile/{userId}/{keyName}", Limit: Writes, Handler: a.putField},
		{Method: del, Path: v3 + "/profile/{userId}/{keyName}", Limit: Writes, Handler: a.deleteField},
		{Method: post, Path: v3 + "/user_directory/search", Limit: Searches, Handler: a.searchUsers},

		{Method: get, Path: v3 + "/presence/{userId}/status", Handler: a.getPresence},
		{Method: put, Path: v3 + "/presence/{userId}/status", Limit: Writes, Handler: a.putPresence},

		{Method: get, Path: user + "/account_data/{type}", Handler: a.getData},
		{Method: put, Path: user + "/account_data/{type}", Limit: Writes, Handler: a.putData},
		{Method: get, Path: user + "/rooms/{roomId}/account_data/{type}", Handler: a.getData},
		{Method: put, Path: user + "/rooms/{roomId}/account_data/{type}", Limit: Writes, Handler: a.putData},
		{Method: get, Path: user + "/rooms/{roomId}/tags", Handler: a.getTags},
		{Method: put, Path: user + "/rooms/{roomId}/tags/{tag}", Limit: Writes, Handler: a.putTag},
		{Method: del, Path: user + "/rooms/{roomId}/tags/{tag}", Limit: Writes, Handler: a.deleteTag},

		{Method: post, Path: user + "/filter", Limit: Writes, MaxBody: maxFilter, Handler: a.putFilter},
		{Method: get, Path: user + "/filter/{filterId}", Handler: a.getFilter},

		{Method: post, Path: user + "/openid/request_token", Limit: Writes, Handler: a.openid},
		{Method: get, Path: v3 + "/voip/turnServer", Handler: empty},
		{Method: get, Path: v3 + "/thirdparty/protocols", Handler: empty},
	}
}

func (a *API) pushRoutes() []Route {
	const rule = v3 + "/pushrules/global/{kind}/{ruleId}"
	return []Route{
		{Method: get, Path: v3 + "/pushrules", Handler: a.getRules},
		{Method: get, Path: v3 + "/pushrules/global", Handler: a.getGlobalRules},
		{Method: get, Path: rule, Handler: a.getRule(func(r *Rule) any { return r })},
		{Method: put, Path: rule, Limit: Writes, Handler: a.putRule},
		{Method: del, Path: rule, Limit: Writes, Handler: a.deleteRule},
		{Method: get, Path: rule + "/enabled", Handler: a.getRule(func(r *Rule) any { return map[string]bool{"enabled": r.Enabled} })},
		{Method: put, Path: rule + "/enabled", Limit: Writes, Handler: a.enableRule},
		{Method: get, Path: rule + "/actions", Handler: a.getRule(func(r *Rule) any { return map[string]any{"actions": r.Actions} })},
		{Method: put, Path: rule + "/actions", Limit: Writes, Handler: a.setActions},
		{Method: get, Path: v3 + "/pushers", Handler: a.pushers},
		{Method: post, Path: v3 + "/pushers/set", Limit: Writes, Handler: a.setPusher},
	}
}

func (a *API) keyRoutes() []Route {
	const keys = v3 + "/room_keys/keys"
	all := []Route{
		{Method: put, Path: v3 + "/sendToDevice/{eventType}/{txnId}", Limit: Writes, MaxBody: messagesBytes, Handler: a.sendToDevice},

		{Method: post, Path: v3 + "/keys/upload", Limit: Writes, Handler: a.uploadKeys},
		{Method: post, Path: v3 + "/keys/query", Handler: a.queryKeys},
		{Method: post, Path: v3 + "/keys/claim", Limit: Writes, Handler: a.claimKeys},
		{Method: get, Path: v3 + "/keys/changes", Handler: a.keyChanges},
		{Method: post, Path: v3 + "/keys/device_signing/upload", Limit: Writes, Handler: a.uploadCrossKeys},
		{Method: post, Path: v3 + "/keys/signatures/upload", Limit: Writes, Handler: a.uploadSignatures},

		{Method: get, Path: v3 + "/room_keys/version", Handler: a.getBackup},
		{Method: post, Path: v3 + "/room_keys/version", Limit: Writes, Handler: a.newBackup},
		{Method: get, Path: v3 + "/room_keys/version/{version}", Handler: a.getBackup},
		{Method: put, Path: v3 + "/room_keys/version/{version}", Limit: Writes, Handler: a.changeBackup},
		{Method: del, Path: v3 + "/room_keys/version/{version}", Limit: Writes, Handler: a.deleteBackup},
	}
	for _, path := range []string{keys, keys + "/{roomId}", keys + "/{roomId}/{sessionId}"} {
		all = append(all,
			Route{Method: get, Path: path, Handler: a.getBackupKeys},
			Route{Method: put, Path: path, Limit: Writes, MaxBody: maxBackupBody, Handler: a.putBackupKeys},
			Route{Method: del, Path: path, Limit: Writes, Handler: a.deleteBackupKeys},
		)
	}
	return all
}

func (a *API) mediaRoutes() []Route {
	const file = "/{serverName}/{mediaId}"
	all := []Route{
		{Method: post, Path: "/_matrix/media/v3/upload", Limit: Uploads, Handler: a.upload},
		{Method: put, Path: "/_matrix/media/v3/upload" + file, Limit: Uploads, Handler: a.uploadTo},
		{Method: post, Path: "/_matrix/media/v1/create", Limit: Uploads, Handler: a.createMedia},
		{Method: get, Path: v1 + "/media/config", Handler: a.mediaConfig},
		{Method: get, Path: "/_matrix/media/v3/config", Handler: a.mediaConfig},
		{Method: get, Path: v1 + "/media/download" + file, Handler: a.download},
		{Method: get, Path: v1 + "/media/download" + file + "/{fileName}", Handler: a.download},
		{Method: get, Path: v1 + "/media/thumbnail" + file, Handler: a.thumbnail},

		{Method: get, Path: "/_parley/media/{secret}", Auth: None, Handler: a.publicMedia},
		{Method: get, Path: "/_parley/media/{secret}/{name}", Auth: None, Handler: a.publicMedia},
	}
	for _, path := range []string{"/download" + file, "/download" + file + "/{fileName}", "/thumbnail" + file} {
		all = append(all, Route{Method: get, Path: "/_matrix/media/v3" + path, Auth: None, Handler: frozen})
	}
	return all
}
