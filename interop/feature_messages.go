package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// exchanged is a message that A said and B saw, with each one's handle for it.
type exchanged struct {
	atA, atB string
	body     string
}

// say has from say something new and waits until to sees it.
func (p place) say(ctx context.Context, from, to *Client, extra Args) (*exchanged, *Event, error) {
	body := "Hello " + token()
	args := Args{"body": body}
	for k, v := range extra {
		args[k] = v
	}
	watch := to.Watch()
	sent, err := p.do(ctx, from, "send", args)
	if err != nil {
		return nil, nil, err
	}
	seen, err := watch.For(ctx, fmt.Sprintf("the message %q", body), func(e *Event) bool {
		return e.Event == "message" && strings.Contains(e.Body, body)
	})
	if err != nil {
		return nil, nil, err
	}
	if !p.here(seen, from) {
		return nil, nil, fmt.Errorf("%s saw the message elsewhere or from another: %s", to.Driver.Name, seen.raw)
	}
	return &exchanged{atA: sent.Message, atB: seen.Message, body: body}, seen, nil
}

func text(ctx context.Context, s *Session, p place) (Outcome, error) {
	if _, _, err := p.say(ctx, s.A, s.B, nil); err != nil {
		return Outcome{}, err
	}
	return works()
}

func languages(ctx context.Context, s *Session, p place) (Outcome, error) {
	word := token()
	texts := map[string]string{"en": "Good morning " + word, "de": "Guten Morgen " + word, "ja": "おはよう " + word}
	watch := s.B.Watch()
	if _, err := p.do(ctx, s.A, "send", Args{"texts": texts}); err != nil {
		return Outcome{}, err
	}
	seen, err := watch.For(ctx, "the text in three languages", func(e *Event) bool {
		return e.Event == "message" && strings.Contains(e.raw, word)
	})
	if err != nil {
		return Outcome{}, err
	}
	missing := 0
	for lang, text := range texts {
		if seen.Texts[lang] != text {
			missing++
		}
	}
	if missing > 0 {
		return fallback("%d of 3 languages; the body is %q", 3-missing, strings.ReplaceAll(seen.Body, word, "…"))
	}
	return works()
}

// Files of each kind begin with bytes that tell what they are, so that a server that looks
// agrees with the stated type; what follows is random.
//
//go:embed testdata/sample.png
var samplePNG []byte

var beginnings = map[string]struct {
	name  string
	bytes []byte
}{
	"image/png": {"picture.png", samplePNG},
	"audio/ogg": {"voice.ogg", append([]byte("OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04"+
		"\x00\x00\x00\x00\xaa\xbb\xcc\xdd\x01\x13OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"), make([]byte, 512)...)},
	"video/webm":      {"clip.webm", []byte("\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm\x42\x87\x81\x04\x42\x85\x81\x02")},
	"application/pdf": {"letter.pdf", []byte("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")},
}

func file(mediaType string) func(context.Context, *Session, place) (Outcome, error) {
	return func(ctx context.Context, s *Session, p place) (Outcome, error) {
		kind := beginnings[mediaType]
		data := bytes.Clone(kind.bytes)
		for range 4096 {
			data = append(data, byte(rand.Uint32()))
		}
		path, err := s.World.TempFile(token(), data)
		if err != nil {
			return Outcome{}, err
		}
		watch := s.B.Watch()
		_, err = p.do(ctx, s.A, "send_file", Args{"path": path, "type": mediaType, "name": kind.name})
		if err != nil {
			return Outcome{}, err
		}
		seen, err := watch.For(ctx, "the file", func(e *Event) bool {
			return e.Event == "message" && p.here(e, s.A) && (len(e.Files) > 0 || strings.Contains(e.Body, "https://"))
		})
		if err != nil {
			return Outcome{}, err
		}
		return checkFile(ctx, s.B, seen, data, mediaType)
	}
}

func checkFile(ctx context.Context, c *Client, seen *Event, data []byte, mediaType string) (Outcome, error) {
	var url string
	if len(seen.Files) > 0 {
		url = seen.Files[0].URL
	} else {
		url, _, _ = strings.Cut(seen.Body[strings.Index(seen.Body, "https://"):], " ")
	}
	got, err := c.Do(ctx, "download", Args{"url": url})
	if err != nil {
		return Outcome{}, err
	}
	sum := sha256.Sum256(data)
	if want := hex.EncodeToString(sum[:]); got.SHA256 != want {
		return Outcome{}, fmt.Errorf("%s downloaded %d other bytes than the %d sent", c.Driver.Name, got.Size, len(data))
	}
	switch {
	case len(seen.Files) == 0:
		return fallback("a link in the text")
	case seen.Files[0].Kind != "" && !strings.HasPrefix(mediaType, seen.Files[0].Kind+"/") && seen.Files[0].Kind != "file":
		return fallback("shown as %s", seen.Files[0].Kind)
	case seen.Files[0].Kind == "file" && !strings.HasPrefix(mediaType, "application/"):
		return fallback("shown as a plain file")
	case got.Type != mediaType:
		return fallback("served as %s", got.Type)
	}
	return works()
}

