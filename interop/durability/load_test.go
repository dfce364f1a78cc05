package durability

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is the clients at work.
type load struct {
	*ledger
	to      *target
	matrix  map[string]*matrix
	directs map[string]*conversation // by both names, in order
	group   *conversation
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// newLoad has everybody log in over Matrix, opens a direct conversation for every pair and a room for all.
func newLoad(t *testing.T, to *target) *load {
	t.Helper()
	l := &load{ledger: newLedger(), to: to, matrix: map[string]*matrix{}, directs: map[string]*conversation{}}
	for _, name := range people {
		m, err := matrixAs(t.Context(), to, name)
		if err != nil {
			t.Fatal(err)
		}
		l.matrix[name] = m
	}
	for i, a := range people {
		for _, b := range people[i+1:] {
			room, err := l.matrix[a].create(t.Context(), object{"is_direct": true, "preset": "trusted_private_chat"}, l.matrix[b])
			if err != nil {
				t.Fatal(err)
			}
			l.directs[pair(a, b)] = &conversation{name: pair(a, b), room: room, members: []string{a, b}}
		}
	}
	room, err := l.matrix["mona"].create(t.Context(), object{"room_alias_name": "garden", "preset": "public_chat"},
		l.matrix["milo"], l.matrix["xena"], l.matrix["xavi"])
	if err != nil {
		t.Fatal(err)
	}
	l.group = &conversation{name: "garden", room: room, members: people, group: true}
	return l
}

func pair(a, b string) string { return min(a, b) + "+" + max(a, b) }

// begin sets the clients to work.
func (l *load) begin(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	for _, job := range []func(context.Context){
		func(ctx context.Context) { l.talkMatrix(ctx, "mona", "m1", l.group, false) },
		func(ctx context.Context) { l.talkMatrix(ctx, "milo", "m2", l.group, true) },
		func(ctx context.Context) { l.talkMatrix(ctx, "mona", "m3", l.directs[pair("mona", "milo")], false) },
		func(ctx context.Context) { l.talkMatrix(ctx, "milo", "m4", l.directs[pair("milo", "xena")], true) },
		func(ctx context.Context) { l.upload(ctx, "mona") },
		l.talker("xena", "x1", l.directs[pair("mona", "xena")], false),
		l.talker("xena", "x2", l.group, true),
		l.talker("xavi", "x3", l.group, false),
		l.talker("xavi", "x4", l.directs[pair("xavi", "xena")], true),
	} {
		l.wg.Go(func() { job(ctx) })
	}
}

// end has the clients stop, wherever they are.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// talkMatrix sends one message after the other. A careless client now and then hangs up before the answer and asks again; so does
// one that was answered and forgot.
func (l *load) talkMatrix(ctx context.Context, who, client string, c *conversation, careless bool) {
	m, err := matrixFrom(l.matrix[who])
	if err != nil {
		l.fail("%v", err)
		return
	}
	for n := 1; ctx.Err() == nil; n++ {
		body, txn := fmt.Sprintf("%s/%s %d", who, client, n), client+"."+strconv.Itoa(n)
		if careless && rand.IntN(3) == 0 {
			_ = m.mumble(c.room, txn, body) // whatever became of it
			l.note("lost answer")
		}
		id, err := m.say(ctx, c.room, txn, body)
		if err != nil {
			l.fail("%s: %v", body, err)
			return
		}
		if id == "" {
			return
		}
		l.ack("Matrix 200", c, body, id)
		if careless && rand.IntN(5) == 0 {
			again, err := m.say(ctx, c.room, txn, body)
			if err != nil || again != "" && again != id {
				l.fail("%s: sent again, it is %q and was %q, %v", body, again, id, err)
				return
			}
			l.note("transaction replayed")
		}
	}
}

// matrixFrom is another client with the same token, and connections of its own.
func matrixFrom(m *matrix) (*matrix, error) {
	if m == nil || m.token == "" {
		return nil, errors.New("nobody is logged in")
	}
	c := *m
	c.http = &http.Client{Transport: &http.Transport{}}
	return &c, nil
}

// upload stores files. An upload that was not answered is another one next time.
func (l *load) upload(ctx context.Context, who string) {
	m, err := matrixFrom(l.matrix[who])
	if err != nil {
		l.fail("%v", err)
		return
	}
	for n := 1; pause(ctx); n++ {
		content := strings.Repeat(fmt.Sprintf("file %d ", n), 1+rand.IntN(3000))
		code, b, err := m.raw(ctx, http.MethodPost, "/_matrix/media/v3/upload?filename=f.txt", "text/plain", strings.NewReader(content))
		if err != nil || code != http.StatusOK {
			if err == nil && code < 500 && code != http.StatusTooManyRequests {
				l.fail("uploading: %d %s", code, b)
				return
			}
			time.Sleep(time.Second) // there is a limit of one a second
			continue
		}
		_, uri, _ := strings.Cut(string(b), `"mxc://`)
		uri, _, _ = strings.Cut(uri, `"`)
		if uri == "" {
			l.fail("uploading: %s", b)
			return
		}
		l.kept("/_matrix/client/v1/media/download/"+uri, content)
	}
}

// stanza is a message on its way.
type stanza struct {
	body, xml string
}

// talker is an XMPP client with stream management that says one thing after the other.
type talker struct {
	l           *load
	who, client string
	c           *conversation
	named       bool // messages have an origin-id, by which what is sent again is known; else it is sent again exactly by h
	said        int
	id          string   // of the stream, for resumption
	sent, acked uint32   // counts of the stream
	queue       []stanza // not acknowledged; one with an empty body is none of what is said
	received    uint32
	*stream     // nil while it is not connected
	incoming    chan *node
	sinceAsked  int
}

func (l *load) talker(who, client string, c *conversation, named bool) func(context.Context) {
	return func(ctx context.Context) {
		t := &talker{l: l, who: who, client: client, c: c, named: named}
		for ctx.Err() == nil {
			if err := t.connect(ctx); err == nil {
				err = t.talk(ctx)
				if err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "broken: ") {
					l.fail("%s/%s: %v", who, client, err)
					return
				}
			} else if strings.Contains(err.Error(), "broken: ") {
				l.fail("%s/%s: %v", who, client, err)
				return
			}
			if t.stream != nil {
				t.drop()
				for range t.incoming { // until its reader has ended
				}
				t.stream = nil
			}
			pause(ctx)
		}
	}
}

