// Package arch is the building inspector: its test holds every package to the
// directions in which imports may go, as ARCHITECTURE.md draws them.
package arch
