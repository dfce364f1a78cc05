package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/store"
	"parley/store/storetest"
)

// childEnv makes the test binary the process that is killed: its value is the
// first number to write and the URL.
const childEnv = "PARLEY_STORE_KILL_CHILD"

func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		start, url, _ := strings.Cut(v, " ")
		fmt.Fprintln(os.Stderr, child(start, url))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var shortLease = store.Options{LeaseTTL: 300 * time.Millisecond, BatchMax: 8}

// openKilled opens the database of a killed process, whose lease on PostgreSQL
// has to expire first.
func openKilled(url string) (*store.DB, error) {
	for {
		db, err := store.OpenOptions(context.Background(), url, slog.New(slog.DiscardHandler), shortLease)
		var held *store.LeaseHeldError
		if !errors.As(err, &held) || held.Remaining == 0 {
			return db, err
		}
		time.Sleep(held.Remaining)
	}
}

// child writes numbers from several goroutines for ever, and prints each when
// it is acknowledged.
func child(start, url string) error {
	first, err := strconv.Atoi(start)
	if err != nil {
		return err
	}
	db, err := openKilled(url)
	if err != nil {
		return err
	}
	failed := make(chan error)
	const writers = 6
	for i := range writers {
		go func() {
			for n := first + i; ; n += writers {
				err := db.Write(context.Background(), func(tx *store.Tx) error {
					tx.NextFeed()
					if _, err := tx.Exec(`INSERT INTO ledger (n, body) VALUES ($1, $2)`, n, make([]byte, n%5000)); err != nil {
						return err
					}
					_, err := tx.Exec(`INSERT INTO copies (n) VALUES ($1)`, n)
					return err
				})
				if err != nil {
					failed <- err
					return
				}
				// One write to a pipe is whole or not at all.
				fmt.Printf("%d\n", n)
			}
		}()
	}
	return <-failed
}

// However often the process is killed under load, all that it acknowledged is
// there exactly once, and nothing in part.
func TestKill(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		db, err := openKilled(url)
		if err != nil {
			t.Fatal(err)
		}
		migrate(t, db, `CREATE TABLE ledger (n BIGINT NOT NULL, body BLOB NOT NULL); CREATE TABLE copies (n BIGINT NOT NULL)`)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		rounds := 12
		if testing.Short() {
			rounds = 3
		}
		acked := map[int]bool{}
		for round := range rounds {
			killOne(t, url, round*1_000_000, acked)
			checkKilled(t, url, acked)
		}
		t.Logf("%d acknowledged over %d kills", len(acked), rounds)
	})
}

// killOne starts a child, kills it somewhere, and notes what it acknowledged.
func killOne(t *testing.T, url string, first int, acked map[int]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", childEnv, first, url))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	enough := 1 + rand.IntN(300)
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ { // also what is in the pipe after the kill
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		acked[n] = true
		if seen == enough {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // anywhere in a batch
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // "signal: killed"
	if cmd.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", cmd.ProcessState)
	}
}

func checkKilled(t *testing.T, url string, acked map[int]bool) {
	t.Helper()
	db, err := openKilled(url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	there := map[int]int{}
	read(t, db, func(q store.Querier) error {
		rows, err := q.Query(`SELECT n, LENGTH(body) FROM ledger`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var n, size int
			if err := rows.Scan(&n, &size); err != nil {
				return err
			}
			if there[n]++; size != n%5000 {
				t.Errorf("%d has %d bytes", n, size)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		var unpaired int
		err = q.QueryRow(`SELECT (SELECT COUNT(*) FROM ledger l LEFT JOIN copies c ON c.n = l.n WHERE c.n IS NULL)
			+ (SELECT COUNT(*) FROM copies c LEFT JOIN ledger l ON c.n = l.n WHERE l.n IS NULL)`).Scan(&unpaired)
		if unpaired != 0 {
			t.Errorf("%d operations are there in part", unpaired)
		}
		return err
	})
	for n, times := range there {
		if times > 1 {
			t.Errorf("%d is there %d times", n, times)
		}
	}
	for n := range acked {
		if there[n] == 0 {
			t.Errorf("%d was acknowledged and is lost", n)
		}
	}
	if feed := db.Feed(); feed < int64(len(there)) {
		t.Errorf("feed %d, with %d rows", feed, len(there))
	}
}
