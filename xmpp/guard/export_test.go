package guard

// Keys is how many keys a limit counts.
func (g *Guard) Keys(l Limit) int {
	s := g.sheets[l]
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m)
}
