package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"

	"parley/core"
	"parley/hub"
)

// Limits of profiles.
//
// spec: MX 1.19 CS §9.2
const (
	maxProfile  = 64 << 10
	maxFieldKey = 255
)

const (
	fieldName   = "displayname"
	fieldAvatar = "avatar_url"
)

// customField is what the name of any other field looks like.
var customField = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)

// Profiles asks other Matrix servers how their users appear.
type Profiles interface {
	// Ask returns the fields of a profile, which are of the form that they
	// should have. What matters to other networks is kept by the hub. fresh is
	// called before another server is bothered, and may refuse that.
	Ask(ctx context.Context, who core.Address, fresh func() error) (map[string]json.RawMessage, error)
}

// UseProfiles has other servers asked, from before the first request on.
func (a *API) UseProfiles(p Profiles) { a.profiles = p }

// profileOf reads a profile. Only who has logged in is told: this server is no
// directory for the world.
//
// spec: MX 1.19 CS §9.2.1
func (a *API) profileOf(r *Request) (map[string]json.RawMessage, error) {
	if r.Account.IsZero() {
		return nil, Errorf(http.StatusForbidden, Forbidden, "Profiles are for those who have logged in.")
	}
	who, err := a.Address(r.Var("userId"))
	if err != nil {
		return nil, err
	}
	if who.Network == core.Matrix && a.profiles != nil {
		return a.profiles.Ask(r.Context(), who, func() error { return r.Take(Searches) })
	}
	return a.ProfileHere(r.Context(), who)
}

// ProfileHere is a profile as far as it is known here: of an account, or of
// somebody of another network. [hub.ErrNone] where there is no such account.
func (a *API) ProfileHere(ctx context.Context, who core.Address) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	err := a.hub.Read(ctx, func(v hub.View) error {
		if who.IsLocal() {
			if _, err := v.Account(who); err != nil {
				return err
			}
		}
		p, err := v.Profile(who)
		if err != nil {
			return err
		}
		if err := a.putProfile(fields, p); err != nil {
			return err
		}
		return rows(v, func(scan func(...any) error) error {
			var name string
			var value []byte
			err := scan(&name, &value)
			fields[name] = value
			return err
		}, `SELECT name, value FROM mxc_profile_fields WHERE account = $1`, key(who))
	})
	return fields, err
}

// ReadProfile reads what another server says of a profile: the fields that can
// be ones, and what the hub keeps of them.
//
// spec: MX 1.19 SS §20
func (a *API) ReadProfile(answer []byte) (map[string]json.RawMessage, core.Profile, error) {
	var all map[string]json.RawMessage
	if len(answer) > maxProfile {
		return nil, core.Profile{}, errProfileTooLarge()
	}
	if err := DecodeJSON(answer, &all); err != nil {
		return nil, core.Profile{}, err
	}
	var p core.Profile
	for name, value := range all {
		var text string
		known := name == fieldName || name == fieldAvatar
		if checkField(name) != nil || string(value) == "null" || known && json.Unmarshal(value, &text) != nil {
			delete(all, name)
			continue
		}
		switch name {
		case fieldName:
			if p.Name = clean(text); len(p.Name) > maxDisplayName {
				p.Name = ""
			}
		case fieldAvatar:
			if f, err := a.File(text); err == nil {
				p.Avatar = &f
			}
		}
	}
	for _, name := range []string{fieldName, fieldAvatar} {
		delete(all, name)
	}
	return all, p, a.putProfile(all, p)
}

// maxDisplayName is how long the name of one on another server may be, in
// bytes: as long as that of an account.
const maxDisplayName = 256

// putProfile spells what the hub knows of a profile.
func (a *API) putProfile(fields map[string]json.RawMessage, p core.Profile) (err error) {
	if p.Name != "" {
		if fields[fieldName], err = json.Marshal(p.Name); err != nil {
			return err
		}
	}
	if p.Avatar == nil {
		return nil
	}
	uri, ok := a.URI(*p.Avatar)
	if ok {
		fields[fieldAvatar], err = json.Marshal(uri)
	}
	return err
}

func (a *API) getProfile(r *Request) (any, error) {
	fields, err := a.profileOf(r)
	return fields, err
}

