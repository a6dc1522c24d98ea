package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xencache"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// connect makes a registry that is connected to a simulated pool.
func connect(t *testing.T, change func(*v1alpha1.XenPool)) (*testkit.Simulator, *Registry, *Handle) {
	t.Helper()
	simulator := testkit.StartSimulator(t, xensim.Options{})
	registry := NewRegistry(RegistryOptions{Installation: "ours", Logger: logr.Discard()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- registry.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	xenPool := &v1alpha1.XenPool{ObjectMeta: metav1.ObjectMeta{Name: "lab"}}
	if change != nil {
		change(xenPool)
	}
	registry.Apply(xenPool, Settings{
		Endpoints: []string{simulator.Endpoint}, Username: simulator.User, Password: simulator.Password, CABundle: simulator.CACert(),
	}, false)
	var handle *Handle
	testkit.Eventually(t, "the pool can be used", func(context.Context) (err error) {
		handle, err = registry.Get("lab")
		return err
	})
	return simulator, registry, handle
}

func TestAPoolWithoutAConnectionIsUnavailable(t *testing.T) {
	registry := NewRegistry(RegistryOptions{})
	var unavailable *Unavailable
	if _, err := registry.Get("nowhere"); !errors.As(err, &unavailable) || unavailable.Reason != v1alpha1.ReasonPoolNotReady {
		t.Errorf("got %v", err)
	}
}

func TestTheWriterMarkIsClaimedOnceAndOnlyWhenAsked(t *testing.T) {
	simulator, _, handle := connect(t, nil)
	writer := func() string {
		config, _ := simulator.Records("pool")[simulator.PoolRef()]["other_config"].(map[string]string)
		return config[xencache.MarkWriter]
	}
	if mark := writer(); mark != "" {
		t.Fatalf("to connect left the writer mark %q", mark)
	}
	simulator.ResetCalls()
	claims := make(chan error)
	for range 10 {
		go func() { claims <- handle.ClaimWriter(t.Context()) }()
	}
	for range 10 {
		if err := <-claims; err != nil {
			t.Error(err)
		}
	}
	if mark := writer(); mark != "ours" {
		t.Errorf("the writer mark is %q", mark)
	}
	if n := simulator.CallCounts().Calls["pool.add_to_other_config"]; n != 1 {
		t.Errorf("ten claims took %d calls", n)
	}
}

func TestAClaimAgainstAnotherInstallation(t *testing.T) {
	simulator, registry, handle := connect(t, nil)
	mark := map[string]string{xencache.MarkWriter: "theirs"}
	if err := simulator.Update("pool", simulator.PoolRef(), map[string]any{"other_config": mark}); err != nil {
		t.Fatal(err)
	}
	// Whether the cache knows already or not, the claim does not succeed.
	checkDenial(t, handle.ClaimWriter(t.Context()), "takeoverFrom: theirs", v1alpha1.ReasonAnotherWriter)
	var unavailable *Unavailable
	if _, err := registry.Get("lab"); !errors.As(err, &unavailable) || unavailable.Reason != v1alpha1.ReasonAnotherWriter {
		t.Errorf("the pool of another writer: %v", err)
	}
	handle.Pool.Spec.TakeoverFrom = "theirs"
	if err := handle.ClaimWriter(t.Context()); err != nil {
		t.Errorf("the claim of a pool that is given up: %v", err)
	}
}

func TestTheSweepTakesTemporaryOrphansAlone(t *testing.T) {
	simulator, _, handle := connect(t, func(p *v1alpha1.XenPool) { p.Spec.OrphanPolicy = v1alpha1.OrphanDeleteTemporary })
	sr := simulator.FindByName(t, "SR", "NFS virtual disk storage")
	insert := func(name string, role xencache.Role) string {
		marks := xencache.Marks{Installation: "ours", Ref: xencache.Key{Kind: "XenInstance", Namespace: "gone", Name: "web"}, Self: name, Role: role}
		return simulator.Insert("VDI", map[string]any{
			"uuid": name, "name_label": name, "SR": sr, "managed": true, "type": "user", "virtual_size": int64(1 << 20), "other_config": marks.OtherConfig(),
		})
	}
	drive, disk := insert("drive", xencache.RoleConfigDrive), insert("disk", xencache.RoleDataDisk)
	var orphans []Marked
	testkit.Eventually(t, "both orphans are seen", func(context.Context) error {
		handle.Cache.View(func(v xencache.View) {
			orphans = Orphans(TakeInventory(v, "ours").Marked, func(xencache.Key) bool { return false })
		})
		if len(orphans) != 2 {
			return errors.New("not yet")
		}
		return nil
	})
	var ages Ages
	if outcome := ages.Sweep(t.Context(), handle, orphans, noon); outcome.Deadline() != orphanAge {
		t.Errorf("at first sight: %v", outcome)
	}
	ages.Sweep(t.Context(), handle, orphans, noon.Add(orphanAge+time.Second))
	left := simulator.Records("VDI")
	if _, lives := left[drive]; lives {
		t.Error("the config drive of a gone VM was left")
	}
	if _, lives := left[disk]; !lives {
		t.Error("a data disk was swept")
	}
}

// Who takes the list of orphans for what may be destroyed must not find there what undelete needs.
func TestDisksOfTheTrashAreNoOrphans(t *testing.T) {
	simulator, _, handle := connect(t, nil)
	marked := func(name string, role xencache.Role) map[string]string {
		marks := xencache.Marks{Installation: "ours", Ref: xencache.Key{Kind: "XenInstance", Namespace: "gone", Name: "web"}, Self: name, Role: role}
		return marks.OtherConfig()
	}
	disk := func(name string) string {
		return simulator.Insert("VDI", map[string]any{
			"uuid": name, "name_label": name, "SR": simulator.FindByName(t, "SR", "NFS virtual disk storage"), "managed": true, "type": "user",
			"virtual_size": int64(1 << 20), "other_config": marked(name, xencache.RoleRootDisk),
		})
	}
	other := marked("vm", xencache.RoleVM)
	other[xencache.MarkTrashedAt] = noon.Format(time.RFC3339)
	vm := simulator.Insert("VM", map[string]any{"uuid": "vm", "name_label": "[trash] gone/web", "power_state": "Halted", "other_config": other})
	simulator.Insert("VBD", map[string]any{"uuid": "vbd", "VM": vm, "VDI": disk("kept"), "userdevice": "0", "type": "Disk"})
	disk("left")
	testkit.Eventually(t, "the trash is seen, and of the disks the one that hangs nowhere is an orphan", func(context.Context) error {
		var inventory Inventory
		handle.Cache.View(func(v xencache.View) { inventory = TakeInventory(v, "ours") })
		orphans := Orphans(inventory.Marked, func(xencache.Key) bool { return false })
		if len(inventory.Trash) != 1 || len(orphans) != 1 || orphans[0].UUID != "left" {
			return fmt.Errorf("trash %+v, orphans %+v", inventory.Trash, orphans)
		}
		return nil
	})
}

func TestNothingIsSentAfterTheEnd(t *testing.T) {
	simulator, registry, _ := connect(t, nil)
	ours := func() (n int) { // beside the sessions that a pool's own toolstack keeps
		for _, session := range simulator.Records("session") {
			if originator, _ := session["originator"].(string); strings.HasPrefix(originator, "kubexen/ours") {
				n++
			}
		}
		return n
	}
	if n := ours(); n != 1 {
		t.Fatalf("%d sessions while it is in use, want 1", n)
	}
	registry.Remove("lab")
	simulator.ResetCalls()
	simulator.Insert("network", map[string]any{"name_label": "fresh"})
	if calls := simulator.Calls(); len(calls) != 0 {
		t.Errorf("after the end: %+v", calls)
	}
	if _, err := registry.Get("lab"); err == nil {
		t.Error("a removed pool can be used")
	}
	if n := ours(); n != 0 {
		t.Errorf("%d sessions were left", n)
	}
}

// What is under way is finished before anything new is begun, however long the queue is.
func TestWhoseTaskHasEndedComesFirst(t *testing.T) {
	const kind = "XenInstance"
	queue := priorityqueue.New[reconcile.Request](kind)
	defer queue.ShutDown()
	registry := NewRegistry(RegistryOptions{Logger: logr.Discard()})
	if err := registry.Source(kind).Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	key := func(name string) xencache.Key { return xencache.Key{Kind: kind, Namespace: "team", Name: name} }
	for i := range 100 {
		registry.Wake(key(fmt.Sprint("new-", i)))
	}
	r := &runner{registry: registry, slots: newSlots()}
	r.notify(xencache.Change{Keys: []xencache.Key{key("changed"), key("ended")}, TasksEnded: []xencache.Key{key("ended")}})
	if first, _ := queue.Get(); first.Name != "ended" {
		t.Errorf("%q came first", first.Name)
	}
	if second, _ := queue.Get(); second.Name != "new-0" {
		t.Errorf("%q came second", second.Name)
	}
	if left := queue.Len(); left != 100 {
		t.Errorf("%d are left in the queue", left)
	}
}
