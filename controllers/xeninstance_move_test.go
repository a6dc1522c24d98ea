package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// Storage of the simulated pool: one that all hosts see, and one of each host.
const (
	sharedStorage = "NFS virtual disk storage"
	localStorage  = "Local storage"
)

// twoHosts is a pool of two hosts whose guests have an agent.
var twoHosts = xensim.Options{Hosts: 2, Guests: xensim.Guests{Agent: true, BootDelay: time.Second}}

// storedOn puts the instance's disks on a storage repository.
func storedOn(sr string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) {
		i.Spec.RootDisk.StorageRepository = sr
		for k := range i.Spec.Disks {
			i.Spec.Disks[k].StorageRepository, i.Spec.Disks[k].OnInstanceDelete = sr, v1alpha1.DiskDelete
		}
	}
}

// toHost asks for a host.
func toHost(host string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) { i.Spec.Placement = &v1alpha1.Placement{Host: host} }
}

// pinnedTo asks for a host and no other.
func pinnedTo(host string) func(*v1alpha1.XenInstance) {
	return func(i *v1alpha1.XenInstance) { i.Spec.Placement = &v1alpha1.Placement{Host: host, Pin: true} }
}

// hostOf is the name of the host that a VM runs on, "" if it does not.
func hostOf(w *testkit.World, uuid string) string {
	for _, vm := range w.Simulator.Records("VM") {
		if vm["uuid"] == uuid {
			host, _ := vm["resident_on"].(string)
			name, _ := w.Simulator.Records("host")[host]["name_label"].(string)
			return name
		}
	}
	return ""
}

// otherHost is the other of two.
func otherHost(host string) string {
	if host == "xs1" {
		return "xs2"
	}
	return "xs1"
}

// isOn complains until the instance is on a host, as asked.
func isOn(host string) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		if i.Status.ObservedGeneration != i.Generation {
			return errors.New("the change is not seen yet")
		}
		if i.Status.HostName != host || len(i.Status.PendingChanges) > 0 {
			return fmt.Errorf("it is on %q, pending %v", i.Status.HostName, i.Status.PendingChanges)
		}
		return testkit.Ready(i)
	}
}

func waitOn(t testing.TB, w *testkit.World, i *v1alpha1.XenInstance, host string) {
	t.Helper()
	w.WaitFor(t, i, "it is on "+host, func() error { return isOn(host)(i) })
}

// settled is a picture without what a storage migration changes by nature: which record a disk has, and where it is.
func settled(w *testkit.World, uuid string) map[string]string {
	shown := map[string]string{}
	disks := w.Simulator.Records("VDI")
	for key, value := range picture(w, uuid) {
		switch {
		case strings.HasPrefix(key, "vdi "), key == "vm.affinity":
		case strings.HasPrefix(key, "vbd ") && strings.HasSuffix(key, ".VDI"):
			disk := disks[value]
			config, _ := disk["other_config"].(map[string]string)
			config = maps.Clone(config)
			if config["kubexen.io/self"] == disk["uuid"] {
				config["kubexen.io/self"] = "its own"
			}
			shown[key] = fmt.Sprint(disk["name_label"], disk["virtual_size"], disk["read_only"], config)
		default:
			shown[key] = value
		}
	}
	return shown
}

// repositories are the names of the storage repositories that a VM's disks are on.
func repositories(w *testkit.World, uuid string) []string {
	var names []string
	for key, value := range picture(w, uuid) {
		if strings.HasPrefix(key, "vdi ") && strings.HasSuffix(key, ".SR") {
			names = append(names, fmt.Sprint(w.Simulator.Records("SR")[value]["name_label"]))
		}
	}
	return names
}

