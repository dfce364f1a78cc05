package rooms

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/wire"
)

// historyRoutes read what was said.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) historyRoutes() []client.Route {
	get := func(path string, h client.Handler) client.Route {
		return client.Route{Method: http.MethodGet, Path: path, Handler: h}
	}
	const related = v1 + "/rooms/{roomId}/relations/{eventId}"
	return []client.Route{
		get(v3+"/rooms/{roomId}/messages", s.messages),
		get(v3+"/rooms/{roomId}/context/{eventId}", s.around),
		get(v1+"/rooms/{roomId}/timestamp_to_event", s.atTime),
		get(related, s.relations),
		get(related+"/{relType}", s.relations),
		get(related+"/{relType}/{eventType}", s.relations),
		get(v1+"/rooms/{roomId}/threads", s.threads),
	}
}

const (
	defaultPage = 10
	maxPage     = 1000
	// maxScan is how many events one request looks at to find those that a
	// filter wants.
	maxScan = 4000
)

// Page asks for events of a room's timeline.
type Page struct {
	Conv   core.ConvID
	Viewer mirror.Viewer
	// After and Before are the points between which to look; nil is the end.
	After, Before *Point
	Forward       bool // from the oldest up
	Limit         int
	Filter        *EventFilter
	// Own are events that the viewer may read in any case, such as those of
	// her own membership.
	Own func(e *core.Event) bool
}

// Slice is what was found.
type Slice struct {
	// Events are in the order asked for: newest first, or oldest first.
	Events []mirror.Event
	// End is the point up to which the timeline was looked at, in the
	// direction asked for. More says that there is something beyond it.
	End  Point
	More bool
	// Hidden says that what was looked at holds events that are not shown.
	Hidden bool
}

// Collect pages through a room's timeline for what its reader may see: held to
// the visibility rule, her block list, and her filter. Finding less than Limit
// does not mean that there is no more.
func (s *Rooms) Collect(v hub.View, p Page) (Slice, error) {
	var out Slice
	var err error
	blocked, err := s.blocked(v, p.Viewer.User)
	if err != nil {
		return out, err
	}
	q := hub.Query{Conv: p.Conv, Latest: !p.Forward, Limit: max(p.Limit+1, 32)}
	if q.After, err = hub.Beginning(v, p.Conv); err != nil {
		return out, err
	}
	if p.After != nil && (q.After == 0 || p.After.after() > q.After) {
		q = p.After.Within(q)
	}
	if p.Before != nil {
		q = p.Before.Until(q)
	}
	scanned := 0
	for {
		events, err := v.Page(q)
		if err != nil {
			return out, err
		}
		if !p.Forward {
			slices.Reverse(events)
		}
		shown, err := s.permitted(v, p, events, blocked)
		if err != nil {
			return out, err
		}
		for i := range events {
			if len(out.Events) == p.Limit {
				out.More = true
				return out, nil
			}
			out.End = Point(events[i].Position)
			if !p.Forward {
				out.End = PointBefore(&events[i])
			}
			e, ok := shown[events[i].ID]
			if ok {
				out.Events = append(out.Events, e)
			}
			out.Hidden = out.Hidden || !ok
		}
		if len(events) < q.Limit {
			return out, nil
		}
		if scanned += len(events); scanned >= maxScan {
			out.More = true
			return out, nil
		}
		if p.Forward {
			q = out.End.Within(q)
		} else {
			q = out.End.Until(q)
		}
	}
}

// permitted picks the events that a reader may see and wants.
func (s *Rooms) permitted(v hub.View, p Page, events []core.Event, blocked func(core.Address) bool) (map[core.EventID]mirror.Event, error) {
	var ids []core.EventID
	for i := range events {
		e := &events[i]
		if _, state := core.StateKeyOf(e.Content); !state && blocked(e.Sender) || hub.Found(e) {
			continue
		}
		ok, err := s.hub.MayRead(v, p.Viewer.User, e)
		if err != nil {
			return nil, err
		}
		if ok || p.Own != nil && p.Own(e) {
			ids = append(ids, e.ID)
		}
	}
	mirrored, err := s.mirror.ByCore(v, ids...)
	if err != nil {
		return nil, err
	}
	out := make(map[core.EventID]mirror.Event, len(mirrored))
	for _, e := range mirrored {
		if p.Filter == nil || p.Filter.Wants(e.Type, e.Sender, e.Content) {
			out[e.ID] = e
		}
	}
	return out, nil
}

