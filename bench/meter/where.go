package meter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// Share is how much of a CPU profile a package has, in percent.
type Share struct {
	Package string
	Self    float64 // in its own functions
	Total   float64 // in those and in what they call
	Top     string  // the function of it with the largest total
}

// Where groups a CPU profile by package, largest total first. Packages below least
// percent are left out.
func Where(data []byte, least float64) ([]Share, error) {
	p, err := profile.ParseData(data)
	if err != nil {
		return nil, fmt.Errorf("meter: profile: %w", err)
	}
	var all int64
	self, total, funcs := make(map[string]int64), make(map[string]int64), make(map[string]int64)
	for _, s := range p.Sample {
		value := s.Value[len(s.Value)-1] // processor time
		all += value
		pkgs, names := make(map[string]bool), make(map[string]bool)
		first := true
		for _, loc := range s.Location {
			for _, line := range loc.Line {
				if line.Function == nil {
					continue
				}
				pkg := packageOf(line.Function.Name)
				if first {
					self[pkg] += value
					first = false
				}
				pkgs[pkg], names[line.Function.Name] = true, true
			}
		}
		for pkg := range pkgs {
			total[pkg] += value
		}
		for name := range names {
			funcs[name] += value
		}
	}
	top := make(map[string]string)
	for name, n := range funcs {
		pkg := packageOf(name)
		if old := top[pkg]; old == "" || n > funcs[old] || n == funcs[old] && name < old {
			top[pkg] = name
		}
	}
	percent := func(n int64) float64 { return 100 * float64(n) / float64(max(all, 1)) }
	var shares []Share
	for pkg := range maps.Keys(total) {
		if t := percent(total[pkg]); t >= least {
			shares = append(shares, Share{pkg, percent(self[pkg]), t, strings.TrimPrefix(top[pkg], pkg+".")})
		}
	}
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), strings.Compare(a.Package, b.Package))
	})
	return shares, nil
}

// packageOf is the import path in a function's full name.
func packageOf(name string) string {
	slash := strings.LastIndexByte(name, '/') + 1
	pkg, _, _ := strings.Cut(name[slash:], ".")
	return name[:slash] + pkg
}

// LeastShare is the percentage that a package has at least to be in a report.
const LeastShare = 3

// WhereTable is a profile as a table in Markdown.
func WhereTable(data []byte) (string, error) {
	shares, err := Where(data, LeastShare)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| package | with what it calls | itself | most in |\n|---|--:|--:|---|\n")
	for _, s := range shares {
		fmt.Fprintf(&b, "| `%s` | %.0f %% | %.0f %% | `%s` |\n", s.Package, s.Total, s.Self, s.Top)
	}
	return b.String(), nil
}
