package hubstore

import (
	"encoding/json"
	"errors"

	"parley/core"
	"parley/hub"
	"parley/store"
)

const mediaColumns = `m.id, m.owner, m.created, m.file, m.secret, m.stored`

func scanMedia(s store.Scanner) (m hub.Media, err error) {
	var id, owner string
	var created int64
	var file []byte
	if err = s.Scan(&id, &owner, &created, &file, &m.Secret, &m.Stored); err != nil {
		return m, noRow(err)
	}
	m.ID, m.Created = core.MediaID(id), moment(created)
	if m.Owner, err = addr(owner); err != nil {
		return m, err
	}
	return m, json.Unmarshal(file, &m.File)
}

func (v *view) Media(id core.MediaID) (hub.Media, error) {
	return scanMedia(v.q.QueryRow(`SELECT `+mediaColumns+` FROM media m WHERE m.id = $1`, string(id)))
}

func (v *view) MediaBySecret(secret string) (hub.Media, error) {
	if secret == "" {
		return hub.Media{}, hub.ErrNone
	}
	m, err := scanMedia(v.q.QueryRow(`SELECT `+mediaColumns+` FROM media_links l JOIN media m ON m.id = l.media
		WHERE l.secret = $1`, secret))
	if !errors.Is(err, hub.ErrNone) {
		return m, err
	}
	return scanMedia(v.q.QueryRow(`SELECT `+mediaColumns+` FROM media m WHERE m.secret = $1`, secret))
}

func (v *view) MediaUsed(owner core.Address) (int64, error) {
	return one[int64](v.q, `SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media WHERE owner = $1 AND stored = 1`,
		owner.String())
}

func scanLink(s store.Scanner) (l hub.Link, err error) {
	var media, conv, event string
	err = s.Scan(&l.Secret, &media, &conv, &event)
	l.Media, l.Conv, l.Event = core.MediaID(media), core.ConvID(conv), core.EventID(event)
	return l, err
}

func (v *view) Links(event core.EventID) ([]hub.Link, error) {
	return store.List(v.q, scanLink, `SELECT secret, media, conv, event FROM media_links WHERE event = $1 ORDER BY secret`,
		string(event))
}

func (v *view) LinksTo(id core.MediaID) ([]hub.Link, error) {
	return store.List(v.q, scanLink, `SELECT secret, media, conv, event FROM media_links WHERE media = $1 ORDER BY secret`,
		string(id))
}

func (t *tx) PutMedia(m hub.Media) error {
	return t.exec(`INSERT INTO media (id, owner, created, file, size, secret, stored) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET file = excluded.file, size = excluded.size, secret = excluded.secret,
			stored = excluded.stored`,
		string(m.ID), m.Owner.String(), millis(m.Created), putJSON(m.File), m.File.Size, m.Secret, m.Stored)
}

func (t *tx) PutLink(l hub.Link) error {
	return t.exec(`INSERT INTO media_links (secret, media, conv, event) VALUES ($1, $2, $3, $4)`,
		l.Secret, string(l.Media), string(l.Conv), string(l.Event))
}

// DeleteLinks also ends the link under which a file was uploaded, once no
// message is left that shows it.
func (t *tx) DeleteLinks(event core.EventID) error {
	links, err := t.Links(event)
	if err != nil {
		return err
	}
	if err := t.exec(`DELETE FROM media_links WHERE event = $1`, string(event)); err != nil {
		return err
	}
	for _, l := range links {
		err := t.exec(`UPDATE media SET secret = '' WHERE id = $1
			AND NOT EXISTS (SELECT 1 FROM media_links WHERE media = $1)`, string(l.Media))
		if err != nil {
			return err
		}
	}
	return nil
}
