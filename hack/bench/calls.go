package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

var calls = group{
	name:  "calls",
	about: "XenAPI calls and API-server writes of a workflow, from the change to rest; one disk, one interface",
	run:   runCalls,
}

// measured is what one workflow took.
type measured struct {
	calls, writes int
	took          time.Duration // until the object said that it is done
}

func runCalls(ctx context.Context, r *report) error {
	o, err := startWorld(ctx, xensim.Options{ClockScale: benchClockScale, Guests: xensim.Guests{Agent: true, BootDelay: time.Second}})
	if err != nil {
		return err
	}
	defer o.stop()
	if err := o.startManager(ctx); err != nil {
		return err
	}
	plain, drive := benchInstance("plain").Object(), benchInstance("drive").With(func(i *v1alpha1.XenInstance) {
		i.Spec.Bootstrap = &v1alpha1.Bootstrap{
			MetaData: map[string]v1alpha1.MetaDataValue{"role": "bench"}, RemoveDriveAfter: v1alpha1.RemoveDriveNever,
		}
	}).Object()
	screen := &v1alpha1.XenConsole{ObjectMeta: metav1.ObjectMeta{Namespace: plain.Namespace, Name: plain.Name}}
	screen.Spec.InstanceRef.Name = plain.Name
	create := func(i *v1alpha1.XenInstance) func() error { return func() error { return o.client.Create(ctx, i) } }
	untilReady := func(i *v1alpha1.XenInstance) func() error { return func() error { return o.wait(ctx, i, ready) } }
	steps := []struct {
		name     string
		do, done func() error
		calls    float64
		writes   string // name of the row of writes, if there is one
		note     string
	}{
		{"calls.create", create(plain), untilReady(plain), 14, "writes.create", "apply to Ready and at rest"},
		{"calls.create.configdrive", create(drive), untilReady(drive), 19, "", "the same with a config drive"},
		{"calls.console", func() error { return o.client.Create(ctx, screen) }, func() error { return o.wait(ctx, screen, hasURL) }, 0, "", "from a XenConsole to its URL"},
		{"calls.power", func() error { return halt(ctx, o, plain) }, func() error { return o.wait(ctx, plain, halted) }, 3, "", "running to halted, by the guest's agent"},
		{"calls.resync", func() error { return resync(ctx, o, plain) }, untilReady(plain), 0, "", "a reconcile on request that finds all as asked"},
		{"calls.delete", func() error { return o.client.Delete(ctx, plain) }, func() error { return o.waitGone(ctx, plain) }, 6, "", "of a halted instance, deletionPolicy Delete"},
	}
	for _, step := range steps {
		m, err := o.measure(ctx, step.do, step.done)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		r.add(row{Name: step.name, Value: float64(m.calls), Unit: "calls", N: 1, goal: atMost(step.calls),
			Note: fmt.Sprintf("%s; %d writes, %.2f s", step.note, m.writes, m.took.Seconds())})
		if step.writes != "" {
			r.add(row{Name: step.writes, Value: float64(m.writes), Unit: "writes", N: 1, goal: atMost(6), Note: step.note})
		}
	}
	if err := o.measureRescue(ctx, r); err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	if err := o.measureSnapshots(ctx, r); err != nil {
		return fmt.Errorf("snapshots: %w", err)
	}
	if err := o.measureResize(ctx, r); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	if err := o.measureMove(ctx, r); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	return o.firstCall(ctx, r)
}

// benchClockScale is how many times as fast as ours the simulator's clock runs.
const benchClockScale = 20

// hasURL is what the user of a XenConsole waits for.
func hasURL(o object) error {
	if o.(*v1alpha1.XenConsole).Status.URL == "" {
		return errors.New("the console has no URL yet")
	}
	return nil
}

// measure counts what a workflow takes.
func (o *operator) measure(ctx context.Context, do, done func() error) (measured, error) {
	if err := o.waitSettled(ctx); err != nil {
		return measured{}, err
	}
	o.pool.ResetCalls()
	o.fence.Arm(0)
	started := time.Now()
	if err := do(); err != nil {
		return measured{}, err
	}
	if err := done(); err != nil {
		return measured{}, err
	}
	took := time.Since(started)
	err := o.waitSettled(ctx)
	return measured{calls: o.calls(), writes: o.writes(), took: took}, err
}

// firstCall measures the time from an apply to the first XenAPI call that it causes.
func (o *operator) firstCall(ctx context.Context, r *report) error {
	var times []float64
	for i := range max(r.rounds, 3) {
		if err := o.waitSettled(ctx); err != nil {
			return err
		}
		o.pool.ResetCalls()
		started := time.Now()
		instance := benchInstance(fmt.Sprintf("first-%d", i)).Object()
		if err := o.client.Create(ctx, instance); err != nil {
			return err
		}
		if err := o.wait(ctx, instance, ready); err != nil {
			return err
		}
		for _, call := range o.pool.Calls() {
			if call.Method != "event.from" {
				times = append(times, call.Time.Sub(started).Seconds())
				break
			}
		}
	}
	r.add(row{Name: "edit.first", Value: median(times), Unit: "s", N: len(times), goal: atMost(0.25), Note: "apply to the first XenAPI call, median"})
	return nil
}

func halt(ctx context.Context, o *operator, i *v1alpha1.XenInstance) error {
	before := i.DeepCopy()
	i.Spec.PowerState = v1alpha1.PowerStateHalted
	return o.client.Patch(ctx, i, client.MergeFrom(before))
}

func halted(what object) error {
	instance, isInstance := what.(*v1alpha1.XenInstance)
	if !isInstance || instance.Status.PowerState != v1alpha1.PowerStateHalted {
		return errors.New("it is not halted")
	}
	return testkit.Ready(instance)
}

func resync(ctx context.Context, o *operator, i *v1alpha1.XenInstance) error {
	before := i.DeepCopy()
	i.SetAnnotations(map[string]string{v1alpha1.AnnotationReconcileRequestedAt: time.Now().Format(time.RFC3339Nano)})
	for key, value := range before.Annotations {
		if key != v1alpha1.AnnotationReconcileRequestedAt {
			i.Annotations[key] = value
		}
	}
	if err := o.client.Patch(ctx, i, client.MergeFrom(before)); err != nil {
		return err
	}
	wanted := i.Annotations[v1alpha1.AnnotationReconcileRequestedAt]
	return o.wait(ctx, i, func(object) error {
		if i.Status.LastHandledReconcileAt != wanted {
			return errors.New("the request is not echoed")
		}
		return nil
	})
}
