package controllers_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/stores"
)

// TestTransferCrash kills the manager at every point of an upload and of an import.
func TestTransferCrash(t *testing.T) {
	t.Parallel()
	store := newWebStore(t)
	body := make([]byte, 4<<20)
	store.put("/golden.raw", body)
	remote := func(w *testkit.World) testkit.Object { return xenSnapshot(w, "point", toStore(store, nil)) }
	s3 := stores.NewS3(t)
	toBucket := func(w *testkit.World) testkit.Object {
		return xenSnapshot(w, "point", func(spec *v1alpha1.XenSnapshotSpec) {
			spec.Destination = &v1alpha1.SnapshotDestination{S3: &v1alpha1.S3Destination{S3Bucket: v1alpha1.S3Bucket{
				Endpoint: s3.URL, Bucket: s3.Bucket, CredentialsSecretRef: &v1alpha1.LocalSecretReference{Name: "bucket"},
			}}}
		})
	}
	image := func(*testkit.World) testkit.Object {
		return httpImage("golden", store.URL+"/golden.raw", body, testkit.PoolName)
	}
	workflows := []testkit.Workflow{
		{
			Name: "upload to a bucket", VMs: 1, Drive: making(toBucket),
			Setup: func(t testing.TB, w *testkit.World) {
				snapshotSetup(t, w)
				secretWith(t, w, "bucket", s3.Secret())
			},
			Converged: func(ctx context.Context, w *testkit.World) error {
				if err := madeReady(toBucket)(ctx, w); err != nil {
					return err
				}
				if left := s3.Unfinished(t); len(left) != 0 {
					return fmt.Errorf("uploads were left unfinished: %v", left)
				}
				return nil
			},
		},
		{Name: "import", Drive: making(image), Converged: madeReady(image)},
	}
	if os.Getenv(testkit.EveryActionVariable) != "" { // a bucket takes the same way, and more
		workflows = append(workflows, testkit.Workflow{Name: "upload", VMs: 1, Setup: snapshotSetup, Drive: making(remote), Converged: madeReady(remote)})
	}
	crashAll(t, workflows)
}
