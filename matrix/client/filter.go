package client

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strconv"

	"parley/core"
	"parley/hub"
)

// maxFilters is the most filters of one account; maxFilter is the longest, in
// bytes.
const (
	maxFilters = 500
	maxFilter  = 32 << 10
)

// putFilter keeps a filter. The same one again has the same ID.
//
// spec: MX 1.19 CS §6
func (a *API) putFilter(r *Request) (any, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	if a.config.CheckFilter != nil {
		if err := a.config.CheckFilter(body); err != nil {
			return nil, err
		}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(compact.Bytes())
	var id int64
	err = a.hub.Write(r.Context(), func(tx hub.Tx) error {
		found, err := row(tx, into(&id), `SELECT id FROM mxc_filters WHERE account = $1 AND hash = $2`, key(r.Account), sum[:])
		if err != nil || found {
			return err
		}
		if _, err := row(tx, into(&id), `SELECT COALESCE(MAX(id), 0) FROM mxc_filters WHERE account = $1`, key(r.Account)); err != nil {
			return err
		}
		if id++; id > maxFilters {
			return Errorf(http.StatusForbidden, Forbidden, "This account has stored %d filters, the most there may be.", maxFilters)
		}
		_, err = exec(tx, `INSERT INTO mxc_filters (account, id, hash, filter) VALUES ($1, $2, $3, $4)`,
			key(r.Account), id, sum[:], compact.Bytes())
		return err
	})
	return map[string]string{"filter_id": strconv.FormatInt(id, 10)}, err
}

func (a *API) getFilter(r *Request) (any, error) {
	if err := r.own(); err != nil {
		return nil, err
	}
	var f json.RawMessage
	err := a.hub.Read(r.Context(), func(v hub.View) (err error) {
		f, err = a.Filter(v, r.Account, r.Var("filterId"))
		return err
	})
	return f, err
}

// Filter is a filter that an account has stored.
func (a *API) Filter(v hub.View, account core.Address, id string) (json.RawMessage, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil, Errorf(http.StatusNotFound, NotFound, "There is no such filter.")
	}
	var f []byte
	found, err := row(v, into(&f), `SELECT filter FROM mxc_filters WHERE account = $1 AND id = $2`, key(account), n)
	if err == nil && !found {
		err = Errorf(http.StatusNotFound, NotFound, "There is no such filter.")
	}
	return f, err
}
