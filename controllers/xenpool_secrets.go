package controllers

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/pool"
)

// poolSecrets reads the Secrets that XenPools name. Of Secrets only the metadata is watched and held; the data is
// read when that says that it changed.
type poolSecrets struct {
	metadata client.Reader
	live     client.Reader

	mu   sync.Mutex
	read map[string]readSecrets
}

// readSecrets is what came of the last reading for one XenPool.
type readSecrets struct {
	of       string // generation and versions that it was read for
	settings pool.Settings
	problem  *pool.Problem
}

func newPoolSecrets(metadata, live client.Reader) *poolSecrets {
	return &poolSecrets{metadata: metadata, live: live, read: map[string]readSecrets{}}
}

// settings returns what the pool's connection is to be made with, or what is wrong with the Secrets.
func (s *poolSecrets) settings(ctx context.Context, xenPool *v1alpha1.XenPool) (pool.Settings, *pool.Problem, error) {
	of := fmt.Sprintf("%s/%d", xenPool.UID, xenPool.Generation)
	for _, ref := range secretsOf(xenPool) {
		version, err := s.version(ctx, ref)
		if err != nil {
			return pool.Settings{}, nil, err
		}
		of += "/" + version
	}
	s.mu.Lock()
	known, found := s.read[xenPool.Name]
	s.mu.Unlock()
	if found && known.of == of {
		return known.settings, known.problem, nil
	}
	settings, problem, err := s.readAll(ctx, xenPool)
	if err != nil {
		return pool.Settings{}, nil, err
	}
	s.mu.Lock()
	s.read[xenPool.Name] = readSecrets{of, settings, problem}
	s.mu.Unlock()
	return settings, problem, nil
}

func (s *poolSecrets) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.read, name)
}

func (s *poolSecrets) readAll(ctx context.Context, xenPool *v1alpha1.XenPool) (pool.Settings, *pool.Problem, error) {
	credentials, err := s.secret(ctx, xenPool.Spec.CredentialsSecretRef)
	if err != nil {
		return pool.Settings{}, nil, err
	}
	var ca *corev1.Secret
	if tls := xenPool.Spec.TLS; tls != nil && tls.CABundleSecretRef != nil {
		if ca, err = s.secret(ctx, *tls.CABundleSecretRef); err != nil {
			return pool.Settings{}, nil, err
		}
	}
	settings, problem := pool.SettingsFrom(xenPool, credentials, ca)
	return settings, problem, nil
}

// secret reads one Secret; nil if there is none.
func (s *poolSecrets) secret(ctx context.Context, ref v1alpha1.SecretReference) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := s.live.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return &secret, nil
}

// version is the resourceVersion of a Secret, "" if there is none.
func (s *poolSecrets) version(ctx context.Context, ref v1alpha1.SecretReference) (string, error) {
	var secret metav1.PartialObjectMetadata
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := s.metadata.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &secret)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("look for Secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return secret.ResourceVersion, nil
}

// secretsOf returns the Secrets that a XenPool names.
func secretsOf(xenPool *v1alpha1.XenPool) []v1alpha1.SecretReference {
	refs := []v1alpha1.SecretReference{xenPool.Spec.CredentialsSecretRef}
	if tls := xenPool.Spec.TLS; tls != nil && tls.CABundleSecretRef != nil {
		refs = append(refs, *tls.CABundleSecretRef)
	}
	return refs
}
