package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// counters are what the hub and the protocols count, with the names of their
// labels in the order in which they are given.
var counters = []struct {
	name, help string
	labels     []string
}{
	{"admitted", "Events accepted.", []string{"kind"}},
	{"refused", "Events refused, by reason.", []string{"kind", "code"}},
	{"repeated", "Events that came again and were dropped.", []string{"kind"}},
	{"delivered", "Outcomes of deliveries to other servers.", []string{"network", "outcome"}},
	{"losses", "Parts of messages that could not be carried.", []string{"feature", "network"}},
	{"reports", "Reports on messages to their senders.", []string{"stage", "network"}},
	{"limited", "What was refused or slowed down, by the name of the limit in [limits].", []string{"limit"}},
	{"s2s_unconfirmed", "Deliveries taken for accepted without the other XMPP server's word.", nil},
	{"foreign_entered", "Attempts to enter rooms of other XMPP servers.", []string{"outcome"}},
	{"foreign_dropped", "What rooms of other XMPP servers sent that was dropped.", []string{"why"}},
	{"s2s_dropped", "What other XMPP servers sent that was dropped.", []string{"what"}},
	{"corrected", "State that became another without an actor, where servers' branches met.", []string{"network"}},
	{"matrix_events", "Events of rooms shared with other Matrix servers, by verdict; cited ones are state or causes of others.", []string{"verdict"}},
	{"matrix_transactions", "Transactions to other Matrix servers.", []string{"outcome"}},
	{"matrix_sent", "Events and ephemeral data to other Matrix servers.", []string{"sort", "outcome"}},
	{"matrix_received", "What came in transactions of other Matrix servers.", []string{"sort", "type", "outcome"}},
	{"matrix_incoming", "Events of other Matrix servers: what became of them, and of the gaps before them.", []string{"outcome"}},
	{"matrix_doors", "Joins, leaves, knocks and invitations, between this and other Matrix servers.", []string{"what", "outcome"}},
	{"matrix_ephemeral_dropped", "Typing, receipts and presence of other Matrix servers that were dropped.", []string{"sort"}},
	{"matrix_device_updates", "Changes of devices and keys that other Matrix servers told.", []string{"outcome"}},
	{"matrix_device_lists", "Attempts to fetch lists of devices from other Matrix servers.", []string{"outcome"}},
	{"matrix_to_device_dropped", "Messages to devices from other Matrix servers that were dropped.", []string{"why"}},
	{"panics", "Mistakes in the program that were kept from taking it down, by its part: see the log.", []string{"where"}},
	{"presence_dropped", "Presence from strangers that was dropped.", []string{"network"}},
}

// metrics is what Prometheus reads. It implements hub.Counter.
type metrics struct {
	registry    *prometheus.Registry
	counters    map[string]*prometheus.CounterVec
	connections *prometheus.GaugeVec
	denied      *prometheus.CounterVec
	log         *slog.Logger
	unknown     sync.Map // names that were logged
}

func newMetrics(log *slog.Logger) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		counters: make(map[string]*prometheus.CounterVec),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "parley_connections", Help: "Open connections.",
		}, []string{"listener"}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_connections_denied_total", Help: "Connections refused because their address had too many.",
		}, []string{"listener"}),
		log: log,
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "parley_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": versionString()},
	})
	build.Set(1)
	m.registry.MustRegister(m.connections, m.denied, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range counters {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_" + c.name + "_total", Help: c.help}, c.labels)
		m.registry.MustRegister(vec)
		m.counters[c.name] = vec
	}
	return m
}

// Count adds one. A name or a number of labels that the table above does not
// have is logged once: it is a mistake in the program, but no reason to stop.
func (m *metrics) Count(name string, labels ...string) {
	vec, ok := m.counters[name]
	if ok {
		c, err := vec.GetMetricWithLabelValues(labels...)
		if err == nil {
			c.Inc()
			return
		}
	}
	if _, said := m.unknown.LoadOrStore(name, true); !said {
		m.log.Error("a counter is not in the table", "name", name, "labels", fmt.Sprint(labels))
	}
}

// handler answers /metrics, and with profiles /debug/pprof/.
func (m *metrics) handler(profiles bool) http.Handler {
	mux := http.NewServeMux()
	if profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
