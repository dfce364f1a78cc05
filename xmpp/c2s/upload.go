package c2s

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"parley/core"
	"parley/hub"
	"parley/media"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/guard"
	"parley/xmpp/lookup"
	"parley/xmpp/translate"
)

// UploadPath begins the path of every upload.
const UploadPath = "/_parley/upload/"

const (
	slotLife  = time.Hour
	maxSlots  = 200 // of one account that are not used yet
	maxAvatar = 180 << 10
)

// uploadInfo describes the upload service.
//
// spec: XEP-0363 §4
func (q *question) uploadInfo() (answer, error) {
	info := discoInfo("", [][3]string{{"store", "file", "Files"}}, sorted(nsDiscoInfo, nsUpload, nsPing))
	x := newForm("result", nsUpload)
	addField(x, "max-file-size", "", strconv.FormatInt(q.srv.MaxUpload, 10))
	return info.Append(x), nil
}

// slot gives a client leave to upload one file.
//
// spec: XEP-0363 §4
func (q *question) slot() (answer, error) {
	if q.s == nil || q.srv.Files == nil {
		return nil, translate.Fail(translate.NotAllowed, "only accounts of this server upload files")
	}
	name, typ := q.payload.Attr("filename"), q.payload.Attr("content-type")
	size, err := strconv.ParseInt(q.payload.Attr("size"), 10, 64)
	if name == "" || len(name) > 255 || !utf8.ValidString(name) || err != nil || size <= 0 {
		return nil, translate.Fail(translate.BadRequest, "a slot needs a file name and a size")
	}
	if size > q.srv.MaxUpload {
		tooLarge := element.New(nsUpload, "file-too-large")
		tooLarge.Append(element.NewText(nsUpload, "max-file-size", strconv.FormatInt(q.srv.MaxUpload, 10)))
		return nil, &translate.Error{Condition: translate.NotAcceptable, Text: "the file is too large", Extra: tooLarge}
	}
	put, get := core.NewToken(), core.NewToken()
	err = q.srv.Hub.Write(q.ctx, func(tx hub.Tx) error {
		used, err := tx.MediaUsed(q.who)
		if err != nil {
			return err
		}
		sql := hubstore.Tx(tx)
		var open, promised int64
		if err := sql.QueryRow(`SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM xmpp_slots WHERE account = $1 AND expires > $2`,
			q.who.String(), time.Now().UnixMilli()).Scan(&open, &promised); err != nil {
			return err
		}
		if used+promised+size > q.srv.Quota || open >= maxSlots {
			return q.srv.Guard.Over(guard.UploadQuota, translate.ResourceConstraint,
				"the files of this account may come to %d bytes, with those that are about to be uploaded", q.srv.Quota)
		}
		_, err = sql.Exec(`INSERT INTO xmpp_slots (secret, link, account, name, size, type, expires) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			put, get, q.who.String(), name, size, typ, time.Now().Add(slotLife).UnixMilli())
		return err
	})
	if err != nil {
		return nil, err
	}
	slot := element.New(nsUpload, "slot")
	slot.Add("", "put").SetAttr("url", q.srv.Base+UploadPath+put+"/"+url.PathEscape(name))
	slot.Add("", "get").SetAttr("url", lookup.Link(q.srv.Base, get, name))
	return slot, nil
}

// slotRow is leave to upload.
type slotRow struct {
	secret, link, name, typ string
	account                 core.Address
	size, expires           int64
}

func (srv *Server) findSlot(ctx context.Context, secret string) (row slotRow, err error) {
	row.secret = secret
	err = srv.Hub.Read(ctx, func(v hub.View) error {
		var account string
		err := hubstore.Querier(v).QueryRow(`SELECT link, account, name, size, type, expires FROM xmpp_slots WHERE secret = $1`, secret).
			Scan(&row.link, &account, &row.name, &row.size, &row.typ, &row.expires)
		if err != nil {
			return err
		}
		row.account, err = core.ParseAddress(account)
		return err
	})
	return row, err
}

// errWrongSize is that the upload is not as long as was announced.
var errWrongSize = errors.New("not as long as announced")

// Upload serves PUT below [UploadPath].
//
// spec: XEP-0363 §7
func (srv *Server) Upload(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*") // spec: XEP-0363 §8
	w.Header().Set("Access-Control-Allow-Methods", "PUT, OPTIONS")
	w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.Method != http.MethodPut {
		http.Error(w, "only PUT", http.StatusMethodNotAllowed)
		return
	}
	secret, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, UploadPath), "/")
	row, err := srv.findSlot(r.Context(), secret)
	switch {
	case store.NotFound(err) || err == nil && row.expires < time.Now().UnixMilli():
		http.Error(w, "no such slot, or it is over", http.StatusNotFound)
		return
	case err != nil:
		srv.Log.Error("finding a slot", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	case r.ContentLength >= 0 && r.ContentLength != row.size:
		http.Error(w, errWrongSize.Error(), http.StatusRequestEntityTooLarge)
		return
	case row.typ != "" && r.Header.Get("Content-Type") != "" && r.Header.Get("Content-Type") != row.typ:
		http.Error(w, "not of the announced type", http.StatusBadRequest)
		return
	}
	switch err = srv.receive(r.Context(), row, r.Body); {
	case errors.Is(err, media.ErrTooLarge), errors.Is(err, errWrongSize):
		http.Error(w, errWrongSize.Error(), http.StatusRequestEntityTooLarge)
	case err != nil:
		srv.Log.Error("receiving a file", "account", row.account.Bare(), "err", err)
		http.Error(w, "the file could not be received", http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusCreated)
	}
}

// receive keeps a file and uses its slot up, in one turn.
func (srv *Server) receive(ctx context.Context, row slotRow, body io.Reader) error {
	_, err := srv.Files.Put(ctx, media.Upload{Body: body, Declared: row.typ, MaxSize: row.size, Keep: func(b media.Blob) error {
		if b.Size != row.size {
			return errWrongSize
		}
		m := newMedia(row.account, b, row.name)
		m.Secret = row.link
		return srv.Hub.Write(ctx, func(tx hub.Tx) error {
			n, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_slots WHERE secret = $1`, row.secret)
			if err == nil && n == 0 {
				err = errors.New("the slot was used meanwhile")
			}
			if err == nil {
				err = tx.PutMedia(m)
			}
			return err
		})
	}})
	return err
}

