package sync

import (
	"context"
	"encoding/json"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/mirror"
	"parley/matrix/rooms"
	"parley/matrix/translate"
)

// builder makes one answer from one snapshot.
type builder struct {
	s     *Syncer
	q     *request
	v     hub.View
	now   rooms.Mark
	names translate.Names
	a     *answer

	places  []hub.Place
	blocked map[core.Address]bool
	// changed are the conversations that have events after the token, all
	// where that is not known.
	changed    map[core.ConvID]bool
	allChanged bool
	// data is the private data that is newer than the token, reports what
	// became of the account's messages since, by conversation.
	data    map[core.ConvID][]hub.Datum
	reports map[core.ConvID][]hub.Report
	rules   *client.Evaluator // made when asked for

	known members // that the lazily loading device knows
	told  members // of this answer
}

// build makes the answer as of now.
func (s *Syncer) build(ctx context.Context, q *request) (*answer, error) {
	b := &builder{s: s, q: q, a: &answer{Rooms: &roomLists{}}, told: members{}}
	// What is not kept is read first: a change after that has a greater serial
	// and is told the next time, at worst again.
	b.now.Typing = s.hub.TypingSerial()
	if err := b.presence(ctx); err != nil {
		return nil, err
	}
	if err := b.toDevice(ctx); err != nil {
		return nil, err
	}
	key := memoryKey{deviceKey{q.account, q.device}, q.filterText}
	lazy := q.filter.Room.State.LazyMembers && !q.filter.Room.State.RedundantMembers
	if lazy {
		b.known = s.lazy.recall(key, q.token)
	}
	err := s.hub.Read(ctx, func(v hub.View) error {
		b.v, b.names = v, s.mirror.Names(v)
		return b.read()
	})
	if err != nil {
		return nil, err
	}
	b.a.Next = b.now.String()
	if b.a.Rooms.empty() {
		b.a.Rooms = nil
	}
	if lazy {
		s.lazy.note(key, q.token, b.a.Next, b.told)
	}
	return b.a, nil
}

