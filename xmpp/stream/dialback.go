package stream

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"parley/xmpp/element"
)

// Pair is a domain of ours and one of the peer's, between which stanzas may pass on a stream between servers, in one direction.
type Pair struct{ Local, Remote string }

// Bounds of what one stream may ask for.
const (
	maxPairs     = 256 // authorised at once
	maxVerifying = 16  // verifications under way
	maxKey       = 256 // bytes of a key
)

// s2sState is what a stream between servers has that one of a client has not.
type s2sState struct {
	fed      *Federation
	outbound bool

	mu        sync.Mutex
	pairs     map[Pair]bool
	verifying map[Pair]bool       // inbound: keys that the authoritative server is being asked about
	asked     map[Pair]chan error // outbound: keys that we sent and that were not answered
	multiplex bool                // outbound: the peer can refuse a pair and keep the stream
	bidi      bool                // stanzas go in both directions
	back      Pair                // outbound: between which they come back
}

// Authorized says whether stanzas between these domains may pass: on an inbound stream the peer has proved to be pair.Remote, on an
// outbound one it has taken us for pair.Local.
func (c *Conn) Authorized(pair Pair) bool {
	if c.s2s == nil {
		return false
	}
	c.s2s.mu.Lock()
	defer c.s2s.mu.Unlock()
	return c.s2s.pairs[pair]
}

// authorize adds a pair. The first one makes a stranger a peer.
func (c *Conn) authorize(pair Pair) {
	c.s2s.mu.Lock()
	first := len(c.s2s.pairs) == 0
	c.s2s.pairs[pair] = true
	c.s2s.mu.Unlock()
	if first {
		c.authenticated()
	}
}

// dialbackKey proves, to who asks the authoritative server of the originating domain, that a stream is from that domain. It is
// bound to both domains and to the stream, so it is of no use elsewhere.
//
// spec: XEP-0185 §2
func dialbackKey(secret []byte, receiving, originating, streamID string) string {
	hashed := sha256.Sum256(secret)
	mac := hmac.New(sha256.New, []byte(hex.EncodeToString(hashed[:])))
	mac.Write([]byte(receiving + " " + originating + " " + streamID))
	return hex.EncodeToString(mac.Sum(nil))
}

// DialbackError says that the peer did not take us for the domain that we said.
type DialbackError struct {
	Pair Pair
	// Invalid says that our key was refused; otherwise Condition is the stanza error condition with which the attempt ended.
	Invalid   bool
	Condition string
}

func (e *DialbackError) Error() string {
	if e.Invalid {
		return fmt.Sprintf("dialback from %s to %s: key refused", e.Pair.Local, e.Pair.Remote)
	}
	return fmt.Sprintf("dialback from %s to %s: %s", e.Pair.Local, e.Pair.Remote, e.Condition)
}

// dialbackElement makes a response to a request for a pair; condition is for type error only.
//
// spec: XEP-0220 §2.5
func dialbackElement(local string, pair Pair, kind, condition string) *element.Element {
	el := element.New(NSDialback, local).SetAttr("from", pair.Local).SetAttr("to", pair.Remote)
	if kind != "" {
		el.SetAttr("type", kind)
	}
	if condition != "" {
		el.Add(NSServer, "error").SetAttr("type", "cancel").Add(NSStanzas, condition)
	}
	return el
}

// pairOf reads the addresses of a dialback element from the peer. What is no domain gives false.
func pairOf(el *element.Element) (Pair, bool) {
	local, ok := normalDomain(el.Attr("to"))
	remote, ok2 := normalDomain(el.Attr("from"))
	return Pair{Local: local, Remote: remote}, ok && ok2
}

