package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AnnotationURLIssued says that a XenConsole has had its URL. The operator writes it once a URL is issued; it travels with backups of
// the object, so that one that is restored without its status does not open a way in that nobody asked for. Its value is the
// renewToken that the URL was issued for.
const AnnotationURLIssued = "kubexen.io/url-issued"

// Defaults of a XenConsole that a XenPool may cap.
const (
	DefaultConsoleTTLSeconds        = 600
	DefaultConsoleMaxSessionSeconds = 3600
)

// ConsoleType is what of the guest is shown.
// +kubebuilder:validation:Enum=Graphical;Text
type ConsoleType string

const (
	// ConsoleGraphical is the screen.
	ConsoleGraphical ConsoleType = "Graphical"
	// ConsoleText is the serial line.
	ConsoleText ConsoleType = "Text"
)

// ConsoleClient is who opens the URL.
// +kubebuilder:validation:Enum=Browser;XVP;VNC
type ConsoleClient string

const (
	// ConsoleClientBrowser is a web browser: the URL is a page.
	ConsoleClientBrowser ConsoleClient = "Browser"
	// ConsoleClientXVP is a viewer that sends CONNECT or GET with the token in the query and then speaks RFB.
	ConsoleClientXVP ConsoleClient = "XVP"
	// ConsoleClientVNC is any VNC viewer, by way of kubectl xen vnc.
	ConsoleClientVNC ConsoleClient = "VNC"
)

// ConsoleMode is what may be done.
// +kubebuilder:validation:Enum=Interactive;ViewOnly
type ConsoleMode string

const (
	// ConsoleInteractive consoles carry keys and pointer to the guest.
	ConsoleInteractive ConsoleMode = "Interactive"
	// ConsoleViewOnly consoles carry nothing to the guest.
	ConsoleViewOnly ConsoleMode = "ViewOnly"
)

// ConsoleAccess is where the token is found.
// +kubebuilder:validation:Enum=URLToken;SecretToken;EncryptedToken
type ConsoleAccess string

const (
	// AccessURLToken has it in status.url: who reads the object may look.
	AccessURLToken ConsoleAccess = "URLToken"
	// AccessSecretToken has it in a Secret that the console owns: who reads that Secret may look.
	AccessSecretToken ConsoleAccess = "SecretToken"
	// AccessEncryptedToken has it in status.encryptedToken, for the holder of a private key alone.
	AccessEncryptedToken ConsoleAccess = "EncryptedToken"
)

// ConsoleRenewal is what happens when a URL ends.
// +kubebuilder:validation:Enum=Never;WhileRequested
type ConsoleRenewal string

const (
	// RenewalNever leaves the console without a URL; a new renewToken issues one.
	RenewalNever ConsoleRenewal = "Never"
	// RenewalWhileRequested issues a new one as long as the object is there and the guest runs.
	RenewalWhileRequested ConsoleRenewal = "WhileRequested"
)

// InstanceReference names a XenInstance of the same namespace.
type InstanceReference struct {
	// name of the XenInstance.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
}

