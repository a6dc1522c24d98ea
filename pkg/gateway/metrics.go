package gateway

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the gateway's figures. Their labels are bounded: no user, token, address or object is one.
type Metrics struct {
	sessions *prometheus.GaugeVec
	ended    *prometheus.CounterVec
	turned   *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	lasted   prometheus.Histogram
}

// NewMetrics registers them; a nil registerer keeps them to itself.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubexen_console_sessions", Help: "Console sessions open through this gateway."}, []string{"client"}),
		ended:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubexen_console_sessions_ended_total", Help: "Console sessions that ended, by cause."}, []string{"client", "cause"}),
		turned:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubexen_console_refused_total", Help: "Attempts that were not let in, by cause."}, []string{"cause"}),
		bytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubexen_console_bytes_total", Help: "Bytes of ended sessions, by direction."}, []string{"direction"}),
		lasted:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubexen_console_session_seconds", Help: "How long console sessions lasted.", Buckets: []float64{1, 10, 60, 300, 900, 3600, 14400, 86400}}),
	}
	if r != nil {
		r.MustRegister(m.sessions, m.ended, m.turned, m.bytes, m.lasted)
	}
	return m
}

func (m *Metrics) opened(client string) { m.sessions.WithLabelValues(client).Inc() }

func (m *Metrics) closed(v Visit) {
	m.sessions.WithLabelValues(v.Client).Dec()
	m.ended.WithLabelValues(v.Client, string(v.Cause)).Inc()
	m.bytes.WithLabelValues("to_guest").Add(float64(v.ToGuest))
	m.bytes.WithLabelValues("from_guest").Add(float64(v.FromGuest))
	m.lasted.Observe(v.Ended.Sub(v.Started).Seconds())
}

func (m *Metrics) refused(c Cause) { m.turned.WithLabelValues(string(c)).Inc() }
