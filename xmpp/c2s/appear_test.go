package c2s_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"parley/core"
	"parley/media/fetch"
	"parley/xmpp/c2s"
	"parley/xmpp/xmpptest"
)

// repository is a source of pictures, by URL.
type repository map[string][]byte

func (r repository) Open(_ context.Context, url string) (*fetch.File, error) {
	if r[url] == nil {
		return nil, fetch.ErrNotFound
	}
	return &fetch.File{Body: io.NopCloser(bytes.NewReader(r[url])), Type: "image/png"}, nil
}

// A client that asks for the card of one on another network gets what her server says of her, with her picture; its session goes on
// meanwhile. Nobody else makes this server ask.
func TestCardsOfOtherNetworks(t *testing.T) {
	small, err := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
	if err != nil {
		t.Fatal(err)
	}
	noise := image.NewGray(image.Rect(0, 0, 800, 600))
	for i := range noise.Pix {
		noise.Pix[i] = byte(rand.Uint32())
	}
	var large bytes.Buffer
	if err := png.Encode(&large, noise); err != nil {
		t.Fatal(err)
	}
	pictures := repository{"mxc://b.net/small": small, "mxc://b.net/large": large.Bytes(), "mxc://b.net/text": []byte("no picture")}
	var asked atomic.Int32
	release := make(chan struct{})
	appear := func(_ context.Context, account, who core.Address) (core.Profile, error) {
		asked.Add(1)
		switch {
		case account != core.LocalAddress("alice", "example.org") || who.Network != core.Matrix:
			return core.Profile{}, errors.New("asked for somebody else")
		case who.Name == "Slow":
			<-release
		case who.Name == "Silent":
			return core.Profile{}, errors.New("no answer")
		}
		return core.Profile{Name: "Dave D.", Avatar: &core.File{URL: "mxc://b.net/" + who.Name}}, nil
	}
	out := make(elsewhere, 100)
	s := xmpptest.New(t, xmpptest.With(func(c *c2s.Config) {
		c.Router, c.Appear = out, appear
		c.Remote = fetch.New(fetch.Config{Hub: c.Hub, Files: c.Files, MaxSize: 1 << 20, Timeout: time.Minute, Log: c.Log})
		c.Remote.Add("mxc", pictures, true)
		t.Cleanup(c.Remote.Close)
	}))
	silent := core.Address{Network: core.Matrix, Name: "Silent", Domain: "b.net"}
	if err := s.Hub.LearnProfile(t.Context(), silent, core.Profile{Name: "Was known"}); err != nil {
		t.Fatal(err)
	}
	s.Run(`
alice connects
alice sends:
  <iq type='get' id='slow' to='_matrix_=53low=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>
  <iq type='get' id='small' to='_matrix_small=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>
alice receives:
  <iq type='result' id='small' from='_matrix_small=40b.net@example.org'><vCard xmlns='vcard-temp'><FN>Dave D.</FN><NICKNAME>Dave D.</NICKNAME><PHOTO><TYPE>image/png</TYPE><BINVAL>`+
		base64.StdEncoding.EncodeToString(small)+`</BINVAL></PHOTO></vCard></iq>
alice sends:
  <iq type='get' id='text' to='_matrix_text=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>
  <iq type='get' id='none' to='_matrix_none=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>
  <iq type='get' id='silent' to='_matrix_=53ilent=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>
alice receives:
  <iq type='result' id='text'><vCard xmlns='vcard-temp'><FN>Dave D.</FN></vCard></iq>
  <iq type='result' id='none'><vCard xmlns='vcard-temp'><FN>Dave D.</FN></vCard></iq>
  <iq type='result' id='silent'><vCard xmlns='vcard-temp'><FN>Was known</FN></vCard></iq>
`, nil)
	close(release)
	s.Run(`
alice receives:
  <iq type='result' id='slow'><vCard xmlns='vcard-temp'><FN>Dave D.</FN></vCard></iq>
`, nil)
	a := s.Connect("alice", "two")
	a.SendRaw("<iq type='get' id='large' to='_matrix_large=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>")
	photo := a.Receive(find("id", "large")).Child("vcard-temp", "vCard").Child("", "PHOTO")
	raw, err := base64.StdEncoding.DecodeString(photo.ChildText("", "BINVAL"))
	if err != nil || len(raw) == 0 || len(raw) > 180<<10 {
		t.Fatalf("%d bytes of a picture that is too large, %v", len(raw), err)
	}
	if img, _, err := image.Decode(bytes.NewReader(raw)); err != nil || img.Bounds().Dx() < 200 {
		t.Errorf("%v, %v", img, err)
	}
	before := asked.Load()
	ctx := context.Background()
	s.C2S.Deliver(ctx, stanza(t, "<iq xmlns='jabber:client' type='get' id='far' from='mallory@evil.net/x' to='_matrix_small=40b.net@example.org'><vCard xmlns='vcard-temp'/></iq>"))
	out.next(t, find("id", "far"))
	if n := asked.Load(); n != before {
		t.Error("one on another server made this one ask")
	}
}
