package v1alpha1

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rescue runs another VM, from a clean image, with the disks of an instance that does not work any more.
type Rescue struct {
	// state is Off or On. On: the instance's own VM is stopped and a rescue VM runs in its place, with its disks attached.
	// Off: the rescue VM is removed and everything is as it was before. Default: Off.
	// +optional
	State RescueState `json:"state,omitempty"`

	// imageRef names the image that the rescue VM boots from; it cannot be the instance's own, whose file systems would be
	// mistaken for those to be repaired. Default: defaults.rescueImage of the XenPool. While the instance is in rescue a
	// change is held for the next time.
	// +optional
	ImageRef *ImageReference `json:"imageRef,omitempty"`

	// credentialsSecretRef names the Secret with the keys password, ssh-authorized-keys (one a line), or both, for the
	// default user of the rescue image. Default: a password is made and kept in the Secret <name>-rescue until the return.
	// +optional
	CredentialsSecretRef *LocalSecretReference `json:"credentialsSecretRef,omitempty"`

	// attachDisks is which of the instance's disks the rescue VM gets: All or Root. The root disk is at device 1, the
	// others follow from 4 on in their order; the config drive is left out. Default: All. While the instance is in rescue a
	// change is held for the next time.
	// +optional
	AttachDisks RescueDisks `json:"attachDisks,omitempty"`

	// networks is Same (the rescue VM has the instance's interfaces, with their MAC addresses, on their networks) or None.
	// Default: Same. While the instance is in rescue a change is held for the next time.
	// +optional
	Networks RescueNetworks `json:"networks,omitempty"`

	// timeoutSeconds is how long the rescue may last, counted from its beginning, 1 to 31536000 (a year); then the instance
	// returns as with Off, and stays out of rescue until this part of the spec changes. Default: without an end.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=31536000
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`
}

// RescueState is whether an instance is to be in rescue.
// +kubebuilder:validation:Enum=Off;On
type RescueState string

const (
	// RescueOff runs the instance's own VM.
	RescueOff RescueState = "Off"
	// RescueOn runs the rescue VM in its place.
	RescueOn RescueState = "On"
)

// RescueDisks is which disks a rescue VM gets.
// +kubebuilder:validation:Enum=All;Root
type RescueDisks string

const (
	// RescueDisksAll attaches every disk of the instance.
	RescueDisksAll RescueDisks = "All"
	// RescueDisksRoot attaches the root disk alone.
	RescueDisksRoot RescueDisks = "Root"
)

// RescueNetworks is which network interfaces a rescue VM has.
// +kubebuilder:validation:Enum=Same;None
type RescueNetworks string

const (
	// RescueNetworksSame gives it those of the instance.
	RescueNetworksSame RescueNetworks = "Same"
	// RescueNetworksNone gives it none.
	RescueNetworksNone RescueNetworks = "None"
)

// RescueStatus is a rescue that is under way.
type RescueStatus struct {
	// since is when the rescue began.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// vmUUID is the uuid of the rescue VM.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VMUUID string `json:"vmUUID,omitempty"`

	// image that the rescue VM was made from.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Image string `json:"image,omitempty"`

	// expiresAt is when the instance returns by itself; absent without timeoutSeconds.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// secretRef names the Secret with the generated password.
	// +optional
	SecretRef *LocalSecretReference `json:"secretRef,omitempty"`

	// shown tells that powerState, hostName and the addresses are those of the rescue VM and not of the instance's own.
	// +optional
	Shown bool `json:"shown,omitempty"`
}

// WantsRescue reports whether the instance is to be in rescue.
func (s *XenInstanceSpec) WantsRescue() bool { return s.Rescue != nil && s.Rescue.State == RescueOn }

// DisksToAttach is which disks the rescue VM gets.
func (r *Rescue) DisksToAttach() RescueDisks {
	return cmp.Or(r.AttachDisks, RescueDisksAll)
}

// DesiredNetworks is which interfaces the rescue VM has.
func (r *Rescue) DesiredNetworks() RescueNetworks {
	return cmp.Or(r.Networks, RescueNetworksSame)
}

// Timeout is how long the rescue may last, 0 without an end.
func (r *Rescue) Timeout() time.Duration {
	return seconds(r.TimeoutSeconds, 0)
}

// GuestUUID is the uuid of the VM that powerState, hostName and consoles mean: the rescue VM while it takes the place of
// the instance's own, else that.
func (i *XenInstance) GuestUUID() string {
	if rescue := i.Status.Rescue; rescue != nil && rescue.Shown {
		return rescue.VMUUID
	}

	return i.Status.UUID
}
