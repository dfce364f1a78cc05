package mirror

import (
	"parley/hub"
	"parley/matrix/wire"
	"parley/store/hubstore"
)

// Countersign keeps an event with the signatures that another server has added
// to it: an invitation of ours is complete when the invited one's server agrees.
//
// spec: MX 1.19 SS §12
func (m *Mirror) Countersign(tx hub.Tx, signed *wire.PDU) error {
	_, err := hubstore.Tx(tx).Exec(`UPDATE mirror_pdus SET json = $2 WHERE event_id = $1 AND redacted_by = ''`, signed.EventID, signed.JSON)
	return err
}
