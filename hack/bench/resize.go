package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// What OpenStack Nova's XenAPI driver took on one host, measured with one disk and one interface. Its resizes copy every
// disk of the VHD chain as well.
const (
	novaResizeCalls     = 91
	novaResizeDownCalls = 77
	novaConfirmCalls    = 19
	novaRevertCalls     = 31
	// novaResizeOffCalls are those that it makes at least between stopping the guest and starting it: making the VM anew
	// takes as many as making one from a cached image.
	novaResizeOffCalls = 48
)

// resizing is an instance whose size is changed, again and again.
type resizing struct {
	o        *operator
	instance *v1alpha1.XenInstance
}

// measureResize counts what changing the size of a running VM takes, and how long its guest is off.
func (o *operator) measureResize(ctx context.Context, r *report) error {
	for _, flavor := range []*v1alpha1.XenFlavor{testkit.Flavor("resize-small", 1, "1Gi"), testkit.Flavor("resize-large", 2, "2Gi")} {
		if err := client.IgnoreAlreadyExists(o.client.Create(ctx, flavor)); err != nil {
			return err
		}
	}
	s := &resizing{o: o, instance: benchInstance("resized").OfFlavor("resize-small").RootDisk("12Gi").Object()}
	if err := o.client.Create(ctx, s.instance); err != nil {
		return err
	}
	if err := o.wait(ctx, s.instance, ready); err != nil {
		return err
	}
	resize := func(i *v1alpha1.XenInstance) *v1alpha1.Resize { return i.Spec.Resize }
	confirm := func(i *v1alpha1.XenInstance) { resize(i).Confirm = i.Status.Resize.ID }
	discard := func(i *v1alpha1.XenInstance) {
		resize(i).DiscardTo = i.Status.Resize.RestorePoint.ID
		sizes("resize-small", "20Gi")(i)
	}
	for _, step := range []struct {
		name       string
		how        v1alpha1.ResizeConfirmation
		change     func(*v1alpha1.XenInstance)
		awaits     bool
		most, nova float64 // no name: it only prepares the next
		note       string
	}{
		{"calls.resize", v1alpha1.ResizeAutomatic, sizes("resize-large", "16Gi"), false, 10, novaResizeCalls, "CPU, memory and root disk up; no byte of the disk copied"},
		{"calls.resize.down", v1alpha1.ResizeAutomatic, sizes("resize-small", "16Gi"), false, 10, novaResizeDownCalls, "CPU and memory down"},
		{"calls.resize.manual", v1alpha1.ResizeManual, sizes("resize-large", "20Gi"), true, 13, novaResizeCalls, "up, with a restore point of the root disk"},
		{"calls.confirm", v1alpha1.ResizeManual, confirm, false, 3, novaConfirmCalls, "the restore point is destroyed"},
		{"", v1alpha1.ResizeManual, sizes("resize-small", "20Gi"), true, 0, 0, ""},
		{"calls.revert", v1alpha1.ResizeManual, sizes("resize-large", "20Gi"), false, 8, novaRevertCalls, "CPU and memory back"},
		{"", v1alpha1.ResizeAutomatic, sizes("resize-small", "20Gi"), false, 0, 0, ""},
		{"", v1alpha1.ResizeManual, sizes("resize-large", "24Gi"), true, 0, 0, ""},
		{"calls.discard", v1alpha1.ResizeManual, discard, false, 10, novaRevertCalls, "CPU, memory and the root disk back; the disk in use until then is kept until the VM runs: 3 calls copy the restore point, 3 exchange the disks, 2 destroy, each needed after a crash (docs/resize.md)"},
	} {
		m, err := o.measure(ctx, s.ask(ctx, step.how, step.change), s.until(ctx, step.awaits))
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if step.name == "" {
			continue
		}
		r.add(row{Name: step.name, Value: float64(m.calls), Unit: "calls", Against: step.nova, N: 1, goal: atMost(step.most),
			Note: fmt.Sprintf("%s; against Nova; %d writes, %.2f s", step.note, m.writes, m.took.Seconds())})
		if step.name == "calls.resize" {
			r.add(resizeDownTime(o.pool.Calls()))
		}
	}
	return nil
}

// sizes asks for a flavor and a size of the root disk.
func sizes(flavor, disk string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) {
		size := resource.MustParse(disk)
		i.Spec.FlavorRef.Name, i.Spec.RootDisk.Size = flavor, &size
	}
}

// ask changes the instance; what needs the VM off is done at once.
func (s *resizing) ask(ctx context.Context, how v1alpha1.ResizeConfirmation, change func(*v1alpha1.XenInstance)) func() error {
	return func() error {
		before := client.MergeFrom(s.instance.DeepCopy())
		s.instance.Spec.Resize = &v1alpha1.Resize{Strategy: v1alpha1.ResizeRestart, Confirmation: how}
		change(s.instance)
		return s.o.client.Patch(ctx, s.instance, before)
	}
}

// until waits until the resize waits to be confirmed, or is over, and the guest's agent reports.
func (s *resizing) until(ctx context.Context, awaits bool) func() error {
	return func() error {
		return s.o.wait(ctx, s.instance, func(object) error {
			i := s.instance
			waits := i.Status.Resize != nil && i.Status.Resize.Stage == v1alpha1.ResizeAwaitingConfirmation
			if i.Status.ObservedGeneration != i.Generation || waits != awaits || (i.Status.Resize != nil) != awaits || i.Status.PrimaryAddress == "" {
				return errors.New("it is on its way")
			}
			return testkit.Ready(i)
		})
	}
}

// resizeDownTime is how long the guest is off, in the simulator's time. Nova's order stands beside it: it stops the guest,
// makes another VM and starts that, which is at least one call after the other as slow as ours on average, its copies of
// the disks not counted.
func resizeDownTime(calls []xensim.Call) row {
	var stop, start time.Time
	var between float64
	for _, call := range calls {
		switch strings.TrimPrefix(call.Method, "Async.") {
		case "VM.clean_shutdown", "VM.hard_shutdown":
			stop, between = call.Time, 0
		case "VM.start":
			start = call.Time
		}
		if start.IsZero() {
			between++
		}
	}
	ours := start.Sub(stop).Seconds() * benchClockScale
	return row{Name: "resize.downtime", Value: ours, Unit: "s", Against: ours / max(between, 1) * novaResizeOffCalls, N: 1,
		Note: fmt.Sprintf("from the shutdown to the start, simulator's time; against the %d calls that Nova makes with the guest off at our pace, without its copies", novaResizeOffCalls)}
}
