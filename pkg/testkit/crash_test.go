package testkit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// toyManager makes an empty VM for each instance. What it does besides says how well it would survive a crash.
type toyManager struct {
	looksFirst       bool // whether the VM of a former life is there already
	touchesOthers    bool // it renames a VM that is not its own
	tellsThePassword bool // in its log
}

func (m toyManager) run(ctx context.Context, config *rest.Config, o testkit.ManagerOptions) error {
	c, err := client.New(config, client.Options{Scheme: testkit.NewScheme()})
	if err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		// A toy logs what fails and tries again.
		if err := m.once(ctx, c, o); err != nil && ctx.Err() == nil {
			fmt.Fprintln(o.Log, err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

func (m toyManager) once(ctx context.Context, c client.Client, o testkit.ManagerOptions) error {
	pool := &v1alpha1.XenPool{}
	if err := c.Get(ctx, client.ObjectKey{Name: testkit.PoolName}, pool); err != nil {
		return err
	}
	if err := markReady(ctx, c, pool); err != nil {
		return err
	}
	var instances v1alpha1.XenInstanceList
	if err := c.List(ctx, &instances); err != nil {
		return err
	}
	for i := range instances.Items {
		instance := &instances.Items[i]
		if instance.Status.UUID != "" {
			continue
		}
		uuid, err := m.ensureVM(ctx, o, pool, instance)
		if err != nil {
			return err
		}
		instance.Status.UUID = uuid
		if err := markReady(ctx, c, instance); err != nil {
			return err
		}
	}
	return nil
}

// ensureVM makes the VM; it is all that the toy knows of the XenAPI.
func (m toyManager) ensureVM(ctx context.Context, o testkit.ManagerOptions, pool *v1alpha1.XenPool, instance *v1alpha1.XenInstance) (string, error) {
	api, err := xenapi.Connect(ctx, xenapi.Config{
		Endpoints: pool.Spec.Endpoints, Username: "root", Password: toyPassword, WrapTransport: o.WrapXenAPI,
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = api.Close(ctx) }()
	if m.tellsThePassword {
		fmt.Fprintln(o.Log, "logged in with", toyPassword)
	}
	vms, err := api.VM.GetAllRecords(ctx)
	if err != nil {
		return "", err
	}
	name := "XenInstance/" + instance.Namespace + "/" + instance.Name
	for ref, vm := range vms {
		if m.looksFirst && vm.OtherConfig["kubexen.io/ref"] == name {
			return vm.UUID, nil
		}
		if m.touchesOthers && strings.HasPrefix(vm.NameLabel, "someone") {
			if err := api.VM.SetNameDescription(ctx, ref, "seen"); err != nil {
				return "", err
			}
		}
	}
	ref, err := api.VM.Create(ctx, xenapi.VM{
		NameLabel: name, MemoryStaticMax: 1 << 30, MemoryDynamicMax: 1 << 30, MemoryDynamicMin: 1 << 30,
		VCPUsMax: 1, VCPUsAtStartup: 1, HVMBootPolicy: "BIOS order",
		ActionsAfterShutdown: "destroy", ActionsAfterReboot: "restart", ActionsAfterCrash: "restart",
		OtherConfig: map[string]string{"kubexen.io/installation": o.Installation, "kubexen.io/ref": name, "kubexen.io/role": "vm"},
	})
	if err != nil {
		return "", err
	}
	return api.VM.GetUUID(ctx, ref)
}

const toyPassword = "a password that only the toy knows"

// markReady stores a status that says that all is as asked, if it does not say so yet.
func markReady(ctx context.Context, c client.Client, object interface {
	client.Object
	testkit.Object
}) error {
	common := object.GetCommonStatus()
	if common.ObservedGeneration == object.GetGeneration() {
		return nil
	}
	common.ObservedGeneration, common.Conditions = object.GetGeneration(), nil
	for _, conditionType := range object.ConditionTypes() {
		status := metav1.ConditionFalse
		if conditionType == v1alpha1.ConditionReady {
			status = metav1.ConditionTrue
		}
		common.Conditions = append(common.Conditions, metav1.Condition{Type: conditionType, Status: status, Reason: "Toy",
			ObservedGeneration: object.GetGeneration(), LastTransitionTime: metav1.Now()})
	}
	return c.Status().Update(ctx, object)
}

// toyWorkflow asks for one VM.
func toyWorkflow() testkit.Workflow {
	key := func(w *testkit.World) *v1alpha1.XenInstance {
		return testkit.Instance(w.Namespace, "web", testkit.PoolName).FromTemplate("any").OfFlavor("small").Object()
	}
	return testkit.Workflow{
		Name: "create", VMs: 1,
		Simulator: func(t testing.TB) xensim.Options {
			return xensim.Options{HTTP: true, Password: toyPassword, State: testkit.RecordedState(t)}
		},
		Drive: func(t testing.TB, w *testkit.World) {
			if err := w.Client.Create(t.Context(), key(w)); err != nil {
				t.Fatal(err)
			}
		},
		Converged: func(ctx context.Context, w *testkit.World) error {
			instance := key(w)
			if err := w.Client.Get(ctx, client.ObjectKeyFromObject(instance), instance); err != nil {
				return err
			}
			return testkit.Ready(instance)
		},
	}
}

// TestCrashHarness holds the harness against managers whose faults are known.
func TestCrashHarness(t *testing.T) {
	env := testkit.Start(t)
	careful := toyManager{looksFirst: true}

	t.Run("a careful manager passes at every action", func(t *testing.T) {
		t.Setenv(testkit.EveryActionVariable, "1")
		testkit.Crash(t, env, careful.run, toyWorkflow())
	})
	t.Run("a careless one makes a twin", func(t *testing.T) {
		careless := toyManager{}
		undisturbed, err := toyWorkflow().Undisturbed(t, env, careless.run)
		if err != nil {
			t.Fatalf("without a crash: %v", err)
		}
		created := 0
		for i, action := range undisturbed.Actions {
			if action.What == "VM.create" {
				created = i + 1
			}
		}
		err = toyWorkflow().KilledAfter(t, env, careless.run, created, undisturbed)
		wantComplaint(t, err, "2 VMs carry our mark, want 1", "too much: VM vm")
	})
	t.Run("a curious one touches what is not its own", func(t *testing.T) {
		_, err := toyWorkflow().Undisturbed(t, env, toyManager{looksFirst: true, touchesOthers: true}.run)
		wantComplaint(t, err, "of somebody else: name_description was")
	})
	t.Run("a talkative one shows the password", func(t *testing.T) {
		_, err := toyWorkflow().Undisturbed(t, env, toyManager{looksFirst: true, tellsThePassword: true}.run)
		wantComplaint(t, err, "the manager's log shows a secret")
	})
}

func wantComplaint(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the harness says %v, want a complaint with %q", err, part)
		}
	}
}