// XenConsoleSpec asks for a way in.
// +kubebuilder:validation:XValidation:rule="self.instanceRef == oldSelf.instanceRef",message="instanceRef is immutable: make another XenConsole"
// +kubebuilder:validation:XValidation:rule="(self.access == 'EncryptedToken') == has(self.publicKey)",message="publicKey must be set exactly when access is EncryptedToken"
// +kubebuilder:validation:XValidation:rule="self.type != 'Text' || self.client == 'Browser'",message="a Text console is for client Browser: XVP and VNC viewers show screens"
type XenConsoleSpec struct {
	// instanceRef names the XenInstance to show. It is immutable.
	// +required
	InstanceRef InstanceReference `json:"instanceRef"`

	// type is Graphical (the screen) or Text (the serial line). Default: Graphical.
	// +optional
	// +kubebuilder:default=Graphical
	Type ConsoleType `json:"type,omitempty"`

	// client is who opens the URL: Browser, XVP (a viewer that sends CONNECT or GET, then RFB) or VNC (any viewer, by kubectl xen
	// vnc). Default: Browser.
	// +optional
	// +kubebuilder:default=Browser
	Client ConsoleClient `json:"client,omitempty"`

	// mode is Interactive or ViewOnly (no key, pointer or clipboard reaches the guest). Default: Interactive.
	// +optional
	// +kubebuilder:default=Interactive
	Mode ConsoleMode `json:"mode,omitempty"`

	// access is where the token is: URLToken (in status.url), SecretToken (in a Secret that the console owns) or EncryptedToken (in
	// status.encryptedToken, for publicKey). The pool may forbid some. Default: URLToken.
	// +optional
	// +kubebuilder:default=URLToken
	Access ConsoleAccess `json:"access,omitempty"`

	// publicKey is an RSA public key in PEM (PKIX "PUBLIC KEY" or PKCS#1 "RSA PUBLIC KEY", 2048 to 8192 bits) for access
	// EncryptedToken.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	PublicKey string `json:"publicKey,omitempty"`

	// ttlSeconds is the time to connect, 30 to 86400. A session that is open outlives it. The pool may cap it. Default: 600.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=86400
	TTLSeconds int32 `json:"ttlSeconds,omitempty"`

	// maxSessionSeconds is the longest that a session may last, 30 to 86400. The pool may cap it. Default: 3600.
	// +optional
	// +kubebuilder:default=3600
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=86400
	MaxSessionSeconds int32 `json:"maxSessionSeconds,omitempty"`

	// maxSessions is how many may be open at once, 1 to 100. Default: 10.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxSessions int32 `json:"maxSessions,omitempty"`

	// notAfter ends everything: no URL is issued after it, and sessions that live then are cut. Default: never.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`

	// renewal is what happens when the URL expires or the guest was stopped: Never, or WhileRequested (a new URL as long as the
	// object is there and the guest runs; for consoles kept in Git). Default: Never.
	// +optional
	// +kubebuilder:default=Never
	Renewal ConsoleRenewal `json:"renewal,omitempty"`

	// renewToken is free text; a new value issues a new URL, and the old one ends with its sessions.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	RenewToken string `json:"renewToken,omitempty"`

	// deleteAfterExpirySeconds deletes the object that long after its URL has ended, 0 to 604800. Not for objects kept in Git.
	// Default: it stays.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=604800
	DeleteAfterExpirySeconds *int32 `json:"deleteAfterExpirySeconds,omitempty"`
}

// PoolConsole is what XenConsoles of a pool's instances may do.
type PoolConsole struct {
	// maxTTLSeconds caps spec.ttlSeconds of XenConsoles, 30 to 86400. Default: no cap.
	// +optional
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=86400
	MaxTTLSeconds *int32 `json:"maxTTLSeconds,omitempty"`

	// maxSessionSeconds caps spec.maxSessionSeconds of XenConsoles, 30 to 86400. Default: no cap.
	// +optional
	// +kubebuilder:validation:Minimum=30
	// +kubebuilder:validation:Maximum=86400
	MaxSessionSeconds *int32 `json:"maxSessionSeconds,omitempty"`

	// allowedAccess names what spec.access of XenConsoles may be. Default: all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=3
	AllowedAccess []ConsoleAccess `json:"allowedAccess,omitempty"`

	// credentialsSecretRef names the Secret with the username and password with which console gateways open consoles: the role
	// vm-operator is enough for them. Default: the pool's own credentials.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`
}

// ConsoleSessions is what one gateway holds open.
type ConsoleSessions struct {
	// gateway is the name of the gateway's pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Gateway string `json:"gateway"`

	// open is how many sessions it holds.
	// +required
	Open int32 `json:"open"`

	// lastConnectedAt is when the last of them began.
	// +optional
	LastConnectedAt *metav1.Time `json:"lastConnectedAt,omitempty"`

	// busyAt is when the pool last refused this gateway because somebody else looked at the console and it lets one session at a time.
	// +optional
	BusyAt *metav1.Time `json:"busyAt,omitempty"`

	// renewedAt is when the gateway last said so; what a gateway that died said is not counted for long.
	// +required
	RenewedAt metav1.Time `json:"renewedAt"`
}

