package media_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"parley/core"
	"parley/hub"
	"parley/hub/hubtest"
	"parley/matrix/federation"
)

func newWorld() *world { return &world{at: map[string]string{}} }

// TestTwoServers: one gives its files to the other's clients, with their names
// and types, and they stay there.
//
// spec: MX 1.19 SS §25
func TestTwoServers(t *testing.T) {
	w := newWorld()
	a, b := w.build(t, "a.test"), w.build(t, "b.test")
	file := a.upload("hello world", "grüße.txt")
	w.called()
	for range 2 {
		got := b.download(file)
		if got.status != 200 || got.body != "hello world" || !strings.Contains(got.header.Get("Content-Disposition"), "gr%C3%BC%C3%9Fe.txt") ||
			got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Fatalf("%v %v", got, got.header)
		}
	}
	if calls := w.called(); len(calls) != 2 || !strings.Contains(calls[0], "/federation/v1/media/download/") || !strings.Contains(calls[1], "key/v2/server") {
		t.Errorf("%q", calls)
	}
	// A thumbnail is made here of a picture there.
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 400, 300))); err != nil {
		t.Fatal(err)
	}
	got := b.do("alice", "GET", "/_matrix/client/v1/media/thumbnail/"+a.upload(picture.String(), "p.png")+"?width=32&height=32&method=crop", nil)
	if img, _, err := image.Decode(strings.NewReader(got.body)); err != nil || img.Bounds().Dx() != 32 {
		t.Errorf("%v: %v", got, err)
	}
	// What is not there, and what is of a third.
	if got := b.download("a.test/none"); got.status != 404 {
		t.Error(got)
	}
	id := strings.TrimPrefix(file, "a.test/")
	third := string(core.MediaIDOf("mxc://" + file))
	for path, status := range map[string]int{
		"download/" + third: 404, "download/..%2F..%2Flock": 404, "download/%00": 404, "download/" + id + "?timeout_ms=x": 400,
		"thumbnail/" + id: 400, "thumbnail/" + id + "?width=10&height=10": 400, "thumbnail/" + id + "?width=10&height=-1&method=crop": 400,
	} {
		_, _, err := a.ask("a.test", "b.test", path)
		if path == "thumbnail/"+id || strings.Contains(path, id) {
			_, _, err = b.ask("b.test", "a.test", path)
		}
		if e, ok := errors.AsType[*federation.Error](err); !ok || e.Status != status {
			t.Errorf("%s: %v, want %d", path, err, status)
		}
	}
	if _, _, err := b.ask("", "a.test", "download/"+id); err == nil {
		t.Error("a file was given to one who has not said who it is")
	}
}

// TestParts looks at what goes over the wire: two parts, of which the second is
// the file.
//
// spec: MX 1.19 SS §25
func TestParts(t *testing.T) {
	w := newWorld()
	a, b := w.build(t, "a.test"), w.build(t, "b.test")
	_, id, _ := strings.Cut(a.upload("<script>", "x.html"), "/")
	header, body, err := b.ask("b.test", "a.test", "download/"+id)
	if err != nil || header.Get("Content-Length") != fmt.Sprint(len(body)) {
		t.Fatal(header, err)
	}
	typ, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || typ != "multipart/mixed" {
		t.Fatal(typ, err)
	}
	mr := multipart.NewReader(strings.NewReader(body), params["boundary"])
	var got []string
	for part, err := mr.NextRawPart(); !errors.Is(err, io.EOF); part, err = mr.NextRawPart() {
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		disposition, _, _ := strings.Cut(part.Header.Get("Content-Disposition"), ";")
		got = append(got, part.Header.Get("Content-Type")+"|"+disposition+"|"+string(text))
	}
	if len(got) != 2 || got[0] != "application/json||{}" || got[1] != "text/html; charset=utf-8|attachment|<script>" {
		t.Errorf("%q", got)
	}
	// A file that is still to come is not waited for longer than was asked, and
	// the other server is not let alone because of it.
	created := a.do("alice", "POST", "/_matrix/media/v1/create", nil)
	_, rest, _ := strings.Cut(created.body, "mxc://a.test/")
	id, _, _ = strings.Cut(rest, `"`)
	_, _, err = b.ask("b.test", "a.test", "download/"+id+"?timeout_ms=1")
	if e, ok := errors.AsType[*federation.Error](err); !ok || e.Status != 504 || e.Errcode != "M_NOT_YET_UPLOADED" || !b.client.Until("a.test").IsZero() {
		t.Errorf("%v, let alone until %v", err, b.client.Until("a.test"))
	}
}

