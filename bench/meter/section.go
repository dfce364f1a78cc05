package meter

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Section puts text into a file of Markdown, in place of what is between the lines
// "<!-- name: begin -->" and "<!-- name: end -->", so that several programs can write parts
// of one page.
func Section(file, name, text string) error {
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	page, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("meter: %s: %w", file, errors.New("there is no section "+name))
	}
	if err := os.WriteFile(file, []byte(before+begin+strings.TrimSpace(text)+"\n"+end+after), 0o644); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	return nil
}
