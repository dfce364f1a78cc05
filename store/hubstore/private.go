package hubstore

import (
	"encoding/json"
	"slices"
	"strings"

	"parley/core"
	"parley/hub"
	"parley/store"
)

func (v *view) Contact(account, a core.Address) (core.Contact, error) {
	c, err := fromJSON[core.Contact](v.q.QueryRow(`SELECT contact FROM contacts WHERE account = $1 AND address = $2`,
		account.String(), a.String()))
	return c, noRow(err)
}

func (v *view) Contacts(account core.Address) ([]core.Contact, error) {
	return store.List(v.q, fromJSON[core.Contact], `SELECT contact FROM contacts WHERE account = $1 ORDER BY address`,
		account.String())
}

// Familiar looks at contacts of that server until one is more than a request.
func (v *view) Familiar(n core.Network, domain string) (bool, error) {
	pattern := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace("@" + domain)
	all, err := store.List(v.q, fromJSON[core.Contact], `SELECT contact FROM contacts WHERE address LIKE $1 ESCAPE '\' LIMIT 1000`,
		string(n)+":%"+pattern)
	return slices.ContainsFunc(all, func(c core.Contact) bool { return c.Listed || c.Sees || c.Seen }), err
}

func (v *view) ContactsOf(a core.Address) ([]core.Contact, error) {
	return store.List(v.q, fromJSON[core.Contact], `SELECT contact FROM contacts WHERE address = $1 ORDER BY account`,
		a.String())
}

func (t *tx) PutContact(c core.Contact) error {
	return t.exec(`INSERT INTO contacts (account, address, contact, feed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account, address) DO UPDATE SET contact = excluded.contact, feed = excluded.feed`,
		c.Account.String(), c.Address.String(), putJSON(c), int64(c.Feed))
}

func (t *tx) DeleteContact(account, a core.Address) error {
	return t.exec(`DELETE FROM contacts WHERE account = $1 AND address = $2`, account.String(), a.String())
}

func (v *view) Blocks(account core.Address) ([]core.Address, error) {
	return store.List(v.q, address, `SELECT address FROM blocks WHERE account = $1 ORDER BY address`, account.String())
}

func (v *view) Blocked(account, a core.Address) (bool, error) {
	n, err := one[int64](v.q, `SELECT COUNT(*) FROM blocks WHERE account = $1 AND address IN ($2, $3)`,
		account.String(), a.String(), a.Server().String())
	return n > 0, err
}

func (t *tx) PutBlock(account, a core.Address) error {
	return t.exec(`INSERT INTO blocks (account, address) VALUES ($1, $2) ON CONFLICT (account, address) DO NOTHING`,
		account.String(), a.String())
}

func (t *tx) DeleteBlock(account, a core.Address) error {
	return t.exec(`DELETE FROM blocks WHERE account = $1 AND address = $2`, account.String(), a.String())
}

const dataColumns = `account, conv, type, data, deleted, feed`

func scanDatum(s store.Scanner) (d hub.Datum, err error) {
	var account, conv string
	var deleted bool
	if err = s.Scan(&account, &conv, &d.Type, &d.Data, &deleted, &d.Feed); err != nil {
		return d, noRow(err)
	}
	d.Conv = core.ConvID(conv)
	if deleted {
		d.Data = nil
	} else if d.Data == nil {
		d.Data = []byte{}
	}
	d.Account, err = core.ParseAddress(account)
	return d, err
}

func (v *view) Datum(account core.Address, conv core.ConvID, typ string) (hub.Datum, error) {
	return scanDatum(v.q.QueryRow(`SELECT `+dataColumns+` FROM data WHERE account = $1 AND conv = $2 AND type = $3`,
		account.String(), string(conv), typ))
}

func (v *view) Data(account core.Address, after core.Feed) ([]hub.Datum, error) {
	return store.List(v.q, scanDatum, `SELECT `+dataColumns+` FROM data WHERE account = $1 AND feed > $2 ORDER BY feed`,
		account.String(), int64(after))
}