func newMedia(owner core.Address, b media.Blob, name string) hub.Media {
	typ := b.Declared
	if typ == "" || typ == "application/octet-stream" {
		typ = b.Type
	}
	id := core.NewMediaID()
	return hub.Media{ID: id, Owner: owner, Created: time.Now().UTC(), Stored: true, File: core.File{
		Media: id, Type: typ, Name: name, Size: b.Size, SHA256: b.Hash.String(), Width: b.Width, Height: b.Height,
	}}
}

func cleanSlots(tx hub.Tx) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_slots WHERE expires < $1`, time.Now().UnixMilli())
	return err
}

// keepAvatar keeps a picture of an account.
func (srv *Server) keepAvatar(ctx context.Context, owner core.Address, picture []byte, typ string) (*core.File, error) {
	var m hub.Media
	_, err := srv.Files.Put(ctx, media.Upload{Body: strings.NewReader(string(picture)), Declared: typ, Keep: func(b media.Blob) error {
		m = newMedia(owner, b, "avatar")
		return srv.Hub.AddMedia(ctx, m)
	}})
	return &m.File, err
}

// avatarBytes reads the picture of a profile, if it is stored here.
func (srv *Server) avatarBytes(ctx context.Context, f *core.File) ([]byte, string, error) {
	m, err := srv.Hub.MediaByID(ctx, f.Media)
	if err != nil {
		return nil, "", err
	}
	h, err := media.ParseHash(m.File.SHA256)
	if err != nil {
		return nil, "", err
	}
	file, err := srv.Files.Get(h)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxAvatar+1))
	return b, m.File.Type, err
}
