package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Any stands, in a list of a PoolGrant, for everything that the list could name.
const Any = "*"

// XenPoolSpec is how to reach a pool and who may use it for what.
type XenPoolSpec struct {
	// endpoints are https URLs of members of the pool, 1 to 8. The coordinator is followed and other members are
	// learnt, so one is enough; plain http is accepted for a loopback address only.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.all(e, isURL(e) && (url(e).getScheme() == 'https' || (url(e).getScheme() == 'http' && url(e).getHostname() in ['localhost', '127.0.0.1', '::1'])))",message="an endpoint must be an https URL (http for a loopback address only)"
	// +kubebuilder:validation:XValidation:rule="self.all(e, !isURL(e) || (url(e).getHostname() != '' && url(e).getEscapedPath() in ['', '/'] && !e.contains('@') && !e.contains('?') && !e.contains('#')))",message="an endpoint must be a bare host: no user, path, query or fragment"
	Endpoints []string `json:"endpoints"`

	// uuid pins the pool: another pool behind the endpoints is refused. Default: the uuid found first is kept in
	// status.uuid and is the pin from then on.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	UUID string `json:"uuid,omitempty"`

	// credentialsSecretRef names the Secret with the keys username and password. A change of the Secret reconnects at
	// once.
	// +required
	CredentialsSecretRef SecretReference `json:"credentialsSecretRef"`

	// tls is how the pool's certificate is verified. Default: by the certificate authorities of the system.
	// +optional
	TLS *PoolTLS `json:"tls,omitempty"`

	// networks are aliases, so that manifests are portable. Without one a unique name-label serves.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Networks []Alias `json:"networks,omitempty"`

	// storageRepositories are aliases, so that manifests are portable. Without one a unique name-label serves.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	StorageRepositories []Alias `json:"storageRepositories,omitempty"`

	// defaults serve instances that name nothing.
	// +optional
	Defaults *PoolDefaults `json:"defaults,omitempty"`

	// grants say which namespaces may use what. Without a grant that selects its namespace an instance is refused; of
	// several grants that select it each adds what it names.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Grants []PoolGrant `json:"grants,omitempty"`

	// limits protect the pool from the operator.
	// +optional
	Limits *PoolLimits `json:"limits,omitempty"`

	// console is what XenConsoles of instances on this pool may do.
	// +optional
	Console *PoolConsole `json:"console,omitempty"`

	// trash is what becomes of instances that were deleted with deletionPolicy Trash.
	// +optional
	Trash *PoolTrash `json:"trash,omitempty"`

	// orphanPolicy is what becomes of objects on the pool that carry our marks but belong to no object here: Report
	// (listed in status.orphans) or DeleteTemporary (what was temporary is removed after a day; VMs and data disks are
	// reported only). Default: Report.
	// +optional
	// +kubebuilder:default=Report
	OrphanPolicy OrphanPolicy `json:"orphanPolicy,omitempty"`

	// maintenance holds every power, move and delete act on the pool while it is true; observation goes on.
	// +optional
	Maintenance bool `json:"maintenance,omitempty"`

	// takeoverFrom names the installation whose writer mark on the pool this one may replace. Set it to the value that
	// the condition message shows, once the other installation is stopped.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	TakeoverFrom string `json:"takeoverFrom,omitempty"`
}

// PoolTLS is how a pool's certificate is verified; exactly one of its fields is set.
// +kubebuilder:validation:XValidation:rule="[has(self.caBundleSecretRef), has(self.fingerprintsSHA256), has(self.insecureSkipVerify) && self.insecureSkipVerify].exists_one(set, set)",message="exactly one of caBundleSecretRef, fingerprintsSHA256 and insecureSkipVerify: true must be set"
type PoolTLS struct {
	// caBundleSecretRef names the Secret whose key ca.crt holds the PEM certificates that sign the members'
	// certificates. A change of the Secret reconnects at once.
	// +optional
	CABundleSecretRef *SecretReference `json:"caBundleSecretRef,omitempty"`

	// fingerprintsSHA256 are the SHA-256 fingerprints of the members' own certificates, 1 to 64: 64 hexadecimal digits,
	// with or without colons.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=95
	// +kubebuilder:validation:items:Pattern=`^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$`
	FingerprintsSHA256 []string `json:"fingerprintsSHA256,omitempty"`

	// insecureSkipVerify accepts any certificate: whoever sits in between reads the password. For laboratories.
	// +optional
	InsecureSkipVerify bool `json:"insecureSkipVerify,omitempty"`
}

