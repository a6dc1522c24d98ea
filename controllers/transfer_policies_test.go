package controllers_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/controllers"
	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/testkit"
)

// holding lets a store take no file before it is released. held gets a value for each PUT that waits.
func (s *webStore) holding() (held chan struct{}, release func()) {
	held, released := make(chan struct{}, 100), make(chan struct{})
	s.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			held <- struct{}{}
			select {
			case <-released:
			case <-r.Context().Done():
			}
		}
		return false
	})
	return held, sync.OnceFunc(func() { s.answer(nil); close(released) })
}

// shownBy is the line of kubectl get for a snapshot (xsnap) or an image (ximg), without its age.
func shownBy(t testing.TB, w *testkit.World, kind, name string) string {
	t.Helper()
	fields := strings.Fields(w.Kubectl(t, "get", kind, "-n", w.Namespace, name, "--no-headers"))
	return strings.Join(fields[:len(fields)-1], " ")
}

// TestTransfersWaitForEachOther: as many go through a host as the pool's limit allows; the next one says that it waits, and
// kubectl get shows where each is.
func TestTransfersWaitForEachOther(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	xenPool := testkit.Pool(testkit.PoolName).Object()
	w.WaitReady(t, xenPool)
	limited := xenPool.DeepCopy()
	limited.Spec.Limits = &v1alpha1.PoolLimits{MaxTransfersPerHost: ptr.To(int32(1))}
	if err := w.Client.Patch(t.Context(), limited, client.MergeFrom(xenPool)); err != nil {
		t.Fatal(err)
	}
	w.WaitReady(t, xenPool)
	held, release := store.holding()
	first, second := xenSnapshot(w, "first", toStore(store, nil)), xenSnapshot(w, "second", toStore(store, nil))
	second.Spec.KeepLocal = v1alpha1.KeepAlways
	create(t, w, first)
	<-held
	w.WaitFor(t, first, "it is on its way", func() error {
		return testkit.Condition(first, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonUploading)
	})
	create(t, w, second)
	w.WaitFor(t, second, "it waits for its turn", func() error {
		return testkit.Condition(second, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonWaitingForTransfer)
	})
	for name, want := range map[string]string{"first": "first web False 0% 12Gi Uploading", "second": "second web False 0% 12Gi WaitingForTransfer"} {
		if got := shownBy(t, w, "xsnap", name); got != want {
			t.Errorf("kubectl get shows %q, want %q", got, want)
		}
	}
	release()
	for _, s := range []*v1alpha1.XenSnapshot{first, second} {
		w.WaitReady(t, s)
		if got, want := shownBy(t, w, "xsnap", s.Name), s.Name+" web True 100% 12Gi Uploaded"; got != want {
			t.Errorf("kubectl get shows %q, want %q", got, want)
		}
		if got, want := s.Status.Upload.Location, store.URL+"/"+w.Namespace+"/"+s.Name+"/manifest.json"; got != want {
			t.Errorf("the location is %s, want %s", got, want)
		}
	}
	// Of the second one the snapshot stays in the pool, and goes with the object; the copies stay.
	if first.Status.Local || !second.Status.Local || len(snapshotVMs(w)) != 1 {
		t.Errorf("%d snapshots are in the pool", len(snapshotVMs(w)))
	}
	for _, s := range []*v1alpha1.XenSnapshot{first, second} {
		if err := w.Client.Delete(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, s)
	}
	if len(snapshotVMs(w)) != 0 || len(store.paths()) != 4 {
		t.Errorf("%d snapshots are in the pool; the store has %v", len(snapshotVMs(w)), store.paths())
	}
}

// shifted is a clock that a test puts forward.
type shifted struct {
	clock.RealClock
	by *atomic.Int64
}

func (c shifted) Now() time.Time                  { return c.RealClock.Now().Add(time.Duration(c.by.Load())) }
func (c shifted) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// shiftedManager runs managers whose clock is put forward.
func shiftedManager(by *atomic.Int64) testkit.RunManager {
	return func(ctx context.Context, config *rest.Config, o testkit.ManagerOptions) error {
		endpoints, err := egress.New([]string{"127.0.0.0/8"})
		if err != nil {
			return err
		}
		m, err := controllers.NewManager(config, controllers.Options{
			Installation: o.Installation, WrapXenAPI: o.WrapXenAPI, Logger: zapr.NewLogger(jsonTo(o.Log)), Endpoints: endpoints, Clock: shifted{by: by},
		})
		if err != nil {
			return err
		}
		return m.Start(ctx)
	}
}

