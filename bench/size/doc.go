// Package size simulates large Matrix rooms without a network: what it costs a
// server to enter one of tens of thousands of members on many servers, and to
// take part in it, with branches that meet. It drives the graph on disk
// (parley/matrix/shared) as the federation does, with events that are built here
// and whose signatures nobody checks, so that what it measures is the server's
// own work: state, rules, resolution, the hub and the disk.
package size
