// Package notice tells people who use Matrix clients what the server has to
// say to them alone: that a message which it had accepted could not be
// delivered. Matrix has no error for that, and an event in the room would tell
// everybody; so it comes in a conversation of its own with the server.
package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"parley/core"
	"parley/hub"
)

// Name is the local name under which the server speaks; it is reserved.
const Name = "parley"

// Notices implements [hub.Informer] for messages of Matrix clients.
type Notices struct {
	Hub *hub.Hub
	// Contact is the address of an administrator, empty for none.
	Contact string
	Log     *slog.Logger
}

// Network implements [hub.Informer].
func (Notices) Network() core.Network { return core.Matrix }

// Inform implements [hub.Informer].
func (n Notices) Inform(ctx context.Context, news hub.ReportNews) {
	if err := n.send(ctx, news.Event.Sender, words(news), news); err != nil {
		n.Log.Error("telling a sender of a failure", "event", news.Event.ID, "err", err)
	}
}

// words say what failed, so that the sender recognises the message.
func words(n hub.ReportNews) string {
	said := "Your message"
	if b, ok := core.BodyOf(n.Event.Content); ok && b.Encrypted == nil {
		text := []rune(strings.Join(strings.Fields(b.Plain()), " "))
		if len(text) > 60 {
			text = append(text[:60], '…')
		}
		if len(text) > 0 {
			said = fmt.Sprintf("Your message “%s”", string(text))
		}
	}
	return fmt.Sprintf("%s of %s could not be delivered to %s: %s", said,
		n.Event.Origin.Format("2006-01-02 15:04 MST"), n.Report.To.Bare(), n.Report.Reason)
}

// send speaks to an account in its conversation with the server, which is
// opened and marked as what it is when there is something to say for the
// first time.
//
// spec: MX 1.19 CS §10.35
func (n Notices) send(ctx context.Context, to core.Address, text string, news hub.ReportNews) error {
	server := core.LocalAddress(Name, to.Domain)
	if p, err := n.Hub.Profile(ctx, server); err != nil {
		return err
	} else if p.Name == "" {
		if err := n.Hub.LearnProfile(ctx, server, core.Profile{Name: "Notices of " + to.Domain}); err != nil {
			return err
		}
	}
	conv, err := n.Hub.DirectWith(ctx, server, to)
	if err != nil {
		return err
	}
	tag := []byte(`{"tags":{"m.server_notice":{}}}`)
	if err := n.Hub.PutDatum(ctx, hub.Datum{Account: to, Conv: conv, Type: "m.tag", Data: tag}, ""); err != nil {
		return err
	}
	content := map[string]any{
		"msgtype": "m.server_notice", "body": text, "server_notice_type": "org.parley.delivery_failed",
	}
	if n.Contact != "" {
		content["admin_contact"] = n.Contact
	}
	if a, ok := news.Event.Alias(core.Matrix, "event"); ok {
		content["org.parley.event_id"] = a.Key
	}
	native, err := json.Marshal(content)
	if err != nil {
		return err
	}
	body := core.TextBody(text)
	body.Tone = core.Notice
	_, err = n.Hub.Submit(ctx, hub.Draft{
		Conv: conv, Sender: server, Content: core.Message{Body: body},
		Native: &core.Native{Network: core.Matrix, Type: "m.room.message", Data: native},
		// A report is told once, also when it is made again.
		Aliases: []core.Alias{{Network: core.Matrix, Kind: "notice", Scope: news.Report.To.String(), Key: string(news.Event.ID)}},
	})
	return err
}
