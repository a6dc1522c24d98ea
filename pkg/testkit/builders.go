package testkit

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// SystemNamespace is where tests keep a pool's Secrets and the manager's Leases.
const SystemNamespace = "kubexen-system"

// PoolBuilder writes the manifest of a XenPool.
type PoolBuilder struct{ pool *v1alpha1.XenPool }

// Pool is a XenPool whose Secret has its name, with one grant of everything to every namespace.
func Pool(name string, endpoints ...string) *PoolBuilder {
	return &PoolBuilder{&v1alpha1.XenPool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.XenPoolSpec{
			Endpoints:            endpoints,
			CredentialsSecretRef: v1alpha1.SecretReference{Namespace: SystemNamespace, Name: name},
			Grants: []v1alpha1.PoolGrant{{
				Namespaces:          v1alpha1.GrantedNamespaces{From: v1alpha1.NamespacesFromAll},
				Networks:            []string{v1alpha1.Any},
				StorageRepositories: []string{v1alpha1.Any},
				Templates:           []string{v1alpha1.Any},
				Adopt:               v1alpha1.AdoptAny,
				RawDisks:            true,
				Placement:           true,
			}},
		},
	}}
}

// With changes whatever has no word of its own.
func (b *PoolBuilder) With(change func(*v1alpha1.XenPool)) *PoolBuilder { change(b.pool); return b }

// TrustingSecret takes the CA bundle from a Secret in the system namespace.
func (b *PoolBuilder) TrustingSecret(name string) *PoolBuilder {
	b.pool.Spec.TLS = &v1alpha1.PoolTLS{CABundleSecretRef: &v1alpha1.SecretReference{Namespace: SystemNamespace, Name: name}}
	return b
}

// Defaults names the storage repository and the network of instances that name none.
func (b *PoolBuilder) Defaults(storageRepository, network string) *PoolBuilder {
	b.pool.Spec.Defaults = &v1alpha1.PoolDefaults{StorageRepository: storageRepository, Network: network}
	return b
}

// Grants replaces the grant of everything to everyone.
func (b *PoolBuilder) Grants(grants ...v1alpha1.PoolGrant) *PoolBuilder {
	b.pool.Spec.Grants = grants
	return b
}

// Object is the manifest.
func (b *PoolBuilder) Object() *v1alpha1.XenPool { return b.pool.DeepCopy() }

// PoolSecret has what a pool's credentials Secret has, and its CA bundle beside.
func PoolSecret(name, username, password string, caBundle []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: SystemNamespace, Name: name},
		Data:       map[string][]byte{"username": []byte(username), "password": []byte(password), "ca.crt": caBundle},
	}
}

// Flavor is a XenFlavor of so many VCPUs and so much memory, as in Flavor("small", 1, "512Mi").
func Flavor(name string, vcpus int32, memory string) *v1alpha1.XenFlavor {
	return &v1alpha1.XenFlavor{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.XenFlavorSpec{VCPUs: vcpus, Memory: resource.MustParse(memory)},
	}
}

// InstanceBuilder writes the manifest of a XenInstance.
type InstanceBuilder struct{ instance *v1alpha1.XenInstance }

// Instance is a XenInstance on a pool; it needs a source.
func Instance(namespace, name, pool string) *InstanceBuilder {
	return &InstanceBuilder{&v1alpha1.XenInstance{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.XenInstanceSpec{PoolRef: v1alpha1.PoolReference{Name: pool}},
	}}
}

// FromTemplate makes the VM from a template of the pool.
func (b *InstanceBuilder) FromTemplate(nameLabel string) *InstanceBuilder {
	b.instance.Spec.Source.TemplateName = nameLabel
	return b
}

// FromClusterImage makes the VM from a XenClusterImage.
func (b *InstanceBuilder) FromClusterImage(name string) *InstanceBuilder {
	b.instance.Spec.Source.ImageRef = &v1alpha1.ImageReference{Kind: v1alpha1.ImageKindCluster, Name: name}
	return b
}

// Adopting takes a VM that exists.
func (b *InstanceBuilder) Adopting(uuid string) *InstanceBuilder {
	b.instance.Spec.Source.Existing = &v1alpha1.ExistingVM{UUID: uuid}
	return b
}

// Observed writes nothing to the pool.
func (b *InstanceBuilder) Observed() *InstanceBuilder {
	b.instance.Spec.ManagementPolicy = v1alpha1.ManagementObserve
	return b
}

// OfFlavor sizes the VM.
func (b *InstanceBuilder) OfFlavor(name string) *InstanceBuilder {
	b.instance.Spec.FlavorRef = &v1alpha1.FlavorReference{Name: name}
	return b
}

// Powered asks for a power state.
func (b *InstanceBuilder) Powered(state v1alpha1.PowerState) *InstanceBuilder {
	b.instance.Spec.PowerState = state
	return b
}

// RootDisk sizes the root disk.
func (b *InstanceBuilder) RootDisk(size string) *InstanceBuilder {
	quantity := resource.MustParse(size)
	b.instance.Spec.RootDisk = &v1alpha1.RootDisk{Size: &quantity}
	return b
}

// Disk adds an empty data disk on the pool's default storage.
func (b *InstanceBuilder) Disk(name, size string) *InstanceBuilder {
	quantity := resource.MustParse(size)
	b.instance.Spec.Disks = append(b.instance.Spec.Disks, v1alpha1.Disk{Name: name, Size: &quantity})
	return b
}

// Network adds a network interface.
func (b *InstanceBuilder) Network(name, network string) *InstanceBuilder {
	b.instance.Spec.Networks = append(b.instance.Spec.Networks, v1alpha1.NetworkInterface{Name: name, Network: network})
	return b
}

// UserData gives the guest user data from a key of a Secret.
func (b *InstanceBuilder) UserData(secret, key string) *InstanceBuilder {
	b.instance.Spec.Bootstrap = &v1alpha1.Bootstrap{
		UserData: &v1alpha1.DataSource{SecretKeyRef: &v1alpha1.KeySelector{Name: secret, Key: key}},
	}
	return b
}

// DeletedBy says what deleting the object does to the VM.
func (b *InstanceBuilder) DeletedBy(policy v1alpha1.DeletionPolicy) *InstanceBuilder {
	b.instance.Spec.DeletionPolicy = policy
	return b
}

// With changes whatever has no word of its own.
func (b *InstanceBuilder) With(change func(*v1alpha1.XenInstance)) *InstanceBuilder {
	change(b.instance)
	return b
}

// Object is the manifest.
func (b *InstanceBuilder) Object() *v1alpha1.XenInstance { return b.instance.DeepCopy() }
