package rooms

import (
	"cmp"
	"slices"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
)

const (
	// maxRecursion is how many relations deep recurse goes.
	//
	// spec: MX 1.19 CS §7.10.3
	maxRecursion = 3
	// maxRelated is how many relations of one event are looked at.
	maxRelated = 2000
)

// relations are the events that relate to one, newest first unless asked for
// otherwise.
//
// spec: MX 1.19 CS §7.10.3
func (s *Rooms) relations(r *client.Request) (any, error) {
	limit, err := r.QueryInt("limit", 50, 1, maxPage)
	if err != nil {
		return nil, err
	}
	forward, err := direction(r, false)
	if err != nil {
		return nil, err
	}
	recurse, err := r.QueryBool("recurse", false)
	if err != nil {
		return nil, err
	}
	answer := object{}
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		_, rm, err := s.visible(v, r, r.Var("eventId"))
		if err != nil {
			return err
		}
		p := Page{Conv: rm.conv.ID, Viewer: viewer(r), Forward: forward, Limit: limit}
		if err := relationBounds(v, r, &p); err != nil {
			return err
		}
		q := mirror.RelationQuery{
			Target: r.Var("eventId"), RelType: r.Var("relType"), EventType: r.Var("eventType"),
			Limit: maxRelated, Forward: forward,
		}
		events, depth, err := s.related(v, q, recurse)
		if err != nil {
			return err
		}
		if recurse {
			answer["recursion_depth"] = depth
		}
		return s.relationPage(v, r, p, events, answer)
	})
	return answer, err
}

func relationBounds(v hub.View, r *client.Request, p *Page) error {
	from, to := &p.Before, &p.After
	if p.Forward {
		from, to = to, from
	}
	for name, bound := range map[string]**Point{"from": from, "to": to} {
		if token := r.Query(name); token != "" {
			at, err := ParsePoint(v, p.Conv, token)
			if err != nil {
				return err
			}
			*bound = &at
		}
	}
	return nil
}

// related gathers what relates to an event and, where asked, what relates to
// that in turn. Only events that match relate on.
func (s *Rooms) related(v hub.View, q mirror.RelationQuery, recurse bool) (out []mirror.Event, depth int, err error) {
	deepest := 1
	if recurse {
		deepest = maxRecursion
	}
	seen := map[string]bool{q.Target: true}
	level := []string{q.Target}
	for depth = 0; depth < deepest && len(level) > 0; depth++ {
		var next []string
		for _, target := range level {
			q.Target = target
			events, err := s.mirror.Relations(v, q)
			if err != nil {
				return nil, 0, err
			}
			for _, e := range events {
				if !seen[e.EventID] && len(out) < maxRelated {
					seen[e.EventID] = true
					out, next = append(out, e), append(next, e.EventID)
				}
			}
		}
		level = next
	}
	slices.SortFunc(out, func(a, b mirror.Event) int {
		if q.Forward {
			return cmp.Compare(a.Position, b.Position)
		}
		return cmp.Compare(b.Position, a.Position)
	})
	return out, depth, nil
}

// relationPage answers with the part of the events that lies in the page.
func (s *Rooms) relationPage(v hub.View, r *client.Request, p Page, events []mirror.Event, answer object) error {
	blocked, err := s.blocked(v, r.Account)
	if err != nil {
		return err
	}
	var page []mirror.Event
	for _, e := range events {
		at := Point(e.Position)
		if p.After != nil && at <= *p.After || p.Before != nil && at > *p.Before {
			continue
		}
		if len(page) == p.Limit {
			end := Point(page[len(page)-1].Position)
			if !p.Forward {
				end--
			}
			answer["next_batch"] = end.String()
			break
		}
		told, err := v.Event(e.ID)
		if err != nil {
			return err
		}
		ok, err := s.hub.MayRead(v, r.Account, &told)
		if err != nil {
			return err
		}
		if ok && !blocked(told.Sender) {
			page = append(page, e)
		}
	}
	if from := r.Query("from"); from != "" {
		answer["prev_batch"] = from
	}
	answer["chunk"], err = s.show(v, r, page)
	return err
}

// threads are the roots of a room's threads, the one with the newest message
// first.
//
// spec: MX 1.19 CS §10.43.4
func (s *Rooms) threads(r *client.Request) (any, error) {
	limit, err := r.QueryInt("limit", 20, 1, 100)
	if err != nil {
		return nil, err
	}
	mine := r.Query("include") == "participated"
	answer := object{}
	err = s.hub.Read(r.Context(), func(v hub.View) error {
		rm, end, err := readable(v, r.Var("roomId"), r.Account)
		if err != nil {
			return err
		}
		start, err := newestPoint(v, rm, end)
		if err != nil {
			return err
		}
		if token := r.Query("from"); token != "" {
			if start, err = ParsePoint(v, rm.conv.ID, token); err != nil {
				return err
			}
		}
		roots, end2, more, err := s.threadRoots(v, rm, start, limit, mine)
		if err != nil {
			return err
		}
		if more {
			answer["next_batch"] = end2.String()
		}
		events, err := s.mirror.ByCore(v, roots...)
		if err != nil {
			return err
		}
		answer["chunk"], err = s.show(v, r, events)
		return err
	})
	return answer, err
}

// threadRoots reads the timeline from a point down. A root counts where the
// newest message of its thread is met, which is the first one met; those of
// earlier pages have newer messages above the point.
func (s *Rooms) threadRoots(v hub.View, rm *room, start Point, limit int, mine bool) (roots []core.EventID, end Point, more bool, err error) {
	blocked, err := s.blocked(v, rm.who)
	if err != nil {
		return nil, 0, false, err
	}
	seen := map[core.EventID]bool{}
	end = start
	for scanned := 0; scanned < maxScan; {
		q := end.Until(hub.Query{Conv: rm.conv.ID, Kinds: []core.Kind{core.KindMessage}, Latest: true, Limit: 200})
		events, err := v.Page(q)
		if err != nil {
			return nil, 0, false, err
		}
		slices.Reverse(events)
		for _, e := range events {
			if len(roots) == limit {
				return roots, end, true, nil
			}
			end = PointBefore(&e)
			m, _ := e.Content.(core.Message)
			root := m.Body.Thread
			if root == "" || e.Retracted != "" || seen[root] || blocked(e.Sender) {
				continue
			}
			seen[root] = true
			ok, err := s.listed(v, rm, root, start, mine)
			if err != nil {
				return nil, 0, false, err
			}
			if ok {
				roots = append(roots, root)
			}
		}
		if scanned += len(events); len(events) < q.Limit {
			return roots, end, false, nil
		}
	}
	return roots, end, true, nil
}

// listed reports whether a thread belongs on a page that starts at a point.
func (s *Rooms) listed(v hub.View, rm *room, root core.EventID, start Point, mine bool) (bool, error) {
	e, err := v.Event(root)
	if err != nil || e.Conv != rm.conv.ID {
		return false, err
	}
	if ok, err := s.hub.MayRead(v, rm.who, &e); err != nil || !ok {
		return false, err
	}
	messages, err := v.Thread(rm.conv.ID, root, 0, maxRelated)
	if err != nil {
		return false, err
	}
	part := e.Sender == rm.who
	for _, m := range messages {
		if Point(m.Position) > start && m.Retracted == "" {
			return false, nil
		}
		part = part || m.Sender == rm.who
	}
	return part || !mine, nil
}
