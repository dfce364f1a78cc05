// Package media is the lift of the attic that goes to other Matrix servers:
// they get the files of this server by it ([Routes]), and it gets theirs for the
// clients of every protocol here ([Source]), which package media/fetch asks for
// and keeps.
//
// A file comes in the second part of a message of two parts, or as a link in
// that part. Servers that know no such messages are asked in the old way,
// without a signature.
package media
