package store_test

import (
	"context"
	"sync/atomic"
	"testing"

	"parley/store"
	"parley/store/storetest"
)

// BenchmarkWrite measures durable operations with that many callers at once.
func BenchmarkWrite(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"SQLite": storetest.SQLite, "PostgreSQL": storetest.Postgres} {
		for _, callers := range []int{1, 32, 256} {
			b.Run(name+"/"+map[int]string{1: "1", 32: "32", 256: "256"}[callers], func(b *testing.B) {
				db := storetest.Open(b, url(b), store.Options{})
				migrate(b, db, `CREATE TABLE ev (id BIGINT PRIMARY KEY, conv TEXT NOT NULL, body BLOB NOT NULL)`)
				body := make([]byte, 600)
				var next atomic.Int64
				b.SetParallelism((callers + 1) / 2)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						err := db.Write(context.Background(), func(tx *store.Tx) error {
							_, err := tx.Exec(`INSERT INTO ev (id, conv, body) VALUES ($1, $2, $3)`, next.Add(1), "conv", body)
							return err
						})
						if err != nil {
							b.Error(err)
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			})
		}
	}
}
