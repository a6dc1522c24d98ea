package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestCrash kills the manager at every point of every workflow and looks at what another makes of it.
func TestCrash(t *testing.T) {
	t.Parallel()
	setUp := func(change func(*testkit.InstanceBuilder)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) {
			addFlavors(t, w)
			if change == nil {
				return
			}
			builder := web(w)
			change(builder)
			instance := builder.Object()
			create(t, w, instance)
			w.WaitReady(t, instance)
		}
	}
	plain := setUp(func(*testkit.InstanceBuilder) {})
	change := func(change func(*v1alpha1.XenInstance)) func(testing.TB, *testkit.World) {
		return func(t testing.TB, w *testkit.World) {
			instance := web(w).Object()
			if err := w.Client.Get(t.Context(), client.ObjectKeyFromObject(instance), instance); err != nil {
				t.Fatal(err)
			}
			edit(t, w, instance, change)
		}
	}
	remove := func(t testing.TB, w *testkit.World) {
		if err := w.Client.Delete(t.Context(), web(w).Object()); err != nil {
			t.Fatal(err)
		}
	}
	workflows := []testkit.Workflow{
		{
			Name: "create", VMs: 1, Setup: setUp(nil),
			Drive: func(t testing.TB, w *testkit.World) {
				create(t, w, web(w).Disk("data", "2Gi").With(withBootstrap).Object())
			},
			Converged: isReady(isRunning),
		},
		{
			Name: "halt", VMs: 1, Setup: plain,
			Drive:     change(func(i *v1alpha1.XenInstance) { i.Spec.PowerState = v1alpha1.PowerStateHalted }),
			Converged: isReady(isHalted),
		},
		{
			Name: "restart", VMs: 1, Setup: setUp(func(b *testkit.InstanceBuilder) {
				b.With(func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "first" })
			}),
			Drive: change(func(i *v1alpha1.XenInstance) { i.Spec.RestartToken = "second" }),
			Converged: isReady(func(i *v1alpha1.XenInstance) error {
				if i.Status.RestartToken != "second" {
					return errors.New("the restart is not echoed")
				}
				return isRunning(i)
			}),
		},
		{
			Name: "grow", VMs: 1, Setup: setUp(func(b *testkit.InstanceBuilder) { b.Disk("data", "2Gi").Powered(v1alpha1.PowerStateHalted) }),
			Drive: change(func(i *v1alpha1.XenInstance) {
				larger := resource.MustParse("4Gi")
				i.Spec.Disks[0].Size = &larger
				i.Spec.FlavorRef.Name = "large"
			}),
			Converged: isReady(func(i *v1alpha1.XenInstance) error {
				if len(i.Status.Disks) != 1 || i.Status.Disks[0].Size.String() != "4Gi" || i.Status.Flavor.Name != "large" {
					return fmt.Errorf("disks %+v, flavor %+v", i.Status.Disks, i.Status.Flavor)
				}
				return nil
			}),
		},
		{
			Name: "adopt", VMs: 1,
			Setup: func(t testing.TB, w *testkit.World) {
				addFlavors(t, w)
				ref, _ := existingVM(t, w, "office")
				w.Adopted(ref)
			},
			Drive: func(t testing.TB, w *testkit.World) {
				uuid, _ := w.Simulator.Records("VM")[w.Simulator.FindByName(t, "VM", "office")]["uuid"].(string)
				create(t, w, testkit.Instance(w.Namespace, "web", testkit.PoolName).Adopting(uuid).OfFlavor("small").
					Powered(v1alpha1.PowerStateRunning).With(func(i *v1alpha1.XenInstance) {
					i.Spec.Adoption = &v1alpha1.Adoption{OnMismatch: v1alpha1.MismatchApply}
				}).Object())
			},
			Converged: isReady(isRunning),
		},
		{
			Name: "destroy", VMs: 0, Setup: setUp(func(b *testkit.InstanceBuilder) { b.With(withBootstrap).DeletedBy(v1alpha1.DeletionDelete) }),
			Drive: remove, Converged: isGone,
		},
		{
			Name: "trash", VMs: 1, Setup: plain, Drive: remove, Converged: isGone,
		},
		{
			Name: "undelete", VMs: 1,
			Setup: func(t testing.TB, w *testkit.World) {
				plain(t, w)
				remove(t, w)
				w.WaitGone(t, web(w).Object())
			},
			Drive: func(t testing.TB, w *testkit.World) {
				trashed := w.Simulator.Records("VM")[w.Simulator.FindByName(t, "VM", "[trash] "+w.Namespace+"/web")]
				create(t, w, web(w).With(func(i *v1alpha1.XenInstance) {
					i.Annotations = map[string]string{v1alpha1.AnnotationVMUUID: trashed["uuid"].(string)}
				}).Object())
			},
			Converged: isReady(isRunning),
		},
	}
	for _, workflow := range workflows {
		workflow.Simulator = func(testing.TB) xensim.Options { return withAgents }
		t.Run(workflow.Name, func(t *testing.T) {
			t.Parallel()
			testkit.Crash(t, testkit.Start(t), runManager, workflow)
		})
	}
}

// withBootstrap gives a config drive with a generated password.
func withBootstrap(i *v1alpha1.XenInstance) {
	i.Spec.Bootstrap = &v1alpha1.Bootstrap{GeneratePassword: true, RemoveDriveAfter: v1alpha1.RemoveDriveNever}
}

// isReady waits until the instance is Ready and what else is asked of it.
func isReady(also func(*v1alpha1.XenInstance) error) func(context.Context, *testkit.World) error {
	return func(ctx context.Context, w *testkit.World) error {
		instance := web(w).Object()
		if err := w.Client.Get(ctx, client.ObjectKeyFromObject(instance), instance); err != nil {
			return err
		}
		return errors.Join(testkit.Ready(instance), also(instance))
	}
}

func powered(state v1alpha1.PowerState) func(*v1alpha1.XenInstance) error {
	return func(i *v1alpha1.XenInstance) error {
		if i.Status.PowerState != state {
			return fmt.Errorf("the VM is %s", i.Status.PowerState)
		}
		return nil
	}
}

var (
	isRunning = powered(v1alpha1.PowerStateRunning)
	isHalted  = powered(v1alpha1.PowerStateHalted)
)

// isGone waits until the object is gone.
func isGone(ctx context.Context, w *testkit.World) error {
	instance := web(w).Object()
	if err := w.Client.Get(ctx, client.ObjectKeyFromObject(instance), instance); !apierrors.IsNotFound(err) {
		return errors.New("the object is still there")
	}
	return nil
}
