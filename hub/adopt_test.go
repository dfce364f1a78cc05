package hub_test

import (
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
)

// A file in a Matrix server's repository gets one name and one row, however
// often it is sent, with nothing that a sender says of it; and each message its
// own link.
func TestContentIsAdoptedOnce(t *testing.T) {
	h, _ := hubtest.New(t)
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	alice, bob := hubtest.Account(t, h, "alice"), hubtest.Account(t, h, "bob")
	const uri, small = "mxc://other.test/abc", "mxc://other.test/small"
	send := func(from, to core.Address, f core.File) core.File {
		t.Helper()
		e, err := h.SubmitDirect(t.Context(), to, hub.Draft{Sender: from, Content: core.Message{Body: core.FileBody(f, "")}})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := core.BodyOf(e.Content)
		got := b.Files()[0]
		err = h.Read(t.Context(), func(v hub.View) error {
			links, err := v.Links(e.ID)
			if err == nil && len(links) != 2 {
				t.Errorf("%d links for a file and its preview", len(links))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := send(alice, bob, core.File{URL: uri, Type: "text/html", SHA256: "beef", Name: "x", Preview: &core.File{URL: small}})
	second := send(bob, alice, core.File{URL: uri, Type: "image/png", Preview: &core.File{URL: small}})
	if first.Media != core.MediaIDOf(uri) || second.Media != first.Media || first.URL != uri || first.Preview.Media != core.MediaIDOf(small) {
		t.Errorf("%+v and %+v", first, second)
	}
	m, err := h.MediaByID(t.Context(), first.Media)
	if err != nil || m.Owner != alice || m.Stored || m.File != (core.File{Media: first.Media, URL: uri}) {
		t.Errorf("%+v, %v", m, err)
	}
	// Once it has been fetched, another message does not undo that.
	m.Stored, m.File.Type = true, "image/png"
	if err := h.AddMedia(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	send(alice, bob, core.File{URL: uri, Preview: &core.File{URL: small}})
	if again, err := h.MediaByID(t.Context(), m.ID); err != nil || !again.Stored || again.File.Type != "image/png" {
		t.Errorf("%+v, %v", again, err)
	}
}
