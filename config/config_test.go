// Package config holds what is installed into a cluster: CRDs, roles, the manager's Deployment, admission policies,
// samples and health checks for GitOps tools. It has no code but the tests that apply all of it to a real API server.
package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// installed applies config/default as a user does, once for each test that wants it: applying twice is part of it.
func installed(t *testing.T) *testkit.Environment {
	t.Helper()
	environment := testkit.Start(t)
	environment.Kubectl(t, "apply", "--server-side", "-k", "default")

	return environment
}

// TestInstall applies everything to a fresh API server; the second time nothing changes.
func TestInstall(t *testing.T) {
	environment := installed(t)
	before := environment.Kubectl(t, "get", "-k", "default", "-o", "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{'\\n'}{end}")
	installed(t)
	after := environment.Kubectl(t, "get", "-k", "default", "-o", "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation}{'\\n'}{end}")
	if before != after {
		t.Errorf("a second apply changed something:\n%s\nbefore\n%s", after, before)
	}
	for _, kind := range []string{"Deployment/kubexen-manager", "NetworkPolicy/kubexen-manager", "ValidatingAdmissionPolicy/deletion-protection.kubexen.io"} {
		if !strings.Contains(after, kind) {
			t.Errorf("%s is not installed:\n%s", kind, after)
		}
	}
}