// TestAnUploadThatMissesItsDeadline: it ends, says so, keeps the snapshot, and goes as any other.
func TestAnUploadThatMissesItsDeadline(t *testing.T) {
	t.Parallel()
	var by atomic.Int64
	w := testkit.NewWorld(t, testkit.Start(t), shiftedManager(&by), withAgents)
	w.StartManager()
	snapshotSetup(t, w)
	store := newWebStore(t)
	held, release := store.holding()
	defer release()
	s := xenSnapshot(w, "late", toStore(store, nil))
	s.Spec.DeadlineSeconds = ptr.To(int64(60))
	create(t, w, s)
	<-held
	by.Store(int64(time.Minute))
	askAgain(t, w, s, "after the deadline")
	w.WaitStalled(t, s, v1alpha1.ReasonDeadlineExceeded)
	if s.Status.FinishedAt == nil || !s.Status.Local || len(store.paths()) != 0 {
		t.Errorf("the store has %v; status is %s", store.paths(), testkit.Manifest(s))
	}
	// With a time to live it goes by itself, and with it the snapshot.
	edited := s.DeepCopy()
	edited.Spec.TTLSecondsAfterFinished = ptr.To(int64(0))
	if err := w.Client.Patch(t.Context(), edited, client.MergeFrom(s)); err != nil {
		t.Fatal(err)
	}
	w.WaitGone(t, s)
	if n := len(snapshotVMs(w)); n != 0 {
		t.Errorf("%d snapshots are left", n)
	}
}

// askAgain asks for another go.
func askAgain(t testing.TB, w *testkit.World, s *v1alpha1.XenSnapshot, token string) {
	t.Helper()
	edited := s.DeepCopy()
	metav1.SetMetaDataAnnotation(&edited.ObjectMeta, v1alpha1.AnnotationReconcileRequestedAt, token)
	if err := w.Client.Patch(t.Context(), edited, client.MergeFrom(s)); err != nil {
		t.Fatal(err)
	}
}

// TestAnUploadThatFailedIsTriedAgainWhenAsked: the limit of attempts ends it, a new request begins anew with the same snapshot.
func TestAnUploadThatFailedIsTriedAgainWhenAsked(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	store.refusePuts(http.StatusServiceUnavailable)
	s := xenSnapshot(w, "again", toStore(store, nil))
	s.Spec.BackoffLimit = ptr.To(int32(0))
	create(t, w, s)
	w.WaitStalled(t, s, v1alpha1.ReasonBackoffLimitExceeded)
	if got, want := shownBy(t, w, "xsnap", "again"), "again web False 0% 12Gi BackoffLimitExceeded"; got != want {
		t.Errorf("kubectl get shows %q, want %q", got, want)
	}
	uuid := s.Status.UUID
	store.answer(nil)
	askAgain(t, w, s, "when the store works again")
	w.WaitReady(t, s)
	if s.Status.UUID != uuid || s.Status.Upload.Attempts != 1 || s.Status.Upload.LastError != "" {
		t.Errorf("status is %s", testkit.Manifest(s))
	}
}

// TestACopyGoesWithoutItsPool: what was uploaded is removed with its object also when its pool does not answer any more, or when
// nothing but the store knows the snapshot. And a failure is remembered whatever the pool does.
func TestACopyGoesWithoutItsPool(t *testing.T) {
	t.Parallel()
	w, _ := withWeb(t, nil)
	store := newWebStore(t)
	withCopy := func(name string) *v1alpha1.XenSnapshot {
		s := xenSnapshot(w, name, toStore(store, nil))
		s.Spec.DeletionPolicy = v1alpha1.SnapshotDelete
		create(t, w, s)
		w.WaitReady(t, s)
		return s
	}
	point, known := withCopy("point"), withCopy("known")
	failed := xenSnapshot(w, "failed", toStore(store, nil))
	failed.Spec.BackoffLimit = ptr.To(int32(0))
	store.answer(func(rw http.ResponseWriter, r *http.Request) bool {
		refused := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/failed/")
		if refused {
			http.Error(rw, "not here", http.StatusForbidden)
		}
		return refused
	})
	create(t, w, failed)
	w.WaitStalled(t, failed, v1alpha1.ReasonBackoffLimitExceeded)

	// One of them is applied anew as from Git, while there is no instance of the name; then the pool goes down.
	w.StopManager()
	fresh := &v1alpha1.XenSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: known.Namespace, Name: known.Name}, Spec: known.Spec}
	dropObject(t, w, known)
	dropObject(t, w, web(w).Object())
	create(t, w, fresh)
	w.StartManager()
	w.WaitReady(t, fresh)
	w.StopManager()
	w.Simulator.Close()
	w.StartManager()
	for _, s := range []*v1alpha1.XenSnapshot{point, fresh} {
		if err := w.Client.Delete(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		w.WaitGone(t, s)
	}
	if left := store.paths(); len(left) != 0 {
		t.Errorf("the store still has %v", left)
	}
	w.WaitStalled(t, failed, v1alpha1.ReasonBackoffLimitExceeded)
	if stalled := meta.FindStatusCondition(failed.Status.Conditions, v1alpha1.ConditionStalled); !strings.Contains(stalled.Message, "not here") {
		t.Errorf("why it failed is forgotten: %s", testkit.Manifest(failed))
	}
}