// connect connects, resumes the stream or begins another, and sends again what the server does not have.
func (t *talker) connect(ctx context.Context) error {
	r := &resumption{id: t.id, h: t.received}
	s, err := dialXMPP(ctx, t.l.to, t.who, t.client, r)
	if err != nil {
		return err
	}
	t.stream = s
	incoming := make(chan *node)
	t.incoming = incoming
	if t.id != "" {
		if err := t.settle(r); err != nil {
			close(incoming)
			return err
		}
	}
	if !r.resumed {
		if err := t.enable(ctx); err != nil {
			close(incoming)
			return err
		}
	}
	go func() {
		defer close(incoming)
		for {
			n, err := s.next()
			if err != nil {
				return
			}
			incoming <- n
		}
	}()
	if r.resumed {
		for _, st := range t.queue {
			if err := t.put(ctx, "%s", st.xml); err != nil {
				return err
			}
		}
		return nil
	}
	again := t.queue
	t.queue = nil
	if t.c.group {
		if err := t.transmit(ctx, stanza{xml: `<presence xmlns='jabber:client' to='` + garden + `/` + t.who +
			`'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>`}); err != nil {
			t.queue = append(t.queue, again...)
			return err
		}
	}
	for i, st := range again {
		if err := t.transmit(ctx, st); err != nil {
			t.queue = append(t.queue, again[i+1:]...)
			return err
		}
	}
	return nil
}