// receiveResult is the receiving server's part: the peer says to be a domain and offers a key for it. Who can be told by its
// certificate needs no dialling back.
//
// spec: XEP-0220 §2.2.1
func (c *Conn) receiveResult(el *element.Element) error {
	pair, ok := pairOf(el)
	key := strings.TrimSpace(el.Text())
	if !ok {
		return Errorf(ImproperAddressing, "dialback needs two domains")
	}
	if el.Attr("type") != "" {
		return Errorf(PolicyViolation, "dialback result that was not asked for")
	}
	refused := c.refuseResult(pair, key)
	switch {
	case refused != "":
		return c.Send(dialbackElement("result", pair, "error", refused))
	case c.Authorized(pair):
		return c.Send(dialbackElement("result", pair, "valid", ""))
	case c.s2s.fed.proves(c, pair.Remote) == nil:
		c.authorize(pair)
		return c.Send(dialbackElement("result", pair, "valid", ""))
	case !c.s2s.fed.AllowDialback:
		return c.Send(dialbackElement("result", pair, "error", "not-authorized"))
	}
	s := c.s2s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verifying[pair] {
		return Errorf(PolicyViolation, "dialback for this pair is under way")
	}
	if len(s.verifying) >= maxVerifying {
		return c.Send(dialbackElement("result", pair, "error", "resource-constraint"))
	}
	s.verifying[pair] = true
	go c.verifyResult(pair, c.ID(), key)
	return nil
}

// refuseResult is the stanza error condition for a request that is refused outright, or "".
func (c *Conn) refuseResult(pair Pair, key string) string {
	c.s2s.mu.Lock()
	pairs := len(c.s2s.pairs)
	c.s2s.mu.Unlock()
	switch {
	case !c.s2s.fed.Hosted(pair.Local):
		return "item-not-found"
	case c.s2s.fed.Hosted(pair.Remote) || key == "" || len(key) > maxKey:
		return "not-acceptable"
	case c.tlsConn() == nil && !c.s2s.fed.AllowPlaintext:
		return "policy-violation"
	case pairs >= maxPairs:
		return "resource-constraint"
	}
	return ""
}

// verifyResult asks the authoritative server and tells the peer.
//
// spec: XEP-0220 §2.1.2
func (c *Conn) verifyResult(pair Pair, id, key string) {
	ctx, cancel := context.WithTimeout(c.wire.ctx, c.set.NegotiationTimeout)
	defer cancel()
	valid, err := c.s2s.fed.verifyKey(ctx, pair, id, key)
	c.s2s.mu.Lock()
	delete(c.s2s.verifying, pair)
	others := len(c.s2s.pairs) > 0
	c.s2s.mu.Unlock()
	log := c.s2s.fed.Log.With("local", pair.Local, "remote", pair.Remote, "addr", c.RemoteAddr())
	var answer *element.Element
	switch {
	case err != nil:
		log.Info("dialback key could not be verified", "err", err)
		answer = dialbackElement("result", pair, "error", verifyCondition(err))
	case valid:
		c.authorize(pair)
		answer = dialbackElement("result", pair, "valid", "")
	case others:
		log.Warn("dialback key is wrong")
		answer = dialbackElement("result", pair, "error", "forbidden")
	default:
		log.Warn("dialback key is wrong")
		_ = c.Send(dialbackElement("result", pair, "invalid", ""))
		c.Close(nil)
		return
	}
	_ = c.Send(answer) // if it fails the stream has ended
}

// verifyCondition says how a verification failed that brought no verdict.
func verifyCondition(err error) string {
	if se, ok := errors.AsType[*Error](err); ok && se.FromPeer && se.Condition == HostUnknown || errors.Is(err, ErrNoService) {
		return "remote-server-not-found"
	}
	if _, ok := errors.AsType[*connectError](err); ok {
		return "remote-connection-failed"
	}
	return "remote-server-timeout"
}

// answerVerify is the authoritative server's part: somebody asks whether a key is ours. It needs no state.
//
// spec: XEP-0220 §2.2.2
func (c *Conn) answerVerify(el *element.Element) error {
	pair, ok := pairOf(el)
	if !ok {
		return Errorf(ImproperAddressing, "dialback needs two domains")
	}
	if el.Attr("type") != "" {
		return Errorf(PolicyViolation, "dialback verdict that was not asked for")
	}
	id := el.Attr("id")
	kind, condition := "invalid", ""
	if !c.s2s.fed.Hosted(pair.Local) {
		kind, condition = "error", "item-not-found"
	} else {
		want := dialbackKey(c.s2s.fed.Secret, pair.Remote, pair.Local, id)
		if hmac.Equal([]byte(want), []byte(strings.TrimSpace(el.Text()))) {
			kind = "valid"
		}
	}
	return c.Send(dialbackElement("verify", pair, kind, condition).SetAttr("id", id))
}