// XenConsoleStatus is the way in.
type XenConsoleStatus struct {
	CommonStatus `json:",inline"`

	// url to open. With access URLToken it holds the token; it is empty while there is none to give.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	URL string `json:"url,omitempty"`

	// encryptedToken is the token, by RSA-OAEP with SHA-256 and an empty label for spec.publicKey, in base64.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	EncryptedToken string `json:"encryptedToken,omitempty"`

	// tokenSHA256 is the digest by which gateways know the token, 64 hexadecimal digits.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TokenSHA256 string `json:"tokenSHA256,omitempty"`

	// publicKeySHA256 is the digest of the publicKey that encryptedToken is for; for another key a new URL is issued.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	PublicKeySHA256 string `json:"publicKeySHA256,omitempty"`

	// series names the sessions that may live: it is the digest of the first of several URLs that followed each other because the time
	// to connect was over. Sessions outlive that time; whatever else ends a URL ends its series, and gateways cut its sessions.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Series string `json:"series,omitempty"`

	// vmUUID is the VM that the URL was issued for. It opens no other: not the VM of a rescue, and not the own VM after it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	VMUUID string `json:"vmUUID,omitempty"`

	// secretRef names the Secret that holds the token (keys token and url), with access SecretToken.
	// +optional
	SecretRef *LocalSecretReference `json:"secretRef,omitempty"`

	// issuedAt is when the URL was issued.
	// +optional
	IssuedAt *metav1.Time `json:"issuedAt,omitempty"`

	// expiresAt is the end of the time to connect, in RFC 3339. It is text, not a time, because kubectl shows a time of the future as
	// invalid.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	ExpiresAt string `json:"expiresAt,omitempty"`

	// maxSessionSeconds that applies, after the pool's cap.
	// +optional
	MaxSessionSeconds int32 `json:"maxSessionSeconds,omitempty"`

	// renewToken that the URL was issued for.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	RenewToken string `json:"renewToken,omitempty"`

	// activeSessions are open now, over all gateways.
	// +optional
	ActiveSessions int32 `json:"activeSessions,omitempty"`

	// lastConnectedAt is when the last session began.
	// +optional
	LastConnectedAt *metav1.Time `json:"lastConnectedAt,omitempty"`

	// sessions by gateway; each gateway writes its own entry.
	// +optional
	// +listType=map
	// +listMapKey=gateway
	// +kubebuilder:validation:MaxItems=64
	Sessions []ConsoleSessions `json:"sessions,omitempty"`
}

// ConsoleSessionsCountFor is how long a gateway's word about its sessions is believed; living gateways repeat it well before.
const ConsoleSessionsCountFor = 3 * time.Minute

// ConsoleBusyFor is how long a pool's refusal is worth telling.
const ConsoleBusyFor = time.Minute

// ConsoleTokenDigest is the form in which a console's token is stored and compared: the hex SHA-256.
func ConsoleTokenDigest(token string) string {
	sum := sha256.Sum256([]byte(token))

	return hex.EncodeToString(sum[:])
}

// OpenSessions sums up what gateways other than the named one ("" for all) said lately.
func (s *XenConsoleStatus) OpenSessions(except string, now time.Time) int32 {
	var open int32
	for _, entry := range s.Sessions {
		if entry.Gateway != except && now.Sub(entry.RenewedAt.Time) <= ConsoleSessionsCountFor {
			open += entry.Open
		}
	}

	return open
}

// LastBusy is when a pool last refused a session because somebody else looked; zero if none did lately.
func (s *XenConsoleStatus) LastBusy(now time.Time) time.Time {
	var last time.Time
	for _, entry := range s.Sessions {
		if entry.BusyAt != nil && entry.BusyAt.After(last) && now.Sub(entry.BusyAt.Time) < ConsoleBusyFor {
			last = entry.BusyAt.Time
		}
	}

	return last
}

// OmitForeignStatus takes out of the status what gateways write, so that the manager neither compares nor writes it.
func (c *XenConsole) OmitForeignStatus() { c.Status.Sessions = nil }

// GetCommonStatus returns the part of the status that every kind has.
func (c *XenConsole) GetCommonStatus() *CommonStatus { return &c.Status.CommonStatus }

// ConditionTypes are the conditions that a XenConsole always has.
func (*XenConsole) ConditionTypes() []string {
	return []string{
		ConditionReady, ConditionReconciling, ConditionStalled, ConditionPaused,
		ConditionURLIssued, ConditionExpired,
	}
}

// XenConsole is a way to a guest's console, for a while.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=xcon,categories=xen
// +kubebuilder:printcolumn:name="Instance",type=string,JSONPath=`.spec.instanceRef.name`
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.url`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type XenConsole struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec asks for a way in.
	// +required
	Spec XenConsoleSpec `json:"spec"`

	// status is the way in.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status XenConsoleStatus `json:"status,omitempty"`
}

// XenConsoleList is a list of consoles.
// +kubebuilder:object:root=true
type XenConsoleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XenConsole `json:"items"`
}
