package reconcile

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// Object is a kind of ours.
type Object interface {
	client.Object
	// GetCommonStatus returns the part of the status that every kind has.
	GetCommonStatus() *v1alpha1.CommonStatus
	// ConditionTypes names the conditions that always stand in the status.
	ConditionTypes() []string
}

// sharedStatus is a kind into whose status others write too. What is theirs is neither compared nor written.
type sharedStatus interface{ OmitForeignStatus() }

func omitForeign(obj any) {
	if shared, ok := obj.(sharedStatus); ok {
		shared.OmitForeignStatus()
	}
}

// Runtime is what the passes of one controller share.
type Runtime struct {
	// Client reads from the manager's cache and writes to the API server.
	Client client.Client
	// Live reads from the API server itself. Secrets and ConfigMaps are read with it, so that a cluster's worth of them
	// is neither held in memory nor watched.
	Live client.Reader
	// Clock gives the transition times of conditions.
	Clock clock.PassiveClock
	// Recorder takes Events; nil drops them.
	Recorder events.EventRecorder
	// FieldOwner owns what we write by server-side apply.
	FieldOwner client.FieldOwner

	backoff Backoff
}

// Options is how one kind opens its passes.
type Options[T Object] struct {
	// Finalizer is added before the first act. Empty: none.
	Finalizer string
	// PausedBy says why an object without the annotation is paused nevertheless, "" if it is not. May be nil.
	PausedBy func(T) string
}

// Scope is one pass over one object: what the pass found, and what it ended in.
type Scope[T Object] struct {
	// Object is ours to change: a copy of what the cache holds. Only its status is written back.
	Object T
	// Outcome is what the pass ended in; Close turns it into conditions, Result into a queue entry.
	Outcome Outcome
	// Paused says what pauses the object, "" if nothing does. A paused object is observed and reported; nothing is
	// done to it, nor to what stands behind it.
	Paused string

	runtime  *Runtime
	request  ctrl.Request
	original T
	events   []queuedEvent
	released bool
}

// Open begins a pass: it reads the object into obj and sees to pausing and the finalizer. A nil scope means that
// there is nothing to do: the object is gone, or it is going and we have let go of it.
func Open[T Object](ctx context.Context, rt *Runtime, req ctrl.Request, obj T, opts Options[T]) (*Scope[T], error) {
	if err := rt.Client.Get(ctx, req.NamespacedName, obj); err != nil {
		if apierrors.IsNotFound(err) {
			rt.backoff.Forget(req)
			return nil, nil
		}
		return nil, fmt.Errorf("read %s: %w", req, err)
	}
	s := &Scope[T]{Object: obj, runtime: rt, request: req, original: obj.DeepCopyObject().(T)}
	omitForeign(s.original)
	s.Paused = pausedBy(obj, opts.PausedBy)
	switch held := slices.Contains(obj.GetFinalizers(), opts.Finalizer); {
	case opts.Finalizer == "" || held:
	case s.Deleting():
		return nil, nil
	case s.Paused == "":
		if err := s.addFinalizer(ctx, opts.Finalizer); err != nil {
			return nil, err
		}
	}
	if _, isNew := s.RequestedAt(); isNew {
		rt.backoff.Forget(req)
	}
	return s, nil
}

// Deleting reports whether the user asked for the object to go.
func (s *Scope[T]) Deleting() bool { return !s.Object.GetDeletionTimestamp().IsZero() }

// RequestedAt returns the value of the reconcile-requested-at annotation, and whether no pass has answered it yet.
func (s *Scope[T]) RequestedAt() (token string, isNew bool) {
	token = s.Object.GetAnnotations()[v1alpha1.AnnotationReconcileRequestedAt]
	return token, token != "" && token != s.Object.GetCommonStatus().LastHandledReconcileAt
}

// Result is the queue entry that the outcome asks for.
func (s *Scope[T]) Result() ctrl.Result {
	if s.released {
		s.runtime.backoff.Forget(s.request)
		return ctrl.Result{}
	}
	return s.runtime.backoff.Result(s.request, s.Outcome)
}

// Close ends a pass: the summary conditions from the outcome, one status patch if anything changed, and only
// when that is stored the events and metrics of what changed.
func (s *Scope[T]) Close(ctx context.Context) error {
	if s.released || ctx.Err() != nil {
		return ctx.Err()
	}
	status := s.Object.GetCommonStatus()
	setSummary(&status.Conditions, s.Outcome)
	s.setPaused(&status.Conditions)
	for _, kind := range s.Object.ConditionTypes() {
		if meta.FindStatusCondition(status.Conditions, kind) == nil {
			SetCondition(&status.Conditions, kind, metav1.ConditionUnknown, v1alpha1.ReasonNotYetObserved, "")
		}
	}
	status.ObservedGeneration = s.Object.GetGeneration()
	if token, isNew := s.RequestedAt(); isNew {
		status.LastHandledReconcileAt = token
	}
	stored, err := s.storeStatus(ctx)
	if err != nil || !stored {
		return err
	}
	s.report()
	return nil
}

// setPaused shows whether the object is paused, and says so in an Event when that begins.
func (s *Scope[T]) setPaused(conditions *[]metav1.Condition) {
	if s.Paused == "" {
		SetCondition(conditions, v1alpha1.ConditionPaused, metav1.ConditionFalse, v1alpha1.ReasonNotPaused, "")
		return
	}
	if !meta.IsStatusConditionTrue(*conditions, v1alpha1.ConditionPaused) {
		s.Event(corev1.EventTypeNormal, v1alpha1.ReasonPaused, "%s", s.Paused)
	}
	SetCondition(conditions, v1alpha1.ConditionPaused, metav1.ConditionTrue, v1alpha1.ReasonPaused, s.Paused)
}

// pausedBy says what pauses the object, "" if nothing does.
func pausedBy[T Object](obj T, elsewhere func(T) string) string {
	if v1alpha1.IsPaused(obj.GetAnnotations()) {
		return "the annotation " + v1alpha1.AnnotationPaused + " is set; remove it to go on"
	}
	if elsewhere != nil {
		return elsewhere(obj)
	}
	return ""
}
