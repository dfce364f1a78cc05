// Package carrier is the messenger to other Matrix servers for what the hub's
// outbox owes them: invitations to people of theirs, and what has been read in
// directs.
//
// Everything else that is said in a room goes to the servers that are in it as
// events of the room, by parley/matrix/federation/sending, without the outbox: an
// invited person's server is in no room yet, and it has to agree.
package carrier

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/federation"
	"parley/matrix/mirror"
	"parley/matrix/shared"
	"parley/matrix/wire"
)

// Ephemeral carries what is not owed as an event: what has been read, typing,
// presence.
type Ephemeral interface {
	// Whisper is that of [hub.Carrier].
	Whisper(w hub.Whisper)
	// Receipt carries a receipt, and says what became of it.
	Receipt(ctx context.Context, d hub.Delivery) hub.Result
}

// Caller calls other servers. [federation.Client] does.
type Caller interface {
	Do(ctx context.Context, call federation.Call) ([]byte, error)
}

// Keys finds the keys of servers. keyring.Keyring does.
type Keys interface {
	Key(ctx context.Context, server, keyID string, at time.Time) (ed25519.PublicKey, error)
}

// Carrier is the [hub.Carrier] of Matrix. It may be used from any goroutine.
type Carrier struct {
	Hub       *hub.Hub
	Mirror    *mirror.Mirror
	Rooms     *shared.Rooms
	Client    Caller
	Keys      Keys
	Ephemeral Ephemeral // nil carries nothing
	Log       *slog.Logger
}

// Network implements [hub.Carrier].
func (c *Carrier) Network() core.Network { return core.Matrix }

// Capabilities implements [hub.Carrier]: events go as they are. That a message has
// come to a device has no word in Matrix.
func (c *Carrier) Capabilities(core.Address) core.Capabilities {
	grades := map[core.Feature]core.Grade{}
	for _, f := range []core.Feature{
		core.FeatureText, core.FeatureLanguages, core.FeatureFormatting, core.FeatureEmote, core.FeatureReply, core.FeatureThread,
		core.FeatureMentions, core.FeatureFile, core.FeatureVoice, core.FeatureEdit, core.FeatureRetract, core.FeatureReaction,
		core.FeatureDisplayed, core.FeatureTyping, core.FeaturePresence, core.FeatureEncrypted,
		core.FeatureExpiry, core.FeatureName, core.FeatureTopic, core.FeatureAvatar, core.FeatureLevels, core.FeatureMembership,
		core.FeatureModeration, core.FeatureExtension,
	} {
		grades[f] = core.Whole
	}
	return core.Capabilities{Grades: grades}
}

// Whisper implements [hub.Carrier].
func (c *Carrier) Whisper(w hub.Whisper) {
	if c.Ephemeral != nil {
		c.Ephemeral.Whisper(w)
	}
}

// Deliver implements [hub.Carrier].
func (c *Carrier) Deliver(ctx context.Context, dest string, parcels []hub.Delivery) []hub.Result {
	out := make([]hub.Result, 0, len(parcels))
	for _, d := range parcels {
		r := c.deliver(ctx, dest, d)
		out = append(out, r)
		if r.Outcome == hub.Retry {
			break // the rest waits for the same server
		}
	}
	return out
}

func (c *Carrier) deliver(ctx context.Context, dest string, d hub.Delivery) hub.Result {
	m, ok := d.Content.Content.(core.Membership)
	switch {
	case d.Receipt != nil && c.Ephemeral == nil:
		return hub.Result{Outcome: hub.Accepted}
	case d.Receipt != nil:
		return c.Ephemeral.Receipt(ctx, d)
	case !ok || m.Standing != core.Invited:
		// Such parcels are not made for Matrix: what they would say goes with
		// the room's events.
		return hub.Result{Outcome: hub.Accepted}
	case d.State.Members[m.Target].Event != d.Content.ID:
		return hub.Result{Outcome: hub.Accepted} // withdrawn, or answered, meanwhile
	}
	return c.invite(ctx, dest, d, m)
}

