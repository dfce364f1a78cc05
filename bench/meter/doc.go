// Package meter is what the benchmarks of whole servers have in common: what a process takes
// from the machine, what machine that is, and where a Go server's time goes.
package meter