// TestMove: the VM goes to the host that is asked for, running as it runs, with what it has.
func TestMove(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		storage string
		power   v1alpha1.PowerState
		budget  int
	}{
		"live, shared storage":   {sharedStorage, v1alpha1.PowerStateRunning, 3},
		"live, local storage":    {localStorage, v1alpha1.PowerStateRunning, 14},
		"halted, shared storage": {sharedStorage, v1alpha1.PowerStateHalted, 1},
		"halted, local storage":  {localStorage, v1alpha1.PowerStateHalted, 14},
	}
	w, fence := newWorld(t, twoHosts)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			instance := web(w).Disk("data", "1Gi").DeletedBy(v1alpha1.DeletionDelete).With(storedOn(test.storage)).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			uuid := instance.Status.UUID
			vm := byUUID(t, w, "VM", uuid)
			disk, err := w.Simulator.Guest().Disk(vm, "0")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := disk.WriteAt([]byte("contents"), 4096); err != nil {
				t.Fatal(err)
			}
			target := otherHost(hostOf(w, uuid))
			edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = test.power })
			waitPowered(t, w, instance, test.power)
			w.WaitAtRest(t)
			before, booted, objects := settled(w, uuid), bootedAt(w, vm), census(w)

			fence.Arm(0)
			edit(t, w, instance, toHost(target))
			if test.power == v1alpha1.PowerStateRunning {
				waitOn(t, w, instance, target)
			} else {
				waitOn(t, w, instance, "")
			}
			w.WaitAtRest(t)
			made := calls(fence)
			t.Logf("%d calls: %v, %d writes", len(made), made, len(writes(fence)))
			if len(made) > test.budget {
				t.Errorf("%d calls, budget %d", len(made), test.budget)
			}
			if diff := differences(before, settled(w, uuid)); diff != "" {
				t.Errorf("after the move:\n%s", diff)
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			if at := bootedAt(w, vm); at != booted {
				t.Errorf("it was booted at %s, and again at %s", booted, at)
			}
			if test.power == v1alpha1.PowerStateHalted {
				edit(t, w, instance, func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateRunning })
				waitOn(t, w, instance, target)
			}
			moved, err := w.Simulator.Guest().Disk(vm, "0")
			if err != nil {
				t.Fatal(err)
			}
			contents := make([]byte, len("contents"))
			if _, err := moved.ReadAt(contents, 4096); err != nil || string(contents) != "contents" {
				t.Errorf("the disk holds %q, %v", contents, err)
			}
			for _, sr := range repositories(w, uuid) {
				if local := sr == localStorage || strings.HasSuffix(sr, "on xs1"); local && target == "xs2" {
					t.Errorf("a disk is on %s", sr)
				}
			}
			remove(t, w, instance)
		})
	}
}

// remove deletes an instance and waits until it is gone.
func remove(t testing.TB, w *testkit.World, instance *v1alpha1.XenInstance) {
	t.Helper()
	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
}

// administrator is somebody else who works on the pool.
func administrator(t testing.TB, w *testkit.World) *xenapi.Client {
	t.Helper()
	pool, err := xenapi.Connect(t.Context(), xenapi.Config{
		Endpoints: []string{w.Simulator.Endpoint}, Username: w.Simulator.User, Password: w.Simulator.Password, CABundle: w.Simulator.CACert(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close(context.Background()) })
	return pool
}

// TestPreferenceCountsOnce: a VM that somebody moves away from the host which it should rather be on stays there, one that is
// pinned comes back.
func TestPreferenceCountsOnce(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, twoHosts)
	for name, test := range map[string]struct {
		place func(string) func(*v1alpha1.XenInstance)
		ends  string
	}{
		"a preference": {toHost, "xs2"},
		"a pin":        {pinnedTo, "xs1"},
	} {
		t.Run(name, func(t *testing.T) {
			instance := web(w).DeletedBy(v1alpha1.DeletionDelete).With(storedOn(sharedStorage)).With(test.place("xs1")).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			if host := instance.Status.HostName; host != "xs1" {
				t.Fatalf("it was started on %s", host)
			}
			w.WaitAtRest(t)
			vm, host := xenapi.VMRef(byUUID(t, w, "VM", instance.Status.UUID)), xenapi.HostRef(w.Simulator.FindByName(t, "host", "xs2"))
			if err := administrator(t, w).VM.PoolMigrate(t.Context(), vm, host, map[string]string{}); err != nil {
				t.Fatal(err)
			}
			waitOn(t, w, instance, test.ends)
			remove(t, w, instance)
		})
	}
}

