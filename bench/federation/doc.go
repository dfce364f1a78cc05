// Package federation measures Parley beside Dendrite as one Matrix server among
// others: events that other servers send it, events that its own people send to
// them, and entering a large room. The other servers are all played by one [Peer],
// which answers under many names, holds its rooms in memory and does as little as a
// server can, so that one core of it keeps one core of a server busy.
//
// Servers run in the lab of parley/interop/lab, one after the other, under the same
// load. The package's test runs all of it in a tiny size against Parley, so that it
// does not rot.
package federation
