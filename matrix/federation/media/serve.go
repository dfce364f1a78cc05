package media

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"time"

	"parley/core"
	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
	"parley/matrix/federation/refusal"
	"parley/matrix/wire"
	files "parley/media"
)

// Local are the files of this server: a [client.API].
type Local interface {
	Arrived(ctx context.Context, id core.MediaID, wait time.Duration) (hub.Media, files.Hash, error)
	OpenFile(m hub.Media, h files.Hash, as files.Presentation) (client.Served, error)
	Thumbnail(ctx context.Context, m hub.Media, h files.Hash, size client.Size) (client.Served, error)
}

// Routes are the endpoints by which other servers get our files. A file is for
// every server that knows its ID, which cannot be guessed.
//
// spec: MX 1.19 SS §25
func Routes(local Local) []federation.Route {
	s := server{local}
	return []federation.Route{
		{Method: http.MethodGet, Path: "/_matrix/federation/v1/media/download/{mediaId}", Handler: s.download},
		{Method: http.MethodGet, Path: "/_matrix/federation/v1/media/thumbnail/{mediaId}", Handler: s.thumbnail},
	}
}

type server struct{ local Local }

// usualWait is how long a file that is still to come is waited for.
//
// spec: MX 1.19 SS §25
const usualWait = 20 * time.Second

// find is the file that a request names, with its bytes.
func (s server) find(r *federation.Request) (hub.Media, files.Hash, error) {
	id := r.Var("mediaId")
	if _, _, err := wire.ParseMXC(wire.MXC(r.Destination, id)); err != nil {
		return hub.Media{}, files.Hash{}, federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "There is no such file.")
	}
	wait := usualWait
	if text := r.HTTP.URL.Query().Get("timeout_ms"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return hub.Media{}, files.Hash{}, federation.Errorf(http.StatusBadRequest, "M_INVALID_PARAM", "timeout_ms is no number of milliseconds.")
		}
		wait = time.Duration(ms) * time.Millisecond
	}
	m, h, err := s.local.Arrived(r.Context(), core.MediaID(id), wait)
	return m, h, told(err)
}

// told says what could not be done. That a file which we name is on the web and
// cannot be had is no sign that we are out of order.
func told(err error) error {
	err = refusal.Of(err)
	if e, ok := err.(*federation.Error); ok && e.Status == http.StatusBadGateway && e.Errcode == string(client.Unknown) { //nolint:errorlint // refusal made it
		return federation.Errorf(http.StatusNotFound, "M_NOT_FOUND", "%s", e.Text)
	}
	return err
}

func (s server) download(r *federation.Request) (any, error) {
	m, h, err := s.find(r)
	if err != nil {
		return nil, err
	}
	f, err := s.local.OpenFile(m, h, files.Presentation{})
	return answer(f, err)
}

func (s server) thumbnail(r *federation.Request) (any, error) {
	size, err := client.ReadSize(r.HTTP.URL.Query())
	if err != nil {
		return nil, told(err)
	}
	m, h, err := s.find(r)
	if err != nil {
		return nil, err
	}
	f, err := s.local.Thumbnail(r.Context(), m, h, size)
	return answer(f, err)
}

func answer(f client.Served, err error) (any, error) {
	if err != nil {
		return nil, told(err)
	}
	return parts(f), nil
}

// parts is a file as an answer to a server.
type parts client.Served

// WriteReply implements [federation.Reply].
//
// spec: MX 1.19 SS §25
func (p parts) WriteReply(w http.ResponseWriter, _ *http.Request) {
	defer p.Close()
	size, err := p.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = p.Seek(0, io.SeekStart)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the disk has failed: there is no answer
	}
	frame := &bytes.Buffer{}
	mw := multipart.NewWriter(frame)
	// Nothing is written but to memory, which does not fail.
	meta, _ := mw.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	_, _ = io.WriteString(meta, "{}")
	_, _ = mw.CreatePart(p.header())
	head := frame.Len()
	_ = mw.Close()
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+mw.Boundary())
	w.Header().Set("Content-Length", strconv.FormatInt(int64(frame.Len())+size, 10))
	w.WriteHeader(http.StatusOK)
	for _, part := range []io.Reader{bytes.NewReader(frame.Bytes()[:head]), io.LimitReader(p, size), bytes.NewReader(frame.Bytes()[head:])} {
		if _, err := io.Copy(w, part); err != nil {
			return // the other end has gone, and knows that it has not all
		}
	}
}

// header is that of the part with the file.
func (p parts) header() textproto.MIMEHeader {
	all := http.Header{}
	files.SetHeaders(all, p.As)
	return textproto.MIMEHeader{"Content-Type": all["Content-Type"], "Content-Disposition": all["Content-Disposition"]}
}
