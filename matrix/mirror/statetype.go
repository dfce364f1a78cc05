package mirror

import (
	"parley/core"
	"parley/hub"
	"parley/store/hubstore"
)

// StateOf is the current state of a room that is of one type: its children for
// one, without the thousands of its members.
func (m *Mirror) StateOf(v hub.View, conv core.ConvID, eventType string) ([]Event, error) {
	return events(hubstore.Querier(v), `SELECT `+columns+` FROM mirror_state s JOIN mirror_pdus p ON p.event_id = s.event_id
		WHERE s.conv = $1 AND s.until = $2 AND s.type = $3 ORDER BY s.pos`, string(conv), int64(always), eventType)
}
