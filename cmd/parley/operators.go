package main

import "parley/core"

// operators are the accounts that the configuration names, which has checked
// them.
func operators(names []string) (out []core.Address) {
	for _, n := range names {
		if a, err := core.ParseLocal(n); err == nil {
			out = append(out, a)
		}
	}
	return out
}
