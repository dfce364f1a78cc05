// Package netguard is the door through which the server goes out: every
// connection that a client or another server can make it open is dialled here.
//
// A name or URL given by others may point to the operator's own network. The
// guard therefore looks at the address that is really connected to, after name
// resolution and for each redirect anew, and refuses private, loopback,
// link-local and all other special addresses, except in networks that the
// operator allowed. It also carries the operator's resolver and static routes,
// and bounds what is read.
package netguard
