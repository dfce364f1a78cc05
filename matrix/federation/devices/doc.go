// Package devices is what this server and other Matrix servers tell each other
// about the devices of their users, for the sake of encryption between them:
// lists of devices, cross-signing keys, one-time keys, and messages from device
// to device. What clients here ask and say comes by [client.Others]; the keys
// and queues of accounts here stay package client's.
//
// # Lists of devices elsewhere
//
// The list of a user elsewhere is kept as long as she shares a room with an
// account here, for then her server tells every change. One such room is noted
// with the list, its anchor. A list is in one of three states:
//
//   - fresh: kept up by updates, each of which names the one before it;
//   - stale: an update was missed, and the list has to be fetched again. Those
//     whom it concerns have been told that it changed;
//   - adrift: the anchor broke, so that updates may be missed without notice.
//     Nobody was told, for nothing is known to have changed.
//
// Where there is no list, no client here was given one since the sharing began,
// and nobody needs to be told of changes. Users with whom no room is shared are
// asked for each time.
//
// # Our own changes
//
// Each change of an account's devices gets the next number of the account's own
// stream and goes to every server that shares a room with it. A server that is
// new in that circle is sent the last change alone: it sees that it missed those
// before, and fetches the list.
package devices