// TestEveryCRDIsInstalled compares the generated CRDs with the kustomization that lists them.
func TestEveryCRDIsInstalled(t *testing.T) {
	list, err := os.ReadFile("crd/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("crd/bases/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, path := range paths {
		if !strings.Contains(string(list), "- bases/"+filepath.Base(path)+"\n") {
			t.Errorf("crd/kustomization.yaml does not list %s", path)
		}
	}
}

// TestArgoCDComponent adds the component to an installation of Argo CD: its ConfigMap gains the health checks and keeps
// what it had.
func TestArgoCDComponent(t *testing.T) {
	environment := testkit.Start(t)
	here, err := filepath.Abs("gitops/argocd")
	if err != nil {
		t.Fatal(err)
	}
	directory, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	component, err := filepath.Rel(directory, here)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"kustomization.yaml": "resources: [argocd-cm.yaml]\ncomponents: [" + component + "]\n",
		"argocd-cm.yaml":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm}\ndata: {url: https://argocd.example.org}\n",
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rendered := environment.Kubectl(t, "kustomize", directory)
	for _, wanted := range []string{"resource.customizations.health.kubexen.io_XenInstance: |", "url: https://argocd.example.org", "name: argocd-cm\n"} {
		if !strings.Contains(rendered, wanted) {
			t.Errorf("no %q in\n%s", wanted, rendered)
		}
	}
}

// TestSamples applies the samples; the fields of all of them are known.
func TestSamples(t *testing.T) {
	environment := installed(t)
	environment.Kubectl(t, "apply", "--server-side", "--validate=strict", "-k", "samples")
	environment.Kubectl(t, "apply", "--server-side", "--validate=strict", "-k", "samples/stores")
	for _, instance := range []string{"web", "database", "orders"} {
		got := &v1alpha1.XenInstance{}
		if err := environment.Client.Get(t.Context(), client.ObjectKey{Namespace: "demo", Name: instance}, got); err != nil {
			t.Error(err)
		}
	}
}

// TestDeletionProtection deletes an instance and its namespace while protection is on, and after it was taken off.
func TestDeletionProtection(t *testing.T) {
	environment := installed(t)
	namespace := environment.Namespace(t)
	instance := testkit.Instance(namespace, "web", "lab").FromTemplate("Debian").OfFlavor("small").Object()
	instance.Spec.DeletionProtection = true
	if err := environment.Client.Create(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	refusal := untilRefused(t, environment, instance)
	wanted := "set spec.deletionProtection of " + namespace + "/web to false first"
	if !strings.Contains(refusal.Error(), wanted) {
		t.Errorf("the refusal says %v, want %q in it", refusal, wanted)
	}
	if err := environment.Client.DeleteAllOf(t.Context(), &v1alpha1.XenInstance{}, client.InNamespace(namespace)); !errors.IsForbidden(err) {
		t.Errorf("deleting the collection: %v, want Forbidden", err)
	}
	instance.Spec.DeletionProtection = false
	if err := environment.Client.Update(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	if err := environment.Client.Delete(t.Context(), instance); err != nil {
		t.Errorf("with the protection off: %v", err)
	}
}

// untilRefused tries to delete an object until the API server refuses, and returns its words. A policy is in force some
// moments after it was stored.
func untilRefused(t *testing.T, environment *testkit.Environment, object client.Object) (refusal error) {
	t.Helper()
	testkit.Eventually(t, "the deletion is refused", func(ctx context.Context) error {
		refusal = environment.Client.Delete(ctx, object, client.DryRunAll)
		if !errors.IsForbidden(refusal) {
			return errUnexpected{refusal}
		}

		return nil
	})

	return refusal
}

// TestProtectionOutlivesItsNamespace deletes a namespace with a protected instance in it: the namespace waits, and goes
// once the protection is off.
func TestProtectionOutlivesItsNamespace(t *testing.T) {
	environment := installed(t)
	namespace := &corev1.Namespace{}
	if err := environment.Client.Get(t.Context(), client.ObjectKey{Name: environment.Namespace(t)}, namespace); err != nil {
		t.Fatal(err)
	}
	instance := testkit.Instance(namespace.Name, "web", "lab").FromTemplate("Debian").OfFlavor("small").Object()
	instance.Spec.DeletionProtection = true
	if err := environment.Client.Create(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	untilRefused(t, environment, instance)
	if err := environment.Client.Delete(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the namespace says why it waits", func(ctx context.Context) error {
		if err := environment.Client.Get(ctx, client.ObjectKeyFromObject(namespace), namespace); err != nil {
			return err
		}
		for _, condition := range namespace.Status.Conditions {
			if condition.Type == corev1.NamespaceDeletionContentFailure && strings.Contains(condition.Message, "deletionProtection is on") {
				return nil
			}
		}

		return fmt.Errorf("its conditions are %v", namespace.Status.Conditions)
	})
	instance.Spec.DeletionProtection = false
	if err := environment.Client.Update(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	environment.WaitGone(t, namespace)
}

// errUnexpected is an answer of the API server that is not the one that is waited for; nil is one too.
type errUnexpected struct{ answer error }

func (e errUnexpected) Error() string {
	if e.answer == nil {
		return "it was accepted"
	}

	return e.answer.Error()
}

// TestTenants asks the API server what users with each of our roles may do.
func TestTenants(t *testing.T) {
	environment := installed(t)
	namespace := environment.Namespace(t)
	for name, c := range map[string]struct {
		role    string
		may     []string // verb and resource
		mayNot  []string
		cluster []string // may, on cluster-scoped kinds
	}{
		"a viewer sees VMs, no consoles and no Secrets": {
			role: "view", may: []string{"get xeninstances", "list xenimages"},
			mayNot:  []string{"create xeninstances", "delete xeninstances", "get xenconsoles", "list xenconsoles", "get secrets"},
			cluster: []string{"list xenflavors", "list xenclusterimages"},
		},
		"an editor writes VMs and opens consoles": {
			role: "edit", may: []string{"create xeninstances", "patch xeninstances", "delete xeninstances", "create xenimages", "create xensnapshots", "create xenconsoles"},
			mayNot:  []string{"patch xeninstances/status", "patch xenconsoles/status"},
			cluster: []string{"list xenflavors"},
		},
		"a console user opens consoles and changes no VM": {
			role: "kubexen-console-user", may: []string{"create xenconsoles", "get xenconsoles", "get xeninstances"},
			mayNot: []string{"patch xeninstances", "delete xeninstances", "get secrets"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			user := "user-of-" + c.role
			bind(t, environment, namespace, c.role, user)
			// Aggregation into view and edit is a controller's work: it takes a moment.
			testkit.Eventually(t, "the role is filled", func(ctx context.Context) error {
				if !allowed(ctx, t, environment, user, namespace, c.may[0]) {
					return errUnexpected{errors.NewUnauthorized(c.may[0])}
				}

				return nil
			})
			for _, act := range c.may {
				if !allowed(t.Context(), t, environment, user, namespace, act) {
					t.Errorf("may not %s", act)
				}
			}
			for _, act := range slices.Concat(c.mayNot, []string{"list xenpools", "create xenpools", "create xenflavors", "create xenclusterimages"}) {
				if allowed(t.Context(), t, environment, user, namespace, act) {
					t.Errorf("may %s", act)
				}
			}
			for _, act := range c.cluster {
				if !allowed(t.Context(), t, environment, user, "", act) {
					t.Errorf("may not %s", act)
				}
			}
		})
	}
}

func bind(t *testing.T, environment *testkit.Environment, namespace, role, user string) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	binding.Namespace, binding.Name = namespace, user
	if err := environment.Client.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
}

// allowed asks whether a user may do something, as verb and resource.
func allowed(ctx context.Context, t *testing.T, environment *testkit.Environment, user, namespace, act string) bool {
	t.Helper()
	verb, resource, _ := strings.Cut(act, " ")
	resource, subresource, _ := strings.Cut(resource, "/")
	group := v1alpha1.GroupVersion.Group
	if resource == "secrets" {
		group = ""
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: []string{"system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: subresource,
		},
	}}
	if err := environment.Client.Create(ctx, review); err != nil {
		t.Fatal(err)
	}

	return review.Status.Allowed
}

// TestManagerRunsConfined holds the manager's pod to what the namespace enforces, and to a read-only root file system.
func TestManagerRunsConfined(t *testing.T) {
	environment := installed(t)
	deployment := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: "kubexen-system", Name: "kubexen-manager"}
	if err := environment.Client.Get(t.Context(), key, deployment); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	if !ptr.Deref(pod.SecurityContext.RunAsNonRoot, false) {
		t.Error("the pod may run as root")
	}
	for _, container := range pod.Containers {
		if !ptr.Deref(container.SecurityContext.ReadOnlyRootFilesystem, false) {
			t.Errorf("%s writes to its root file system", container.Name)
		}
		if container.LivenessProbe == nil || container.ReadinessProbe == nil {
			t.Errorf("%s has no probes", container.Name)
		}
	}
	// The namespace enforces the level "restricted": the API server itself judges the pod.
	alike := &corev1.Pod{Spec: pod}
	alike.Namespace, alike.Name = key.Namespace, "alike"
	if err := environment.Client.Create(t.Context(), alike, client.DryRunAll); err != nil {
		t.Error(err)
	}
	alike.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = ptr.To(true)
	if err := environment.Client.Create(t.Context(), alike, client.DryRunAll); !errors.IsForbidden(err) {
		t.Errorf("a privileged pod: %v, want Forbidden", err)
	}
}

// TestManagerRole asks what the manager's account may do: nothing to the objects that users own but to mark them, and
// nothing to the cluster.
func TestManagerRole(t *testing.T) {
	environment := installed(t)
	account := "system:serviceaccount:kubexen-system:kubexen-manager"
	for _, act := range []string{"get xeninstances", "watch xenpools", "patch xenpools/status"} {
		if !allowed(t.Context(), t, environment, account, "", act) {
			t.Errorf("the manager may not %s", act)
		}
	}
	for _, act := range []string{
		"create xenpools", "delete xenpools", "create xenflavors", "delete xenflavors", "create xeninstances", "delete xeninstances",
		"deletecollection xeninstances",
	} {
		if allowed(t.Context(), t, environment, account, "", act) {
			t.Errorf("the manager may %s", act)
		}
	}
	roles := &rbacv1.ClusterRole{}
	if err := environment.Client.Get(t.Context(), client.ObjectKey{Name: "kubexen-manager"}, roles); err != nil {
		t.Fatal(err)
	}
	for _, rule := range roles.Rules {
		for _, words := range [][]string{rule.APIGroups, rule.Resources, rule.Verbs} {
			if slices.Contains(words, "*") {
				t.Errorf("a rule of the manager is for everything: %v", rule)
			}
		}
	}
}
