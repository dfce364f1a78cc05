// Package certs is the server's wallet: the certificates it shows, for each of
// its names, and the authorities it believes when others show theirs.
//
// Certificates are self-signed, come from files that the operator renews, or
// are got from an authority by ACME. Whichever it is, the listeners take one
// [Manager] and never learn the difference; a renewed certificate is used for
// the next handshake without a restart.
package certs