// A message with a file on another Matrix server gives those who cannot log in
// a link here, under which it is fetched when somebody looks.
func TestLink(t *testing.T) {
	w := newWorld()
	a, b := w.build(t, "a.test"), w.build(t, "b.test")
	uri := "mxc://" + a.upload("hello", "")
	bob := core.LocalAddress("bob", "b.test")
	if err := b.hub.CreateAccount(t.Context(), bob, hubtest.Password); err != nil {
		t.Fatal(err)
	}
	e, err := b.hub.SubmitDirect(t.Context(), bob, hub.Draft{
		Sender: core.LocalAddress("alice", "b.test"), Content: core.Message{Body: core.FileBody(core.File{URL: uri, Type: "text/html"}, "")},
	})
	if err != nil {
		t.Fatal(err)
	}
	var secret string
	err = b.hub.Read(t.Context(), func(v hub.View) error {
		links, err := v.Links(e.ID)
		if err == nil && len(links) == 1 {
			secret = links[0].Secret
		}
		return err
	})
	if err != nil || secret == "" {
		t.Fatalf("%q, %v", secret, err)
	}
	w.called()
	for range 2 {
		got := b.do("", "GET", "/_parley/media/"+secret+"/x", nil)
		if got.status != 200 || got.body != "hello" || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%v %v", got, got.header)
		}
	}
	if calls := w.called(); len(calls) != 2 { // the file, and a's look at b's keys
		t.Errorf("%q", calls)
	}
	if got := b.do("", "GET", "/_parley/media/guess/x", nil); got.status != 404 {
		t.Error(got)
	}
}

// TestOldWay asks a server that knows only the endpoints for everybody, and no
// others in that way.
//
// spec: MX 1.19 SS §25
func TestOldWay(t *testing.T) {
	w := newWorld()
	b := w.build(t, "b.test")
	w.serve(t, "old.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/_matrix/media/v3/download/old.test/x" && r.URL.Query().Get("allow_remote") == "false" && r.Header.Get("Authorization") == "":
			rw.Header().Set("Content-Type", "text/plain")
			rw.Header().Set("Content-Disposition", `attachment; filename="old.txt"`)
			fmt.Fprint(rw, "from before")
		case strings.HasPrefix(r.URL.Path, "/_matrix/federation/"):
			rw.WriteHeader(404)
			fmt.Fprint(rw, `{"errcode":"M_UNRECOGNIZED","error":"?"}`)
		default:
			rw.WriteHeader(404)
		}
	}))
	if got := b.download("old.test/x"); got.status != 200 || got.body != "from before" || !strings.Contains(got.header.Get("Content-Disposition"), "old.txt") {
		t.Errorf("%v %v", got, got.header)
	}
	if got := b.download("old.test/y"); got.status != 404 {
		t.Error(got)
	}
	w.serve(t, "new.test", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(404)
		fmt.Fprint(rw, `{"errcode":"M_NOT_FOUND","error":"?"}`)
	}))
	w.called()
	if got := b.download("new.test/x"); got.status != 404 || len(w.called()) != 1 {
		t.Error(got)
	}
}

// endless writes as long as anybody reads.
func endless(w io.Writer, line string) {
	for {
		if _, err := io.WriteString(w, line); err != nil {
			return
		}
	}
}

