package contain_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"parley/internal/contain"
	"parley/store"
	"parley/store/storetest"
)

type counter map[string]int

func (c counter) Count(name string, labels ...string) { c[name+" "+strings.Join(labels, " ")]++ }

func TestDo(t *testing.T) {
	var log bytes.Buffer
	counted := counter{}
	k := contain.Keeper{Where: "here", Log: slog.New(slog.NewTextHandler(&log, nil)), Count: counted}
	plain := errors.New("plain")
	if err := k.Do(func() error { return plain }); err != plain || contain.Contained(err) || len(counted) != 0 {
		t.Errorf("got %v, counted %v", err, counted)
	}
	err := k.Do(func() error { panic("what a user said") })
	if !contain.Contained(err) || strings.Contains(err.Error(), "user") {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"where=here", "what a user said", "TestDo"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q: %s", want, &log)
		}
	}
	if counted["panics here"] != 1 {
		t.Errorf("counted %v", counted)
	}
	k.Count = nil
	if err := k.Do(func() error { return errors.New([]string{}[len(counted)-1]) }); !contain.Contained(err) {
		t.Errorf("got %v", err)
	}
}

// A panic within a turn comes out of it as an error, which is counted, and the turn has done nothing.
func TestTurn(t *testing.T) {
	var log bytes.Buffer
	db, err := store.OpenOptions(context.Background(), storetest.SQLite(t), slog.New(slog.NewTextHandler(&log, nil)), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	counted := counter{}
	k := contain.Keeper{Where: "turn", Log: slog.New(slog.DiscardHandler), Count: counted}
	err = k.Do(func() error {
		return db.Write(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(`CREATE TABLE half_done (n INTEGER)`); err != nil {
				return err
			}
			panic("in a turn")
		})
	})
	if !contain.Contained(err) || counted["panics turn"] != 1 {
		t.Errorf("got %v, counted %v", err, counted)
	}
	if err := db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(`CREATE TABLE half_done (n INTEGER)`); return err }); err != nil {
		t.Errorf("the panic left something behind: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "in a turn") || !strings.Contains(log.String(), "TestTurn") {
		t.Errorf("the log: %s", &log)
	}
}
