package durability

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"parley/store/storetest"
)

var kills = flag.Int("kills", number("PARLEY_KILLS", 8), "how often the server is killed")

// number is a number from the environment.
func number(name string, fallback int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return fallback
}

// soak is how long a long run goes on, zero for a short one.
func soak(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("PARLEY_SOAK")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("PARLEY_SOAK: %v", err)
	}
	return d
}

// However often the server is killed under load, every message that it acknowledged, in whatever protocol and way, is in the
// archives of everybody exactly once and in one order.
func TestKill(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { killing(t, "", *kills) })
	t.Run("PostgreSQL", func(t *testing.T) { killing(t, storetest.Postgres(t), min(*kills, 2)) })
}

func killing(t *testing.T, database string, rounds int) {
	p := newProcess(t, database, "")
	l := newLoad(t, &p.target)
	l.begin(t.Context())
	defer l.end()
	until := time.Now().Add(soak(t))
	done := 0
	for ; done < rounds || time.Now().Before(until); done++ {
		l.await(t, 100+rand.IntN(400))
		p.alive()
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // anywhere in a batch
		p.kill()
		p.start()
	}
	l.await(t, 200)
	l.end()
	l.verify(t)
	t.Logf("%d kills", done)
}