// receipt waits until A hears what became of its message.
func receipt(ctx context.Context, s *Session, watch *Watch, p place, kind, message string) (Outcome, error) {
	seen, err := watch.For(ctx, "that its message was "+kind, func(e *Event) bool {
		return e.Event == "receipt" && e.Message == message && (e.Kind == kind || e.Kind == "failed")
	})
	if err != nil {
		return Outcome{}, err
	}
	if seen.Kind != kind {
		return Outcome{}, fmt.Errorf("%s heard of a failure: %s", s.A.Driver.Name, seen.raw)
	}
	if seen.By != "" {
		return fallback("told by %s", seen.By)
	}
	return works()
}

func delivered(ctx context.Context, s *Session, p place) (Outcome, error) {
	watch := s.A.Watch()
	said, _, err := p.say(ctx, s.A, s.B, nil)
	if err != nil {
		return Outcome{}, err
	}
	if s.overMatrix() {
		return displayedAlone(ctx, s, watch, p, said)
	}
	return receipt(ctx, s, watch, p, "delivered", said.atA)
}

// displayedAlone is what stands for a confirmation of delivery between Matrix servers, who
// have no word for it: the sender hears nothing until the message is displayed.
func displayedAlone(ctx context.Context, s *Session, watch *Watch, p place, said *exchanged) (Outcome, error) {
	if _, err := p.do(ctx, s.B, "mark_displayed", Args{"message": said.atB}); err != nil {
		return Outcome{}, err
	}
	if _, err := receipt(ctx, s, watch, p, "displayed", said.atA); err != nil {
		return Outcome{}, err
	}
	if watch.Saw(func(e *Event) bool {
		return e.Event == "receipt" && e.Message == said.atA && e.Kind == "delivered"
	}) {
		return Outcome{}, fmt.Errorf("%s heard of a delivery that nobody can have told", s.A.Driver.Name)
	}
	return fallback("only that it is displayed")
}

func displayed(ctx context.Context, s *Session, p place) (Outcome, error) {
	watch := s.A.Watch()
	said, _, err := p.say(ctx, s.A, s.B, nil)
	if err != nil {
		return Outcome{}, err
	}
	if _, err := p.do(ctx, s.B, "mark_displayed", Args{"message": said.atB}); err != nil {
		return Outcome{}, err
	}
	return receipt(ctx, s, watch, p, "displayed", said.atA)
}

func edit(ctx context.Context, s *Session, p place) (Outcome, error) {
	said, _, err := p.say(ctx, s.A, s.B, nil)
	if err != nil {
		return Outcome{}, err
	}
	better := "Better " + token()
	watch := s.B.Watch()
	if _, err := p.do(ctx, s.A, "edit", Args{"message": said.atA, "body": better}); err != nil {
		return Outcome{}, err
	}
	seen, err := watch.For(ctx, fmt.Sprintf("the edit of %s to %q", said.atB, better), func(e *Event) bool {
		return p.here(e, s.A) && strings.Contains(e.Body, better)
	})
	switch {
	case err != nil:
		return Outcome{}, err
	case seen.Event == "message":
		return fallback("a new message %q", strings.ReplaceAll(seen.Body, better, "…"))
	case seen.Message != said.atB:
		return Outcome{}, fmt.Errorf("%s saw an edit of %s, which is not %s", s.B.Driver.Name, seen.Message, said.atB)
	case seen.Body != better:
		return Outcome{}, fmt.Errorf("%s saw the edited text %q, not %q", s.B.Driver.Name, seen.Body, better)
	}
	return works()
}

// reactions waits until B sees that A's reactions to a message are these.
func reactions(ctx context.Context, s *Session, p place, watch *Watch, message string, want ...string) (Outcome, error) {
	seen, err := watch.For(ctx, fmt.Sprintf("the reactions %q to %s", want, message), func(e *Event) bool {
		if e.Event == "message" {
			return len(want) > 0 && p.here(e, s.A) && strings.Contains(e.Body, want[len(want)-1])
		}
		return e.Event == "reaction" && p.here(e, s.A) && e.Message == message && slices.Equal(e.Reactions, want)
	})
	if err != nil {
		return Outcome{}, err
	}
	if seen.Event == "message" {
		return fallback("a new message %q", seen.Body)
	}
	return works()
}

