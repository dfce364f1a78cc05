package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"parley/interop/lab"
)

// Report is what a run of sessions found. It is written as docs/interop.json, and for
// people as docs/interop.md.
type Report struct {
	Date     string            `json:"date"`
	Versions map[string]string `json:"versions"` // of clients and servers, by name
	// Apart are the groups of servers that are not part of the full run, and when and with
	// what they were last run.
	Apart map[string]Run `json:"apart,omitempty"`
	Cells []Cell         `json:"cells"`
}

// Run is a run of one group of servers.
type Run struct {
	Date     string            `json:"date"`
	Versions map[string]string `json:"versions"` // of its servers
}

// BaselineFile is the report of the last full run, which later runs must not fall behind.
func BaselineFile() string {
	return filepath.Join(filepath.Dir(lab.Root()), "docs", "interop.json")
}

// Load reads a report; one that does not exist is empty.
func Load(file string) (*Report, error) {
	r := new(Report)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("interop: %w", err)
	}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("interop: %s: %w", file, err)
	}
	return r, nil
}

// Plan returns every session of a world with Parley: all ordered pairs of clients on it,
// and with each peer all pairs of one client there and one on Parley, in both directions.
// A world with a Dendrite is for the sessions with it alone.
func Plan(w *World) []*Session {
	var sessions []*Session
	add := func(a, b Seat) { sessions = append(sessions, &Session{World: w, SeatA: a, SeatB: b}) }
	peers := []*Site{w.Prosody, w.Ejabberd, w.Second}
	if w.Dendrite != nil {
		peers = []*Site{w.Dendrite}
	} else {
		for _, a := range Drivers {
			for _, b := range Drivers {
				add(Seat{a, w.Parley}, Seat{b, w.Parley})
			}
		}
	}
	for _, peer := range peers {
		for _, local := range Drivers {
			for _, remote := range Drivers {
				if remote.visits(peer) {
					add(Seat{local, w.Parley}, Seat{remote, peer})
					add(Seat{remote, peer}, Seat{local, w.Parley})
				}
			}
		}
	}
	return sessions
}

// visits says whether the sessions with a peer have people there who use the client. On
// another Parley there are all Matrix clients and, so that XMPP is on both ends of Matrix
// federation, one of XMPP.
func (d *Driver) visits(peer *Site) bool {
	if peer.Name == "second" {
		return d.Network == Matrix || d.Name == "slixmpp"
	}
	return !d.Web && slices.Contains(networksOf(peer.Domain()), d.Network)
}

func (s *Session) String() string { return s.SeatA.String() + " → " + s.SeatB.String() }

// RunAll runs sessions, some at once, and returns their cells in the order of the report.
// progress is told of each cell as it comes.
func RunAll(ctx context.Context, sessions []*Session, features []*Feature, atOnce int, progress func(Cell)) ([]Cell, error) {
	var mu sync.Mutex
	var cells []Cell
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, s := range sessions {
		group.Go(func() error {
			return s.Run(ctx, features, func(c Cell) {
				mu.Lock()
				defer mu.Unlock()
				c.Note = tidy(c.Note)
				cells = append(cells, c)
				progress(c)
			})
		})
	}
	err := group.Wait()
	inOrder(cells)
	return cells, err
}

func inOrder(cells []Cell) {
	slices.SortStableFunc(cells, func(a, b Cell) int { return a.order() - b.order() })
}

// order sorts cells by servers, then features, then clients.
func (c Cell) order() int {
	driver := func(seat string) int {
		name, _, _ := strings.Cut(seat, "@")
		return slices.IndexFunc(Drivers, func(d *Driver) bool { return d.Name == name })
	}
	feature := slices.IndexFunc(Features, func(f *Feature) bool { return f.Name == c.Feature })
	group := slices.Index(groups, c.group())
	remoteActs := 0
	if !strings.HasSuffix(c.A, "@parley") {
		remoteActs = 1
	}
	return (((group*1000+feature)*2+remoteActs)*10+driver(c.A))*10 + driver(c.B)
}

// groups are the tables of the report.
var groups = []string{"parley", "prosody", "ejabberd", "second", "dendrite"}

// group is the table that a cell is in: by the server that is not Parley.
func (c Cell) group() string {
	for _, seat := range []string{c.A, c.B} {
		if _, site, _ := strings.Cut(seat, "@"); site != "parley" {
			return site
		}
	}
	return "parley"
}

func (c Cell) key() string { return c.Feature + "|" + c.A + "|" + c.B }

// tidy takes out of a note what is different in each run.
var noise = regexp.MustCompile(`w[0-9a-f]{10}|\$[\w-]{43}|[0-9a-f]{8}-[0-9a-f-]{27}|"(stanza|message|reply_to|id)": ?"[^"]*"`)
var numbered = regexp.MustCompile(`\b(alice|bob|friend)\d+`)

func tidy(note string) string {
	note = numbered.ReplaceAllString(noise.ReplaceAllString(note, "…"), "$1")
	note = strings.Join(strings.Fields(note), " ")
	if runes := []rune(note); len(runes) > 600 {
		note = string(runes[:600]) + "…"
	}
	return note
}

// rank orders results, better ones higher.
var rank = map[Result]int{No: 1, Fallback: 2, Works: 3}

// Worse returns the cells that were better in the baseline.
func Worse(baseline *Report, cells []Cell) []string {
	before := make(map[string]Outcome)
	for _, c := range baseline.Cells {
		before[c.key()] = c.Outcome
	}
	var worse []string
	for _, c := range cells {
		if was, ok := before[c.key()]; ok && rank[c.Result] < rank[was.Result] {
			worse = append(worse, fmt.Sprintf("%s, %s → %s: was %s, is %s: %s", c.Feature, c.A, c.B, was.Result, c.Result, c.Note))
		}
	}
	return worse
}

// Merge puts the cells of sessions that were run again in the place of those that a report has of them.
func Merge(last *Report, cells []Cell) []Cell {
	again := make(map[string]bool)
	for _, c := range cells {
		again[c.A+"|"+c.B] = true
	}
	kept := slices.DeleteFunc(slices.Clone(last.Cells), func(c Cell) bool { return again[c.A+"|"+c.B] })
	cells = append(kept, cells...)
	inOrder(cells)
	return cells
}

// MergeApart puts in the groups that a run was not about as a report has them.
func MergeApart(last *Report, cells []Cell) []Cell {
	for _, c := range last.Cells {
		if _, apart := last.Apart[c.group()]; apart {
			cells = append(cells, c)
		}
	}
	inOrder(cells)
	return cells
}

// Versions asks the world's clients and servers what they are.
func Versions(ctx context.Context, w *World) (map[string]string, error) {
	versions := make(map[string]string)
	for _, d := range Drivers {
		v, err := d.Version(ctx)
		if err != nil {
			return nil, err
		}
		versions[d.Name] = d.Title + " " + v
	}
	for _, s := range w.Sites() {
		v, err := s.Version(ctx)
		if err != nil {
			return nil, err
		}
		versions[s.Name] = v
	}
	return versions, nil
}

// Save writes the report as JSON to file and as Markdown beside it.
func (r *Report) Save(file string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	page := strings.TrimSuffix(file, ".json") + ".md"
	if err := os.WriteFile(page, []byte(r.markdown()), 0o644); err != nil {
		return fmt.Errorf("interop: %w", err)
	}
	return nil
}