// Alias is a portable name for something on a pool.
type Alias struct {
	// name that manifests use.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`

	// uuid of what is meant on the pool.
	// +required
	// +kubebuilder:validation:MaxLength=36
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`
	UUID string `json:"uuid"`
}

// PoolDefaults serve instances that name nothing.
type PoolDefaults struct {
	// storageRepository for disks that name none: an alias or a unique name-label. Default: the pool's own default SR.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	StorageRepository string `json:"storageRepository,omitempty"`

	// network for interfaces that name none: an alias or a unique name-label. Default: none, an interface must name its
	// network.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	Network string `json:"network,omitempty"`

	// rescueImage is the name of the XenClusterImage that rescue VMs boot from whose instance names no image. Default:
	// none, an instance must name its image.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	RescueImage string `json:"rescueImage,omitempty"`
}

// NamespacesFrom is how a grant selects namespaces.
// +kubebuilder:validation:Enum=All;Selector
type NamespacesFrom string

const (
	// NamespacesFromAll selects every namespace.
	NamespacesFromAll NamespacesFrom = "All"
	// NamespacesFromSelector selects namespaces by their labels.
	NamespacesFromSelector NamespacesFrom = "Selector"
)

// GrantedNamespaces selects the namespaces of a grant.
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector must be set exactly when from is Selector"
type GrantedNamespaces struct {
	// from is All or Selector.
	// +required
	From NamespacesFrom `json:"from"`

	// selector over the namespaces' labels, for from: Selector. The label kubernetes.io/metadata.name selects by name.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// AdoptGrant is which existing VMs a namespace may adopt.
// +kubebuilder:validation:Enum=None;Any
type AdoptGrant string

const (
	// AdoptNone lets a namespace adopt nothing.
	AdoptNone AdoptGrant = "None"
	// AdoptAny lets a namespace adopt every VM that no other object owns.
	AdoptAny AdoptGrant = "Any"
)

// PoolGrant lets some namespaces use some of the pool. What it does not name stays closed.
type PoolGrant struct {
	// namespaces that the grant is for.
	// +required
	Namespaces GrantedNamespaces `json:"namespaces"`

	// networks that instances may use, by alias, name-label or uuid; "*" is all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	Networks []string `json:"networks,omitempty"`

	// storageRepositories that disks and ISOs may be on, by alias, name-label or uuid; "*" is all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	StorageRepositories []string `json:"storageRepositories,omitempty"`

	// templates that instances and images may be made from, by name-label or uuid; "*" is all. Images that the
	// administrator offers (XenClusterImage) need no grant.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=255
	Templates []string `json:"templates,omitempty"`

	// adopt is which existing VMs may be adopted: None or Any. Default: None.
	// +optional
	Adopt AdoptGrant `json:"adopt,omitempty"`

	// rawDisks lets instances and images name disks by uuid. Default: false.
	// +optional
	RawDisks bool `json:"rawDisks,omitempty"`

	// placement lets instances name a host. Default: false.
	// +optional
	Placement bool `json:"placement,omitempty"`

	// quota limits each of the namespaces by itself; of several grants the larger figure counts. An instance takes what it asks for or
	// what its VM has, whichever is more; what the quota refuses takes nothing, and is tried again when there may be room. Default: no limit.
	// +optional
	Quota *PoolQuota `json:"quota,omitempty"`
}

// PoolQuota limits what one namespace takes of the pool. An absent figure is no limit.
type PoolQuota struct {
	// instances at most.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	Instances *int32 `json:"instances,omitempty"`

	// vcpus at most, summed over the instances' flavors (maxVCPUs where it is set).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	VCPUs *int32 `json:"vcpus,omitempty"`

	// memory at most, summed over the instances' flavors (maxMemory where it is set).
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0",message="memory must not be negative"
	Memory *resource.Quantity `json:"memory,omitempty"`

	// storage at most, summed over the instances' disks.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0",message="storage must not be negative"
	Storage *resource.Quantity `json:"storage,omitempty"`
}

// PoolLimits protect a pool from the operator.
type PoolLimits struct {
	// maxConcurrentTasks is how many XenAPI tasks the operator has in flight on the pool, 1 to 256. Default: 20.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	MaxConcurrentTasks *int32 `json:"maxConcurrentTasks,omitempty"`

	// maxTransfersPerHost is how many disks are imported or exported at the same time through one host, 1 to 16. Default: 2.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	MaxTransfersPerHost *int32 `json:"maxTransfersPerHost,omitempty"`
}

// PoolTrash is what becomes of deleted instances.
type PoolTrash struct {
	// retentionSeconds is how long the VM and its disks are kept after deletion, 0 to 31536000 (a year).
	// Default: 86400 (a day). A change counts for what is in the trash already.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	RetentionSeconds *int64 `json:"retentionSeconds,omitempty"`
}

// OrphanPolicy is what becomes of marked objects without an owner.
// +kubebuilder:validation:Enum=Report;DeleteTemporary
type OrphanPolicy string

const (
	// OrphanReport lists orphans in status and touches none.
	OrphanReport OrphanPolicy = "Report"
	// OrphanDeleteTemporary removes orphans of temporary roles by age; all others are listed.
	OrphanDeleteTemporary OrphanPolicy = "DeleteTemporary"
)

// XenPool is a XenServer or XCP-ng pool where VMs live.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xpool,categories=xen
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Hosts",type=string,JSONPath=`.status.hostSummary`
// +kubebuilder:printcolumn:name="Instances",type=integer,JSONPath=`.status.instances`
// +kubebuilder:printcolumn:name="Endpoint",type=string,priority=1,JSONPath=`.status.coordinator`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is how to reach the pool and who may use it for what.
	// +required
	Spec XenPoolSpec `json:"spec"`

	// status is what the operator sees of it.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenPoolStatus `json:"status,omitempty"`
}

// XenPoolList is a list of pools.
// +kubebuilder:object:root=true
type XenPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenPool `json:"items"`
}
