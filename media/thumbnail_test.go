package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"testing"

	"pgregory.net/rapid"
)

// picture is w by h: its left half red, its right half blue.
func picture(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{R: 255, A: 255}
			if x >= w/2 {
				c = color.RGBA{B: 255, A: 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func encodePNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encodeJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func thumbnail(t testing.TB, f *Files, content []byte, w, h int, m Method) (image.Image, *Thumb) {
	t.Helper()
	th, err := f.Thumbnail(context.Background(), put(t, f, content, "").Hash, w, h, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { th.Close() })
	img, format, err := image.Decode(th)
	if err != nil || th.Type != "image/"+format {
		t.Fatalf("%s: %v", th.Type, err)
	}
	return img, th
}

func TestThumbnailSizes(t *testing.T) {
	f := openTest(t, Limits{})
	for _, c := range []struct {
		w, h       int // of the original
		tw, th     int // wished
		method     Method
		gotW, gotH int
		original   bool
	}{
		{1000, 500, 320, 240, Scale, 320, 160, false},
		{500, 1000, 320, 240, Scale, 120, 240, false},
		{1000, 500, 30, 30, Crop, 32, 32, false},
		{1000, 500, 96, 96, Crop, 96, 96, false},
		{1000, 500, 97, 97, Crop, 320, 320, false},
		{1000, 1000, 100, 50, Crop, 320, 160, false},
		{1000, 500, 640, 480, Scale, 640, 320, false},
		{100, 50, 320, 240, Scale, 100, 50, true},
		{1000, 20, 96, 96, Crop, 20, 20, false},
		{1000, 500, 4000, 3000, Scale, 1000, 500, true},
		{2000, 1, 320, 240, Scale, 320, 1, false},
	} {
		img, th := thumbnail(t, f, encodePNG(t, picture(c.w, c.h)), c.tw, c.th, c.method)
		if got := img.Bounds().Size(); got != image.Pt(c.gotW, c.gotH) || th.Original != c.original {
			t.Errorf("%dx%d as %s %dx%d: %v, original %v", c.w, c.h, c.method, c.tw, c.th, got, th.Original)
		}
	}
}

// Nothing is enlarged, and nothing is smaller than the wish where the original
// is not (for scale: in at least one direction).
func TestThumbnailProperty(t *testing.T) {
	f := openTest(t, Limits{})
	rapid.Check(t, func(rt *rapid.T) {
		w, h := rapid.IntRange(1, 400).Draw(rt, "w"), rapid.IntRange(1, 400).Draw(rt, "h")
		tw, th := rapid.IntRange(1, 400).Draw(rt, "tw"), rapid.IntRange(1, 400).Draw(rt, "th")
		m := rapid.SampledFrom([]Method{Scale, Crop}).Draw(rt, "method")
		img, _ := thumbnail(t, f, encodePNG(t, image.NewGray(image.Rect(0, 0, w, h))), tw, th, m)
		got := img.Bounds().Size()
		if got.X > w || got.Y > h {
			rt.Fatalf("enlarged to %v", got)
		}
		if got.X < min(w, tw) && got.Y < min(h, th) {
			rt.Fatalf("too small: %v", got)
		}
	})
}

func TestThumbnailFormats(t *testing.T) {
	f := openTest(t, Limits{})
	img := picture(200, 100)
	var g bytes.Buffer
	if err := gif.Encode(&g, img, nil); err != nil {
		t.Fatal(err)
	}
	seeThrough := picture(200, 100)
	for x := range 200 {
		for y := 80; y < 100; y++ {
			seeThrough.SetRGBA(x, y, color.RGBA{})
		}
	}
	for _, c := range []struct {
		content []byte
		want    string
	}{
		{encodeJPEG(t, img), "image/jpeg"},
		{encodePNG(t, img), "image/jpeg"},
		{g.Bytes(), "image/jpeg"},
		{encodePNG(t, seeThrough), "image/png"},
	} {
		got, th := thumbnail(t, f, c.content, 32, 32, Crop)
		if th.Type != c.want {
			t.Errorf("%s, want %s", th.Type, c.want)
		}
		if r, _, b, _ := got.At(4, 16).RGBA(); r < 0xc000 || b > 0x4000 {
			t.Errorf("%s: the left is not red: %x %x", c.want, r, b)
		}
	}
}

// withOrientation puts an Exif segment into a JPEG file.
func withOrientation(file []byte, o byte, order binary.AppendByteOrder) []byte {
	tiff := []byte("MM\x00\x2a")
	if order == binary.AppendByteOrder(binary.LittleEndian) {
		tiff = []byte("II\x2a\x00")
	}
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 1)
	tiff = order.AppendUint16(tiff, 0x0112)
	tiff = order.AppendUint16(tiff, 3)
	tiff = order.AppendUint32(tiff, 1)
	tiff = order.AppendUint16(tiff, uint16(o))
	tiff = order.AppendUint16(tiff, 0)
	body := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, file[:2]...)
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(body)+2))
	return append(append(out, body...), file[2:]...)
}