// invite asks a server to let one of its people know, and to agree. A server that
// knows only the first version of the endpoint knows no room of ours: that one is
// for room versions 1 and 2.
//
// spec: MX 1.19 SS §12
func (c *Carrier) invite(ctx context.Context, dest string, d hub.Delivery, m core.Membership) hub.Result {
	pdu, body, err := c.invitation(ctx, d)
	if err != nil {
		c.Log.Error("an invitation cannot be written", "event", d.Content.ID, "err", err)
		return hub.Result{Outcome: hub.Failed, Reason: "the invitation cannot be written"}
	}
	answer, err := c.Client.Do(ctx, federation.Call{
		Origin: serverOf(pdu.Sender), Destination: dest, Method: http.MethodPut, Body: body,
		URI: federation.URI(nil, "_matrix", "federation", "v2", "invite", pdu.RoomID, pdu.EventID),
	})
	if err != nil {
		c.Log.Info("a Matrix server does not take an invitation", "server", dest, "event", pdu.EventID, "err", err)
		return result(dest, m.Target, err)
	}
	if err := c.countersign(ctx, dest, pdu, answer); err != nil {
		// Who was invited knows; only servers that ask for both signatures miss one.
		c.Log.Warn("a Matrix server has not signed an invitation", "server", dest, "event", pdu.EventID, "err", err)
	}
	return hub.Result{Outcome: hub.Accepted}
}

// maxKeys is with how many keys a server signs one event at most.
const maxKeys = 4

// countersign keeps the signature by which the invited one's server agrees: some
// servers do not believe an invitation without it.
//
// spec: MX 1.19 SS §12
func (c *Carrier) countersign(ctx context.Context, dest string, pdu *wire.PDU, answer []byte) error {
	var a struct {
		Event json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return err
	}
	signed, keys, err := pdu.Countersigned(dest, a.Event)
	if err != nil {
		return err
	}
	if len(keys) > maxKeys {
		return fmt.Errorf("it is signed with %d keys", len(keys))
	}
	for _, id := range keys {
		key, err := c.Keys.Key(ctx, dest, id, time.UnixMilli(pdu.Time))
		if err != nil {
			return err
		}
		if err := signed.Verify(dest, id, key); err != nil {
			return err
		}
	}
	return c.Hub.Write(ctx, func(tx hub.Tx) error { return c.Mirror.Countersign(tx, signed) })
}

// invitation is the body of the request.
func (c *Carrier) invitation(ctx context.Context, d hub.Delivery) (pdu *wire.PDU, body []byte, err error) {
	err = c.Hub.Read(ctx, func(v hub.View) error {
		found, err := c.Mirror.ByCore(v, d.Content.ID)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("there is no Matrix event of %s", d.Content.ID)
		}
		pdu = found[0].PDU
		event, err := c.Mirror.Signed(pdu)
		if err != nil {
			return err
		}
		glimpse, err := c.Rooms.Glimpse(v, d.Conv, pdu.Version, pdu.Sender)
		if err != nil {
			return err
		}
		body, err = json.Marshal(map[string]any{
			"room_version": pdu.Version.ID, "event": json.RawMessage(event), "invite_room_state": glimpse,
		})
		return err
	})
	return pdu, body, err
}

// result is what an answer means for the one who invites.
func result(dest string, who core.Address, err error) hub.Result {
	e, answered := errors.AsType[*federation.Error](err)
	switch {
	case err == nil:
		return hub.Result{Outcome: hub.Accepted}
	case errors.Is(err, federation.ErrRefused):
		return hub.Result{Outcome: hub.Failed, Reason: "this server exchanges nothing with " + dest}
	case !answered:
		return hub.Result{Outcome: hub.Retry, Reason: dest + " cannot be reached"}
	case e.Status >= 500, e.Status == http.StatusTooManyRequests, e.Status == http.StatusUnauthorized:
		// Our keys may be what it could not get.
		return hub.Result{Outcome: hub.Retry, Reason: dest + " has trouble: " + e.Words()}
	case e.Errcode == "M_UNRECOGNIZED":
		return hub.Result{Outcome: hub.Failed, Reason: dest + " takes no invitations to rooms like this one"}
	case e.Errcode == "M_INCOMPATIBLE_ROOM_VERSION":
		return hub.Result{Outcome: hub.Failed, Reason: dest + " does not know rooms of this version"}
	}
	reason := who.Bare() + " cannot be invited"
	if said := e.Words(); said != "" {
		reason += ": " + said
	}
	return hub.Result{Outcome: hub.Failed, Reason: reason}
}

func serverOf(userID string) string {
	_, server, _ := strings.Cut(userID, ":")
	return server
}
