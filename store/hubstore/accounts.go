package hubstore

import (
	"encoding/json"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/store"
)

const accountColumns = `address, created, disabled, strangers, credentials`

func scanAccount(s store.Scanner) (a hub.Account, err error) {
	var address, strangers string
	var created int64
	var creds []byte
	if err = s.Scan(&address, &created, &a.Disabled, &strangers, &creds); err != nil {
		return a, noRow(err)
	}
	if a.Address, err = core.ParseAddress(address); err != nil {
		return a, err
	}
	a.Created, a.Strangers = moment(created), core.Strangers(strangers)
	return a, json.Unmarshal(creds, &a.Credentials)
}

func (v *view) Account(a core.Address) (hub.Account, error) {
	return scanAccount(v.q.QueryRow(`SELECT `+accountColumns+` FROM accounts
		WHERE address = $1 AND deleted = 0`, a.String()))
}

func (v *view) Accounts() ([]hub.Account, error) {
	return store.List(v.q, scanAccount, `SELECT `+accountColumns+` FROM accounts WHERE deleted = 0 ORDER BY address`)
}

// PutAccount refuses the name of a deleted account.
func (t *tx) PutAccount(a hub.Account) error {
	creds, err := json.Marshal(a.Credentials)
	if err != nil {
		return err
	}
	n, err := t.tx.Exec(`INSERT INTO accounts (address, created, disabled, strangers, credentials, deleted)
		VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (address) DO UPDATE SET disabled = excluded.disabled, strangers = excluded.strangers,
			credentials = excluded.credentials
		WHERE accounts.deleted = 0`,
		a.Address.String(), millis(a.Created), a.Disabled, string(a.Strangers), creds)
	if err == nil && n == 0 {
		return hub.Refuse(hub.Conflict, "the name %s belonged to somebody else", a.Address.Name)
	}
	return err
}

func (t *tx) DeleteAccount(a core.Address) error {
	who := a.String()
	for _, q := range []string{
		`UPDATE accounts SET deleted = 1, disabled = 1, credentials = X'' WHERE address = $1`,
		`DELETE FROM profiles WHERE address = $1`,
		`DELETE FROM contacts WHERE account = $1`,
		`DELETE FROM blocks WHERE account = $1`,
		`DELETE FROM data WHERE account = $1`,
	} {
		if err := t.exec(q, who); err != nil {
			return err
		}
	}
	return nil
}

func (v *view) Profile(a core.Address) (core.Profile, error) {
	p, err := fromJSON[core.Profile](v.q.QueryRow(`SELECT profile FROM profiles WHERE address = $1`, a.String()))
	if err = noRow(err); errors.Is(err, hub.ErrNone) {
		return core.Profile{}, nil
	}
	return p, err
}

func (t *tx) PutProfile(a core.Address, p core.Profile) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return t.exec(`INSERT INTO profiles (address, profile) VALUES ($1, $2)
		ON CONFLICT (address) DO UPDATE SET profile = excluded.profile`, a.String(), data)
}
