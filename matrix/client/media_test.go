package client_test

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
)

const v1Media = "/_matrix/client/v1/media"

func (u *user) upload(content, typ, name string) string {
	u.t.Helper()
	a := u.raw("POST", "/_matrix/media/v3/upload?filename="+esc(name), strings.NewReader(content), "Content-Type", typ)
	return strings.TrimPrefix(a.ok()["content_uri"].(string), "mxc://")
}

func TestMedia(t *testing.T) {
	s := serve(t)
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	alice.do("GET", v1Media+"/config", nil).want("1048576", "m.upload.size")
	uri := alice.upload("hello world", "text/plain", "grüße.txt")

	a := bob.do("GET", v1Media+"/download/"+uri, nil)
	if a.status != 200 || string(a.body) != "hello world" {
		t.Fatalf("%d %q", a.status, a.body)
	}
	if cd := a.header.Get("Content-Disposition"); !strings.Contains(cd, "gr%C3%BC%C3%9Fe.txt") {
		t.Errorf("the name is lost: %s", cd)
	}
	for h, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*",
	} {
		if a.header.Get(h) != want {
			t.Errorf("%s: %q", h, a.header.Get(h))
		}
	}
	a = bob.raw("GET", v1Media+"/download/"+uri+"/other.txt", nil, "Range", "bytes=6-10")
	if a.status != 206 || string(a.body) != "world" || !strings.Contains(a.header.Get("Content-Disposition"), "other.txt") {
		t.Errorf("a range: %d %q %v", a.status, a.body, a.header)
	}
	if a := bob.raw("HEAD", v1Media+"/download/"+uri, nil); a.status != 200 || a.header.Get("Content-Length") != "11" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	s.nobody().do("GET", v1Media+"/download/"+uri, nil).fails(401, client.MissingToken)
	for _, old := range []string{"v3", "r0"} {
		bob.do("GET", "/_matrix/media/"+old+"/download/"+uri, nil).fails(404, client.NotFound)
		bob.do("GET", "/_matrix/media/"+old+"/thumbnail/"+uri, nil).fails(404, client.NotFound)
	}
	bob.do("GET", v1Media+"/download/example.org/none", nil).fails(404, client.NotFound)
	bob.do("GET", v1Media+"/download/elsewhere.net/"+strings.TrimPrefix(uri, "example.org/"), nil).fails(404, client.NotFound)
	bob.do("GET", v1Media+"/download/example.org/..%2F..%2Flock", nil).fails(404, client.NotFound)
	alice.raw("POST", "/_matrix/media/v3/upload", bytes.NewReader(make([]byte, 1<<20+1))).fails(413, client.TooLarge)
	s.nobody().raw("POST", "/_matrix/media/v3/upload", strings.NewReader("x")).fails(401, client.MissingToken)
	// A document that could do something is not shown in the browser's window.
	page := alice.upload("<script>alert(1)</script>", "text/html", "x.html")
	if cd := bob.do("GET", v1Media+"/download/"+page, nil).header.Get("Content-Disposition"); !strings.HasPrefix(cd, "attachment") {
		t.Errorf("HTML is served as %s", cd)
	}
}

func TestThumbnail(t *testing.T) {
	s := serve(t)
	alice := s.login("alice", "A")
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewRGBA(image.Rect(0, 0, 400, 300))); err != nil {
		t.Fatal(err)
	}
	uri := alice.upload(b.String(), "image/png", "x.png")
	a := alice.do("GET", v1Media+"/thumbnail/"+uri+"?width=64&height=64&method=crop", nil)
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	img, _, err := image.Decode(bytes.NewReader(a.body))
	if err != nil || img.Bounds().Dx() >= 400 {
		t.Errorf("thumbnail: %v %v", img.Bounds(), err)
	}
	full := alice.do("GET", v1Media+"/download/"+uri, nil)
	if a.header.Get("ETag") == full.header.Get("ETag") {
		t.Error("the thumbnail has the tag of the image")
	}
	alice.do("GET", v1Media+"/thumbnail/"+uri+"?width=0&height=64", nil).fails(400, client.InvalidParam)
	alice.do("GET", v1Media+"/thumbnail/"+uri+"?width=64&height=64&method=stretch", nil).fails(400, client.InvalidParam)
	text := alice.upload("hello", "text/plain", "")
	alice.do("GET", v1Media+"/thumbnail/"+text+"?width=64&height=64", nil).fails(400, client.Unknown)
}

func TestAsyncUpload(t *testing.T) {
	s := serve(t)
	alice, bob := s.login("alice", "A"), s.login("bob", "B")
	uri := strings.TrimPrefix(alice.do("POST", "/_matrix/media/v1/create", object{}).ok()["content_uri"].(string), "mxc://")
	bob.do("GET", v1Media+"/download/"+uri+"?timeout_ms=0", nil).fails(504, client.NotYetUploaded)
	waiting := make(chan *answer)
	go func() { waiting <- bob.do("GET", v1Media+"/download/"+uri, nil) }()
	const put = "/_matrix/media/v3/upload/"
	bob.raw("PUT", put+uri, strings.NewReader("bob's")).fails(403, client.Forbidden)
	alice.raw("PUT", put+uri, strings.NewReader("late"), "Content-Type", "text/plain").ok()
	if a := <-waiting; a.status != 200 || string(a.body) != "late" {
		t.Errorf("who waited got %d %q", a.status, a.body)
	}
	alice.raw("PUT", put+uri, strings.NewReader("again")).fails(409, client.CannotOverwrite)
	if a := bob.do("GET", v1Media+"/download/"+uri, nil); string(a.body) != "late" {
		t.Errorf("overwritten: %q", a.body)
	}
}

// Those who cannot log in have a link that ends with the message.
func TestPublicMedia(t *testing.T) {
	s := serve(t)
	ctx := context.Background()
	alice := s.login("alice", "A")
	_, id, _ := strings.Cut(alice.upload("hello", "text/plain", "a.txt"), "/")
	const secret = "unguessable"
	link := hub.Link{Secret: secret, Media: core.MediaID(id), Conv: core.NewConvID(), Event: core.NewEventID()}
	if err := s.hub.Write(ctx, func(tx hub.Tx) error { return tx.PutLink(link) }); err != nil {
		t.Fatal(err)
	}
	n := s.nobody()
	a := n.raw("GET", "/_parley/media/"+secret+"/a.txt", nil, "Range", "bytes=1-2")
	if a.status != 206 || string(a.body) != "el" {
		t.Errorf("%d %q", a.status, a.body)
	}
	if cc := a.header.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
		t.Errorf("a link that can be withdrawn is cached: %s", cc)
	}
	n.do("GET", "/_parley/media/guess/a.txt", nil).fails(404, client.NotFound)
	if err := s.hub.Write(ctx, func(tx hub.Tx) error { return tx.DeleteLinks(link.Event) }); err != nil {
		t.Fatal(err)
	}
	n.do("GET", "/_parley/media/"+secret+"/a.txt", nil).fails(404, client.NotFound)
}
