package controllers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
)

// passwordKey is the key of the generated password in its Secret.
const passwordKey = "password"

func passwordSecretName(name string) string { return name + "-password" }

// checkBootstrap looks whether the bootstrap data are there, before anything is made.
func (s *instanceScope) checkBootstrap(ctx context.Context) error {
	bootstrap := s.Object.Spec.Bootstrap
	if bootstrap == nil {
		return nil
	}
	_, userErr := s.data(ctx, bootstrap.UserData)
	_, networkErr := s.data(ctx, bootstrap.NetworkData)
	return errors.Join(userErr, networkErr)
}

// seed gathers what belongs on the config drive.
func (s *instanceScope) seed(ctx context.Context) (instance.Seed, error) {
	bootstrap := s.Object.Spec.Bootstrap
	seed := instance.Seed{
		Format: bootstrap.DesiredFormat(), InstanceID: s.facts.VM.UUID, Hostname: s.Object.Name, MetaData: map[string]string{},
	}
	for key, value := range bootstrap.MetaData {
		seed.MetaData[key] = string(value)
	}
	var err error
	if seed.UserData, err = s.data(ctx, bootstrap.UserData); err != nil {
		return seed, err
	}
	if seed.NetworkData, err = s.data(ctx, bootstrap.NetworkData); err != nil {
		return seed, err
	}
	if bootstrap.GeneratePassword {
		password, err := s.ownPassword(ctx, passwordSecretName(s.Object.Name))
		if err != nil {
			return seed, err
		}
		seed.PasswordHash = instance.HashPassword(password)
	}
	return seed, nil
}

// data reads one key of a Secret or ConfigMap; nil for none.
func (s *instanceScope) data(ctx context.Context, source *v1alpha1.DataSource) ([]byte, error) {
	switch {
	case source == nil:
		return nil, nil
	case source.SecretKeyRef != nil:
		var secret corev1.Secret
		err := s.r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: source.SecretKeyRef.Name}, &secret)
		value, found := secret.Data[source.SecretKeyRef.Key]
		return s.found(value, found, err, "Secret", source.SecretKeyRef)
	case source.ConfigMapKeyRef != nil:
		var configMap corev1.ConfigMap
		err := s.r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: source.ConfigMapKeyRef.Name}, &configMap)
		text, found := configMap.Data[source.ConfigMapKeyRef.Key]
		value := []byte(text)
		if !found {
			value, found = configMap.BinaryData[source.ConfigMapKeyRef.Key]
		}
		return s.found(value, found, err, "ConfigMap", source.ConfigMapKeyRef)
	}
	return nil, nil
}

// found says what is missing. It is looked for again by itself: Secrets are not watched.
func (s *instanceScope) found(value []byte, found bool, err error, kind string, ref *v1alpha1.KeySelector) ([]byte, error) {
	switch {
	case apierrors.IsNotFound(err):
		return nil, &instance.Problem{Reason: v1alpha1.ReasonUserDataNotFound, Passing: true,
			Message: fmt.Sprintf("there is no %s %q with the bootstrap data; make it", kind, ref.Name)}
	case err != nil:
		return nil, fmt.Errorf("read %s %s: %w", kind, ref.Name, err)
	case !found:
		return nil, &instance.Problem{Reason: v1alpha1.ReasonUserDataNotFound, Passing: true,
			Message: fmt.Sprintf("%s %q has no key %q for the bootstrap data; add it", kind, ref.Name, ref.Key)}
	}
	return value, nil
}

// ownPassword is a generated password: that of the Secret, which is made if there is none. A Secret of somebody else under
// the name is not used and not overwritten.
func (s *instanceScope) ownPassword(ctx context.Context, name string) (string, error) {
	var secret corev1.Secret
	err := s.r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: name}, &secret)
	switch {
	case err == nil && !s.madeSecret(&secret):
		return "", notOurs(name)
	case err == nil:
		return string(secret.Data[passwordKey]), nil
	case !apierrors.IsNotFound(err):
		return "", fmt.Errorf("read Secret %s: %w", name, err)
	}
	password := instance.NewPassword()
	secret = corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Object.Namespace, Name: name, Annotations: map[string]string{v1alpha1.AnnotationGeneratedFor: s.Object.Name},
		},
		Data: map[string][]byte{passwordKey: []byte(password)},
	}
	if err := controllerutil.SetControllerReference(s.Object, &secret, s.r.runtime.Client.Scheme()); err != nil {
		return "", fmt.Errorf("own Secret %s: %w", name, err)
	}
	if err := s.r.runtime.Client.Create(ctx, &secret); err != nil {
		return "", fmt.Errorf("make Secret %s: %w", name, err)
	}
	return password, nil
}

// notOurs says that somebody else's Secret is where a generated password belongs.
func notOurs(name string) error {
	return &instance.Problem{Reason: v1alpha1.ReasonInvalidSpec, Passing: true, Message: fmt.Sprintf(
		"Secret %q, where the generated password belongs, exists and is not this object's; delete it or rename the instance", name)}
}

// madeSecret reports whether a Secret was made for the instance. A backup may have been restored without owner references:
// then the annotation tells.
func (s *instanceScope) madeSecret(secret *corev1.Secret) bool {
	if metav1.GetControllerOf(secret) != nil {
		return metav1.IsControlledBy(secret, s.Object)
	}
	return secret.Annotations[v1alpha1.AnnotationGeneratedFor] == s.Object.Name
}

// deletePasswordSecret deletes the Secret with the generated password, if it is ours.
func (s *instanceScope) deletePasswordSecret(ctx context.Context) error {
	bootstrap := s.Object.Spec.Bootstrap
	if bootstrap == nil || !bootstrap.GeneratePassword {
		return nil
	}
	return s.deleteOwnSecret(ctx, passwordSecretName(s.Object.Name))
}

// deleteOwnSecret deletes a Secret, if it is the instance's own.
func (s *instanceScope) deleteOwnSecret(ctx context.Context, name string) error {
	var secret corev1.Secret
	err := s.r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: name}, &secret)
	if err == nil && s.madeSecret(&secret) {
		err = s.r.runtime.Client.Delete(ctx, &secret, client.Preconditions{UID: &secret.UID})
	}
	if ignoreGone(err) != nil {
		return fmt.Errorf("delete Secret %s: %w", name, err)
	}
	return nil
}
