package main

import (
	"bytes"
	"fmt"
	"strings"
)

// renderSuite writes how much of the compliance suite is done, feature by feature.
//
// spec: XEP-0479 §2
func renderSuite(b *bytes.Buffer, t *table) {
	if len(t.Lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", t.Suite)
	b.WriteString("What is asked of a server and of an advanced server, and what is done here.\n")
	rows := t.named()
	category := ""
	for _, l := range t.Lines {
		if l.Category != category {
			category = l.Category
			fmt.Fprintf(b, "\n### %s\n\n| feature | server | advanced | by | status | proved by |\n|---|---|---|---|---|---|\n", category)
		}
		var states, tests []string
		for _, id := range l.Providers {
			status := "none"
			if r := rows[id]; r != nil {
				status = r.Status
				tests = append(tests, r.testNames()...)
			}
			if l.Server == "N/A" && l.Advanced == "N/A" && status == "none" {
				status = "clients' own"
			}
			if len(l.Providers) > 1 {
				status = id + " " + status
			}
			states = append(states, status)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", l.Feature, l.Server, l.Advanced, strings.Join(l.Providers, ", "),
			strings.Join(states, ", "), strings.Join(tests, "; "))
	}
}