func (a *API) getField(r *Request) (any, error) {
	fields, err := a.profileOf(r)
	if err != nil {
		return nil, err
	}
	name := r.Var("keyName")
	value, ok := fields[name]
	if !ok {
		return nil, Errorf(http.StatusNotFound, NotFound, "The profile does not have this field.")
	}
	return map[string]json.RawMessage{name: value}, nil
}

func checkField(name string) error {
	switch {
	case name == fieldName || name == fieldAvatar:
		return nil
	case len(name) > maxFieldKey:
		return Errorf(http.StatusBadRequest, KeyTooLarge, "A field's name has at most %d bytes.", maxFieldKey)
	case !customField.MatchString(name):
		return Errorf(http.StatusBadRequest, InvalidParam, "That is not the name of a profile field.")
	}
	return nil
}

// putField sets one field of the account's own profile.
func (a *API) putField(r *Request) (any, error) {
	name := r.Var("keyName")
	if err := errors.Join(r.own(), checkField(name)); err != nil {
		return nil, err
	}
	var body map[string]json.RawMessage
	if err := r.JSON(&body); err != nil {
		return nil, err
	}
	value, ok := body[name]
	if !ok {
		return nil, Errorf(http.StatusBadRequest, MissingParam, "The body does not have the field %s.", name)
	}
	if len(value) > maxProfile {
		return nil, errProfileTooLarge()
	}
	switch name {
	case fieldName, fieldAvatar:
		return nil, a.setKnown(r, name, value)
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return err
		}
		if _, err := exec(tx, `INSERT INTO mxc_profile_fields (account, name, value) VALUES ($1, $2, $3)
			ON CONFLICT (account, name) DO UPDATE SET value = $3`, key(r.Account), name, compact.Bytes()); err != nil {
			return err
		}
		return checkProfileSize(tx, r.Account)
	})
}

func errProfileTooLarge() error {
	return Errorf(http.StatusBadRequest, ProfileTooLarge, "A profile has at most %d bytes.", maxProfile)
}

func checkProfileSize(v hub.View, account core.Address) error {
	p, err := v.Profile(account)
	if err != nil {
		return err
	}
	size := len(p.Name) + maxFieldKey
	err = rows(v, func(scan func(...any) error) error {
		var name string
		var value []byte
		err := scan(&name, &value)
		size += len(name) + len(value) + len(`"":,`)
		return err
	}, `SELECT name, value FROM mxc_profile_fields WHERE account = $1`, key(account))
	if err == nil && size > maxProfile {
		err = errProfileTooLarge()
	}
	return err
}

// setKnown sets what the hub knows: the name or the avatar.
func (a *API) setKnown(r *Request, name string, value json.RawMessage) error {
	var s string
	if value != nil && string(value) != "null" {
		if err := DecodeJSON(value, &s); err != nil {
			return err
		}
	}
	l := a.locks.of(r.Account)
	l.Lock()
	defer l.Unlock()
	p, err := a.hub.Profile(r.Context(), r.Account)
	if err != nil {
		return err
	}
	switch {
	case name == fieldName:
		p.Name = clean(s)
	case s == "":
		p.Avatar = nil
	default:
		f, err := a.avatar(r, s)
		if err != nil {
			return err
		}
		p.Avatar = f
	}
	return a.hub.SetProfile(r.Context(), r.Account, p)
}

// avatar is the file at a content URI: with what is known of it, if it is here.
func (a *API) avatar(r *Request, uri string) (*core.File, error) {
	f, err := a.File(uri)
	if err != nil {
		return nil, Errorf(http.StatusBadRequest, InvalidParam, "An avatar is an mxc:// URI.")
	}
	if f.Media == "" {
		return &f, nil
	}
	switch m, err := a.hub.MediaByID(r.Context(), f.Media); {
	case hub.CodeOf(err) == hub.NotFound:
		// Clients may name what was never uploaded; it shows as nothing.
	case err != nil:
		return nil, err
	default:
		f = m.File
		f.Media = m.ID
	}
	return &f, nil
}

func (a *API) deleteField(r *Request) (any, error) {
	name := r.Var("keyName")
	if err := errors.Join(r.own(), checkField(name)); err != nil {
		return nil, err
	}
	if name == fieldName || name == fieldAvatar {
		return nil, a.setKnown(r, name, nil)
	}
	return nil, a.hub.Write(r.Context(), func(tx hub.Tx) error {
		_, err := exec(tx, `DELETE FROM mxc_profile_fields WHERE account = $1 AND name = $2`, key(r.Account), name)
		return err
	})
}
