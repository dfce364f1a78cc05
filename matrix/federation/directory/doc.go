// Package directory is the enquiry desk between this server and other Matrix
// servers: who somebody is, where an alias leads, which rooms are listed, and
// what belongs to a space.
//
// It answers others ([Directory.Routes]) from what the packages for clients
// know, and asks them on behalf of clients here: it is the [rooms.Directory] of
// package rooms and the [client.Profiles] of package client. What others answer
// is held to its form and its bounds before anybody here sees it, and kept in
// memory for a short while; of profiles the hub keeps those of people whom
// somebody here knows.
package directory