// settle takes the server's count of the last stream: what it has, and no more, needs not be sent again.
func (t *talker) settle(r *resumption) error {
	h, err := strconv.ParseUint(r.answer.attr("h"), 10, 32)
	if err != nil {
		return fmt.Errorf("broken: %s without a count: %+v", r.answer.XMLName.Local, r.answer)
	}
	if uint32(h) < t.acked || uint32(h) > t.sent {
		return fmt.Errorf("broken: %s with h=%d; %d were acknowledged and %d sent", r.answer.XMLName.Local, h, t.acked, t.sent)
	}
	if r.resumed {
		t.l.note("stream resumed")
		return t.acknowledge(uint32(h))
	}
	t.l.note("resumption failed with h")
	if !t.named {
		if err := t.acknowledge(uint32(h)); err != nil {
			return err
		}
	}
	t.queue = slices.DeleteFunc(t.queue, func(s stanza) bool { return s.body == "" })
	return nil
}

// enable begins another stream.
func (t *talker) enable(ctx context.Context) error {
	if err := t.put(ctx, `<enable xmlns='%s' resume='true'/>`, nsSM); err != nil {
		return err
	}
	n, err := t.until(func(n *node) bool { return n.XMLName.Space == nsSM })
	if err != nil {
		return err
	}
	if !n.is(nsSM, "enabled") || n.attr("id") == "" {
		return fmt.Errorf("broken: in answer to <enable/>: %+v", n)
	}
	t.id, t.sent, t.acked, t.received, t.sinceAsked = n.attr("id"), 0, 0, 0, 0
	return nil
}

// transmit sends a stanza that counts.
func (t *talker) transmit(ctx context.Context, st stanza) error {
	t.queue = append(t.queue, st)
	t.sent++
	return t.put(ctx, "%s", st.xml)
}

// acknowledge takes the server's count.
func (t *talker) acknowledge(h uint32) error {
	n := h - t.acked
	if int64(n) > int64(len(t.queue)) {
		return fmt.Errorf("broken: h=%d, but %d were sent and %d acknowledged before", h, t.sent, t.acked)
	}
	for _, st := range t.queue[:n] {
		if st.body != "" {
			t.l.ack("XMPP <a/>", t.c, st.body, "")
		}
	}
	t.queue, t.acked = t.queue[n:], h
	return nil
}

// window is how much may be unacknowledged.
const window = 24

// talk says one thing after the other until the connection breaks.
func (t *talker) talk(ctx context.Context) error {
	for {
		for len(t.queue) >= window {
			if err := t.ask(ctx); err != nil {
				return err
			}
			if err := t.hear(ctx); err != nil {
				return err
			}
		}
		if rand.IntN(60) == 0 {
			t.l.note("connection dropped")
			return errors.New("dropped")
		}
		t.said++
		if err := t.transmit(ctx, t.message()); err != nil {
			return err
		}
		if t.sinceAsked++; rand.IntN(4) == 0 {
			if err := t.ask(ctx); err != nil {
				return err
			}
		}
		for more := true; more; {
			select {
			case n, ok := <-t.incoming:
				if !ok {
					return errors.New("the connection is lost")
				}
				if err := t.take(ctx, n); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			default:
				more = false
			}
		}
	}
}

// ask asks for the server's count, if there is anything to count since.
func (t *talker) ask(ctx context.Context) error {
	if t.sinceAsked == 0 {
		return nil
	}
	t.sinceAsked = 0
	return t.put(ctx, `<r xmlns='%s'/>`, nsSM)
}

func (t *talker) message() stanza {
	body := fmt.Sprintf("%s/%s %d", t.who, t.client, t.said)
	to, typ, id := garden, "groupchat", ""
	if !t.c.group {
		to, typ = t.c.other(t.who)+"@"+domain, "chat"
	}
	if t.named {
		id = fmt.Sprintf(`<origin-id xmlns='%s' id='%s-%d'/>`, nsSID, t.client, t.said)
	}
	return stanza{body: body, xml: fmt.Sprintf(`<message xmlns='jabber:client' to='%s' type='%s'><body>%s</body>%s</message>`, to, typ, body, id)}
}

