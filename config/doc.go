// Package config is the front door's rule book: it reads parley.toml, checks
// every value in it, and hands the rest of the server a typed [Config].
//
// Reading is strict. A key that Parley does not know, a value of the wrong
// type and a value out of range are all errors that name the file and the
// line; nothing is ignored and nothing is guessed. Durations are written
// "72h", sizes "50MB", networks "10.0.0.0/8".
//
// The package also owns the layout of the server's directory (DIR): where the
// configuration, the keys, the database, the media and the admin socket are.
package config
