package media

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"io"
)

// header is what the first bytes of an image say, with the size as it is to
// be looked at.
type header struct {
	Width, Height int
	format        string // "jpeg", "png", "gif", "webp"
	perPixel      int64  // bytes of memory
	orientation   orientation
}

// maxHeader is how far into a file its header is looked for, in bytes. An
// embedded preview or colour profile may come before the size.
const maxHeader = 1 << 20

// readHeader reads the header of an image without decoding it.
func readHeader(r io.ReadSeeker) (header, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return header{}, fmt.Errorf("media: %w", err)
	}
	var head bytes.Buffer
	cfg, format, err := image.DecodeConfig(io.TeeReader(io.LimitReader(r, maxHeader), &head))
	if err != nil {
		return header{}, fmt.Errorf("%w: %w", ErrNoThumbnail, err)
	}
	if cfg.Width <= 0 || cfg.Height <= 0 {
		return header{}, fmt.Errorf("%w: it has no size", ErrNoThumbnail)
	}
	hd := header{Width: cfg.Width, Height: cfg.Height, format: format, perPixel: bytesPerPixel(cfg.ColorModel)}
	if format == "jpeg" {
		var baseline bool
		hd.orientation, baseline = scanJPEG(head.Bytes())
		if hd.perPixel = 16; baseline { // a progressive one keeps all coefficients
			hd.perPixel = 8
		}
	}
	if hd.orientation.turned() {
		hd.Width, hd.Height = hd.Height, hd.Width
	}
	return hd, nil
}

// affordable refuses an image that would take too much memory.
func (hd header) affordable(l Limits) error {
	pixels := int64(hd.Width) * int64(hd.Height)
	if hd.Width > l.MaxDimension || hd.Height > l.MaxDimension || pixels > l.MaxPixels || pixels*hd.perPixel > l.MaxDecode {
		return fmt.Errorf("%w: an image of %dx%d pixels", ErrTooLarge, hd.Width, hd.Height)
	}
	return nil
}

// orientation is the Exif tag 0x0112, 1 to 8, which says how a camera was
// held; 0 if there is none.
type orientation int

// turned reports whether width and height change places.
func (o orientation) turned() bool { return o >= 5 && o <= 8 }

// size is the size before turning that gives s after it.
func (o orientation) size(s size) size {
	if o.turned() {
		s.w, s.h = s.h, s.w
	}
	return s
}

// apply turns and mirrors an image so that it stands upright.
func (o orientation) apply(img *image.RGBA) *image.RGBA {
	if o < 2 || o > 8 {
		return img
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if o.turned() {
		out = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			tx, ty := o.target(x, y, w, h)
			copy(out.Pix[out.PixOffset(tx, ty):][:4], img.Pix[img.PixOffset(x, y):][:4])
		}
	}
	return out
}

// target is where the pixel x, y of an image of w by h goes.
func (o orientation) target(x, y, w, h int) (int, int) {
	switch o {
	case 2:
		return w - 1 - x, y
	case 3:
		return w - 1 - x, h - 1 - y
	case 4:
		return x, h - 1 - y
	case 5:
		return y, x
	case 6:
		return h - 1 - y, x
	case 7:
		return h - 1 - y, w - 1 - x
	case 8:
		return y, w - 1 - x
	}
	return x, y
}

// scanJPEG looks through the segments of a JPEG file before its picture for
// the orientation and for whether it is a baseline one, of which no more is in
// memory than the pixels. What is not as it should be counts as neither.
func scanJPEG(b []byte) (o orientation, baseline bool) {
	if len(b) < 2 || b[0] != 0xff || b[1] != 0xd8 {
		return 0, false
	}
	for b = b[2:]; len(b) >= 4 && b[0] == 0xff; {
		marker, n := b[1], int(binary.BigEndian.Uint16(b[2:]))
		switch marker {
		case 0xc0, 0xc1: // SOF0, SOF1: sequential
			return o, true
		case 0xc2, 0xda: // SOF2: progressive; SOS
			return o, false
		}
		if n < 2 || len(b) < 2+n {
			return o, false
		}
		if tiff, ok := bytes.CutPrefix(b[4:2+n], []byte("Exif\x00\x00")); ok && marker == 0xe1 && o == 0 {
			o = tiffOrientation(tiff)
		}
		b = b[2+n:]
	}
	return o, false
}

// tiffOrientation looks through the first directory of a TIFF header.
func tiffOrientation(b []byte) orientation {
	if len(b) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.BigEndian
	if string(b[:2]) == "II" {
		order = binary.LittleEndian
	}
	at := uint64(order.Uint32(b[4:]))
	if at+2 > uint64(len(b)) {
		return 0
	}
	count := int(order.Uint16(b[at:]))
	entries := b[at+2:]
	for range count {
		if len(entries) < 12 {
			return 0
		}
		const short = 3
		if order.Uint16(entries) == 0x0112 && order.Uint16(entries[2:]) == short && order.Uint32(entries[4:]) == 1 {
			if o := order.Uint16(entries[8:]); o >= 1 && o <= 8 {
				return orientation(o)
			}
			return 0
		}
		entries = entries[12:]
	}
	return 0
}
