package stream

// DialbackKey lets tests forge keys.
var DialbackKey = dialbackKey
