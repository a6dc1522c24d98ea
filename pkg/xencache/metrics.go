package xencache

import "github.com/prometheus/client_golang/prometheus"

// The label pool is bounded by the number of XenPools.
var (
	eventLag = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kubexen_event_lag_seconds",
		Help:    "Time from the answer to a write until the next change was seen in the pool's events.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
	}, []string{"pool"})
	eventsSeen = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubexen_events_total",
		Help: "Events received from the pool, by class.",
	}, []string{"pool", "class"})
	resyncs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubexen_event_resyncs_total",
		Help: "Times the objects of a class were read anew, by cause.",
	}, []string{"pool", "cause"})
	objects = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubexen_cached_objects",
		Help: "Objects of the pool that are held in memory, by class.",
	}, []string{"pool", "class"})
)

// Collectors returns the metrics of all caches, for whoever serves them.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{eventLag, eventsSeen, resyncs, objects}
}

// ForgetMetrics removes the series of the cache's pool, which is gone.
func (c *Cache) ForgetMetrics() {
	label := prometheus.Labels{"pool": c.options.Pool}
	for _, vector := range []interface{ DeletePartialMatch(prometheus.Labels) int }{eventLag, eventsSeen, resyncs, objects} {
		vector.DeletePartialMatch(label)
	}
}
