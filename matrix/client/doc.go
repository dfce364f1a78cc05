// Package client is the door for Matrix clients: the HTTP plumbing that every
// client-server endpoint shares (routes, authentication, limits, errors, CORS),
// and the endpoints that are about an account and its devices rather than about
// rooms: discovery, login, registration, profiles, account data, filters, push
// rules, keys, to-device messages and media. Rooms and /sync live in packages of
// their own, which contribute their tables of [Route] to the same [API].
//
// What has a meaning outside Matrix (accounts, profiles, private data,
// presence, media) goes through the hub. Devices, access tokens, encryption keys
// and to-device messages mean nothing to other networks: they are rows of this
// package's own tables, written in the hub's turns and numbered by its feed.
//
// An access token is kept as its hash only and is never logged; logs name a
// request by its route and not by its path, because paths hold secrets too.
//
// spec: MX 1.19 CS §1
package client
