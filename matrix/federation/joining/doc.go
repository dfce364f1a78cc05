// Package joining is the door between Matrix servers: how people here get into
// rooms of other servers and out of them, and how people of other servers get
// into rooms here.
//
// One who asks gets a template of her own membership event, looks whether it is
// that and nothing else, signs it, and hands it back; the room's state comes with
// the answer, and is checked before anything of it is kept. Large rooms are
// entered with a part of their members, and the others are asked for while
// people already talk ([Joining.Start] goes on with that after a restart).
//
// [Joining] is the [hub.Remote] of rooms of other Matrix servers, in which none of
// ours is so far, and [Joining.Routes] are the endpoints for other servers. What
// the room allows is not decided here: that is for parley/matrix/shared, in its
// turn.
package joining
