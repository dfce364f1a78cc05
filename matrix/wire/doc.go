// Package wire is the form that Matrix gives to events between servers: PDUs
// of each room version, canonical JSON, content and reference hashes,
// redaction, Ed25519 signatures, and the grammars of identifiers.
//
// It knows nothing of the core, of storage or of HTTP. It runs in the writer's
// turn for each event, so a PDU is written field by field in its canonical
// order and never sorted: about one signature's worth of time.
//
// gomatrixserverlib is used by the tests as a second opinion and not here: its
// builder encodes an event eight times over, its canonical JSON writes object
// keys unescaped, and its redaction passes integers through floats.
package wire