// TestMoveRefused: where the VM cannot go it stays as it is, and the user reads why, of each host what it lacks.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, twoHosts)
	host := w.Simulator.FindByName(t, "host", "xs2")
	update := func(t *testing.T, class, ref string, fields map[string]any) {
		t.Helper()
		if err := w.Simulator.Update(class, ref, fields); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		storage string
		hinder  func(t *testing.T, vm string)
		mend    func(t *testing.T, vm string)
		reason  string
		message string
	}{
		"the host is disabled": {
			sharedStorage,
			func(t *testing.T, _ string) { update(t, "host", host, map[string]any{"enabled": false}) },
			func(t *testing.T, _ string) { update(t, "host", host, map[string]any{"enabled": true}) },
			v1alpha1.ReasonNoHostAvailable, "xs2: disabled",
		},
		"changed blocks are tracked": {
			localStorage,
			func(t *testing.T, vm string) { update(t, "VDI", rootOf(w, vm), map[string]any{"cbt_enabled": true}) },
			func(t *testing.T, vm string) { update(t, "VDI", rootOf(w, vm), map[string]any{"cbt_enabled": false}) },
			v1alpha1.ReasonMigrationRefused, "has changed block tracking on",
		},
		"nested virtualisation": {
			sharedStorage,
			func(t *testing.T, vm string) { setPlatform(t, w, vm, "nested-virt", "true") },
			func(t *testing.T, vm string) { setPlatform(t, w, vm, "nested-virt", "false") },
			v1alpha1.ReasonMigrationRefused, "nested-virt",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			instance := web(w).DeletedBy(v1alpha1.DeletionDelete).With(storedOn(test.storage)).With(toHost("xs1")).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			w.WaitAtRest(t)
			vm := byUUID(t, w, "VM", instance.Status.UUID)
			test.hinder(t, vm)
			w.WaitAtRest(t) // it is known
			before, objects, disksThere := picture(w, instance.Status.UUID), census(w), guardDisks(w)
			edit(t, w, instance, pinnedTo("xs2"))
			w.WaitStalled(t, instance, test.reason)
			ready := meta.FindStatusCondition(instance.Status.Conditions, v1alpha1.ConditionReady)
			if !strings.Contains(ready.Message, test.message) || len(instance.Status.PendingChanges) != 1 {
				t.Errorf("%q, pending %v", ready.Message, instance.Status.PendingChanges)
			}
			if _, err := xen(t, w, "migrate", "web", "--host", "xs2"); err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("kubectl xen migrate ends with %v", err)
			}
			if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
				t.Errorf("the VM was touched:\n%s", diff)
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			disksThere(t)
			edit(t, w, instance, toHost("xs1"))
			waitOn(t, w, instance, "xs1")
			test.mend(t, vm)
			remove(t, w, instance)
		})
	}
}

// rootOf is the disk at device 0 of a VM.
func rootOf(w *testkit.World, vm string) string {
	for _, vbd := range w.Simulator.Records("VBD") {
		if vbd["VM"] == vm && vbd["userdevice"] == "0" {
			ref, _ := vbd["VDI"].(string)
			return ref
		}
	}
	return ""
}

// setPlatform changes an entry of a VM's platform, as somebody else would.
func setPlatform(t *testing.T, w *testkit.World, vm, key, value string) {
	t.Helper()
	platform, _ := w.Simulator.Records("VM")[vm]["platform"].(map[string]string)
	changed := maps.Clone(platform)
	if changed[key] = value; value == "false" {
		delete(changed, key)
	}
	if err := w.Simulator.Update("VM", vm, map[string]any{"platform": changed}); err != nil {
		t.Fatal(err)
	}
}

