package testkit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

// startTimeout bounds the start of a control plane, with the one-time build of its programs on a slow machine.
const startTimeout = 45 * time.Minute

// Environment is a control plane with our CRDs and a client that knows our kinds.
type Environment struct {
	*controlplane.ControlPlane
	// Client acts as an administrator and reads from the server, not from a cache.
	Client client.WithWatch
}

// Main runs a package's tests and stops the control planes that they shared. A package that uses Start has
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	planes.stop()
	os.Exit(code)
}

// Start returns a control plane for the test and its subtests: one that an earlier test has left, if there is one. It has
// etcd, kube-apiserver, the CRDs of config/crd and kube-controller-manager. Tests that run in parallel have different ones.
func Start(t testing.TB) *Environment {
	t.Helper()
	environment, err := planes.take(t)
	if err != nil {
		t.Fatalf("start the control plane: %v", err)
	}
	return environment
}

// StartOwn starts a control plane for one test alone: one that stops it, fills it, or compares whole stores.
func StartOwn(t testing.TB) *Environment {
	t.Helper()
	environment, err := startEnvironment()
	if err != nil {
		t.Fatalf("start a control plane: %v", err)
	}
	t.Cleanup(environment.Stop)
	return environment
}

func startEnvironment() (_ *Environment, err error) {
	log.SetLogger(logr.Discard()) // what controller-runtime says outside of a manager
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	plane, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			plane.Stop()
		}
	}()
	environment := &Environment{ControlPlane: plane}
	if environment.Client, err = client.NewWithWatch(plane.Config, client.Options{Scheme: NewScheme()}); err != nil {
		return nil, err
	}
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	if err := InstallCRDs(ctx, environment.Client, filepath.Join(root, "config", "crd", "bases")); err != nil {
		return nil, err
	}
	return environment, plane.StartControllerManager(ctx)
}

// NewScheme knows Kubernetes' own kinds and ours.
func NewScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // two kinds of one name: a mistake in the program
		}
	}
	return scheme
}

// Namespace makes a namespace for one test and deletes it at the test's end. Labels come in pairs of key and value.
func (e *Environment) Namespace(t testing.TB, labels ...string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: map[string]string{}}}
	for i := 0; i+1 < len(labels); i += 2 {
		namespace.Labels[labels[i]] = labels[i+1]
	}
	if err := e.Client.Create(t.Context(), namespace); err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := client.IgnoreNotFound(e.Client.Delete(ctx, namespace)); err != nil {
			t.Error(fmt.Errorf("delete namespace %s: %w", namespace.Name, err))
		}
	})
	return namespace.Name
}
