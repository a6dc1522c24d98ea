package controlplane

import (
	"context"
	"errors"
	"os/exec"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// controllers are those that a user of the API notices the absence of: owner references, deletion of namespaces, and
// the roles admin, edit and view that ours are aggregated into.
const controllers = "garbage-collector-controller,namespace-controller,clusterrole-aggregation-controller"

// StartControllerManager runs kube-controller-manager and waits until it acts. Install CRDs before: the garbage
// collector learns of kinds that come later only every 30 seconds.
func (c *ControlPlane) StartControllerManager(ctx context.Context) (err error) {
	c.controllerManager, err = StartProcess("kube-controller-manager", c.file("kube-controller-manager.log"), exec.Command(
		c.binaries.ControllerManager,
		"--kubeconfig="+c.KubeconfigPath,
		"--controllers="+controllers,
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=200", "--kube-api-burst=400",
		"--concurrent-gc-syncs=4", "--concurrent-namespace-syncs=4",
		"--profiling=false",
	))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.controllerManager.WaitUntil(ctx, "has aggregated the role view", c.roleViewAggregated)
}

// roleViewAggregated is the first thing that one can see kube-controller-manager do in an empty cluster.
func (c *ControlPlane) roleViewAggregated(ctx context.Context) error {
	config := rest.CopyConfig(c.Config)
	config.APIPath = "/apis"
	config.GroupVersion = &rbacv1.SchemeGroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	var view rbacv1.ClusterRole
	if err := client.Get().Resource("clusterroles").Name("view").Do(ctx).Into(&view); err != nil {
		return err
	}
	if len(view.Rules) == 0 {
		return errors.New("the ClusterRole view has no rules yet")
	}
	return nil
}