func (t *tx) PutDatum(d hub.Datum) error {
	deleted := d.Data == nil
	if deleted {
		d.Data = []byte{}
	}
	return t.exec(`INSERT INTO data (account, conv, type, data, deleted, feed) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (account, conv, type) DO UPDATE SET data = excluded.data, deleted = excluded.deleted,
			feed = excluded.feed`,
		d.Account.String(), string(d.Conv), d.Type, d.Data, deleted, int64(d.Feed))
}

const readingColumns = `conv, who, stage, thread, private, event, pos, at, feed`

func scanReading(s store.Scanner) (r hub.Reading, err error) {
	var conv, who, stage, event string
	var at int64
	if err = s.Scan(&conv, &who, &stage, &r.Thread, &r.Private, &event, &r.At, &at, &r.Feed); err != nil {
		return r, noRow(err)
	}
	r.Conv, r.Stage, r.Event, r.Time = core.ConvID(conv), core.Stage(stage), core.EventID(event), moment(at)
	r.Who, err = core.ParseAddress(who)
	return r, err
}

func (v *view) Reading(conv core.ConvID, who core.Address, stage core.Stage, thread string, private bool) (hub.Reading, error) {
	return scanReading(v.q.QueryRow(`SELECT `+readingColumns+` FROM readings
		WHERE conv = $1 AND who = $2 AND stage = $3 AND thread = $4 AND private = $5`,
		string(conv), who.String(), string(stage), thread, private))
}

func (v *view) Readings(conv core.ConvID, viewer core.Address, after core.Feed) ([]hub.Reading, error) {
	return store.List(v.q, scanReading, `SELECT `+readingColumns+` FROM readings
		WHERE conv = $1 AND feed > $2 AND (private = 0 OR who = $3) ORDER BY feed`,
		string(conv), int64(after), viewer.String())
}

func (t *tx) PutReading(r hub.Reading) error {
	return t.exec(`INSERT INTO readings (conv, who, stage, thread, private, event, pos, at, feed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (conv, who, stage, thread, private) DO UPDATE SET event = excluded.event, pos = excluded.pos,
			at = excluded.at, feed = excluded.feed`,
		string(r.Conv), r.Who.String(), string(r.Stage), r.Thread, r.Private, string(r.Event), int64(r.At),
		millis(r.Time), int64(r.Feed))
}

func scanReport(s store.Scanner) (r hub.Report, err error) {
	var event, to, stage string
	var losses []byte
	if err = s.Scan(&event, &to, &stage, &r.Reason, &losses, &r.Feed); err != nil {
		return r, err
	}
	r.Event, r.Stage = core.EventID(event), core.Stage(stage)
	if r.To, err = core.ParseAddress(to); err != nil {
		return r, err
	}
	return r, json.Unmarshal(losses, &r.Losses)
}

func (v *view) Reports(viewer core.Address, after core.Feed) ([]hub.Report, error) {
	return store.List(v.q, scanReport, `SELECT event, addressee, stage, reason, losses, feed FROM reports
		WHERE sender = $1 AND feed > $2 ORDER BY feed`, viewer.String(), int64(after))
}

func (v *view) ReportsOn(id core.EventID) ([]hub.Report, error) {
	return store.List(v.q, scanReport, `SELECT event, addressee, stage, reason, losses, feed FROM reports
		WHERE event = $1 ORDER BY addressee`, string(id))
}

func (t *tx) PutReport(r hub.Report) error {
	return t.exec(`INSERT INTO reports (event, addressee, sender, stage, reason, losses, feed)
		SELECT $1, $2, e.sender, $3, $4, $5, $6 FROM events e WHERE e.id = $1
		ON CONFLICT (event, addressee) DO UPDATE SET stage = excluded.stage, reason = excluded.reason,
			losses = excluded.losses, feed = excluded.feed`,
		string(r.Event), r.To.String(), string(r.Stage), r.Reason, putJSON(r.Losses), int64(r.Feed))
}
