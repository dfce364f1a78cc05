package media

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // decoders that image.Decode finds
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp"
)

// ErrNoThumbnail is returned for a file that is not an image that can be
// decoded, or is a broken one.
var ErrNoThumbnail = errors.New("media: no thumbnail can be made of this file")

// Method is how an image is fitted into a rectangle.
type Method string

const (
	Scale Method = "scale" // whole, keeping its aspect ratio
	Crop  Method = "crop"  // covering the rectangle, its edges cut away
)

// Thumb is a small image, or the original where that is no larger. Close it.
type Thumb struct {
	*os.File
	Type     string
	Original bool // the file is that of the hash itself
}

// rungs are the longer sides, in pixels, of the thumbnails that are made: a
// wish is rounded up to the next, so that few are kept. They contain the sizes
// that a server should produce. A wish beyond the last gets the original.
//
// spec: MX 1.19 CS §10.9.2.1
var rungs = []int{32, 96, 320, 640, 800, 1600}

// maxThumbs is how many thumbnails of one file are kept; others are made anew.
const maxThumbs = 16

// size is a wish for a thumbnail.
type size struct {
	w, h   int
	method Method
}

// roundUp rounds a wish up. Scaling knows rectangles of 4:3 only, since the
// result has the image's own ratio; cropping keeps the ratio of the wish.
func (s size) roundUp() (size, bool) {
	if s.method == Scale && s.w != s.h {
		s.w = max(s.w, (s.h*4+2)/3)
		s.h = (s.w*3 + 3) / 4
	}
	for _, rung := range rungs {
		if long := max(s.w, s.h); rung >= long {
			return size{max(1, s.w*rung/long), max(1, s.h*rung/long), s.method}, true
		}
	}
	return s, false
}

func (s size) String() string {
	return itoa(int64(s.w)) + "x" + itoa(int64(s.h)) + "-" + string(s.method)
}

// Thumbnail returns an image of at least w by h pixels (less where the
// original has less: nothing is enlarged), made now or before.
func (f *Files) Thumbnail(ctx context.Context, h Hash, w, ht int, method Method) (*Thumb, error) {
	if w <= 0 || ht <= 0 || w > f.limits.MaxDimension || ht > f.limits.MaxDimension || method != Scale && method != Crop {
		return nil, fmt.Errorf("media: a thumbnail of %dx%d, method %q, makes no sense", w, ht, method)
	}
	mu := &f.locks[h[0]]
	mu.RLock()
	defer mu.RUnlock()
	want, small := size{w, ht, method}.roundUp()
	if small {
		if t, err := f.cached(h, want); err == nil {
			return t, nil
		}
	}
	src, err := f.Get(h)
	if err != nil {
		return nil, err
	}
	hd, err := readHeader(src)
	if err != nil {
		src.Close()
		return nil, err
	}
	if !small || hd.Width <= want.w && hd.Height <= want.h {
		return original(src, hd)
	}
	defer src.Close()
	if err := hd.affordable(f.limits); err != nil {
		return nil, err
	}
	select {
	case f.decoders <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-f.decoders }()
	if t, err := f.cached(h, want); err == nil { // somebody else has just made it
		return t, nil
	}
	return f.make(ctx, h, src, hd, want)
}

// original returns the image itself. It is safe to show as what it is.
func original(src *os.File, hd header) (*Thumb, error) {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		src.Close()
		return nil, fmt.Errorf("media: %w", err)
	}
	return &Thumb{File: src, Type: "image/" + hd.format, Original: true}, nil
}

// thumbTypes are the formats of thumbnails by the ending of their names.
var thumbTypes = map[string]string{".jpg": "image/jpeg", ".png": "image/png"}

func (f *Files) cached(h Hash, want size) (*Thumb, error) {
	for ext, typ := range thumbTypes {
		file, err := os.Open(filepath.Join(f.thumbsOf(h), want.String()+ext))
		if err == nil {
			return &Thumb{File: file, Type: typ}, nil
		}
	}
	return nil, fs.ErrNotExist
}

// make decodes, shrinks and encodes.
func (f *Files) make(ctx context.Context, h Hash, src *os.File, hd header, want size) (*Thumb, error) {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	img, _, err := image.Decode(contextReader{ctx, src})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoThumbnail, err)
	}
	small := hd.orientation.apply(shrink(img, hd.orientation.size(want)))
	temp, err := os.CreateTemp(filepath.Join(f.dir, tempDir), "thumb-*")
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	t := &Thumb{File: temp}
	path, err := f.encode(t, h, small, want)
	if err == nil {
		err = f.keepThumb(temp.Name(), path)
	}
	if err == nil {
		_, err = temp.Seek(0, io.SeekStart)
	}
	if err != nil {
		temp.Close()
		return nil, errors.Join(fmt.Errorf("media: making a thumbnail: %w", err), os.Remove(temp.Name()))
	}
	return t, nil
}

// encode writes the image as JPEG, or as PNG if one can see through it, and
// returns the path that it should get.
func (f *Files) encode(t *Thumb, h Hash, img *image.RGBA, want size) (path string, err error) {
	ext := ".png"
	if img.Opaque() {
		ext = ".jpg"
		err = jpeg.Encode(t, img, &jpeg.Options{Quality: 82})
	} else {
		err = png.Encode(t, img)
	}
	t.Type = thumbTypes[ext]
	return filepath.Join(f.thumbsOf(h), want.String()+ext), errors.Join(err, t.Sync())
}

// keepThumb gives a thumbnail its name, or leaves it without one if the file
// has enough of them already: it is then gone when it is closed.
func (f *Files) keepThumb(temp, path string) error {
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(list) >= maxThumbs {
		return os.Remove(temp)
	}
	return os.Rename(temp, path)
}

// shrink fits img into the size, never enlarging it.
func shrink(img image.Image, want size) *image.RGBA {
	from := img.Bounds()
	w, h := from.Dx(), from.Dy()
	if want.method == Crop {
		// The largest part of the ratio of the wish, from the middle.
		cw, ch := w, h
		if int64(w)*int64(want.h) > int64(h)*int64(want.w) {
			cw = max(1, int(int64(h)*int64(want.w)/int64(want.h)))
		} else {
			ch = max(1, int(int64(w)*int64(want.h)/int64(want.w)))
		}
		x, y := from.Min.X+(w-cw)/2, from.Min.Y+(h-ch)/2
		from, w, h = image.Rect(x, y, x+cw, y+ch), cw, ch
	}
	tw, th := w, h
	if tw > want.w {
		tw, th = want.w, max(1, int(int64(h)*int64(want.w)/int64(w)))
	}
	if th > want.h {
		tw, th = max(1, int(int64(w)*int64(want.h)/int64(h))), want.h
	}
	out := image.NewRGBA(image.Rect(0, 0, tw, th))
	draw.BiLinear.Scale(out, out.Bounds(), img, from, draw.Src, nil)
	return out
}

// bytesPerPixel is a guess, on the high side, of what decoding takes.
func bytesPerPixel(m color.Model) int64 {
	switch m {
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	case color.Gray16Model:
		return 2
	case color.GrayModel:
		return 1
	}
	return 4
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
