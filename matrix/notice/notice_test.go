package notice_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/notice"
	"parley/store/storetest"
)

// nowhere is a network to which nothing gets.
type nowhere struct{}

func (nowhere) Network() core.Network                       { return core.XMPP }
func (nowhere) Capabilities(core.Address) core.Capabilities { return core.Capabilities{} }
func (nowhere) Whisper(hub.Whisper)                         {}
func (nowhere) Deliver(_ context.Context, _ string, ds []hub.Delivery) []hub.Result {
	out := make([]hub.Result, len(ds))
	for i := range out {
		out[i] = hub.Result{Outcome: hub.Failed, Reason: "there is no such server"}
	}
	return out
}

// A message of a Matrix client that fails late is told of in a conversation
// with the server, once, by name; nobody else hears of it.
func TestLateFailure(t *testing.T) {
	h, _ := hubtest.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	h.AddCarrier(nowhere{})
	h.AddInformer(notice.Notices{Hub: h, Log: storetest.Log(t)})
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	alice := hubtest.Account(t, h, "alice")
	ears, err := h.Attach(hub.SessionSpec{Account: alice})
	if err != nil {
		t.Fatal(err)
	}
	send := func(native core.Network, text string) core.Event {
		e, err := h.SubmitDirect(ctx, core.Address{Network: core.XMPP, Name: "carol", Domain: "gone.test"}, hub.Draft{
			Sender: alice, Content: core.Message{Body: core.TextBody(text)},
			Native: &core.Native{Network: native, Type: "m.room.message", Data: []byte(`{"msgtype":"m.text","body":"x"}`)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	send(core.XMPP, "from an XMPP client, which has errors of its own")
	e := send(core.Matrix, "are you there?")
	for {
		n, err := ears.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := n.(hub.EventNews)
		if !ok || got.Event.Sender.Name != notice.Name || core.KindOf(got.Event.Content) != core.KindMessage {
			continue
		}
		if got.Event.Conv == e.Conv {
			t.Error("the notice is in the room of the message")
		}
		b, _ := core.BodyOf(got.Event.Content)
		for _, want := range []string{"are you there?", "carol@gone.test", "there is no such server"} {
			if !strings.Contains(b.Plain(), want) {
				t.Errorf("the notice %q does not say %q", b.Plain(), want)
			}
		}
		if got.State.Standing(alice) != core.Joined {
			t.Error("alice was only invited to the notices of her own server")
		}
		break
	}
	d, err := h.Datum(ctx, alice, "", "m.tag")
	if err == nil {
		t.Errorf("the tag is on the account: %s", d.Data)
	}
}