func TestOrientation(t *testing.T) {
	f := openTest(t, Limits{})
	file := encodeJPEG(t, picture(400, 200)) // red is left
	// Where red is after turning, as a point of a picture of 64 by 32 (or 32 by 64).
	red := map[byte]image.Point{1: {4, 16}, 2: {60, 16}, 3: {60, 16}, 4: {4, 16}, 5: {16, 4}, 6: {16, 4}, 7: {16, 60}, 8: {16, 60}}
	for o, at := range red {
		for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
			w, h := 64, 32
			if o >= 5 {
				w, h = h, w
			}
			img, _ := thumbnail(t, f, withOrientation(file, o, order), w, h, Crop)
			size := img.Bounds().Size()
			if (size.X > size.Y) != (w > h) {
				t.Errorf("orientation %d: size %v", o, size)
			}
			x, y := at.X*size.X/w, at.Y*size.Y/h
			if r, _, b, _ := img.At(x, y).RGBA(); r < b {
				t.Errorf("orientation %d: %x %x at %d,%d of %v", o, r, b, x, y, size)
			}
		}
	}
	blob := put(t, f, withOrientation(file, 6, binary.BigEndian), "")
	if blob.Width != 200 || blob.Height != 400 {
		t.Errorf("size %dx%d", blob.Width, blob.Height)
	}
}

// bomb is a PNG header that promises w by h pixels.
func bomb(w, h uint32) []byte {
	ihdr := append([]byte("IHDR"), 0, 0, 0, 0, 0, 0, 0, 0, 8, 6, 0, 0, 0)
	binary.BigEndian.PutUint32(ihdr[4:], w)
	binary.BigEndian.PutUint32(ihdr[8:], h)
	out := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	out = append(out, ihdr...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(ihdr))
}

func TestHostileImages(t *testing.T) {
	f := openTest(t, Limits{})
	whole := encodePNG(t, picture(500, 500))
	photo := encodeJPEG(t, picture(500, 500))
	for _, c := range []struct {
		name    string
		content []byte
		want    error
	}{
		{"many pixels", bomb(16000, 16000), ErrTooLarge},
		{"wide", bomb(100_000, 1), ErrTooLarge},
		{"beyond int", bomb(0x7fffffff, 0x7fffffff), nil},
		{"no width", bomb(0, 100), ErrNoThumbnail},
		{"header only", bomb(500, 500), ErrNoThumbnail},
		{"truncated PNG", whole[:len(whole)/2], ErrNoThumbnail},
		{"truncated JPEG header", photo[:20], ErrNoThumbnail},
		{"GIF without frames", []byte("GIF89a\xf4\x01\xf4\x01\x00\x00\x00;"), ErrNoThumbnail},
		{"text", []byte("hello"), ErrNoThumbnail},
		{"empty", nil, ErrNoThumbnail},
		{"SVG", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="500" height="500"/>`), ErrNoThumbnail},
		{"WebP header", []byte("RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff"), ErrNoThumbnail},
	} {
		th, err := f.Thumbnail(t.Context(), put(t, f, c.content, "image/png").Hash, 32, 32, Crop)
		if err == nil {
			th.Close()
			t.Errorf("%s: a thumbnail", c.name)
		} else if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if left := names(t, f, tempDir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestThumbnailWishes(t *testing.T) {
	f := openTest(t, Limits{})
	h := put(t, f, encodePNG(t, picture(300, 300)), "").Hash
	for _, c := range []struct {
		w, h   int
		method Method
	}{{0, 1, Crop}, {1, -1, Scale}, {1 << 40, 1, Scale}, {32, 32, "../../x"}} {
		if th, err := f.Thumbnail(t.Context(), h, c.w, c.h, c.method); err == nil {
			th.Close()
			t.Errorf("%+v: a thumbnail", c)
		}
	}
	if _, err := f.Thumbnail(t.Context(), Hash{}, 32, 32, Crop); !errors.Is(err, ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
	for w := 1; w <= 32; w++ {
		th, err := f.Thumbnail(t.Context(), h, w, 32, Crop)
		if err != nil {
			t.Fatal(err)
		}
		th.Close()
	}
	if n := len(names(t, f, thumbDir)); n != maxThumbs {
		t.Errorf("%d thumbnails are kept", n)
	}
	if left := names(t, f, tempDir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	if err := f.Remove(h, nil); err != nil {
		t.Fatal(err)
	}
	if left := names(t, f, thumbDir); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestThumbnailIsKept(t *testing.T) {
	f := openTest(t, Limits{})
	h := put(t, f, encodePNG(t, picture(300, 300)), "").Hash
	for range 2 {
		th, err := f.Thumbnail(t.Context(), h, 32, 32, Crop)
		if err != nil {
			t.Fatal(err)
		}
		th.Close()
	}
	if n := len(names(t, f, thumbDir)); n != 1 {
		t.Errorf("%d thumbnails", n)
	}
}

// FuzzScanJPEG: our own reader of JPEG segments and Exif survives everything.
func FuzzScanJPEG(f *testing.F) {
	file := encodeJPEG(f, picture(8, 8))
	f.Add(file)
	f.Add(withOrientation(file, 6, binary.BigEndian))
	f.Add(withOrientation(file, 3, binary.LittleEndian))
	f.Add([]byte("\xff\xd8\xff\xe1\x00\x10Exif\x00\x00II*\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, _ := scanJPEG(b); o < 0 || o > 8 {
			t.Errorf("orientation %d", o)
		}
	})
}
