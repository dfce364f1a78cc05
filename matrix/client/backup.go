package client

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"parley/hub"
)

// Limits of key backups.
const (
	maxBackupKeys = 100_000  // of one backup
	maxBackupKey  = 16 << 10 // bytes of one key's session data
	maxBackupBody = 20 << 20 // bytes of one upload
	maxAuthData   = 64 << 10
)

// backup is one version of an account's key backup.
//
// spec: MX 1.19 CS §10.12.4.2
type backup struct {
	version   int64
	algorithm string
	auth      []byte
	etag      int64
	count     int64
}

func errNoBackup() error {
	return Errorf(http.StatusNotFound, NotFound, "There is no such backup.")
}

// findBackup reads a version, or (for "") the latest.
func findBackup(v hub.View, r *Request, version string) (backup, error) {
	var b backup
	const columns = `SELECT version, algorithm, auth, etag FROM mxc_backups WHERE account = $1 AND deleted = 0`
	var found bool
	var err error
	if version == "" {
		found, err = row(v, into(&b.version, &b.algorithm, &b.auth, &b.etag), columns+` ORDER BY version DESC LIMIT 1`, key(r.Account))
	} else {
		n, bad := strconv.ParseInt(version, 10, 64)
		if bad != nil {
			return b, errNoBackup()
		}
		found, err = row(v, into(&b.version, &b.algorithm, &b.auth, &b.etag), columns+` AND version = $2`, key(r.Account), n)
	}
	if err == nil && !found {
		err = errNoBackup()
	}
	if err != nil {
		return b, err
	}
	_, err = row(v, into(&b.count), `SELECT COUNT(*) FROM mxc_backup_keys WHERE account = $1 AND version = $2`, key(r.Account), b.version)
	return b, err
}

func (b backup) state() map[string]any {
	return map[string]any{"etag": strconv.FormatInt(b.etag, 10), "count": b.count}
}

// getBackup describes a version, or the latest.
func (a *API) getBackup(r *Request) (any, error) {
	var b backup
	err := a.hub.Read(r.Context(), func(v hub.View) (err error) {
		b, err = findBackup(v, r, r.Var("version"))
		return err
	})
	out := b.state()
	out["version"], out["algorithm"], out["auth_data"] = strconv.FormatInt(b.version, 10), b.algorithm, json.RawMessage(b.auth)
	return out, err
}

type backupWish struct {
	Algorithm string          `json:"algorithm"`
	Auth      json.RawMessage `json:"auth_data"`
	Version   string          `json:"version"`
}

func (r *Request) backupWish() (backupWish, error) {
	var w backupWish
	if err := r.JSON(&w); err != nil {
		return w, err
	}
	if w.Algorithm == "" || len(w.Auth) == 0 || w.Auth[0] != '{' {
		return w, Errorf(http.StatusBadRequest, MissingParam, "The algorithm or auth_data is missing.")
	}
	if !textual(w.Algorithm) || len(w.Auth) > maxAuthData {
		return w, Errorf(http.StatusBadRequest, InvalidParam, "The algorithm or auth_data is too long.")
	}
	return w, nil
}

// newBackup begins a version.
func (a *API) newBackup(r *Request) (any, error) {
	w, err := r.backupWish()
	if err != nil {
		return nil, err
	}
	var version int64
	err = a.hub.Write(r.Context(), func(tx hub.Tx) error {
		if _, err := row(tx, into(&version), `SELECT COALESCE(MAX(version), 0) FROM mxc_backups WHERE account = $1`, key(r.Account)); err != nil {
			return err
		}
		version++
		_, err := exec(tx, `INSERT INTO mxc_backups (account, version, algorithm, auth, etag, deleted) VALUES ($1, $2, $3, $4, 0, 0)`,
			key(r.Account), version, w.Algorithm, []byte(w.Auth))
		return err
	})
	return map[string]string{"version": strconv.FormatInt(version, 10)}, err
}