// reaction gives two reactions to a message of B's and takes one back.
func reaction(ctx context.Context, s *Session, p place) (Outcome, error) {
	said, _, err := p.say(ctx, s.B, s.A, nil)
	if err != nil {
		return Outcome{}, err
	}
	atA, atB := said.atB, said.atA // B said it
	for _, step := range []struct {
		op, emoji string
		want      []string
	}{
		{"react", "👍", []string{"👍"}},
		{"react", "🐌", []string{"🐌", "👍"}},
		{"unreact", "👍", []string{"🐌"}},
	} {
		slices.Sort(step.want)
		watch := s.B.Watch()
		if _, err := p.do(ctx, s.A, step.op, Args{"message": atA, "emoji": step.emoji}); err != nil {
			return Outcome{}, err
		}
		outcome, err := reactions(ctx, s, p, watch, atB, step.want...)
		if err != nil || outcome.Result != Works {
			return outcome, err
		}
	}
	return works()
}

func retraction(ctx context.Context, s *Session, p place) (Outcome, error) {
	said, _, err := p.say(ctx, s.A, s.B, nil)
	if err != nil {
		return Outcome{}, err
	}
	watch := s.B.Watch()
	if _, err := p.do(ctx, s.A, "retract", Args{"message": said.atA}); err != nil {
		return Outcome{}, err
	}
	seen, err := watch.For(ctx, "the retraction of "+said.atB, func(e *Event) bool {
		return e.Event == "retraction" && e.Message == said.atB || e.Event == "message" && p.here(e, s.A)
	})
	if err != nil {
		return Outcome{}, err
	}
	if seen.Event == "message" {
		return fallback("a new message %q", seen.Body)
	}
	return works()
}

func reply(ctx context.Context, s *Session, p place) (Outcome, error) {
	said, _, err := p.say(ctx, s.B, s.A, nil)
	if err != nil {
		return Outcome{}, err
	}
	_, seen, err := p.say(ctx, s.A, s.B, Args{"reply_to": said.atB, "quote": said.body})
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case seen.ReplyTo == said.atA:
		return works()
	case seen.ReplyTo != "":
		return Outcome{}, fmt.Errorf("%s saw a reply to %s, which is not %s", s.B.Driver.Name, seen.ReplyTo, said.atA)
	case strings.Contains(seen.Body, said.body):
		return fallback("the text quotes it")
	}
	return Outcome{}, fmt.Errorf("%s saw no reply but a message: %s", s.B.Driver.Name, seen.raw)
}

func typing(ctx context.Context, s *Session, p place) (Outcome, error) {
	for _, active := range []bool{true, false} {
		watch := s.B.Watch()
		if _, err := p.do(ctx, s.A, "typing", Args{"active": active}); err != nil {
			return Outcome{}, err
		}
		what := fmt.Sprintf("typing=%v", active)
		_, err := watch.For(ctx, what, func(e *Event) bool {
			return e.Event == "typing" && p.here(e, s.A) && e.Active == active
		})
		if err != nil {
			return Outcome{}, err
		}
	}
	return works()
}

// history has B ask its server for the past, and find what both said in order.
func history(ctx context.Context, s *Session, p place) (Outcome, error) {
	first, _, err := p.say(ctx, s.A, s.B, nil)
	if err != nil {
		return Outcome{}, err
	}
	second, _, err := p.say(ctx, s.B, s.A, nil)
	if err != nil {
		return Outcome{}, err
	}
	past, err := p.do(ctx, s.B, "history", Args{"limit": 20})
	if err != nil {
		return Outcome{}, err
	}
	var found []string
	for _, e := range past.Events {
		for _, m := range []struct{ body, handle string }{{first.body, first.atB}, {second.body, second.atA}} {
			if e.Event == "message" && e.Body == m.body {
				found = append(found, e.Body)
				if e.Message != m.handle {
					return Outcome{}, fmt.Errorf("%s finds %q as %s, it was %s", s.B.Driver.Name, m.body, e.Message, m.handle)
				}
			}
		}
	}
	if !slices.Equal(found, []string{first.body, second.body}) {
		return Outcome{}, fmt.Errorf("of two messages %s finds %q", s.B.Driver.Name, found)
	}
	return works()
}
