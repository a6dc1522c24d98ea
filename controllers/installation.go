package controllers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups="",namespace=kubexen-system,resources=configmaps,verbs=get;create

// installationKey is where the ConfigMap holds the installation id.
const installationKey = "installation"

// Installation returns the installation id that a ConfigMap holds. Where there is none it chooses one, once: the marks
// on the pools carry it, so it must survive everything that the deployment survives. Back the ConfigMap up.
func Installation(ctx context.Context, c client.Client, namespace, name string) (string, error) {
	var found corev1.ConfigMap
	err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &found)
	if apierrors.IsNotFound(err) {
		found, err = createInstallation(ctx, c, namespace, name)
	}
	if err != nil {
		return "", fmt.Errorf("read the installation id from ConfigMap %s/%s: %w", namespace, name, err)
	}
	if id := found.Data[installationKey]; id != "" {
		return id, nil
	}
	return "", fmt.Errorf("ConfigMap %s/%s has no key %s", namespace, name, installationKey)
}

// createInstallation chooses an id. If another replica was quicker its choice counts.
func createInstallation(ctx context.Context, c client.Client, namespace, name string) (corev1.ConfigMap, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return corev1.ConfigMap{}, fmt.Errorf("choose an installation id: %w", err)
	}
	chosen := corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Data:       map[string]string{installationKey: hex.EncodeToString(random[:])},
	}
	err := c.Create(ctx, &chosen)
	if apierrors.IsAlreadyExists(err) {
		err = c.Get(ctx, client.ObjectKeyFromObject(&chosen), &chosen)
	}
	return chosen, err
}
