package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// turn is a change of mind in the middle of something: the manager is killed there, and the next one finds another spec.
type turn struct {
	w        *testkit.World
	instance *v1alpha1.XenInstance
	before   map[string]string
	objects  map[string]int
}

// turnStep is how many actions lie between two changes of mind in the quick mode.
const turnStep = 9

// newTurn is a running instance with two disks and a config drive.
func newTurn(t *testing.T, change func(*testkit.InstanceBuilder)) (*turn, *testkit.Fence) {
	t.Helper()
	w, fence := newWorld(t, withAgents)
	addRescueImage(t, w)
	turned := &turn{w: w}
	w.WaitAtRest(t)
	turned.objects = census(w) // without the instance
	turned.make(t, change)
	return turned, fence
}

// make makes the instance and remembers what it is like.
func (turned *turn) make(t *testing.T, change func(*testkit.InstanceBuilder)) {
	t.Helper()
	builder := web(turned.w).Disk("data", "1Gi").With(withBootstrap)
	change(builder)
	turned.instance = builder.Object()
	create(t, turned.w, turned.instance)
	waitPowered(t, turned.w, turned.instance, v1alpha1.PowerStateRunning)
	turned.w.WaitAtRest(t)
	turned.before = picture(turned.w, turned.instance.Status.UUID)
}

// actions counts what a manager does between a change and its end.
func actions(t *testing.T, fence *testkit.Fence, drive func()) int {
	t.Helper()
	fence.Arm(0)
	drive()
	return len(fence.Actions())
}

// killedAfter makes a change and kills the manager after so many actions, or at the end if there are fewer. Nobody manages
// anything when it returns.
func (turned *turn) killedAfter(t *testing.T, fence *testkit.Fence, k int, change func(*v1alpha1.XenInstance), reason string) {
	t.Helper()
	fence.Arm(k)
	edit(t, turned.w, turned.instance, change)
	testkit.Eventually(t, fmt.Sprintf("the manager is killed after %d actions", k), func(ctx context.Context) error {
		select {
		case <-fence.Killed():
			return nil
		default:
		}
		if err := turned.w.Client.Get(ctx, client.ObjectKeyFromObject(turned.instance), turned.instance); err != nil {
			return err
		}
		return errors.Join(testkit.Ready(turned.instance), rescued(reason)(turned.instance))
	})
	turned.w.KillManager()
	if err := turned.w.Client.Get(t.Context(), client.ObjectKeyFromObject(turned.instance), turned.instance); err != nil {
		t.Fatal(err)
	}
}

// returned complains unless the VM is as it was and nothing else is left.
func (turned *turn) returned(t *testing.T, objects map[string]int) {
	t.Helper()
	waitRescued(t, turned.w, turned.instance, v1alpha1.ReasonNotRequested)
	turned.w.WaitAtRest(t)
	if diff := differences(turned.before, picture(turned.w, turned.instance.Status.UUID)); diff != "" {
		t.Errorf("after the rescue:\n%s", diff)
	}
	if after := census(turned.w); !maps.Equal(objects, after) {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
}

// TestRescueIsGivenUpAnywhere: wherever the way into a rescue has got to, Off leads back to how everything was; and wherever
// the way back has got to, On leads into the rescue again.
func TestRescueIsGivenUpAnywhere(t *testing.T) {
	t.Parallel()
	turned, fence := newTurn(t, func(*testkit.InstanceBuilder) {})
	w, instance, objects := turned.w, turned.instance, census(turned.w)
	disksThere := guardDisks(w)
	in := actions(t, fence, func() {
		edit(t, w, instance, inRescue)
		waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
		w.WaitAtRest(t)
	})
	out := actions(t, fence, func() {
		edit(t, w, instance, outOfRescue)
		turned.returned(t, objects)
	})
	for _, k := range testkit.KillPoints(in, turnStep) {
		t.Run(fmt.Sprintf("off after %02d actions", k), func(t *testing.T) {
			turned.killedAfter(t, fence, k, inRescue, v1alpha1.ReasonRescueActive)
			edit(t, w, instance, outOfRescue)
			fence = w.StartManager()
			turned.returned(t, objects)
		})
	}
	for _, k := range testkit.KillPoints(out, turnStep) {
		t.Run(fmt.Sprintf("on again after %02d actions", k), func(t *testing.T) {
			edit(t, w, instance, inRescue)
			waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
			turned.killedAfter(t, fence, k, outOfRescue, v1alpha1.ReasonNotRequested)
			edit(t, w, instance, inRescue)
			fence = w.StartManager()
			waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
			edit(t, w, instance, outOfRescue)
			turned.returned(t, objects)
		})
	}
	disksThere(t)
}

// TestDeletedAnywhereInRescue: wherever the way into a rescue has got to, the instance can be deleted, as its policy says.
func TestDeletedAnywhereInRescue(t *testing.T) {
	t.Parallel()
	destroyed := func(b *testkit.InstanceBuilder) {
		b.DeletedBy(v1alpha1.DeletionDelete).With(func(i *v1alpha1.XenInstance) {
			i.Spec.Disks[0].OnInstanceDelete = v1alpha1.DiskDelete
		})
	}
	turned, fence := newTurn(t, destroyed)
	w := turned.w
	in := actions(t, fence, func() {
		edit(t, w, turned.instance, inRescue)
		waitRescued(t, w, turned.instance, v1alpha1.ReasonRescueActive)
		w.WaitAtRest(t)
	})
	remove := func(t *testing.T) {
		t.Helper()
		if err := w.Client.Delete(t.Context(), turned.instance); err != nil {
			t.Fatal(err)
		}
	}
	gone := func(t *testing.T) {
		t.Helper()
		w.WaitGone(t, turned.instance)
		w.WaitAtRest(t)
		if after := census(w); !maps.Equal(turned.objects, after) {
			t.Errorf("the pool had %v and has %v", turned.objects, after)
		}
		for _, vdi := range w.Simulator.Records("VDI") {
			if name := fmt.Sprint(vdi["name_label"]); strings.HasPrefix(name, w.Namespace+"/web") {
				t.Errorf("the disk %q is left", name)
			}
		}
	}
	remove(t)
	gone(t)
	for _, k := range testkit.KillPoints(in, turnStep) {
		t.Run(fmt.Sprintf("after %02d actions", k), func(t *testing.T) {
			turned.make(t, destroyed)
			turned.killedAfter(t, fence, k, inRescue, v1alpha1.ReasonRescueActive)
			remove(t)
			fence = w.StartManager()
			gone(t)
		})
	}
}
