package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// All writes here go through the typed object, although each sends only a part of it: the client's
// read-your-writes consistency keeps typed, unstructured and metadata-only objects apart, and a pass that follows
// reads typed ones.

// storeStatus writes the status by server-side apply if it differs from what the pass began with. The uid in the
// patch makes it fail, rather than land on another object of the same name.
func (s *Scope[T]) storeStatus(ctx context.Context) (stored bool, err error) {
	omitForeign(s.Object)
	status := statusOf(s.Object)
	stampConditions(s.Object.GetCommonStatus().Conditions, metav1.NewTime(s.runtime.Clock.Now()), s.Object.GetGeneration())
	if equality.Semantic.DeepEqual(statusOf(s.original), status) {
		return false, nil
	}
	gvk, err := apiutil.GVKForObject(s.Object, s.runtime.Client.Scheme())
	if err != nil {
		return false, err
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": gvk.GroupVersion().String(),
		"kind":       gvk.Kind,
		"metadata":   identity(s.Object),
		"status":     status,
	})
	if err != nil {
		return false, fmt.Errorf("encode the status of %s %s: %w", gvk.Kind, s.request, err)
	}
	answer := emptyLike(s.Object)
	err = s.runtime.Client.Status().Patch(ctx, answer, client.RawPatch(types.ApplyPatchType, patch),
		s.runtime.FieldOwner, client.ForceOwnership)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store the status of %s %s: %w", gvk.Kind, s.request, err)
	}
	s.Object.SetResourceVersion(answer.GetResourceVersion())
	return true, nil
}

// Annotate sets one annotation by a patch that carries nothing else.
func (s *Scope[T]) Annotate(ctx context.Context, key, value string) error {
	if has, there := s.Object.GetAnnotations()[key]; there && has == value {
		return nil
	}
	return s.patchMetadata(ctx, map[string]any{"annotations": map[string]string{key: value}})
}

// Own adds an owner, unless it is one already: the object goes when its owner is gone.
func (s *Scope[T]) Own(ctx context.Context, owner metav1.OwnerReference) error {
	owners := s.Object.GetOwnerReferences()
	if slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return o.UID == owner.UID }) {
		return nil
	}
	// An owner of the same name that lives no more is replaced: after a restore its uid is another.
	owners = slices.DeleteFunc(slices.Clone(owners), func(o metav1.OwnerReference) bool {
		return o.APIVersion == owner.APIVersion && o.Kind == owner.Kind && o.Name == owner.Name
	})
	return s.patchMetadata(ctx, map[string]any{
		"ownerReferences": append(owners, owner),
		"resourceVersion": s.Object.GetResourceVersion(),
	})
}

// addFinalizer makes sure that the object cannot go before we have cleaned up.
func (s *Scope[T]) addFinalizer(ctx context.Context, finalizer string) error {
	if slices.Contains(s.Object.GetFinalizers(), finalizer) {
		return nil
	}
	return s.patchMetadata(ctx, map[string]any{
		"finalizers": append(slices.Clone(s.Object.GetFinalizers()), finalizer),
		// The list is replaced as a whole: without this a finalizer that someone added meanwhile would be lost.
		"resourceVersion": s.Object.GetResourceVersion(),
	})
}

// ReleaseFinalizer lets the object go. The pass then has nothing more to say: Close writes no status.
func (s *Scope[T]) ReleaseFinalizer(ctx context.Context, finalizer string) error {
	s.released = true
	rest := slices.DeleteFunc(slices.Clone(s.Object.GetFinalizers()), func(f string) bool { return f == finalizer })
	if len(rest) == len(s.Object.GetFinalizers()) {
		return nil
	}
	err := s.patchMetadata(ctx, map[string]any{
		"finalizers":      rest,
		"resourceVersion": s.Object.GetResourceVersion(),
	})
	if err == nil {
		s.emit()
	}
	return client.IgnoreNotFound(err)
}

// patchMetadata merges metadata into the object, and takes over what the server made of it.
func (s *Scope[T]) patchMetadata(ctx context.Context, metadata map[string]any) error {
	metadata["uid"] = s.Object.GetUID()
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encode the metadata of %s: %w", s.request, err)
	}
	answer := emptyLike(s.Object)
	if err := s.runtime.Client.Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch), s.runtime.FieldOwner); err != nil {
		return fmt.Errorf("patch the metadata of %s: %w", s.request, err)
	}
	for _, obj := range []T{s.Object, s.original} {
		obj.SetResourceVersion(answer.GetResourceVersion())
		obj.SetFinalizers(slices.Clone(answer.GetFinalizers()))
		obj.SetOwnerReferences(slices.Clone(answer.GetOwnerReferences()))
		obj.SetAnnotations(answer.GetAnnotations())
	}
	return nil
}

// identity is the metadata that names exactly this object.
func identity(obj client.Object) map[string]any {
	id := map[string]any{"name": obj.GetName(), "uid": obj.GetUID()}
	if ns := obj.GetNamespace(); ns != "" {
		id["namespace"] = ns
	}
	return id
}

// emptyLike returns a new object of the same type and name: an answer decoded into a used object would keep what
// the answer left out.
func emptyLike[T Object](obj T) T {
	empty := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(T)
	empty.SetName(obj.GetName())
	empty.SetNamespace(obj.GetNamespace())
	return empty
}

// statusOf returns the status struct. Every kind of ours has a field Status; going by its name spares each of
// them two methods.
func statusOf(obj client.Object) any {
	return reflect.ValueOf(obj).Elem().FieldByName("Status").Interface()
}
