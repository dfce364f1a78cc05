// Package bench measures Parley, Prosody and ejabberd side by side: the same clients, the
// same load, the same core of the same machine, with archives on. The servers run in the
// lab of parley/interop/lab; the clients are this package's own, which do as little as a
// client can, so that one core of clients keeps one core of server busy.
//
// Every scenario is a method of [Run] that works against any [Site], in any size; the
// package's test runs them all in a tiny size against Parley, so that they do not rot.
package bench
