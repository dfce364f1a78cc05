package main

import "testing"

func TestDelegated(t *testing.T) {
	for base, want := range map[string]string{
		"https://example.org":         "example.org:443",
		"https://example.org:8448":    "example.org:8448",
		"https://[2001:db8::1]:8448/": "[2001:db8::1]:8448",
		"http://localhost:8008":       "",
		"://":                         "",
	} {
		if got, ok := delegated(base); got != want || ok != (want != "") {
			t.Errorf("%q leads to %q, %v", base, got, ok)
		}
	}
}
