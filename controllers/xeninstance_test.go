package controllers_test

import (
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestInstanceLives: made, running, deleted and gone.
func TestInstanceLives(t *testing.T) {
	w, fence := newWorld(t, xensim.Options{})
	instance := web(w).DeletedBy(v1alpha1.DeletionDelete).Object()
	create(t, w, instance)
	w.WaitReady(t, instance)
	t.Logf("create: %v", fence.Actions())

	if err := w.Client.Delete(t.Context(), instance); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, instance)
	t.Logf("with delete: %v", fence.Actions())
}