// hear waits for one element.
func (t *talker) hear(ctx context.Context) error {
	select {
	case n, ok := <-t.incoming:
		if !ok {
			return errors.New("the connection is lost")
		}
		return t.take(ctx, n)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take deals with what came.
func (t *talker) take(ctx context.Context, n *node) error {
	switch {
	case n.is(nsSM, "a"):
		h, err := strconv.ParseUint(n.attr("h"), 10, 32)
		if err != nil {
			return fmt.Errorf("broken: <a/> without a count")
		}
		return t.acknowledge(uint32(h))
	case n.is(nsSM, "r"):
		return t.put(ctx, `<a xmlns='%s' h='%d'/>`, nsSM, t.received)
	case n.XMLName.Space != nsClient:
		return nil
	}
	t.received++
	if n.attr("type") == "error" {
		return fmt.Errorf("broken: %s: %s", n.XMLName.Local, n.condition())
	}
	if n.XMLName.Local == "message" && n.attr("from") == garden+"/"+t.who {
		body, sid := n.child(xml.Name{Local: "body"}), n.child(xml.Name{Space: nsSID, Local: "stanza-id"})
		if body != nil && sid.attr("by") == garden && strings.HasPrefix(body.Text, t.who+"/"+t.client+" ") {
			t.l.ack("MUC echo", t.c, body.Text, sid.attr("id"))
		}
	}
	return nil
}

// verify fails the test if what everybody sees is not what was acknowledged. What was under way
// when the load ended may still be taken while one reads, so what looks wrong is read again until
// it stays as it is.
func (l *load) verify(t *testing.T) {
	t.Helper()
	total, problems := l.compare(t.Context())
	for before := []string(nil); len(problems) > 0 && !slices.Equal(before, problems); {
		time.Sleep(time.Second)
		before = problems
		total, problems = l.compare(t.Context())
	}
	for _, p := range problems {
		t.Error(p)
	}
	t.Logf("%d messages are there, %d acknowledgements: %v", total, l.count, l.tally)
}

// compare compares what everybody sees of every conversation, over both protocols, with what was acknowledged. It returns how many
// messages there are, and all that is wrong.
func (l *load) compare(ctx context.Context) (total int, problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	conversations := []*conversation{l.group}
	for _, c := range l.directs {
		conversations = append(conversations, c)
	}
	for _, c := range conversations {
		var first *view
		for _, who := range c.members {
			views, err := l.views(ctx, c, who)
			if err != nil {
				problem("%s: reading what %s sees: %v", c.name, who, err)
				continue
			}
			for _, v := range views {
				for _, p := range l.problems(c, v.lines) {
					problem("%s, %s to %s: %s", c.name, v.by, who, p)
				}
				if first == nil {
					first = &v
				}
				if d := same(first.lines, v.lines); d != "" {
					problem("%s: %s to %s differs from the first view: %s", c.name, v.by, who, d)
				}
			}
		}
		if first != nil {
			total += len(first.lines)
		}
	}
	for path, content := range l.media {
		code, b, err := l.matrix["mona"].raw(ctx, http.MethodGet, path, "", nil)
		if err != nil || code != http.StatusOK || string(b) != content {
			problem("a file that was acknowledged: %d, %v, %d bytes of %d", code, err, len(b), len(content))
		}
	}
	slices.Sort(problems)
	return total, problems
}

// view is how one sees a conversation.
type view struct {
	by    string
	lines []line
}

func (l *load) views(ctx context.Context, c *conversation, who string) ([]view, error) {
	m := l.matrix[who]
	forwards, err := m.history(ctx, c.room, false)
	if err != nil {
		return nil, err
	}
	backwards, err := m.history(ctx, c.room, true)
	if err != nil {
		return nil, err
	}
	s, err := dialXMPP(ctx, l.to, who, "verify", nil)
	if err != nil {
		return nil, err
	}
	defer s.drop()
	of, with := garden, ""
	if !c.group {
		of, with = "", c.other(who)+"@"+domain
	}
	archive, err := s.archive(ctx, of, with)
	if err != nil {
		return nil, err
	}
	return []view{{"/messages forwards", forwards}, {"/messages backwards", backwards}, {"MAM", archive}}, nil
}