// TestHostileAnswers: whatever another server sends for a file, the client is
// told that there is none, nothing is kept, and nothing goes on for ever.
func TestHostileAnswers(t *testing.T) {
	inside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") }))
	defer inside.Close()
	const mixed, first = "multipart/mixed; boundary=x", "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\n"
	cases := map[string]struct {
		typ    string
		write  func(w http.ResponseWriter)
		status int
		code   string
	}{
		"type":     {"text/plain", func(w http.ResponseWriter) { fmt.Fprint(w, first+"\r\nfile\r\n--x--\r\n") }, 502, "M_UNKNOWN"},
		"boundary": {"multipart/mixed", func(w http.ResponseWriter) { fmt.Fprint(w, first+"\r\nfile\r\n--x--\r\n") }, 502, "M_UNKNOWN"},
		"long":     {"multipart/mixed; boundary=" + strings.Repeat("x", 71), func(w http.ResponseWriter) { fmt.Fprint(w, "--"+strings.Repeat("x", 71)) }, 502, "M_UNKNOWN"},
		"one":      {mixed, func(w http.ResponseWriter) { fmt.Fprint(w, "--x\r\n\r\n{}\r\n--x--\r\n") }, 502, "M_UNKNOWN"},
		"none":     {mixed, func(http.ResponseWriter) {}, 502, "M_UNKNOWN"},
		"cut":      {mixed, func(w http.ResponseWriter) { fmt.Fprint(w, first+"\r\nfi") }, 502, "M_UNKNOWN"},
		"preamble": {mixed, func(w http.ResponseWriter) { endless(w, "y\r\n") }, 502, "M_UNKNOWN"},
		"line":     {mixed, func(w http.ResponseWriter) { endless(w, "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy") }, 502, "M_UNKNOWN"},
		"first": {mixed, func(w http.ResponseWriter) {
			fmt.Fprint(w, "--x\r\n\r\n")
			endless(w, `{"a":[[[[[[[[[[[`)
		}, 502, "M_UNKNOWN"},
		"headers": {mixed, func(w http.ResponseWriter) {
			fmt.Fprint(w, first)
			endless(w, "X-Y: z\r\n")
		}, 502, "M_UNKNOWN"},
		"endless": {mixed, func(w http.ResponseWriter) {
			fmt.Fprint(w, first+"Content-Type: image/png\r\n\r\n")
			endless(w, strings.Repeat("x", 1000))
		}, 502, "M_TOO_LARGE"},
		"large": {mixed, func(w http.ResponseWriter) {
			fmt.Fprint(w, first+"\r\n"+strings.Repeat("x", maxSize+1)+"\r\n--x--\r\n")
		}, 502, "M_TOO_LARGE"},
		"inside": {mixed, func(w http.ResponseWriter) { fmt.Fprint(w, first+"Location: "+inside.URL+"/f\r\n\r\n\r\n--x--\r\n") }, 502, "M_UNKNOWN"},
		"metadata": {mixed, func(w http.ResponseWriter) {
			fmt.Fprint(w, first+"Location: https://169.254.169.254/f\r\n\r\n\r\n--x--\r\n")
		}, 502, "M_UNKNOWN"},
		"scheme":   {mixed, func(w http.ResponseWriter) { fmt.Fprint(w, first+"Location: file:///etc/passwd\r\n\r\n\r\n--x--\r\n") }, 502, "M_UNKNOWN"},
		"relative": {mixed, func(w http.ResponseWriter) { fmt.Fprint(w, first+"Location: /f\r\n\r\n\r\n--x--\r\n") }, 502, "M_UNKNOWN"},
		"redirect": {"", func(w http.ResponseWriter) { w.Header().Set("Location", inside.URL); w.WriteHeader(307) }, 502, "M_UNKNOWN"},
		"toolarge": {"", func(w http.ResponseWriter) { w.WriteHeader(502); fmt.Fprint(w, `{"errcode":"M_TOO_LARGE"}`) }, 502, "M_TOO_LARGE"},
		"notyet":   {"", func(w http.ResponseWriter) { w.WriteHeader(504); fmt.Fprint(w, `{"errcode":"M_NOT_YET_UPLOADED"}`) }, 504, "M_NOT_YET_UPLOADED"},
		"refused":  {"", func(w http.ResponseWriter) { w.WriteHeader(403); fmt.Fprint(w, `{"errcode":"M_FORBIDDEN"}`) }, 502, "M_UNKNOWN"},
	}
	w := newWorld()
	b := w.build(t, "b.test")
	w.serve(t, "evil.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c := cases[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		if c.typ != "" {
			rw.Header().Set("Content-Type", c.typ)
		}
		c.write(rw)
	}))
	for name, c := range cases {
		got := b.download("evil.test/" + name)
		if got.status != c.status || !strings.Contains(got.body, c.code) {
			t.Errorf("%s: %v, want %d %s", name, got, c.status, c.code)
		}
		if _, err := b.hub.MediaByID(t.Context(), core.MediaIDOf("mxc://evil.test/"+name)); hub.CodeOf(err) != hub.NotFound {
			t.Errorf("%s: something is kept, %v", name, err)
		}
	}
	w.called()
	for _, path := range []string{
		"evil.test/..%2F..%2Fsend%2F1", "evil.test/x%3Fa=b", "evil.test/%2E%2E", "evil.test%2F..%2Fother.test/x", "127.0.0.1%2F/x", "evil.test:99999/x", "@evil.test/x",
	} {
		if got := b.download(path); got.status != 404 && got.status != 400 {
			t.Errorf("%s: %v", path, got)
		}
	}
	if calls := w.called(); len(calls) != 0 {
		t.Errorf("%q", calls)
	}
	if got := b.download("silent.test/x"); got.status != 502 {
		t.Errorf("a server that is not there: %v", got)
	}
}

// Only those who have logged in make this server ask others.
func TestStrangersFetchNothing(t *testing.T) {
	w := newWorld()
	b := w.build(t, "b.test")
	for _, path := range []string{"/_matrix/client/v1/media/download/a.test/x", "/_matrix/client/v1/media/thumbnail/a.test/x?width=1&height=1", "/_matrix/media/v3/download/a.test/x"} {
		if got := b.do("", "GET", path, nil); got.status != 401 && got.status != 404 {
			t.Errorf("%s: %v", path, got)
		}
	}
	if calls := w.called(); len(calls) != 0 {
		t.Errorf("%q", calls)
	}
}
