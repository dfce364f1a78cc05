package hubstore

import (
	"encoding/json"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
)

func scanParcel(s store.Scanner) (p hub.Parcel, err error) {
	var data []byte
	var id, attempts, next int64
	if err = s.Scan(&id, &data, &attempts, &next); err != nil {
		return p, err
	}
	if err = json.Unmarshal(data, &p); err != nil {
		return p, err
	}
	p.ID, p.Attempts, p.Next = id, int(attempts), moment(next)
	return p, nil
}

func (v *view) Parcels(d hub.Destination, limit int) ([]hub.Parcel, error) {
	return store.List(v.q, scanParcel, `SELECT id, parcel, attempts, next FROM outbox
		WHERE network = $1 AND dest = $2 ORDER BY id LIMIT $3`, string(d.Network), d.Dest, limit)
}

func (v *view) Destinations() ([]hub.Destination, error) {
	return store.List(v.q, func(s store.Scanner) (d hub.Destination, err error) {
		var network string
		err = s.Scan(&network, &d.Dest)
		d.Network = core.Network(network)
		return d, err
	}, `SELECT DISTINCT network, dest FROM outbox ORDER BY network, dest`)
}

// PutParcel takes the next feed number as the ID, so that IDs are in order.
func (t *tx) PutParcel(p hub.Parcel) error {
	p.ID = int64(t.NextFeed())
	return t.exec(`INSERT INTO outbox (id, network, dest, parcel, attempts, next) VALUES ($1, $2, $3, $4, $5, $6)`,
		p.ID, string(p.Network), p.Dest, putJSON(p), p.Attempts, millis(p.Next))
}

func (t *tx) DeleteParcel(id int64) error {
	return t.exec(`DELETE FROM outbox WHERE id = $1`, id)
}

func (t *tx) PostponeParcel(id int64, attempts int, next time.Time) error {
	return t.exec(`UPDATE outbox SET attempts = $1, next = $2 WHERE id = $3`, attempts, millis(next), id)
}
