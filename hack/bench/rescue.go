package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// What OpenStack Nova's XenAPI driver took, measured with one disk and one interface.
const (
	novaRescueCalls   = 58
	novaUnrescueCalls = 24
)

// measureRescue counts what the way into a rescue and out of it takes, and how long nothing runs meanwhile.
func (o *operator) measureRescue(ctx context.Context, r *report) error {
	if err := o.addRescueImage(ctx); err != nil {
		return err
	}
	instance := benchInstance("rescued").Object()
	if err := o.client.Create(ctx, instance); err != nil {
		return err
	}
	if err := o.wait(ctx, instance, ready); err != nil {
		return err
	}
	ask := func(state v1alpha1.RescueState) func() error {
		return func() error {
			before := client.MergeFrom(instance.DeepCopy())
			instance.Spec.Rescue = &v1alpha1.Rescue{
				State: state, ImageRef: &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: "rescue"},
			}
			return o.client.Patch(ctx, instance, before)
		}
	}
	until := func(inRescue bool) func() error {
		return func() error {
			return o.wait(ctx, instance, func(object) error {
				if (instance.Status.Rescue != nil) != inRescue {
					return errors.New("it is on its way")
				}
				return testkit.Ready(instance)
			})
		}
	}
	for _, step := range []struct {
		name       string
		do, done   func() error
		most, nova float64
		note       string
	}{
		{"calls.rescue.enter", ask(v1alpha1.RescueOn), until(true), 25, novaRescueCalls, "with a config drive and a generated password"},
		{"calls.rescue.leave", ask(v1alpha1.RescueOff), until(false), 11, novaUnrescueCalls, "back to a running VM"},
	} {
		m, err := o.measure(ctx, step.do, step.done)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		r.add(row{Name: step.name, Value: float64(m.calls), Unit: "calls", Against: step.nova, N: 1, goal: atMost(step.most),
			Note: fmt.Sprintf("%s; against Nova; %d writes, %.2f s", step.note, m.writes, m.took.Seconds())})
		if step.name == "calls.rescue.enter" {
			r.add(downTime(o.pool.Calls()))
		}
	}
	return nil
}

// downTime is how long nothing runs on the way into a rescue, in the simulator's time, against the same calls in Nova's
// order, which stops the VM first.
func downTime(calls []xensim.Call) row {
	var first, stop, start time.Time
	for _, call := range calls {
		method := strings.TrimPrefix(call.Method, "Async.")
		switch {
		case first.IsZero() && method == "VM.add_to_other_config":
			first = call.Time
		case method == "VM.clean_shutdown" || method == "VM.hard_shutdown":
			stop = call.Time
		case method == "VM.start":
			start = call.Time
		}
	}
	ours, nova := start.Sub(stop).Seconds()*benchClockScale, start.Sub(first).Seconds()*benchClockScale
	return row{Name: "rescue.downtime", Value: ours, Unit: "s", Against: nova, N: 1,
		Note: "from the shutdown to the start of the rescue VM, simulator's time; against the same calls with the shutdown first"}
}

// addRescueImage puts an image on the pool.
func (o *operator) addRescueImage(ctx context.Context) error {
	var repository string
	for ref, sr := range o.pool.Records("SR") {
		if sr["name_label"] == "Local storage" {
			repository = ref
		}
	}
	disk, err := o.pool.Insert("VDI", map[string]any{
		"name_label": "rescue", "SR": repository, "virtual_size": int64(1 << 30), "managed": true, "type": "user",
	})
	if err != nil {
		return fmt.Errorf("make the disk of the rescue image: %w", err)
	}
	image := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: "rescue"}, Spec: v1alpha1.XenImageSpec{
		Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{VDIUUID: fmt.Sprint(o.pool.Records("VDI")[disk]["uuid"])}},
		Pools:  []v1alpha1.ImagePool{{Name: testkit.PoolName}},
	}}
	if err := o.client.Create(ctx, image); err != nil {
		return fmt.Errorf("make the rescue image: %w", err)
	}
	return o.wait(ctx, image, ready)
}
