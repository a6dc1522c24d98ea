package v1alpha1

// BackupSource names the manifest.json of an uploaded snapshot; its files lie beside it. Exactly one of s3 and http is set.
// +kubebuilder:validation:XValidation:rule="has(self.s3) != has(self.http)",message="exactly one of s3 and http must be set"
type BackupSource struct {
	// s3 is the manifest in an S3-compatible store; key ends in manifest.json.
	// +optional
	S3 *S3Object `json:"s3,omitempty"`

	// http is the manifest on a web server; its files have the same URL but for the last part.
	// +optional
	HTTP *HTTPObject `json:"http,omitempty"`

	// manifestSHA256 is the digest of the manifest, as status.upload.sha256 of the XenSnapshot said; the manifest holds the
	// digests of the files. Default: the manifest is taken as it is found.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	ManifestSHA256 string `json:"manifestSHA256,omitempty"`
}
