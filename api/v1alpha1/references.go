package v1alpha1

// PoolReference names a XenPool.
type PoolReference struct {
	// name of the XenPool.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// FlavorReference names a XenFlavor.
type FlavorReference struct {
	// name of the XenFlavor.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// ImageKind is the kind that an ImageReference names.
// +kubebuilder:validation:Enum=XenImage;XenClusterImage
type ImageKind string

const (
	// ImageKindNamespaced is an image of the instance's own namespace.
	ImageKindNamespaced ImageKind = "XenImage"
	// ImageKindCluster is an image that the administrator offers to every namespace.
	ImageKindCluster ImageKind = "XenClusterImage"
)

// ImageReference names a XenImage of the same namespace or a XenClusterImage.
type ImageReference struct {
	// kind of the image: XenImage (of the same namespace) or XenClusterImage.
	// +required
	Kind ImageKind `json:"kind"`

	// name of the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// SecretReference names a Secret in any namespace. Only cluster-scoped kinds, which administrators write, have one.
type SecretReference struct {
	// namespace of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// LocalSecretReference names a Secret in the namespace of the object that holds the reference.
type LocalSecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// KeySelector names one key of a Secret or ConfigMap in the namespace of the object that holds the reference.
type KeySelector struct {
	// name of the Secret or ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// key in its data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key"`
}
