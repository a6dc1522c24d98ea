package controllers

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// keysKey is the key of a Secret with credentials for a rescue VM that holds public SSH keys, one a line; the other is
// passwordKey.
const keysKey = "ssh-authorized-keys"

// gatherRescue finds the image on the pool that the rescue VM is to be made from. What is wrong with it keeps the rescue
// from being begun, and nothing else.
func (s *instanceScope) gatherRescue(ctx context.Context, in *instance.Inputs) error {
	if !s.Object.Spec.WantsRescue() {
		return nil
	}
	refuse := func(reason string, passing bool, format string, args ...any) {
		in.RescueProblems = append(in.RescueProblems, instance.Problem{Reason: reason, Passing: passing, Message: fmt.Sprintf(format, args...)})
	}
	ref := s.rescueImageRef()
	if ref == nil {
		refuse(v1alpha1.ReasonImageNotFound, false,
			"rescue.imageRef names no image, and XenPool %s has no defaults.rescueImage; set one of the two", s.pool.Name)
		return nil
	}
	spec, status, err := s.image(ctx, ref)
	switch {
	case apierrors.IsNotFound(err):
		refuse(v1alpha1.ReasonImageNotFound, true, "there is no %s %q; make it, or name another in rescue.imageRef", ref.Kind, ref.Name)
		return nil
	case err != nil:
		return fmt.Errorf("read %s %s: %w", ref.Kind, ref.Name, err)
	case sameImage(ref, s.Object.Spec.Source.ImageRef):
		refuse(v1alpha1.ReasonRescueImageUnsuitable, false,
			"image %s is the instance's own: its file systems would be mistaken for those to be repaired; name another in rescue.imageRef", ref.Name)
		return nil
	}
	template, missing := templateOf(ref, s.pool.Name, spec, status)
	if missing != "" {
		refuse(v1alpha1.ReasonImageNotReady, true, "%s", missing)
		return nil
	}
	image := &instance.RescueImage{Name: ref.Name, TemplateUUID: template}
	if spec.MinMemory != nil {
		image.MinMemory = spec.MinMemory.Value()
	}
	s.pool.Cache.View(func(v xencache.View) { image.Template, _ = v.VMByUUID(image.TemplateUUID) })
	if image.Template.IsNull() {
		refuse(v1alpha1.ReasonImageNotReady, true, "the template %s of %s %q is not on pool %s", image.TemplateUUID, ref.Kind, ref.Name, s.pool.Name)
		return nil
	}
	in.RescueImage = image
	return nil
}

// rescueImageRef is the image that the instance names, or its pool for those that name none.
func (s *instanceScope) rescueImageRef() *v1alpha1.ImageReference {
	if ref := s.Object.Spec.Rescue.ImageRef; ref != nil {
		return ref
	}
	if defaults := s.pool.Pool.Spec.Defaults; defaults != nil && defaults.RescueImage != "" {
		return &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: defaults.RescueImage}
	}
	return nil
}

func sameImage(a, b *v1alpha1.ImageReference) bool { return a != nil && b != nil && *a == *b }

// checkBeforeRescue looks whether the credentials are there, or can be made, before anything else is.
func (s *instanceScope) checkBeforeRescue(ctx context.Context) error {
	if !s.facts.BeginsRescue(s.r.runtime.Clock.Now()) {
		return nil
	}
	_, err := s.rescueCredentials(ctx)
	if err == nil && s.Object.Spec.Rescue.CredentialsSecretRef == nil {
		err = s.checkOwnPassword(ctx, instance.RescueSecretName(s.Object.Name))
	}
	return noted(&s.facts.Want.Rescue.Problems, err)
}

// checkOwnPassword looks whether a password that is yet to be generated could be kept.
func (s *instanceScope) checkOwnPassword(ctx context.Context, name string) error {
	if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
		return &instance.Problem{Reason: v1alpha1.ReasonInvalidSpec, Message: fmt.Sprintf(
			"the generated password cannot be kept in a Secret %q: %s; name one of yours in rescue.credentialsSecretRef", name, wrong[0])}
	}
	var secret corev1.Secret
	err := s.r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: name}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read Secret %s: %w", name, err)
	case !s.madeSecret(&secret):
		return notOurs(name)
	}
	return nil
}

// credentials are what lets somebody into a rescue VM.
type credentials struct {
	password string
	keys     []string
}