// read gathers everything from the snapshot.
func (b *builder) read() (err error) {
	if b.now.Feed, err = b.v.LastFeed(); err != nil {
		return err
	}
	if b.q.feed() > b.now.Feed {
		return errUnknownPos()
	}
	if b.places, err = b.v.Places(b.q.account); err != nil {
		return err
	}
	for _, f := range []func() error{b.blocks, b.news, b.accountData, b.eachRoom, b.devices} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func errUnknownPos() error {
	return client.Errorf(400, "M_UNKNOWN_POS", "That token is of a future that this server does not know; start again without one.")
}

// blocks reads whom the account does not want to hear.
func (b *builder) blocks() error {
	list, err := b.v.Blocks(b.q.account)
	b.blocked = make(map[core.Address]bool, len(list))
	for _, a := range list {
		b.blocked[a] = true
	}
	return err
}

func (b *builder) blocks1(a core.Address) bool {
	return a != b.q.account && (b.blocked[a] || b.blocked[a.Server()])
}

// maxChanges is how many events are looked at to learn which rooms changed.
const maxChanges = 500

// news finds out what changed since the token.
func (b *builder) news() error {
	data, err := b.v.Data(b.q.account, b.q.feed())
	if err != nil {
		return err
	}
	b.data = map[core.ConvID][]hub.Datum{}
	for _, d := range data {
		b.data[d.Conv] = append(b.data[d.Conv], d)
	}
	if b.allChanged = b.q.initial() || b.q.full; b.allChanged {
		return nil
	}
	events, err := b.v.Page(hub.Query{For: b.q.account, AfterFeed: b.q.feed(), ByFeed: true, Limit: maxChanges})
	if err != nil {
		return err
	}
	b.allChanged = len(events) == maxChanges
	b.changed = map[core.ConvID]bool{}
	for _, e := range events {
		b.changed[e.Conv] = true
	}
	return b.failures()
}

// failures reads which of the account's own messages were lost, or carried
// without something, since the token.
func (b *builder) failures() error {
	reports, err := b.v.Reports(b.q.account, b.q.feed())
	if err != nil {
		return err
	}
	b.reports = map[core.ConvID][]hub.Report{}
	for _, r := range reports {
		if r.Stage != core.StageFailed && len(r.Losses) == 0 {
			continue
		}
		e, err := b.v.Event(r.Event)
		if err != nil {
			return err
		}
		b.reports[e.Conv] = append(b.reports[e.Conv], r)
	}
	return nil
}

// accountData is what belongs to no room.
//
// spec: MX 1.19 CS §10.21.3
func (b *builder) accountData() error {
	all, err := b.s.api.AccountData(b.v, b.q.account, "", b.q.feed())
	if err != nil {
		return err
	}
	var out []json.RawMessage
	for _, d := range all {
		if !b.q.filter.AccountData.WantsType(d.Type) {
			continue
		}
		if b.q.initial() && string(d.Content) == "{}" {
			continue // was deleted, or says nothing
		}
		e, err := event(d.Type, d.Content, "")
		if err != nil {
			return err
		}
		out = append(out, e)
	}
	b.a.AccountData = eventsOf(out)
	return nil
}

// eachRoom answers for every place of the account.
func (b *builder) eachRoom() error {
	for _, p := range b.places {
		id, err := b.s.roomID(b.v, p.Conv)
		if err != nil {
			return err
		}
		if id == "" || !b.q.filter.Room.Wants(id) {
			continue
		}
		r := &roomBuild{builder: b, place: p, conv: p.Conv, id: id, out: &roomAnswer{}}
		if err := r.build(); err != nil {
			return err
		}
	}
	return nil
}

// roomID is the Matrix room ID of a conversation, which never changes; "" for
// one that has none.
func (s *Syncer) roomID(v hub.View, conv core.ConvID) (string, error) {
	if id, ok := s.roomIDs.Load(conv); ok {
		return id.(string), nil
	}
	c, err := v.Conversation(conv)
	id := c.Native[core.Matrix]
	if err == nil && id != "" {
		s.roomIDs.Store(conv, id)
	}
	return id, err
}

// toDevice are the messages that wait for the device. They are taken before the
// snapshot is, so that the token of this answer is newer than the taking.
//
// spec: MX 1.19 CS §10.10.3.1
func (b *builder) toDevice(ctx context.Context) error {
	messages, _, err := b.s.api.TakeToDevice(ctx, b.q.account, b.q.device, b.q.feed())
	if err != nil {
		return err
	}
	var out []json.RawMessage
	for _, m := range messages {
		e, err := event(m.Type, m.Content, m.Sender)
		if err != nil {
			return err
		}
		out = append(out, e)
	}
	b.a.ToDevice = eventsOf(out)
	return nil
}

// devices say whose devices are others now, and how many keys are left.
//
// spec: MX 1.19 CS §10.12.7.3
func (b *builder) devices() error {
	var err error
	if b.a.KeyCounts, err = b.s.api.OneTimeKeyCounts(b.v, b.q.account, b.q.device); err != nil {
		return err
	}
	b.a.Fallbacks, err = b.s.api.UnusedFallbackTypes(b.v, b.q.account, b.q.device)
	if err != nil || b.q.initial() {
		return err
	}
	changed, left, err := b.s.api.DeviceChanges(b.v, b.q.account, b.q.feed())
	if len(changed)+len(left) > 0 {
		b.a.DeviceLists = &deviceLists{changed, left}
	}
	return err
}

// presence is who of those that the account may see has changed.
//
// spec: MX 1.19 CS §10.8
func (b *builder) presence(ctx context.Context) error {
	var serial int64
	if b.q.since != nil {
		serial = b.q.since.Presence
	}
	who, now, err := b.s.hub.PresenceSince(ctx, b.q.account, serial)
	if err != nil {
		return err
	}
	b.now.Presence = now
	f := b.q.filter.Presence
	if !f.WantsType("m.presence") {
		return nil
	}
	var out []json.RawMessage
	for _, a := range who {
		all, err := b.s.hub.PresenceOf(ctx, b.q.account, a)
		if err != nil {
			return err
		}
		if b.q.initial() && len(all) == 0 {
			continue
		}
		userID := b.s.api.UserID(a)
		if !f.Wants("m.presence", userID, nil) {
			continue
		}
		e, err := event("m.presence", client.PresenceOf(all, time.Now()), userID)
		if err != nil {
			return err
		}
		out = append(out, e)
	}
	b.a.Presence = eventsOf(out)
	return nil
}

// show writes mirrored events for the device.
func (b *builder) show(events []mirror.Event) ([]json.RawMessage, error) {
	if len(events) == 0 {
		return []json.RawMessage{}, nil
	}
	if b.q.filter.Format == "federation" {
		out := make([]json.RawMessage, len(events))
		for i, e := range events {
			out[i] = e.JSON
		}
		return out, nil
	}
	return b.s.mirror.Client(b.v, mirror.Viewer{User: b.q.account, Device: b.q.device}, events)
}