// changeBackup changes the auth_data of a version.
func (a *API) changeBackup(r *Request) (any, error) {
	w, err := r.backupWish()
	if err != nil {
		return nil, err
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		b, err := findBackup(tx, r, r.Var("version"))
		if err != nil {
			return err
		}
		if w.Algorithm != b.algorithm || w.Version != "" && w.Version != r.Var("version") {
			return Errorf(http.StatusBadRequest, InvalidParam, "The algorithm and version of a backup do not change.")
		}
		_, err = exec(tx, `UPDATE mxc_backups SET auth = $1 WHERE account = $2 AND version = $3`, []byte(w.Auth), key(r.Account), b.version)
		return err
	})
}

// deleteBackup deletes a version and its keys. Its number is not used again.
func (a *API) deleteBackup(r *Request) (any, error) {
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		b, err := findBackup(tx, r, r.Var("version"))
		if err != nil {
			return err
		}
		if _, err := exec(tx, `UPDATE mxc_backups SET deleted = 1, auth = X'' WHERE account = $1 AND version = $2`, key(r.Account), b.version); err != nil {
			return err
		}
		_, err = exec(tx, `DELETE FROM mxc_backup_keys WHERE account = $1 AND version = $2`, key(r.Account), b.version)
		return err
	})
}

// sessionKey is the key of one session, as it is in a backup.
type sessionKey struct {
	First    int64           `json:"first_message_index"`
	Forwards int64           `json:"forwarded_count"`
	Verified bool            `json:"is_verified"`
	Data     json.RawMessage `json:"session_data"`
}

type roomKeys struct {
	Sessions map[string]sessionKey `json:"sessions"`
}

// sessionsOf reads the keys of a request's body: one, a room's, or all.
func (r *Request) sessionsOf() (map[string]roomKeys, error) {
	room, session := r.Var("roomId"), r.Var("sessionId")
	switch {
	case session != "":
		var k sessionKey
		err := r.JSON(&k)
		return map[string]roomKeys{room: {map[string]sessionKey{session: k}}}, err
	case room != "":
		var k roomKeys
		err := r.JSON(&k)
		return map[string]roomKeys{room: k}, err
	}
	var k struct {
		Rooms map[string]roomKeys `json:"rooms"`
	}
	err := r.JSON(&k)
	return k.Rooms, err
}

func (k sessionKey) check(room, session string) error {
	if len(k.Data) == 0 || k.Data[0] != '{' {
		return Errorf(http.StatusBadRequest, MissingParam, "The session_data is missing.")
	}
	if len(k.Data) > maxBackupKey || k.First < 0 || k.Forwards < 0 || !textual(room, session) {
		return Errorf(http.StatusBadRequest, InvalidParam, "A key in the backup is too long or makes no sense.")
	}
	return nil
}

// putBackupKeys keeps keys in the current version, each if it is better than
// what is there.
//
// spec: MX 1.19 CS §10.12.4.2
func (a *API) putBackupKeys(r *Request) (any, error) {
	rooms, err := r.sessionsOf()
	if err != nil {
		return nil, err
	}
	for room, keys := range rooms {
		for session, k := range keys.Sessions {
			if err := k.check(room, session); err != nil {
				return nil, err
			}
		}
	}
	return a.changeKeys(r, true, func(tx hub.Tx, b backup) (changed bool, err error) {
		for room, keys := range rooms {
			for session, k := range keys.Sessions {
				n, err := putBackupKey(tx, r, b.version, room, session, k)
				if err != nil {
					return false, err
				}
				changed = changed || n > 0
			}
		}
		var count int64
		_, err = row(tx, into(&count), `SELECT COUNT(*) FROM mxc_backup_keys WHERE account = $1 AND version = $2`, key(r.Account), b.version)
		if err == nil && count > maxBackupKeys {
			err = Errorf(http.StatusForbidden, Forbidden, "A backup holds at most %d keys.", maxBackupKeys)
		}
		return changed, err
	})
}