// rescueCredentials reads the Secret that the spec names; without one there is nothing to read.
func (s *instanceScope) rescueCredentials(ctx context.Context) (credentials, error) {
	if s.Object.Spec.Rescue == nil || s.Object.Spec.Rescue.CredentialsSecretRef == nil {
		return credentials{}, nil
	}
	name := s.Object.Spec.Rescue.CredentialsSecretRef.Name
	var secret corev1.Secret
	err := s.r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: name}, &secret)
	if apierrors.IsNotFound(err) {
		return credentials{}, &instance.Problem{Reason: v1alpha1.ReasonSecretNotFound, Passing: true,
			Message: fmt.Sprintf("there is no Secret %q with the credentials for the rescue VM; make it", name)}
	}
	if err != nil {
		return credentials{}, fmt.Errorf("read Secret %s: %w", name, err)
	}
	found := credentials{password: string(secret.Data[passwordKey])}
	for line := range strings.Lines(string(secret.Data[keysKey])) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			found.keys = append(found.keys, line)
		}
	}
	if found.password == "" && len(found.keys) == 0 {
		return credentials{}, &instance.Problem{Reason: v1alpha1.ReasonInvalidCredentials, Passing: true,
			Message: fmt.Sprintf("Secret %q has neither %s nor %s for the rescue VM; add one", name, passwordKey, keysKey)}
	}
	return found, nil
}

// rescueSeed gathers what belongs on the config drive of the rescue VM. A generated password is in its Secret before its
// hash is anywhere.
func (s *instanceScope) rescueSeed(ctx context.Context) (instance.Seed, error) {
	seed := instance.Seed{Format: v1alpha1.BootstrapNoCloud, InstanceID: s.facts.Rescue.UUID, Hostname: s.Object.Name + "-rescue"}
	if bootstrap := s.Object.Spec.Bootstrap; bootstrap != nil {
		seed.Format = bootstrap.DesiredFormat()
		var err error
		if seed.NetworkData, err = s.data(ctx, bootstrap.NetworkData); err != nil {
			return seed, err
		}
	}
	found, err := s.rescueCredentials(ctx)
	if err != nil {
		return seed, err
	}
	if s.Object.Spec.Rescue == nil || s.Object.Spec.Rescue.CredentialsSecretRef == nil {
		if found.password, err = s.ownPassword(ctx, instance.RescueSecretName(s.Object.Name)); err != nil {
			return seed, err
		}
	}
	if found.password != "" {
		seed.PasswordHash = instance.HashPassword(found.password)
	}
	seed.AuthorizedKeys = found.keys
	return seed, nil
}

// dropRescueSecret deletes the Secret with the generated password of the rescue VM, if it is ours.
func (s *instanceScope) dropRescueSecret(ctx context.Context) error {
	return s.deleteOwnSecret(ctx, instance.RescueSecretName(s.Object.Name))
}

// deleteRescueSecret deletes that Secret with the instance. Only one that may have it is looked at.
func (s *instanceScope) deleteRescueSecret(ctx context.Context) error {
	if s.Object.Spec.Rescue == nil && s.Object.Status.Rescue == nil {
		return nil
	}
	return s.dropRescueSecret(ctx)
}

// What a dashboard asks of rescues; neither names nor namespaces are labels.
var (
	rescueTransitions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubexen_rescue_transitions_total",
		Help: "Changes of the reason of Rescued, by the new reason.",
	}, []string{"reason"})
	rescueDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "kubexen_rescue_duration_seconds",
		Help:    "How long rescues lasted that are over, from their beginning to the return.",
		Buckets: []float64{30, 60, 300, 900, 3600, 14400, 86400, 604800},
	})
)

func init() { metrics.Registry.MustRegister(rescueTransitions, rescueDuration) }

// announceRescue says in an Event, and counts, that a rescue has begun, holds, or is over.
func (s *instanceScope) announceRescue(before string) {
	after := rescuedReason(s.Object)
	if after == before || before == "" {
		return
	}
	rescueTransitions.WithLabelValues(after).Inc()
	if prior := s.facts.Prior.Rescue; prior != nil && prior.Since != nil && s.Object.Status.Rescue == nil {
		rescueDuration.Observe(s.r.runtime.Clock.Since(prior.Since.Time).Seconds())
	}
	condition := meta.FindStatusCondition(s.Object.Status.Conditions, v1alpha1.ConditionRescued)
	kind := corev1.EventTypeNormal
	if after == v1alpha1.ReasonRescueDegraded || after == v1alpha1.ReasonRescueTimedOut {
		kind = corev1.EventTypeWarning
	}
	text := condition.Message
	if after == v1alpha1.ReasonNotRequested {
		if s.facts.Prior.Rescue == nil && before != v1alpha1.ReasonEnteringRescue && before != v1alpha1.ReasonLeavingRescue {
			return // it was never begun
		}
		after, text = v1alpha1.ReasonReturned, "the rescue is over and everything is as it was before"
	}
	s.Event(kind, after, "%s", text)
}

// rescuedReason is the reason of the condition Rescued.
func rescuedReason(object *v1alpha1.XenInstance) string {
	if condition := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionRescued); condition != nil {
		return condition.Reason
	}
	return ""
}
