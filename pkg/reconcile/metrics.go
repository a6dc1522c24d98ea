package reconcile

import (
	"fmt"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Labels are bounded: kinds, steps and reasons are constants of the code, never names of objects.
var (
	outcomes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubexen_transitions_total",
		Help: "Changes of the reason of Ready, by kind, outcome of the pass and new reason.",
	}, []string{"kind", "outcome", "reason"})
	plans = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubexen_plans_total",
		Help: "Plans made, by kind and name of the first step that does not hold yet (None: all hold).",
	}, []string{"kind", "step"})
	steps = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kubexen_step_duration_seconds",
		Help:    "Time taken by the act of a step, by kind, step and outcome.",
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"kind", "step", "outcome"})
)

func init() { metrics.Registry.MustRegister(outcomes, plans, steps) }

// ObservePlan counts a plan by its first step; an empty step means that nothing is left to do.
func ObservePlan(kind, step string) { plans.WithLabelValues(kind, orElse(step, "None")).Inc() }

// ObserveStep records that the act of a step ended in outcome.
func ObserveStep(kind, step string, outcome Outcome, took time.Duration) {
	steps.WithLabelValues(kind, step, outcome.kind.String()).Observe(took.Seconds())
}

func countOutcome(kind string, outcome Kind, reason string) {
	outcomes.WithLabelValues(kind, outcome.String(), reason).Inc()
}

// kindOf names the Go type, which is the kind: objects from a cache carry no TypeMeta.
func kindOf(obj client.Object) string { return reflect.TypeOf(obj).Elem().Name() }

// format1 formats only where there is something to format, so that a text with a percent sign survives.
func format1(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}
