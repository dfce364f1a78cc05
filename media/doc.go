// Package media is the attic of Parley: it keeps files by the SHA-256 of their
// content, makes thumbnails of them, and serves both safely over HTTP. It
// knows neither who owns a file nor who may see it; that is in rows that
// others keep, and the order between the two is this package's promise:
//
//   - [Files.Put] streams, hashes and syncs a file, gives it its name, syncs
//     the name, and only then calls Upload.Keep, in which the caller commits
//     the row. A crash between leaves a file without a row, never a row
//     without a file.
//   - [Files.Remove] asks once more, under the file's lock, whether a row is
//     left, so that an upload of the same content at that moment keeps it.
//   - [Files.Sweep] finds files without rows, such as a crash leaves.
//
// Everything from outside is hostile: sizes are limited while streaming,
// images are refused by their header before they are decoded, and no name from
// outside ever becomes a path.
package media
