package controlplane

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// parentVariable turns the test binary into a process that starts a control plane and waits to be killed.
const parentVariable = "KUBEXEN_TEST_CONTROLPLANE_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) != "" {
		waitToBeKilled()
		return
	}
	os.Exit(m.Run())
}

// TestStart tells the story of a whole life: a control plane comes up, does what kube-controller-manager is there for,
// survives the loss of its API server, and leaves nothing behind.
func TestStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if err := c.StartControllerManager(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("kubectl speaks to it", func(t *testing.T) {
		text, err := exec.CommandContext(ctx, c.Kubectl, "--kubeconfig", c.KubeconfigPath, "version", "-o", "json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var versions struct{ ClientVersion, ServerVersion struct{ GitVersion string } }
		if err := json.Unmarshal(text, &versions); err != nil {
			t.Fatal(err)
		}
		if versions.ClientVersion != versions.ServerVersion || !strings.HasPrefix(versions.ServerVersion.GitVersion, "v1.") {
			t.Errorf("versions of client and server: %+v", versions)
		}
	})

	t.Run("a token of a service account is accepted and not privileged", func(t *testing.T) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "somebody"}}
		if _, err := client.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		config, err := c.ServiceAccount(ctx, "default", "somebody")
		if err != nil {
			t.Fatal(err)
		}
		somebody, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := somebody.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !errors.IsForbidden(err) {
			t.Errorf("listing Secrets as a new service account: %v, want Forbidden", err)
		}
	})

	t.Run("a dependent goes with its owner, a namespace with what it holds", func(t *testing.T) {
		deleteNamespaceAndOwner(ctx, t, client)
	})

	t.Run("objects survive a restart of the API server", func(t *testing.T) {
		c.StopAPIServer()
		if err := c.StartAPIServer(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "somebody", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})

	processes, dir := c.Processes(), c.Dir
	c.Stop()
	for _, p := range processes {
		if syscall.Kill(p.Pid(), 0) == nil {
			t.Errorf("%s still runs after Stop", p.Name)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there after Stop: %v", dir, err)
	}
}

func deleteNamespaceAndOwner(ctx context.Context, t *testing.T, client kubernetes.Interface) {
	t.Helper()
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team-a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps("team-a")
	owner, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID},
	}}}
	if _, err := maps.Create(ctx, owned, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := maps.Delete(ctx, "owner", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "the dependent is collected", func(ctx context.Context) bool {
		_, err := maps.Get(ctx, "owned", metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
	if err := client.CoreV1().Namespaces().Delete(ctx, "team-a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "the namespace is gone", func(ctx context.Context) bool {
		_, err := client.CoreV1().Namespaces().Get(ctx, "team-a", metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
}

// TestKilledParent kills a process that runs a control plane as hard as can be, and looks for its children.
func TestKilledParent(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"=yes")
	parent.Stderr = os.Stderr
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	if err := json.NewDecoder(bufio.NewReader(output)).Decode(&pids); err != nil || len(pids) != 2 {
		_ = parent.Process.Kill()
		t.Fatalf("process ids of the children: %v, %v", pids, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	for _, pid := range pids {
		eventually(t.Context(), t, "the orphan is gone", func(context.Context) bool { return !running(pid) })
	}
}

func waitToBeKilled() {
	c, err := Start(context.Background(), Options{})
	if err != nil {
		panic(err)
	}
	var pids []int
	for _, p := range c.Processes() {
		pids = append(pids, p.Pid())
	}
	if err := json.NewEncoder(os.Stdout).Encode(pids); err != nil {
		panic(err)
	}
	select {}
}

// running is false also for a zombie, which nobody may be there to reap.
func running(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

func eventually(ctx context.Context, t *testing.T, what string, holds func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return holds(ctx), nil
	})
	if err != nil {
		t.Fatalf("wait until %s: %v", what, err)
	}
}
