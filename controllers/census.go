package controllers

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// instances counts by what a dashboard asks; neither names nor namespaces are labels.
var instances = prometheus.NewGaugeVec(prometheus.GaugeOpts{
	Name: "kubexen_instances",
	Help: "XenInstances by the power state that they show (None: no VM yet) and by whether they are Ready.",
}, []string{"power", "ready"})

func init() { metrics.Registry.MustRegister(instances) }

// censusPeriod is how old the figures may be.
const censusPeriod = 15 * time.Second

// instanceCensus counts the instances now and then, on the replica that leads.
type instanceCensus struct {
	reader client.Reader
	clock  clock.WithTicker
}

// Start implements manager.Runnable.
func (c *instanceCensus) Start(ctx context.Context) error {
	ticker := c.clock.NewTicker(censusPeriod)
	defer ticker.Stop()
	defer instances.Reset()
	for {
		if err := c.count(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "count the instances")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

func (c *instanceCensus) count(ctx context.Context) error {
	var list v1alpha1.XenInstanceList
	if err := c.reader.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	type state struct{ power, ready string }
	counted := map[state]int{}
	for i := range list.Items {
		status := &list.Items[i].Status
		ready := string(metav1.ConditionUnknown)
		if condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady); condition != nil {
			ready = string(condition.Status)
		}
		counted[state{orDefault(string(status.PowerState), "None"), ready}]++
	}
	instances.Reset()
	for s, n := range counted {
		instances.WithLabelValues(s.power, s.ready).Set(float64(n))
	}
	return nil
}
