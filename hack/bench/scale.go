package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xensim"
)

const (
	scaleInstances = 1000
	// glance is the time between two looks at all of them: each costs the API server as much as making several.
	glance = 2 * time.Second
	// scalePatience is how long all of them may take.
	scalePatience = 15 * time.Minute
	// idleFor is how long the manager is watched at rest.
	idleFor = 20 * time.Second
	// driftRounds is how often a VM is stopped behind the manager's back.
	driftRounds = 20
	// editRounds is how many instances are edited.
	editRounds = 40
)

// scaleLatency is the pool's; what befalls a call adds up.
const scaleLatency = `[{"call": "VM.clone", "latency": "180ms"}, {"call": "*", "latency": "20ms"}]`

var scale = group{
	name:  "scale",
	about: fmt.Sprintf("%d instances, the manager in a process of its own; the pool takes 20 ms a call and 0.2 s a clone", scaleInstances),
	run:   runScale,
}

func runScale(ctx context.Context, r *report) error {
	o, err := startWorld(ctx, xensim.Options{ClockScale: 20, Hosts: 8, Guests: xensim.Guests{Agent: true, BootDelay: time.Second}})
	if err != nil {
		return err
	}
	defer o.stop()
	latency, err := xensim.ReadFaults(strings.NewReader(scaleLatency))
	if err != nil {
		return err
	}
	o.pool.SetFaults(latency)
	if err := o.makeRoom(ctx); err != nil {
		return err
	}
	operator, err := buildProgram(ctx)
	if err != nil {
		return err
	}
	defer operator.remove()
	manager, err := operator.start(o, "--leader-elect=false")
	if err != nil {
		return err
	}
	defer func() { manager.Kill() }()
	if err := o.wait(ctx, testkit.Pool(testkit.PoolName).Object(), ready); err != nil {
		return err
	}
	started := time.Now()
	if err := o.createAll(ctx); err != nil {
		return err
	}
	r.add(row{Name: "scale.create", Value: scaleInstances / time.Since(started).Seconds(), Unit: "instances/s", N: 1, goal: atLeast(15), Note: "apply to Ready"})
	if err := o.waitCallsSettled(ctx); err != nil {
		return err
	}
	if err := errors.Join(o.atRest(ctx, r, manager), o.drift(ctx, r), o.edits(ctx, r)); err != nil {
		return err
	}
	manager.Kill()
	return o.restart(ctx, r, operator)
}

// makeRoom tells the pool that its first host has the memory for everything, and its guests' limits are far.
func (o *operator) makeRoom(context.Context) error {
	for ref := range o.pool.Records("host_metrics") {
		if err := o.pool.Update("host_metrics", ref, map[string]any{"memory_total": int64(1 << 42), "memory_free": int64(1 << 42)}); err != nil {
			return err
		}
	}
	return nil
}

