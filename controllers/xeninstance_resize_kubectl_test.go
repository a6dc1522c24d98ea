package controllers_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// exits runs the plug-in, and complains unless it ends with an exit code and says a text.
func exits(t *testing.T, w *testkit.World, code int, text string, args ...string) {
	t.Helper()
	out, err := xen(t, w, args...)
	got, said := 0, out
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got, said = exit.ExitCode(), err.Error()
	case err != nil:
		t.Fatal(err)
	}
	if got != code || !strings.Contains(said, text) {
		t.Errorf("kubectl xen %s ends with %d and says %q, want %d and %q", strings.Join(args, " "), got, said, code, text)
	}
}

// TestExitCodesOfConfirmAndRevert: scripts can go by how confirm and revert end: 0 for what is done, or would be without --wait,
// and 1 for what is not, whether there is nothing to do, it is refused, or it takes too long.
func TestExitCodesOfConfirmAndRevert(t *testing.T) {
	t.Parallel()
	w, _ := newWorld(t, withAgents)
	instance := small(t, w, manually)
	for _, command := range []string{"confirm", "revert"} {
		exits(t, w, 1, "no resize of web", command, "web")
		exits(t, w, 1, "not found", command, "nobody")
		exits(t, w, 1, "wants the name of one XenInstance", command)
	}
	large := func() {
		t.Helper()
		edit(t, w, fresh(t, w, instance), together(flavored("large"), rooted("20Gi")))
		waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
	}
	large()
	inUse := w.Simulator.Insert("VBD", map[string]any{
		"VM": w.Simulator.FindByName(t, "VM", template), "VDI": byUUID(t, w, "VDI", instance.Status.Resize.RestorePoint.ID), "userdevice": "7", "type": "Disk", "mode": "RO",
	})
	exits(t, w, 1, "it is not done yet (waited long enough)", "confirm", "web", "--timeout", "2s")
	exits(t, w, 1, "waits to be confirmed", "confirm", "web") // it is being confirmed already
	w.Simulator.Delete("VBD", inUse)
	waitInstance(t, w, instance, "it is confirmed", resizedTo("large"), instanceReady)
	exits(t, w, 1, "waits to be confirmed", "confirm", "web")

	edit(t, w, fresh(t, w, instance), flavored("small"))
	waitInstance(t, w, instance, "it waits to be confirmed", awaiting, isRunning)
	exits(t, w, 1, "no restore point", "revert", "web", "--discard")
	w.Simulator.SetFaults([]xensim.Fault{{Call: "VM.clean_shutdown", SlowTask: 60, Count: 1}})
	exits(t, w, 0, "", "revert", "web", "--wait=false")
	exits(t, w, 1, "it is not done yet (waited long enough)", "revert", "web", "--timeout", "2s")
	exits(t, w, 1, "waits to be confirmed", "confirm", "web") // too late
	w.Simulator.SetFaults(nil)
	waitInstance(t, w, instance, "it is large", resizedTo("large"), instanceReady, isRunning)
	exits(t, w, 1, "can be reverted", "revert", "web")

	edit(t, w, fresh(t, w, instance), together(flavored("small"), func(i *v1alpha1.XenInstance) {
		i.Spec.Resize.ConfirmTimeoutSeconds, i.Spec.Resize.OnTimeout = ptr.To[int32](1), v1alpha1.ResizeTimeoutRevert
	}))
	waitInstance(t, w, instance, "nobody has confirmed it", refused(v1alpha1.ReasonRolledBack, "large"))
	exits(t, w, 1, "waits to be confirmed", "confirm", "web")
	exits(t, w, 1, "can be reverted", "revert", "web")
}
