package media

import (
	"bytes"
	"mime"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func serve(t testing.TB, f *Files, h Hash, hd http.Header, p Presentation) *http.Response {
	t.Helper()
	file, err := f.Get(h)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = hd
	w := httptest.NewRecorder()
	Serve(w, r, h, file, p)
	return w.Result()
}

func TestRanges(t *testing.T) {
	f := openTest(t, Limits{})
	b := put(t, f, []byte("0123456789"), "text/plain")
	for _, c := range []struct {
		header, value string
		status        int
		body          string
	}{
		{"", "", 200, "0123456789"},
		{"Range", "bytes=2-4", 206, "234"},
		{"Range", "bytes=-3", 206, "789"},
		{"Range", "bytes=8-100", 206, "89"},
		{"Range", "bytes=10-", 416, ""},
		{"Range", "bytes=5-2", 416, ""},
		{"Range", "lines=1-2", 416, ""},
		{"If-None-Match", `"` + b.Hash.String() + `"`, 304, ""},
	} {
		hd := http.Header{}
		if c.header != "" {
			hd.Set(c.header, c.value)
		}
		res := serve(t, f, b.Hash, hd, Presentation{Type: b.Declared})
		var got bytes.Buffer
		if _, err := got.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.status || c.status < 300 && got.String() != c.body {
			t.Errorf("%s: %s: %d %q", c.header, c.value, res.StatusCode, got.String())
		}
	}
}

func TestDisposition(t *testing.T) {
	for _, c := range []struct {
		p                   Presentation
		typ, kind, filename string
	}{
		{Presentation{Type: "image/png", Name: "a.png"}, "image/png", "inline", "a.png"},
		{Presentation{Type: "IMAGE/PNG", Attach: true}, "image/png", "attachment", ""},
		{Presentation{Type: "image/svg+xml"}, "image/svg+xml", "attachment", ""},
		{Presentation{Type: "text/html", Name: "x"}, "text/html", "attachment", "x"},
		{Presentation{Type: "text/plain; charset=utf-8"}, "text/plain; charset=utf-8", "inline", ""},
		{Presentation{Type: "image/png, text/html"}, "application/octet-stream", "attachment", ""},
		{Presentation{Type: "image/png\r\nX-Evil: 1"}, "application/octet-stream", "attachment", ""},
		{Presentation{Type: ""}, "application/octet-stream", "attachment", ""},
		{Presentation{Type: "image/png", Name: "../../etc/passwd"}, "image/png", "inline", "passwd"},
		{Presentation{Type: "image/png", Name: `C:\x\..\y"z.png`}, "image/png", "inline", `y"z.png`},
		{Presentation{Type: "image/png", Name: ".htaccess"}, "image/png", "inline", "htaccess"},
		{Presentation{Type: "image/png", Name: "fdp.\u202egnp.exe"}, "image/png", "inline", "fdp.gnp.exe"},
		{Presentation{Type: "image/png", Name: "žluťoučký.png"}, "image/png", "inline", "žluťoučký.png"},
	} {
		hd := http.Header{}
		SetHeaders(hd, c.p)
		kind, params, err := mime.ParseMediaType(hd.Get("Content-Disposition"))
		if err != nil || hd.Get("Content-Type") != c.typ || kind != c.kind || params["filename"] != c.filename {
			t.Errorf("%+v: %v, %v", c.p, hd, err)
		}
		if !strings.HasPrefix(hd.Get("Content-Security-Policy"), "sandbox;") || hd.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%+v: %v", c.p, hd)
		}
	}
}

// Whatever the name and type, the headers are single lines, the name is one
// path element, and nothing but a listed type is inline.
func TestHeadersProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Presentation{
			Type: rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"text/html", "image/png", "a/b; c=\"d\""})).Draw(t, "type"),
			Name: rapid.OneOf(rapid.String(), rapid.StringMatching(`[./\\"%\x00-\x1f a-z]{0,300}`)).Draw(t, "name"),
		}
		hd := http.Header{}
		SetHeaders(hd, p)
		kind, params, err := mime.ParseMediaType(hd.Get("Content-Disposition"))
		if err != nil {
			t.Fatalf("%q: %v", hd.Get("Content-Disposition"), err)
		}
		name := params["filename"]
		if strings.ContainsAny(name, "/\\\x00\r\n") || strings.HasPrefix(name, ".") || len(name) > maxName || !utf8.ValidString(name) {
			t.Fatalf("name %q", name)
		}
		typ, _, err := mime.ParseMediaType(hd.Get("Content-Type"))
		if err != nil || kind == "inline" && !inlineTypes[typ] {
			t.Fatalf("%v: %v", hd, err)
		}
		for k, v := range hd {
			if strings.ContainsAny(v[0], "\r\n\x00") {
				t.Fatalf("%s: %q", k, v)
			}
		}
	})
}

func TestCaching(t *testing.T) {
	for want, p := range map[string]Presentation{
		"private, no-store":               {},
		"private, immutable, max-age=60":  {MaxAge: time.Minute},
		"public, immutable, max-age=3600": {MaxAge: time.Hour, Public: true},
	} {
		hd := http.Header{}
		SetHeaders(hd, p)
		if got := hd.Get("Cache-Control"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
