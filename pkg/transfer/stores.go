package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/egress"
	"github.com/kubexen/kubexen/pkg/imagestore"
)

// SecretStores opens stores with the credentials in Secrets, which are read when they are needed and not kept.
type SecretStores struct {
	// Secrets reads from the API server itself.
	Secrets client.Reader
	// Namespace is the operator's own, where the Secrets of cluster-wide objects are.
	Namespace string
	// Installation is the operator's, which tells its images from others' in an image service.
	Installation string
	// Guard decides where the operator connects on a tenant's word.
	Guard *egress.Guard
	// Clock tells stores that trickle from slow ones.
	Clock clock.PassiveClock
}

// Open implements Stores.
func (s *SecretStores) Open(ctx context.Context, place Place) (imagestore.Store, error) {
	store, err := s.open(ctx, place)
	var known *Failure
	switch {
	case err == nil:
		return store, nil
	case errors.As(err, &known):
		return nil, err
	case imagestore.KindOf(err) == 0: // what cannot be understood: a Secret, a URL
		return nil, &Failure{Reason: v1alpha1.ReasonInvalidCredentials, Err: err}
	}
	return nil, storeFailure(err)
}

func (s *SecretStores) open(ctx context.Context, place Place) (imagestore.Store, error) {
	if d := place.Destination; d != nil {
		switch {
		case d.S3 != nil:
			return s.s3(ctx, place, d.S3.S3Bucket, s3Prefix(d.S3, place.Namespace, place.Snapshot))
		case d.Glance != nil:
			return s.glance(ctx, place, d.Glance.GlanceService, imagestore.GlanceOptions{
				Place: strings.Join([]string{s.Installation, place.Namespace, place.Snapshot}, "/"),
			})
		case d.HTTP != nil:
			return s.http(ctx, place, d.HTTP.URLTemplate, d.HTTP.CredentialsSecretRef)
		}
	}
	if o := place.Source; o != nil {
		switch {
		case o.S3 != nil:
			return s.s3(ctx, place, o.S3.S3Bucket, o.S3.Key)
		case o.Glance != nil:
			return s.glance(ctx, place, o.Glance.GlanceService, imagestore.GlanceOptions{ImageID: o.Glance.ImageID})
		case o.HTTP != nil:
			return s.http(ctx, place, o.HTTP.URL, o.HTTP.CredentialsSecretRef)
		}
	}
	return nil, &Failure{Reason: v1alpha1.ReasonInvalidSpec, Permanent: true, Err: errors.New("no store is named")}
}

func (s *SecretStores) s3(ctx context.Context, place Place, bucket v1alpha1.S3Bucket, prefix string) (imagestore.Store, error) {
	data, err := s.secret(ctx, place, bucket.CredentialsSecretRef)
	if err != nil {
		return nil, err
	}
	var credentials imagestore.S3Credentials
	if bucket.CredentialsSecretRef != nil {
		if credentials, err = imagestore.ParseS3Credentials(data); err != nil {
			return nil, err
		}
	}
	return imagestore.NewS3(imagestore.S3Options{
		Endpoint: bucket.Endpoint, Bucket: bucket.Bucket, Prefix: prefix, Region: bucket.Region,
		Credentials: credentials, Network: s.network(place, data),
	})
}

func (s *SecretStores) glance(ctx context.Context, place Place, service v1alpha1.GlanceService, options imagestore.GlanceOptions) (imagestore.Store, error) {
	data, err := s.secret(ctx, place, service.AuthSecretRef)
	if err != nil {
		return nil, err
	}
	options.Endpoint, options.Network = service.Endpoint, s.network(place, data)
	if service.AuthSecretRef != nil {
		if options.Cloud, err = imagestore.ParseCloud(data); err != nil {
			return nil, err
		}
	}
	return imagestore.NewGlance(options)
}

func (s *SecretStores) http(ctx context.Context, place Place, url string, ref *v1alpha1.LocalSecretReference) (imagestore.Store, error) {
	data, err := s.secret(ctx, place, ref)
	if err != nil {
		return nil, err
	}
	options := imagestore.HTTPOptions{URL: url, Network: s.network(place, data)}
	if place.Destination != nil {
		options.Values = map[string]string{"namespace": place.Namespace, "instance": place.Instance, "snapshot": place.Snapshot}
	}
	if ref != nil {
		if options.Credentials, err = imagestore.ParseHTTPCredentials(data); err != nil {
			return nil, err
		}
	}
	return imagestore.NewHTTP(options)
}

// network is how the store is reached. What an administrator named, for the whole cluster, may be anywhere.
func (s *SecretStores) network(place Place, data map[string][]byte) imagestore.Network {
	network := imagestore.Network{CABundle: data[imagestore.KeyCABundle], Clock: s.Clock}
	if place.Namespace != "" {
		network.Guard = s.Guard
	}
	return network
}

// secret reads what a Secret holds; nothing if none is named.
func (s *SecretStores) secret(ctx context.Context, place Place, ref *v1alpha1.LocalSecretReference) (map[string][]byte, error) {
	if ref == nil {
		return nil, nil
	}
	namespace := place.Namespace
	if namespace == "" {
		namespace = s.Namespace
	}
	var secret corev1.Secret
	err := s.Secrets.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &Failure{Reason: v1alpha1.ReasonSecretNotFound, Err: fmt.Errorf("there is no Secret %s/%s", namespace, ref.Name)}
	case err != nil:
		return nil, &Failure{Reason: v1alpha1.ReasonRetrying, Err: fmt.Errorf("read Secret %s/%s: %w", namespace, ref.Name, err)}
	}
	return secret.Data, nil
}
