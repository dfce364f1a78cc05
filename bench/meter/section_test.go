package meter

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSection replaces its own part of a page and nothing else, again and again.
func TestSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	page := "# A\n<!-- a: begin -->\nold\n<!-- a: end -->\n<!-- b: begin -->\n<!-- b: end -->\nend\n"
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, put := range [][2]string{{"a", "first\n"}, {"b", "\nother"}, {"a", "second"}} {
		if err := Section(file, put[0], put[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := "# A\n<!-- a: begin -->\nsecond\n<!-- a: end -->\n<!-- b: begin -->\nother\n<!-- b: end -->\nend\n"
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%q, want %q: %v", got, want, err)
	}
	if err := Section(file, "c", "text"); err == nil {
		t.Error("a section that is not there was written")
	}
}