// putBackupKey keeps the better key: the verified one; else the one that reads
// from an earlier message on; else the one that was forwarded less.
func putBackupKey(tx hub.Tx, r *Request, version int64, room, session string, k sessionKey) (int64, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, k.Data); err != nil {
		return 0, err
	}
	return exec(tx, `INSERT INTO mxc_backup_keys AS old (account, version, room, session, first, forwards, verified, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (account, version, room, session) DO UPDATE SET first = $5, forwards = $6, verified = $7, data = $8
		WHERE old.verified < $7 OR old.verified = $7 AND (old.first > $5 OR old.first = $5 AND old.forwards > $6)`,
		key(r.Account), version, room, session, k.First, k.Forwards, k.Verified, compact.Bytes())
}

// changeKeys changes the keys of the version that the query names, and its etag
// if anything changed. current asks that it be the latest.
func (a *API) changeKeys(r *Request, current bool, f func(hub.Tx, backup) (bool, error)) (any, error) {
	if r.Query("version") == "" {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The version is missing.")
	}
	var b backup
	err := a.hub.Write(r.Context(), func(tx hub.Tx) (err error) {
		if current {
			latest, err := findBackup(tx, r, "")
			if err != nil {
				return err
			}
			if v := strconv.FormatInt(latest.version, 10); v != r.Query("version") {
				return Errorf(http.StatusForbidden, WrongKeysVersion, "That is not the current backup.").With("current_version", v)
			}
		}
		if b, err = findBackup(tx, r, r.Query("version")); err != nil {
			return err
		}
		changed, err := f(tx, b)
		if err != nil || !changed {
			return err
		}
		if _, err := exec(tx, `UPDATE mxc_backups SET etag = etag + 1 WHERE account = $1 AND version = $2`, key(r.Account), b.version); err != nil {
			return err
		}
		b, err = findBackup(tx, r, r.Query("version"))
		return err
	})
	return b.state(), err
}

// deleteBackupKeys deletes one key, a room's, or all.
func (a *API) deleteBackupKeys(r *Request) (any, error) {
	return a.changeKeys(r, false, func(tx hub.Tx, b backup) (bool, error) {
		n, err := exec(tx, `DELETE FROM mxc_backup_keys WHERE account = $1 AND version = $2
			AND ($3 = '' OR room = $3) AND ($4 = '' OR session = $4)`, key(r.Account), b.version, r.Var("roomId"), r.Var("sessionId"))
		return n > 0, err
	})
}

// getBackupKeys answers with one key, a room's, or all.
func (a *API) getBackupKeys(r *Request) (any, error) {
	room, session := r.Var("roomId"), r.Var("sessionId")
	if !textual(room, session) {
		return nil, Errorf(http.StatusNotFound, NotFound, "There is no such key.")
	}
	if r.Query("version") == "" {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The version is missing.")
	}
	rooms := map[string]roomKeys{}
	err := a.hub.Read(r.Context(), func(v hub.View) error {
		b, err := findBackup(v, r, r.Query("version"))
		if err != nil {
			return err
		}
		return rows(v, func(scan func(...any) error) error {
			var room, session string
			var k sessionKey
			var data []byte
			if err := scan(&room, &session, &k.First, &k.Forwards, &k.Verified, &data); err != nil {
				return err
			}
			if k.Data = data; rooms[room].Sessions == nil {
				rooms[room] = roomKeys{map[string]sessionKey{}}
			}
			rooms[room].Sessions[session] = k
			return nil
		}, `SELECT room, session, first, forwards, verified, data FROM mxc_backup_keys WHERE account = $1 AND version = $2
			AND ($3 = '' OR room = $3) AND ($4 = '' OR session = $4)`, key(r.Account), b.version, room, session)
	})
	switch {
	case err != nil:
		return nil, err
	case session != "":
		k, ok := rooms[room].Sessions[session]
		if !ok {
			return nil, Errorf(http.StatusNotFound, NotFound, "There is no such key.")
		}
		return k, nil
	case room != "":
		if rooms[room].Sessions == nil {
			return roomKeys{map[string]sessionKey{}}, nil
		}
		return rooms[room], nil
	}
	return map[string]any{"rooms": rooms}, nil
}
