package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrUnsupported is an op's error when the client, or its library, lacks it.
var ErrUnsupported = errors.New("the client cannot")

// Timeouts of one op and of one awaited event. They are generous, for slow machines:
// nothing is proved by their length.
const (
	opTimeout    = 60 * time.Second
	eventTimeout = 25 * time.Second
)

// Event is something that a driver told without being asked. Addresses are spelled
// local@domain for every network; rooms by their local part, once the client is in them.
type Event struct {
	Event   string `json:"event"`
	Message string `json:"message"` // the handle of the message that it is or is about
	From    string `json:"from"`
	With    string `json:"with"` // Matrix: whom the talk is with
	To      string `json:"to"`   // XMPP: to whom, if it is our own
	Room    string `json:"room"` // empty in a talk between two
	Nick    string `json:"nick"`
	User    string `json:"user"` // member, contact: who

	Body      string            `json:"body"`
	Texts     map[string]string `json:"texts"` // by language
	HTML      string            `json:"html"`
	ReplyTo   string            `json:"reply_to"`
	Files     []File            `json:"files"`
	Reactions []string          `json:"reactions"` // the whole set of From's, sorted
	Topic     string            `json:"topic"`
	Kind      string            `json:"kind"`   // receipt: delivered, displayed, failed
	Change    string            `json:"change"` // member: join, invite, leave, kick, ban
	State     string            `json:"state"`  // contact: both, to, from, none
	Show      string            `json:"show"`   // presence: online, away, xa, dnd, chat, offline
	Status    string            `json:"status"` // presence: in words
	Condition string            `json:"condition"`
	Text      string            `json:"text"` // error, failed: in words
	By        string            `json:"by"`   // receipt: what stands in for one that the protocol lacks
	Into      string            `json:"into"` // moved: the client's name for the room that goes on

	Active    bool `json:"active"` // typing
	Own       bool `json:"own"`    // said by this account, here or on another device
	Delayed   bool `json:"delayed"`
	Encrypted bool `json:"encrypted"`
	Resumed   bool `json:"resumed"`

	raw string
}

// File is a file that a message carries.
type File struct {
	URL  string `json:"url"`
	Name string `json:"name"`
	Type string `json:"type"`
	Size int64  `json:"size"`
	Kind string `json:"kind"` // Matrix: image, audio, video, file
}

// Answer is what an op returned.
type Answer struct {
	ID    int    `json:"id"`
	Error string `json:"error"`

	Message  string  `json:"message"`
	Room     string  `json:"room"`
	URL      string  `json:"url"`
	Address  string  `json:"address"`
	Device   string  `json:"device"`
	SHA256   string  `json:"sha256"`
	Size     int64   `json:"size"`
	Type     string  `json:"type"`
	Events   []Event `json:"events"`
	Members  []Event `json:"members"`
	Contacts []Event `json:"contacts"`
}

// Args are the arguments of an op. An Address or RoomAddress is spelled for the network.
type Args map[string]any

// Client is one driver process: one device of an account.
type Client struct {
	Driver  *Driver
	Address Address

	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stderr  *os.File
	closing sync.Once

	mu      sync.Mutex
	lastID  int
	pending map[int]chan Answer
	events  []Event
	changed chan struct{}     // closed and replaced at each event
	rooms   map[string]string // local part -> the client's name for it
	failure error             // why the process can no longer be asked
}

func (c *Client) String() string { return c.Driver.Name + " of " + c.Address.String() }

// startClient runs a driver and logs in. stderr takes what the client's library says.
func startClient(ctx context.Context, d *Driver, cmd *exec.Cmd, who Address, stderr *os.File, login Args) (*Client, error) {
	c := &Client{
		Driver: d, Address: who, cmd: cmd, stderr: stderr,
		pending: make(map[int]chan Answer), rooms: make(map[string]string),
		changed: make(chan struct{}),
	}
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("interop: starting %s: %w", d.Name, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("interop: starting %s: %w", d.Name, err)
	}
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("interop: starting %s: %w", d.Name, err)
	}
	go c.readLines(stdout)
	if _, err := c.Do(ctx, "login", login); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: login: %w", c, err)
	}
	return c, nil
}

// Close ends the process, without logging out.
func (c *Client) Close() {
	c.closing.Do(func() {
		c.stdin.Close()
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // it may have ended already
		_ = c.cmd.Wait()                                      // killed: the status says nothing
		c.stderr.Close()
	})
}

func (c *Client) readLines(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		if err := c.readLine(lines.Bytes()); err != nil {
			c.fail(fmt.Errorf("%s said %q: %w", c, lines.Text(), err))
			return
		}
	}
	c.fail(fmt.Errorf("%s ended", c))
}