// verifyKey asks the authoritative server of pair.Remote, over a stream of its own, whether a key is its.
//
// spec: XEP-0220 §2.1.2
func (f *Federation) verifyKey(ctx context.Context, pair Pair, id, key string) (bool, error) {
	c, _, err := f.connect(ctx, pair, false)
	if err != nil {
		return false, err
	}
	defer c.Close(io.EOF)
	defer c.interruptible(ctx)()
	request := dialbackElement("verify", pair, "", "").SetAttr("id", id).SetText(key)
	if err := c.Send(request); err != nil {
		return false, err
	}
	el, err := c.read(ctx)
	if err != nil {
		return false, fmt.Errorf("waiting for the verdict of %s: %w", pair.Remote, err)
	}
	got, ok := pairOf(el)
	if !el.Is(NSDialback, "verify") || !ok || got != pair || el.Attr("id") != id {
		return false, fmt.Errorf("%s answered something else than was asked", pair.Remote)
	}
	switch el.Attr("type") {
	case "valid":
		return true, nil
	case "invalid":
		return false, nil
	}
	return false, fmt.Errorf("%s could not tell: %s", pair.Remote, stanzaCondition(el))
}

// stanzaCondition reads the condition of an error inside a dialback element.
func stanzaCondition(el *element.Element) string {
	for _, e := range el.Elements() {
		for _, c := range e.Elements() {
			if c.Name.Space == NSStanzas && c.Name.Local != "text" {
				return c.Name.Local
			}
		}
	}
	return string(UndefinedCondition)
}

// AddPair asks, on a stream that Dial has opened, for a further pair of domains, and waits for the answer. Somebody must be in Next
// meanwhile. It fails at once if the peer did not say that it can refuse a pair without ending the stream.
//
// spec: XEP-0220 §2.6
func (c *Conn) AddPair(ctx context.Context, pair Pair) error {
	s := c.s2s
	if s == nil || !s.outbound {
		return errors.New("stream: not a stream that Dial opened")
	}
	answer := make(chan error, 1)
	s.mu.Lock()
	switch {
	case s.pairs[pair]:
		s.mu.Unlock()
		return nil
	case !s.multiplex || s.asked[pair] != nil:
		s.mu.Unlock()
		return errors.New("stream: the pair cannot be asked for on this stream")
	}
	s.asked[pair] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asked, pair)
	}()
	if err := c.sendKey(pair); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.Done():
		return ErrClosed
	}
}

// sendKey is the initiating server's first step.
//
// spec: XEP-0220 §2.1.1
func (c *Conn) sendKey(pair Pair) error {
	return c.Send(dialbackElement("result", pair, "", "").SetText(dialbackKey(c.s2s.fed.Secret, pair.Remote, pair.Local, c.ID())))
}

// takeResult is the initiating server's last step. A result for a pair that we did not ask for is an attack.
//
// spec: XEP-0220 §3.1
func (c *Conn) takeResult(el *element.Element) error {
	pair, ok := pairOf(el)
	s := c.s2s
	s.mu.Lock()
	answer := s.asked[pair]
	delete(s.asked, pair)
	s.mu.Unlock()
	if !ok || answer == nil {
		return Errorf(InvalidFrom, "dialback result that was not asked for")
	}
	switch el.Attr("type") {
	case "valid":
		c.authorize(pair)
		answer <- nil
	case "invalid":
		answer <- &DialbackError{Pair: pair, Invalid: true}
	default:
		answer <- &DialbackError{Pair: pair, Condition: stanzaCondition(el)}
	}
	return nil
}