// blocked tells whom an account does not want to hear.
//
// spec: MX 1.19 CS §10.26.3
func (s *Rooms) blocked(v hub.View, account core.Address) (func(core.Address) bool, error) {
	list, err := v.Blocks(account)
	if err != nil {
		return nil, err
	}
	set := make(map[core.Address]bool, len(list))
	for _, a := range list {
		set[a] = true
	}
	return func(a core.Address) bool { return a != account && (set[a] || set[a.Server()]) }, nil
}

// messages pages through a room's timeline.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) messages(r *client.Request) (any, error) {
	filter, err := ParseEventFilter(r.Query("filter"))
	if err != nil {
		return nil, err
	}
	limit, err := r.QueryInt("limit", defaultPage, 1, maxPage)
	if err != nil {
		return nil, err
	}
	forward, err := direction(r, false)
	if err != nil {
		return nil, err
	}
	if !forward {
		if err := s.deepen(r, limit); err != nil {
			return nil, err
		}
	}
	var answer object
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		rm, end, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		p := Page{Conv: rm.conv.ID, Viewer: viewer(r), Forward: forward, Limit: limit, Filter: &filter}
		start, err := s.bounds(v, r, rm, end, &p)
		if err != nil {
			return err
		}
		found := Slice{}
		if filter.WantsRoom(rm.id) {
			if found, err = s.Collect(v, p); err != nil {
				return err
			}
		}
		answer, err = s.chunk(v, r, found, &filter)
		answer["start"] = start.String()
		return err
	})
	return answer, err
}

// deepen asks other servers for more of a room's history, if the page reaches
// below what is known of it.
func (s *Rooms) deepen(r *client.Request, limit int) error {
	var conv core.ConvID
	var before core.Position
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, _, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil || rm.conv.Authority == core.Here || !rm.joined() {
			return err
		}
		conv = rm.conv.ID
		if from := r.Query("from"); from != "" {
			at, err := ParsePoint(v, conv, from)
			before = at.before()
			return err
		}
		return nil
	})
	if err != nil || conv == "" {
		return err
	}
	return s.hub.Older(r.Context(), conv, before, limit)
}

// digTo asks other servers in a room for what was said at a moment, if that may
// be before what is known of it.
func (s *Rooms) digTo(r *client.Request, at time.Time, forward bool) error {
	var conv core.ConvID
	err := s.hub.Read(r.Context(), func(v hub.View) error {
		rm, _, err := readable(v, r.Var("roomId"), r.Account)
		if err == nil && rm.conv.Authority == core.Graph && rm.joined() {
			conv = rm.conv.ID
		}
		return err
	})
	if err != nil || conv == "" {
		return err
	}
	return s.hub.Reach(r.Context(), conv, at, forward)
}

// direction reads dir, whose default is backwards.
func direction(r *client.Request, required bool) (forward bool, err error) {
	switch r.Query("dir") {
	case "f":
		return true, nil
	case "b":
		return false, nil
	case "":
		if !required {
			return false, nil
		}
	}
	return false, badParam("The parameter dir must be b or f.")
}

// bounds reads from and to, and says where the page starts.
func (s *Rooms) bounds(v hub.View, r *client.Request, rm *room, end last, p *Page) (Point, error) {
	newest, err := newestPoint(v, rm, end)
	if err != nil {
		return 0, err
	}
	points := map[string]*Point{"from": nil, "to": nil}
	for name := range points {
		if token := r.Query(name); token != "" {
			at, err := ParsePoint(v, rm.conv.ID, token)
			if err != nil {
				return 0, err
			}
			points[name] = &at
		}
	}
	from, to := points["from"], points["to"]
	if p.Forward {
		p.After, p.Before = from, &newest
		if to != nil && *to < newest {
			p.Before = to
		}
		if from == nil {
			return lowest, nil
		}
		return *from, nil
	}
	p.Before, p.After = &newest, to
	if from != nil && *from < newest {
		p.Before = from
	}
	if from == nil {
		return newest, nil
	}
	return *from, nil
}

// newestPoint is the end of what one may know of the timeline.
func newestPoint(v hub.View, rm *room, end last) (Point, error) {
	if end != nil {
		return Point(*end), nil
	}
	at, _, err := v.Edge(rm.conv.ID)
	return Point(at), err
}

// chunk writes a slice as /messages and its like answer it.
func (s *Rooms) chunk(v hub.View, r *client.Request, found Slice, filter *EventFilter) (object, error) {
	shown, err := s.show(v, r, found.Events)
	if err != nil {
		return object{}, err
	}
	answer := object{"chunk": shown}
	if found.More {
		answer["end"] = found.End.String()
	}
	if !filter.LazyMembers || len(found.Events) == 0 {
		return answer, nil
	}
	members, err := s.Senders(v, found.Events)
	if err != nil {
		return answer, err
	}
	answer["state"], err = s.show(v, r, members)
	return answer, err
}

