package rooms

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"parley/matrix/client"
)

// Filter is what a client wants of /sync.
//
// spec: MX 1.19 CS §6
type Filter struct {
	Fields      []string    `json:"event_fields"`
	Format      string      `json:"event_format"`
	Presence    EventFilter `json:"presence"`
	AccountData EventFilter `json:"account_data"`
	Room        RoomFilter  `json:"room"`
}

// RoomFilter is the part of a [Filter] about rooms.
type RoomFilter struct {
	Rooms        *[]string   `json:"rooms"`
	NotRooms     []string    `json:"not_rooms"`
	IncludeLeave bool        `json:"include_leave"`
	Ephemeral    EventFilter `json:"ephemeral"`
	State        EventFilter `json:"state"`
	Timeline     EventFilter `json:"timeline"`
	AccountData  EventFilter `json:"account_data"`
}

// Wants reports whether a room is to be told of.
func (f *RoomFilter) Wants(roomID string) bool {
	return !slices.Contains(f.NotRooms, roomID) && (f.Rooms == nil || slices.Contains(*f.Rooms, roomID))
}

// EventFilter picks events. The fields that only make sense for events in
// rooms count for nothing elsewhere. A list that is there and empty picks
// nothing; one that is missing picks all.
type EventFilter struct {
	Limit      int       `json:"limit"`
	Types      *[]string `json:"types"`
	NotTypes   []string  `json:"not_types"`
	Senders    *[]string `json:"senders"`
	NotSenders []string  `json:"not_senders"`

	Rooms            *[]string `json:"rooms"`
	NotRooms         []string  `json:"not_rooms"`
	ContainsURL      *bool     `json:"contains_url"`
	LazyMembers      bool      `json:"lazy_load_members"`
	RedundantMembers bool      `json:"include_redundant_members"`
	ThreadCounts     bool      `json:"unread_thread_notifications"`
}

// maxFilterList bounds each list of a filter.
const maxFilterList = 1000

// ParseFilter reads a filter, as the client stored it or as it is in the query.
func ParseFilter(raw []byte) (Filter, error) {
	var f Filter
	if err := client.DecodeJSON(raw, &f); err != nil {
		return f, err
	}
	for _, e := range []*EventFilter{
		&f.Presence, &f.AccountData, &f.Room.Ephemeral, &f.Room.State, &f.Room.Timeline, &f.Room.AccountData,
	} {
		if err := e.check(); err != nil {
			return f, err
		}
	}
	return f, nil
}

// CheckFilter refuses what [ParseFilter] cannot read.
func CheckFilter(raw []byte) error {
	_, err := ParseFilter(raw)
	return err
}

// ParseEventFilter reads the filter of /messages and /context.
func ParseEventFilter(raw string) (EventFilter, error) {
	var f EventFilter
	if raw == "" {
		return f, nil
	}
	if !json.Valid([]byte(raw)) || len(raw) > 64<<10 {
		return f, client.Errorf(http.StatusBadRequest, client.NotJSON, "The filter is not valid JSON.")
	}
	if err := client.DecodeJSON([]byte(raw), &f); err != nil {
		return f, err
	}
	return f, f.check()
}

func (f *EventFilter) check() error {
	for _, l := range [][]string{f.NotTypes, f.NotSenders, f.NotRooms, deref(f.Types), deref(f.Senders), deref(f.Rooms)} {
		if len(l) > maxFilterList {
			return client.Errorf(http.StatusBadRequest, client.InvalidParam, "A list in the filter has more than %d entries.", maxFilterList)
		}
	}
	if f.Limit < 0 {
		return client.Errorf(http.StatusBadRequest, client.InvalidParam, "The limit of a filter must be greater than 0.")
	}
	return nil
}

func deref(l *[]string) []string {
	if l == nil {
		return nil
	}
	return *l
}

// All reports whether the filter lets every event of a room through.
func (f *EventFilter) All() bool {
	return f.Types == nil && len(f.NotTypes) == 0 && f.Senders == nil && len(f.NotSenders) == 0 && f.ContainsURL == nil
}

// WantsRoom is [RoomFilter.Wants] for the filter's own lists.
func (f *EventFilter) WantsRoom(roomID string) bool {
	return !slices.Contains(f.NotRooms, roomID) && (f.Rooms == nil || slices.Contains(*f.Rooms, roomID))
}

// WantsType holds a type to the filter's lists, in which * is any characters.
func (f *EventFilter) WantsType(typ string) bool {
	match := func(pattern string) bool { return glob(pattern, typ) }
	return !slices.ContainsFunc(f.NotTypes, match) && (f.Types == nil || slices.ContainsFunc(*f.Types, match))
}

// Wants holds an event to the filter. content is asked for a url only.
func (f *EventFilter) Wants(typ, sender string, content []byte) bool {
	if !f.WantsType(typ) || slices.Contains(f.NotSenders, sender) {
		return false
	}
	if f.Senders != nil && !slices.Contains(*f.Senders, sender) {
		return false
	}
	if f.ContainsURL != nil {
		var c struct {
			URL json.RawMessage `json:"url"`
		}
		has := json.Unmarshal(content, &c) == nil && len(c.URL) > 0 && c.URL[0] == '"'
		return has == *f.ContainsURL
	}
	return true
}

// glob matches * as any characters, also none, in time linear in both but for
// the number of stars.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, last)
}
