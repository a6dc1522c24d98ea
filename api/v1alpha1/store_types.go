package v1alpha1

// What stands here says where images and uploaded snapshots live outside of the pool: S3, Glance, HTTP.
//
// Secrets and snapshots that these types name are in the namespace of the object that names them; those of a
// XenClusterImage are in the operator's own namespace, which administrators write to.

// S3Object is an object in an S3-compatible store.
type S3Object struct {
	S3Bucket `json:",inline"`

	// key of the object in the bucket.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Key string `json:"key"`
}

// S3Bucket is a bucket of an S3-compatible store.
type S3Bucket struct {
	// endpoint is the URL of the store, https://s3.eu-central-1.amazonaws.com for instance; plain http is accepted for addresses
	// that the administrator opened (--allow-private-endpoints).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != '' && url(self).getEscapedPath() in ['', '/'] && !self.contains('@') && !self.contains('?') && !self.contains('#')",message="an S3 endpoint must be an http or https URL of a bare host: no user, path, query or fragment"
	Endpoint string `json:"endpoint"`

	// bucket that is used; it is never made.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][-_.A-Za-z0-9]{2,62}$`
	Bucket string `json:"bucket"`

	// region of the bucket. Default: us-east-1, which stores without regions take.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Region string `json:"region,omitempty"`

	// credentialsSecretRef names the Secret with the keys accessKeyID and secretAccessKey, sessionToken where the store gave one,
	// and ca.crt (PEM) where the store's certificate is not signed by a public authority. Default: requests are not signed.
	// +optional
	CredentialsSecretRef *LocalSecretReference `json:"credentialsSecretRef,omitempty"`
}

// GlanceService is an OpenStack image service.
// +kubebuilder:validation:XValidation:rule="has(self.endpoint) || has(self.authSecretRef)",message="glance needs endpoint or authSecretRef: the address of the image service, or a cloud that knows it"
type GlanceService struct {
	// endpoint is the URL of the image service, without /v2. Default: the one in the catalog of the cloud that authSecretRef
	// names.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != '' && !self.contains('@') && !self.contains('?') && !self.contains('#')",message="a glance endpoint must be an http or https URL: no user, query or fragment"
	Endpoint string `json:"endpoint,omitempty"`

	// authSecretRef names the Secret with the key clouds.yaml, as OpenStack's own clients read it, with one cloud or the one that
	// the key cloud names (a password or an application credential, identity v3); and ca.crt (PEM) where certificates are not
	// signed by a public authority. Default: requests carry no token.
	// +optional
	AuthSecretRef *LocalSecretReference `json:"authSecretRef,omitempty"`
}

// GlanceImage is an image in an OpenStack image service.
type GlanceImage struct {
	GlanceService `json:",inline"`

	// imageID of the image.
	// +required
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	ImageID string `json:"imageID"`
}

// HTTPObject is a file on a web server.
type HTTPObject struct {
	// url of the file; redirects are followed. Plain http is accepted for addresses that the administrator opened
	// (--allow-private-endpoints).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['https', 'http'] && url(self).getHostname() != '' && !self.matches('^[^/]*//[^/?#]*@')",message="url must be an http or https URL without a user: credentials belong in a Secret"
	URL string `json:"url"`

	// credentialsSecretRef names the Secret with the keys username and password (Basic), or token (Bearer), and ca.crt (PEM) where
	// the server's certificate is not signed by a public authority. Credentials go to the host of url alone. Default: none.
	// +optional
	CredentialsSecretRef *LocalSecretReference `json:"credentialsSecretRef,omitempty"`
}

// ChecksumAlgorithm is how a checksum is computed.
// +kubebuilder:validation:Enum=SHA256;SHA512
type ChecksumAlgorithm string

const (
	// ChecksumSHA256 is SHA-256: 64 hexadecimal digits.
	ChecksumSHA256 ChecksumAlgorithm = "SHA256"
	// ChecksumSHA512 is SHA-512: 128 hexadecimal digits.
	ChecksumSHA512 ChecksumAlgorithm = "SHA512"
)

// Checksum is the digest of a file's bytes.
// +kubebuilder:validation:XValidation:rule="self.value.size() == (self.algorithm == 'SHA256' ? 64 : 128)",message="a SHA256 checksum has 64 hexadecimal digits, a SHA512 checksum 128"
type Checksum struct {
	// algorithm is SHA256 or SHA512.
	// +required
	Algorithm ChecksumAlgorithm `json:"algorithm"`

	// value in lower-case hexadecimal digits, as sha256sum and sha512sum print it.
	// +required
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[0-9a-f]+$`
	Value string `json:"value"`
}

// DiskFormat is how a disk, or a whole VM, is laid out in a file. Each field of the type says which ones it takes.
type DiskFormat string

const (
	// DiskFormatVHD is one VHD file a disk.
	DiskFormatVHD DiskFormat = "VHD"
	// DiskFormatQCOW2 is one QCOW2 file a disk.
	DiskFormatQCOW2 DiskFormat = "QCOW2"
	// DiskFormatRaw is the bytes of the disk as they are.
	DiskFormatRaw DiskFormat = "Raw"
	// DiskFormatXVA is one archive of the VM with all its disks, as XenServer's own export writes it.
	DiskFormatXVA DiskFormat = "XVA"
	// DiskFormatNovaTarball is a gzipped tar archive with 0.vhd in it, which OpenStack's XenServer driver boots.
	DiskFormatNovaTarball DiskFormat = "NovaTarball"
)

// Compression is how a file is compressed.
// +kubebuilder:validation:Enum=None;Zstd;Gzip
type Compression string

const (
	// CompressionNone leaves it as it is.
	CompressionNone Compression = "None"
	// CompressionZstd is Zstandard.
	CompressionZstd Compression = "Zstd"
	// CompressionGzip is gzip.
	CompressionGzip Compression = "Gzip"
)

// SnapshotReference names a XenSnapshot of the same namespace (of the operator's own for a XenClusterImage).
type SnapshotReference struct {
	// name of the XenSnapshot.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}