// TestFailedMove: a migration that fails in its middle leaves the VM running where it was, and nothing lying about; it is said,
// and over when the user takes the wish back.
func TestFailedMove(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, twoHosts)
	for name, test := range map[string]struct{ storage, call string }{
		"shared storage": {sharedStorage, "VM.pool_migrate"},
		"local storage":  {localStorage, "VM.migrate_send"},
	} {
		t.Run(name, func(t *testing.T) {
			instance := web(w).Disk("data", "1Gi").DeletedBy(v1alpha1.DeletionDelete).With(storedOn(test.storage)).With(toHost("xs1")).Object()
			create(t, w, instance)
			waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
			waitAgent(t, w, instance)
			w.WaitAtRest(t)
			uuid := instance.Status.UUID
			before, objects, disksThere := picture(w, uuid), census(w), guardDisks(w)
			booted := bootedAt(w, byUUID(t, w, "VM", uuid))
			w.Simulator.SetFaults([]xensim.Fault{{Call: test.call, Error: "VM_MIGRATE_FAILED", Params: []string{"a", "b", "c", "boom"}, Midway: true}})
			fence.Arm(0)
			edit(t, w, instance, toHost("xs2"))
			w.WaitFor(t, instance, "the migration has failed", func() error {
				operation := instance.Status.Operation
				if operation == nil || operation.Type != "Move" || !strings.Contains(operation.LastError, "boom") {
					return fmt.Errorf("the operation is %+v", operation)
				}
				return nil
			})
			w.WaitAtRest(t)
			if tried := strings.Count(strings.Join(calls(fence), " "), test.call); tried != 1 {
				t.Errorf("it was tried %d times at once", tried)
			}
			if host := hostOf(w, uuid); host != "xs1" {
				t.Errorf("it is on %q", host)
			}
			edit(t, w, instance, toHost("xs1"))
			waitOn(t, w, instance, "xs1")
			w.WaitAtRest(t)
			w.Simulator.SetFaults(nil)
			if diff := differences(before, picture(w, uuid)); diff != "" {
				t.Errorf("after the failure:\n%s", diff)
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			if at := bootedAt(w, byUUID(t, w, "VM", uuid)); at != booted {
				t.Errorf("it was booted at %s, and again at %s", booted, at)
			}
			disksThere(t)
			remove(t, w, instance)
		})
	}
}

// TestInterruptedMove: what a restart of the toolstack leaves of a storage migration goes before the next attempt.
func TestInterruptedMove(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, twoHosts)
	instance := web(w).Disk("data", "1Gi").With(storedOn(localStorage)).With(toHost("xs1")).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	waitAgent(t, w, instance)
	w.WaitAtRest(t)
	before, objects := settled(w, instance.Status.UUID), census(w)
	w.Simulator.SetFaults([]xensim.Fault{{Call: "VM.migrate_send", SlowTask: 100, Count: 1}})
	edit(t, w, instance, toHost("xs2"))
	w.WaitFor(t, instance, "the disks are on their way", func() error {
		if operation := instance.Status.Operation; operation == nil || operation.Percent == nil {
			return fmt.Errorf("the operation is %+v", operation)
		}
		return nil
	})
	w.Simulator.RestartToolstack(0)
	if left := census(w)["VDI"] - objects["VDI"]; left == 0 {
		t.Error("the restart has left nothing lying about")
	}
	waitOn(t, w, instance, "xs2")
	w.WaitAtRest(t)
	if diff := differences(before, settled(w, instance.Status.UUID)); diff != "" {
		t.Errorf("after the move:\n%s", diff)
	}
	if after := census(w); !maps.Equal(objects, after) {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
}
