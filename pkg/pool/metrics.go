package pool

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

var (
	calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubexen_xenapi_calls_total",
		Help: "Requests sent to the XenAPI, by class, method (Async. included) and outcome.",
	}, []string{"class", "method", "outcome"})
	callDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kubexen_xenapi_call_duration_seconds",
		Help:    "Time from a request to its decoded answer, by class; waiting for events is left out.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"class"})
	connected = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubexen_pool_connected",
		Help: "Whether the pool answers and can be used (1) or not (0).",
	}, []string{"pool"})
)

func init() {
	metrics.Registry.MustRegister(calls, callDuration, connected)
	metrics.Registry.MustRegister(xencache.Collectors()...)
}

// observeCall counts one request. Classes and methods are those of the code, so the labels are bounded; error codes
// come from the server and are not.
func observeCall(call xenapi.CallInfo) {
	class, method, _ := strings.Cut(strings.TrimPrefix(call.Method, "Async."), ".")
	if strings.HasPrefix(call.Method, "Async.") {
		method = "Async." + method
	}
	calls.WithLabelValues(class, method, callOutcome(call.Err)).Inc()
	if call.Method != "event.from" {
		callDuration.WithLabelValues(class).Observe(call.Duration.Seconds())
	}
}

// changes reports whether a method may have changed something that events tell of.
func changes(method string) bool {
	class, message, _ := strings.Cut(strings.TrimPrefix(method, "Async."), ".")
	return class != "session" && class != "event" && !strings.HasPrefix(message, "get_")
}

// callOutcome sorts errors into what one would do about them.
func callOutcome(err error) string {
	var refused *xenapi.Error
	switch {
	case err == nil:
		return "success"
	case errors.As(err, &refused):
		return "refused"
	case xenapi.OutcomeUnknown(err):
		return "unknown"
	default:
		return "failed"
	}
}