// createAll makes all instances and waits until they are Ready.
func (o *operator) createAll(ctx context.Context) error {
	for i := range scaleInstances {
		instance := benchInstance(fmt.Sprintf("vm-%04d", i)).With(func(i *v1alpha1.XenInstance) { i.Spec.PowerDriftGraceSeconds = new(int32) })
		if err := o.client.Create(ctx, instance.Object()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, scalePatience)
	defer cancel()
	return every(ctx, glance, func() error {
		var all v1alpha1.XenInstanceList
		if err := o.client.List(ctx, &all); err != nil {
			return err
		}
		missing, example := 0, ""
		for i := range all.Items {
			if err := testkit.Ready(&all.Items[i]); err != nil {
				missing, example = missing+1, err.Error()
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are not Ready; one of them: %s", missing, len(all.Items), example)
		}
		return nil
	})
}

func (o *operator) waitCallsSettled(ctx context.Context) error {
	last, since := -1, time.Now()
	return every(ctx, 100*time.Millisecond, func() error {
		if now := o.calls(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 3*time.Second {
			return errors.New("it is not at rest")
		}
		return nil
	})
}

// atRest counts what the manager does when there is nothing to do, and its memory.
func (o *operator) atRest(ctx context.Context, r *report, manager *controlplane.Process) error {
	memory, err := residentMiB(manager.Pid())
	if err != nil {
		return err
	}
	before, err := o.versions(ctx)
	if err != nil {
		return err
	}
	o.pool.ResetCalls()
	timer := time.NewTimer(idleFor)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	calls := o.calls()
	after, err := o.versions(ctx)
	if err != nil {
		return err
	}
	writes := 0
	for name, version := range after {
		if before[name] != version {
			writes++
		}
	}
	minutes := idleFor.Minutes()
	r.add(row{Name: "scale.memory", Value: memory, Unit: "MiB", N: 1, goal: atMost(350), Note: "resident, all instances Ready"})
	r.add(row{Name: "calls.idle.pool", Value: float64(calls) / minutes, Unit: "calls/min", N: 1, goal: atMost(2), Note: fmt.Sprintf("the whole pool, watched for %s", idleFor)})
	r.add(row{Name: "calls.idle", Value: float64(calls) / minutes / scaleInstances, Unit: "calls/VM/min", N: 1, goal: atMost(2.0 / scaleInstances), Note: "the same per VM; the goal is the pool's alone"})
	r.add(row{Name: "writes.idle", Value: float64(writes) / minutes, Unit: "writes/min", N: 1, goal: atMost(0), Note: "objects of ours that changed"})
	return nil
}

// versions are the resource versions of all instances.
func (o *operator) versions(ctx context.Context) (map[string]string, error) {
	var all v1alpha1.XenInstanceList
	if err := o.client.List(ctx, &all); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for i := range all.Items {
		versions[all.Items[i].Name] = all.Items[i].ResourceVersion
	}
	return versions, nil
}

// drift stops VMs behind the manager's back and measures the time until it issues the call that starts them again.
func (o *operator) drift(ctx context.Context, r *report) error {
	administrator, err := xenapi.Connect(ctx, xenapi.Config{
		Endpoints: []string{o.endpoint}, Username: "root", Password: "bench", CABundle: o.pool.CACert(), UserAgent: "administrator",
	})
	if err != nil {
		return err
	}
	defer func() { _ = administrator.Close(ctx) }()
	var times []float64
	for i := range driftRounds {
		instance := benchInstance(fmt.Sprintf("vm-%04d", i)).Object()
		if err := o.client.Get(ctx, client.ObjectKeyFromObject(instance), instance); err != nil {
			return err
		}
		vm, err := administrator.VM.GetByUUID(ctx, instance.Status.UUID)
		if err != nil {
			return err
		}
		o.pool.ResetCalls()
		if err := administrator.VM.HardShutdown(ctx, vm); err != nil {
			return err
		}
		stopped := time.Now()
		restarted, err := o.waitMade(ctx, "Async.VM.start", "Async.VM.start_on")
		if err != nil {
			return err
		}
		times = append(times, max(0, restarted.Sub(stopped).Seconds()))
	}
	median(times) // sorts
	r.add(row{Name: "drift.p99", Value: times[len(times)-1], Unit: "s", N: len(times), goal: atMost(2), Note: "VM stopped out of band to the call that starts it; the slowest"})
	return nil
}

// waitMade waits for one of some calls and gives its time.
func (o *operator) waitMade(ctx context.Context, methods ...string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var at time.Time
	err := every(ctx, 5*time.Millisecond, func() error {
		for _, call := range o.pool.Calls() {
			if slices.Contains(methods, call.Method) {
				at = call.Time
				return nil
			}
		}
		return fmt.Errorf("the manager has made none of %v", methods)
	})
	return at, err
}

// edits changes the spec of one instance after the other and measures the time until the pool hears of it.
func (o *operator) edits(ctx context.Context, r *report) error {
	var times []float64
	for i := range editRounds {
		instance := benchInstance(fmt.Sprintf("vm-%04d", i)).Object()
		if err := o.wait(ctx, instance, ready); err != nil {
			return err
		}
		before := instance.DeepCopy()
		instance.Spec.Description = "edited"
		o.pool.ResetCalls()
		edited := time.Now()
		if err := o.client.Patch(ctx, instance, client.MergeFrom(before)); err != nil {
			return err
		}
		heard, err := o.waitMade(ctx, "VM.set_name_description")
		if err != nil {
			return err
		}
		times = append(times, max(0, heard.Sub(edited).Seconds()))
	}
	median(times) // sorts
	r.add(row{Name: "edit.p95", Value: percentile(times, 0.95), Unit: "s", N: len(times), goal: atMost(0.25), Note: "spec change to the first XenAPI call"})
	return nil
}

// restart measures how long a new manager takes until it has looked at all instances: each is asked to say so.
func (o *operator) restart(ctx context.Context, r *report, program *program) error {
	asked := time.Now().Format(time.RFC3339Nano)
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationReconcileRequestedAt, asked))
	for i := range scaleInstances {
		if err := o.client.Patch(ctx, benchInstance(fmt.Sprintf("vm-%04d", i)).Object(), patch); err != nil {
			return err
		}
	}
	started := time.Now()
	manager, err := program.start(o, "--leader-elect=false")
	if err != nil {
		return err
	}
	defer manager.Kill()
	ctx, cancel := context.WithTimeout(ctx, scalePatience)
	defer cancel()
	err = every(ctx, 200*time.Millisecond, func() error {
		var all v1alpha1.XenInstanceList
		if err := o.client.List(ctx, &all); err != nil {
			return err
		}
		for i := range all.Items {
			if all.Items[i].Status.LastHandledReconcileAt != asked {
				return fmt.Errorf("%s has not been looked at", all.Items[i].Name)
			}
		}
		return nil
	})
	r.add(row{Name: "scale.restart", Value: time.Since(started).Seconds(), Unit: "s", N: 1, goal: atMost(60), Note: "manager started to all re-observed and said so, a status write each"})
	return err
}