func (c *Client) readLine(line []byte) error {
	var kind struct{ Event string }
	if err := json.Unmarshal(line, &kind); err != nil {
		return err
	}
	if kind.Event == "" {
		var a Answer
		if err := json.Unmarshal(line, &a); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if ch, ok := c.pending[a.ID]; ok {
			delete(c.pending, a.ID)
			ch <- a
		}
		return nil
	}
	e := Event{raw: string(line)}
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.canonical(&e)
	c.events = append(c.events, e)
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// canonical spells an event's addresses and room the same for every network. Called with
// c.mu held.
func (c *Client) canonical(e *Event) {
	for _, field := range []*string{&e.From, &e.With, &e.To, &e.User} {
		if a, err := ParseAddress(*field, c.Driver.Network); err == nil {
			*field = a.String()
		}
	}
	for local, native := range c.rooms {
		if e.Room == native {
			e.Room = local
		}
	}
}

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = err
	for id, ch := range c.pending {
		delete(c.pending, id)
		ch <- Answer{ID: id, Error: err.Error()}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Do asks the driver for an op and waits for its answer.
func (c *Client) Do(ctx context.Context, op string, args Args) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	line := map[string]any{"op": op}
	ch := make(chan Answer, 1)
	c.mu.Lock()
	if c.failure != nil {
		c.mu.Unlock()
		return Answer{}, c.failure
	}
	c.lastID++
	line["id"] = c.lastID
	c.pending[c.lastID] = ch
	for name, value := range args {
		line[name] = c.spell(value)
	}
	c.mu.Unlock()
	data, err := json.Marshal(line)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %s: %w", c.Driver.Name, op, err)
	}
	if _, err := c.stdin.Write(append(data, '\n')); err != nil {
		return Answer{}, fmt.Errorf("%s: %s: %w", c.Driver.Name, op, err)
	}
	select {
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("%s: %s: %w", c.Driver.Name, op, ctx.Err())
	case a := <-ch:
		return a, c.answerError(op, &a)
	}
}

func (c *Client) answerError(op string, a *Answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range [][]Event{a.Events, a.Members, a.Contacts} {
		for i := range list {
			c.canonical(&list[i])
		}
	}
	switch {
	case a.Error == "":
		return nil
	case strings.HasPrefix(a.Error, "unsupported"):
		return fmt.Errorf("%s: %s: %w", c.Driver.Name, op, ErrUnsupported)
	default:
		return fmt.Errorf("%s: %s: %s", c.Driver.Name, op, a.Error)
	}
}

// spell returns an op's argument as the client's network writes it. Called with c.mu held.
func (c *Client) spell(value any) any {
	switch v := value.(type) {
	case Address:
		return v.Spell(c.Driver.Network, c.Address.Domain)
	case RoomAddress:
		if native, ok := c.rooms[v.Local]; ok {
			return native
		}
		return v.Spell(c.Driver.Network, c.Address.Domain)
	}
	return value
}

// enter remembers the client's own name for a room.
func (c *Client) enter(room RoomAddress, native string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rooms[room.Local] = native
	for i := range c.events { // what was said of it before
		c.canonical(&c.events[i])
	}
}

// Watch is a place in a client's events, from which one waits for what comes.
type Watch struct {
	client *Client
	from   int
}

// Watch returns the present end of the events.
func (c *Client) Watch() *Watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Watch{client: c, from: len(c.events)}
}

// For waits for the first event since the watch that matches. The error tells what came
// instead. what says what is awaited.
func (w *Watch) For(ctx context.Context, what string, match func(*Event) bool) (*Event, error) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	next := w.from
	for {
		c := w.client
		c.mu.Lock()
		seen, changed, failure := c.events[next:], c.changed, c.failure
		c.mu.Unlock()
		for i := range seen {
			if match(&seen[i]) {
				return &seen[i], nil
			}
		}
		next += len(seen)
		if failure != nil {
			return nil, failure
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s did not see %s; it saw %s", c.Driver.Name, what, w.seen())
		}
	}
}

// Saw says whether a matching event has come since the watch.
func (w *Watch) Saw(match func(*Event) bool) bool {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	for i := range w.client.events[w.from:] {
		if match(&w.client.events[w.from+i]) {
			return true
		}
	}
	return false
}

func (w *Watch) seen() string {
	w.client.mu.Lock()
	defer w.client.mu.Unlock()
	var lines []string
	for _, e := range w.client.events[w.from:] {
		lines = append(lines, e.raw)
	}
	if len(lines) == 0 {
		return "nothing"
	}
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	return strings.Join(lines, " ")
}