// Senders are the membership events of those who sent events, as they were at
// the newest of the events.
//
// spec: MX 1.19 CS §6.1
func (s *Rooms) Senders(v hub.View, events []mirror.Event) ([]mirror.Event, error) {
	newest := events[0]
	for _, e := range events {
		if e.Position > newest.Position {
			newest = e
		}
	}
	var out []mirror.Event
	seen := map[string]bool{}
	for _, e := range events {
		if seen[e.Sender] {
			continue
		}
		seen[e.Sender] = true
		m, err := s.mirror.StateEventAt(v, newest.Conv, wire.TypeMember, e.Sender, newest.Position)
		if errors.Is(err, hub.ErrNone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// around is an event with what was said before and after it.
//
// spec: MX 1.19 CS §10.23
func (s *Rooms) around(r *client.Request) (any, error) {
	filter, err := ParseEventFilter(r.Query("filter"))
	if err != nil {
		return nil, err
	}
	limit, err := r.QueryInt("limit", defaultPage, 0, maxPage)
	if err != nil {
		return nil, err
	}
	var answer object
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		e, rm, err := s.visible(v, r, r.Var("eventId"))
		if err != nil {
			return err
		}
		at := Point(e.Position)
		below := PointBefore(&e)
		before, err := s.Collect(v, Page{
			Conv: rm.conv.ID, Viewer: viewer(r), Before: &below, Limit: (limit + 1) / 2, Filter: &filter,
		})
		if err != nil {
			return err
		}
		after, err := s.Collect(v, Page{
			Conv: rm.conv.ID, Viewer: viewer(r), After: &at, Forward: true, Limit: limit / 2, Filter: &filter,
		})
		if err != nil {
			return err
		}
		answer, err = s.context(v, r, &e, before, after, &filter)
		return err
	})
	return answer, err
}

// context writes the answer of /context.
func (s *Rooms) context(v hub.View, r *client.Request, e *core.Event, before, after Slice, filter *EventFilter) (object, error) {
	self, err := s.mirror.ByCore(v, e.ID)
	if err != nil {
		return nil, err
	}
	if len(self) == 0 {
		return nil, notFoundEvent(hub.ErrNone)
	}
	start, end := PointBefore(e), Point(e.Position)
	if len(before.Events) > 0 {
		start = before.End
	}
	if len(after.Events) > 0 {
		end = after.End
	}
	all := slices.Concat(before.Events, self, after.Events)
	state, err := s.mirror.StateAt(v, e.Conv, core.Position(end))
	if err != nil {
		return nil, err
	}
	senders := map[string]bool{}
	for _, e := range all {
		senders[e.Sender] = true
	}
	state = slices.DeleteFunc(state, func(e mirror.Event) bool {
		return !filter.Wants(e.Type, e.Sender, e.Content) || filter.LazyMembers && e.Type == typeMember && !senders[*e.StateKey]
	})
	answer := object{"start": start.String(), "end": end.String()}
	for name, list := range map[string][]mirror.Event{
		"events_before": before.Events, "events_after": after.Events, "state": state, "event": self,
	} {
		shown, err := s.show(v, r, list)
		if err != nil {
			return nil, err
		}
		if answer[name] = shown; name == "event" {
			answer[name] = shown[0]
		}
	}
	return answer, nil
}

// atTime finds the event nearest to a time, before or after it.
//
// spec: MX 1.19 CS §7.7
func (s *Rooms) atTime(r *client.Request) (any, error) {
	ts, err := r.QueryTime("ts")
	if err != nil {
		return nil, err
	}
	forward, err := direction(r, true)
	if err != nil {
		return nil, err
	}
	if err := s.digTo(r, ts, forward); err != nil {
		return nil, err
	}
	var answer object
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		rm, _, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		found, err := s.mirror.AtTime(v, rm.conv.ID, ts.UnixMilli(), forward, func(e *core.Event) (bool, error) {
			return s.hub.MayRead(v, r.Account, e)
		})
		if errors.Is(err, hub.ErrNone) {
			return notFound("There is no event in that direction.")
		}
		if err != nil {
			return err
		}
		answer = object{"event_id": found.EventID, "origin_server_ts": found.Time}
		return nil
	})
	return answer, err
}
