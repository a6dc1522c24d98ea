package controllers_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// incarnation is the mark that names the object's uid, which is another after a restore.
var incarnation = regexp.MustCompile(`kubexen\.io/uid:[0-9a-f-]+`)

// sameIncarnation takes the uids out of a picture.
func sameIncarnation(picture map[string]string) map[string]string {
	for key, text := range picture {
		picture[key] = incarnation.ReplaceAllString(text, "")
	}
	return picture
}

// restored makes an object anew from what a backup has of it: neither status nor annotations of ours, another uid, no owners.
// What there is now is lost with the cluster.
func (turned *turn) restored(t *testing.T, backup *v1alpha1.XenInstance, withSecret bool) {
	t.Helper()
	w, secret := turned.w, &corev1.Secret{}
	name := client.ObjectKey{Namespace: w.Namespace, Name: backup.Name + "-rescue"}
	err := w.Client.Get(t.Context(), name, secret)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	hasSecret := err == nil
	lost := turned.instance.DeepCopy()
	edit(t, w, lost, func(i *v1alpha1.XenInstance) { i.Finalizers = nil })
	if err := w.Client.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, lost)
	if hasSecret {
		if err := w.Client.Delete(t.Context(), secret.DeepCopy()); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	if hasSecret && withSecret {
		create(t, w, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, Annotations: secret.Annotations}, Data: secret.Data,
		})
	}
	turned.instance = &v1alpha1.XenInstance{ObjectMeta: metav1.ObjectMeta{Namespace: backup.Namespace, Name: backup.Name}, Spec: *backup.Spec.DeepCopy()}
	create(t, w, turned.instance)
}

// TestRestoreInRescue: the cluster is lost while an instance is in rescue, or on its way there. A backup from before brings
// it back from the rescue, one from within it leaves it there, and either way everything is as it was in the end.
func TestRestoreInRescue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		after  int // actions on the way into the rescue, 0 is all
		within bool
		secret bool
	}{
		"a backup from before":                              {},
		"a backup from before, on the way there":            {after: 20},
		"a backup from within":                              {within: true, secret: true},
		"a backup from within, on the way there":            {within: true, secret: true, after: 20},
		"a backup from within, without Secrets, on the way": {within: true, after: 24},
	} {
		t.Run(name, func(t *testing.T) {
			turned, fence := newTurn(t, func(*testkit.InstanceBuilder) {})
			w, objects, disksThere := turned.w, census(turned.w), guardDisks(turned.w)
			before, backup := sameIncarnation(turned.before), turned.instance.DeepCopy()
			turned.killedAfter(t, fence, test.after, inRescue, v1alpha1.ReasonRescueActive)
			if test.within {
				backup = turned.instance.DeepCopy()
			}
			there := census(w)
			turned.restored(t, backup, test.secret)

			fence = w.StartManager()
			if test.within {
				waitRescued(t, w, turned.instance, v1alpha1.ReasonRescueActive)
				w.WaitAtRest(t)
				if test.after == 0 {
					checkUntouched(t, calls(fence), there, census(w))
				}
				edit(t, w, turned.instance, outOfRescue)
			}
			waitRescued(t, w, turned.instance, v1alpha1.ReasonNotRequested)
			waitPowered(t, w, turned.instance, v1alpha1.PowerStateRunning)
			w.WaitAtRest(t)
			if diff := differences(before, sameIncarnation(picture(w, turned.instance.Status.UUID))); diff != "" {
				t.Errorf("after the rescue:\n%s", diff)
			}
			if after := census(w); !maps.Equal(objects, after) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			err := w.Client.Get(t.Context(), client.ObjectKey{Namespace: w.Namespace, Name: "web-rescue"}, &corev1.Secret{})
			if !apierrors.IsNotFound(err) {
				t.Errorf("the Secret with the password: %v", err)
			}
			disksThere(t)
		})
	}
}

// checkUntouched complains of calls that did more than to bring marks up to date.
func checkUntouched(t *testing.T, made []string, before, after map[string]int) {
	t.Helper()
	if i := slices.IndexFunc(made, func(call string) bool { return !strings.HasSuffix(call, "_other_config") }); i >= 0 {
		t.Errorf("%s was called", made[i])
	}
	if !maps.Equal(before, after) {
		t.Errorf("the pool had %v and has %v", before, after)
	}
}
