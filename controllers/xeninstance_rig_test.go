package controllers_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// runManager runs the whole manager as main.go does, with its log as JSON.
func runManager(ctx context.Context, config *rest.Config, o testkit.ManagerOptions) error {
	endpoints, err := egress.New([]string{"127.0.0.0/8"}) // where the tests' stores are
	if err != nil {
		return err
	}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(o.Log), zapcore.DebugLevel)
	m, err := controllers.NewManager(config, controllers.Options{
		Installation: o.Installation, WrapXenAPI: o.WrapXenAPI, Logger: zapr.NewLogger(zap.New(core)), Endpoints: endpoints,
	})
	if err != nil {
		return err
	}
	return m.Start(ctx)
}

// Names of what the simulated pool has.
const (
	template = "Debian Bookworm 12"
	network  = "Pool-wide network associated with eth0"
)

// withAgents is a pool whose guests have an agent that reports soon after the boot.
var withAgents = xensim.Options{Guests: xensim.Guests{Agent: true, BootDelay: time.Second}}

// newWorld is a simulated pool with strangers on it, a cluster with two flavors, and a running manager.
func newWorld(t *testing.T, options xensim.Options) (*testkit.World, *testkit.Fence) {
	t.Helper()
	w := testkit.NewWorld(t, testkit.Start(t), runManager, options)
	fence := w.StartManager()
	addFlavors(t, w)
	return w, fence
}

// addFlavors makes the flavors that the tests' instances have.
func addFlavors(t testing.TB, w *testkit.World) {
	t.Helper()
	for _, flavor := range []*v1alpha1.XenFlavor{testkit.Flavor("small", 2, "1Gi"), testkit.Flavor("large", 4, "2Gi")} {
		if err := client.IgnoreAlreadyExists(w.Client.Create(t.Context(), flavor)); err != nil {
			t.Fatal(err)
		}
	}
}

// web is a plain instance: from the template, one disk, one interface.
func web(w *testkit.World) *testkit.InstanceBuilder {
	return testkit.Instance(w.Namespace, "web", testkit.PoolName).FromTemplate(template).OfFlavor("small").
		RootDisk("12Gi").Network("lan", network)
}

// create makes an object.
func create(t testing.TB, w *testkit.World, object client.Object) {
	t.Helper()
	if err := w.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// edit changes an object's spec or annotations, whatever its controller writes meanwhile.
func edit[T client.Object](t testing.TB, w *testkit.World, object T, change func(T)) {
	t.Helper()
	if err := tryEdit(t, w, object, change); err != nil {
		t.Fatal(err)
	}
}

// tryEdit is an edit that the API server may refuse.
func tryEdit[T client.Object](t testing.TB, w *testkit.World, object T, change func(T)) error {
	t.Helper()
	before := object.DeepCopyObject().(client.Object)
	change(object)
	return w.Client.Patch(t.Context(), object, client.MergeFrom(before))
}

// changePool changes the pool's spec, and waits until it is in force.
func changePool(t testing.TB, w *testkit.World, change func(*v1alpha1.XenPoolSpec)) {
	t.Helper()
	lab := testkit.Pool(testkit.PoolName).Object()
	w.WaitFor(t, lab, "the pool is read", func() error { return nil })
	edit(t, w, lab, func(p *v1alpha1.XenPool) { change(&p.Spec) })
	w.WaitReady(t, lab)
}

// calls are the XenAPI calls for instances since the fence was armed; what the pool's own controller asks is left out.
func calls(fence *testkit.Fence) []string {
	var made []string
	for _, action := range fence.Actions() {
		if action.To == "XenAPI" && !strings.HasPrefix(action.What, "pool.") {
			made = append(made, action.What)
		}
	}
	return made
}

// writes are the writes to instances and Secrets since the fence was armed.
func writes(fence *testkit.Fence) []string {
	var made []string
	for _, action := range fence.Actions() {
		if action.To == "Kubernetes" && (strings.Contains(action.What, "xeninstances/") || strings.Contains(action.What, "secrets")) {
			made = append(made, action.What)
		}
	}
	return made
}
