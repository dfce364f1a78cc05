package rooms

import (
	"net/http"
	"strconv"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

// Mark is a point in everything that a client may hear of: how far it has come
// in the feed, and in what is not kept. As a string it is the next_batch of
// /sync. Serials begin at the time of the server's start, so a mark of an
// earlier life of the server is older than all of this one's.
type Mark struct {
	Feed     core.Feed
	Typing   int64
	Presence int64
}

// The first characters of tokens say what and which version they are.
const (
	markPrefix  = "s1_"
	pointPrefix = "t1_"
)

// String writes the mark as a token.
func (m Mark) String() string {
	b := []byte(markPrefix)
	b = strconv.AppendInt(b, int64(m.Feed), 36)
	b = strconv.AppendInt(append(b, '_'), m.Typing, 36)
	b = strconv.AppendInt(append(b, '_'), m.Presence, 36)
	return string(b)
}

// ParseMark reads what [Mark.String] wrote.
func ParseMark(s string) (Mark, error) {
	rest, ok := strings.CutPrefix(s, markPrefix)
	parts := strings.Split(rest, "_")
	if !ok || len(parts) != 3 {
		return Mark{}, errToken()
	}
	var n [3]int64
	for i, p := range parts {
		v, err := strconv.ParseInt(p, 36, 64)
		if err != nil || v < 0 {
			return Mark{}, errToken()
		}
		n[i] = v
	}
	return Mark{core.Feed(n[0]), n[1], n[2]}, nil
}

// Feed is the point of the feed in a token of /sync.
func Feed(token string) (core.Feed, error) {
	m, err := ParseMark(token)
	return m.Feed, err
}

func errToken() error {
	return client.Errorf(http.StatusBadRequest, client.InvalidParam, "That token is not one of this server's.")
}

// Point is a place in one room's timeline: right after the event at a
// position. As a string it is the prev_batch of /sync and the start and end of
// /messages.
type Point core.Position

// String writes the point as a token.
func (p Point) String() string { return pointPrefix + strconv.FormatInt(int64(p), 36) }

// before and after are the point as bounds of a [hub.Query], in which zero
// would be no bound at all. No event has the position zero.
func (p Point) before() core.Position {
	if p == -1 {
		return 1
	}
	return core.Position(p) + 1
}

func (p Point) after() core.Position {
	if p == 0 {
		return -1
	}
	return core.Position(p)
}

// Within bounds a query to what comes after one point.
func (p Point) Within(q hub.Query) hub.Query {
	q.After = p.after()
	return q
}

// Until bounds a query to what comes up to one point.
func (p Point) Until(q hub.Query) hub.Query {
	q.Before = p.before()
	return q
}

// PointBefore is the point right before an event.
func PointBefore(e *core.Event) Point { return Point(e.Position) - 1 }

// ParsePoint reads a token of either sort as a point in a room.
func ParsePoint(v hub.View, conv core.ConvID, s string) (Point, error) {
	if rest, ok := strings.CutPrefix(s, pointPrefix); ok {
		n, err := strconv.ParseInt(rest, 36, 64)
		if err != nil {
			return 0, errToken()
		}
		return Point(n), nil
	}
	m, err := ParseMark(s)
	if err != nil {
		return 0, err
	}
	return PointAt(v, conv, m.Feed)
}

// lowest is the point before everything.
const lowest Point = -1 << 62

// PointAt is how far a room's timeline had come when this server had learnt
// as much as feed says. History that is learnt later, which has negative feed
// numbers, lies below it; what is not has its places in both orders alike.
func PointAt(v hub.View, conv core.ConvID, feed core.Feed) (Point, error) {
	last, err := v.Page(hub.Query{Conv: conv, BeforeFeed: feed + 1, ByFeed: true, Latest: true, Limit: 1})
	if err != nil || len(last) == 0 || last[0].Feed < 0 {
		return lowest, err
	}
	return Point(last[0].Position), nil
}
