package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"parley/core"
	"parley/matrix/federation"
	"parley/matrix/wire"
	"parley/media/fetch"
	"parley/netguard"
)

// Caller calls other servers: a [federation.Client].
type Caller interface {
	Stream(ctx context.Context, call federation.Call) (http.Header, io.ReadCloser, error)
}

// SourceConfig is what a [Source] stands on.
type SourceConfig struct {
	Client Caller
	// Origin is the domain of ours that asks.
	Origin string
	// Web follows the links that servers give in a file's place: through the
	// guard, with bounds of its own.
	Web fetch.Source
	// MaxSize is of one file, in bytes; Timeout for one call.
	MaxSize int64
	Timeout time.Duration
}

// Source gets the files of other Matrix servers: it is the [fetch.Source] of
// "mxc" URLs.
type Source struct{ cfg SourceConfig }

// NewSource makes a source.
func NewSource(c SourceConfig) *Source { return &Source{c} }

// Bounds of an answer, in bytes beside the file.
const (
	// maxFrame is all that comes before the file: the first part, and headers.
	maxFrame    = 64 << 10
	maxBoundary = 70 // spec: RFC 2046 §5.1.1
)

// Open implements [fetch.Source].
//
// spec: MX 1.19 SS §25
func (s *Source) Open(ctx context.Context, uri string) (*fetch.File, error) {
	server, id, err := wire.ParseMXC(uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fetch.ErrNotFound, err)
	}
	file, err := s.ask(ctx, server, id)
	if e, ok := errors.AsType[*federation.Error](err); ok && e.Status == http.StatusNotFound && e.Errcode == "M_UNRECOGNIZED" {
		file, err = s.askOldWay(ctx, server, id)
	}
	if err != nil {
		return nil, reason(err)
	}
	file.Owner = core.Address{Network: core.Matrix, Domain: server}
	return file, nil
}

// reason says in package fetch's words why a server did not give a file.
func reason(err error) error {
	e, ok := errors.AsType[*federation.Error](err)
	switch {
	case !ok:
		return err
	case e.Errcode == "M_NOT_YET_UPLOADED":
		return fmt.Errorf("%w: %w", fetch.ErrNotYet, err)
	case e.Errcode == "M_TOO_LARGE":
		return fmt.Errorf("%w: %w", fetch.ErrTooLarge, err)
	case e.Status == http.StatusNotFound:
		return fmt.Errorf("%w: %w", fetch.ErrNotFound, err)
	}
	return err
}

// call is one for a file. What a client waits for is also asked of a server that
// could not be reached a short while ago: package fetch sees to it that it is
// not asked too often.
func (s *Source) call(server string, signed bool, query url.Values, segments ...string) federation.Call {
	query.Set("timeout_ms", strconv.FormatInt(usualWait.Milliseconds(), 10))
	c := federation.Call{
		Destination: server, Method: http.MethodGet, URI: federation.URI(query, segments...),
		MaxAnswer: s.cfg.MaxSize + 2*maxFrame, Timeout: s.cfg.Timeout, Insist: true,
	}
	if signed {
		c.Origin = s.cfg.Origin
	}
	return c
}

func (s *Source) ask(ctx context.Context, server, id string) (*fetch.File, error) {
	header, body, err := s.cfg.Client.Stream(ctx, s.call(server, true, url.Values{}, "_matrix", "federation", "v1", "media", "download", id))
	if err != nil {
		return nil, err
	}
	file, location, err := readParts(header, body, s.cfg.MaxSize)
	if err != nil {
		body.Close()
		return nil, fmt.Errorf("what %s sends for a file: %w", server, err)
	}
	if location == "" {
		return file, nil
	}
	body.Close()
	return s.follow(ctx, location)
}

// follow gets a file from where the server says that it is.
func (s *Source) follow(ctx context.Context, location string) (*fetch.File, error) {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(location) > maxFrame {
		return nil, fmt.Errorf("a file is said to be at %.100q, which is no place on the web", location)
	}
	return s.cfg.Web.Open(ctx, u.String())
}

// askOldWay asks a server that does not know of signed requests for files.
func (s *Source) askOldWay(ctx context.Context, server, id string) (*fetch.File, error) {
	header, body, err := s.cfg.Client.Stream(ctx, s.call(server, false, url.Values{"allow_remote": {"false"}}, "_matrix", "media", "v3", "download", server, id))
	if err != nil {
		return nil, err
	}
	return &fetch.File{Body: body, Type: header.Get("Content-Type"), Name: fetch.FileName(header.Get("Content-Disposition"))}, nil
}

var errParts = errors.New("not two parts of a message")

// readParts finds in an answer the file, or the place where it is.
//
// spec: MX 1.19 SS §25
func readParts(header http.Header, body io.ReadCloser, maxSize int64) (file *fetch.File, location string, err error) {
	typ, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if boundary := params["boundary"]; err != nil || typ != "multipart/mixed" || boundary == "" || len(boundary) > maxBoundary {
		return nil, "", fmt.Errorf("%w: of type %.100q", errParts, header.Get("Content-Type"))
	}
	g := &gate{r: body, left: maxFrame}
	mr := multipart.NewReader(g, params["boundary"])
	if _, err := mr.NextRawPart(); err != nil { // of it nothing is used
		return nil, "", fmt.Errorf("%w: %w", errParts, err)
	}
	part, err := mr.NextRawPart()
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", errParts, err)
	}
	if location = strings.TrimSpace(part.Header.Get("Location")); location != "" {
		return nil, location, nil
	}
	g.left += maxSize
	return &fetch.File{
		Body: partBody{part, body}, Type: part.Header.Get("Content-Type"), Name: fetch.FileName(part.Header.Get("Content-Disposition")),
	}, "", nil
}

// partBody is the part with the file; closing it closes the answer.
type partBody struct {
	io.Reader
	io.Closer
}

// gate lets so many bytes through.
type gate struct {
	r    io.Reader
	left int64
}

func (g *gate) Read(p []byte) (int, error) {
	if g.left <= 0 {
		return 0, netguard.ErrTooLarge
	}
	n, err := g.r.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	return n, err
}
