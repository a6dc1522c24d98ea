package instance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// markRescueTimedOut stands on a VM whose rescue has timed out and says what was asked for then; the same is not asked for
// again.
const markRescueTimedOut = "kubexen.io/rescue-timed-out"

// rescueOperation is how the journal names what it is of.
const rescueOperation = "Rescue"

// rescueJournal is what the return from a rescue needs to know. It stands on the instance's own VM, so that it is there
// when everything else is lost.
type rescueJournal struct {
	Format    int    `json:"format"`
	Operation string `json:"operation"`
	// VM is the uuid of the VM that it was written for: a clone of it has a copy.
	VM    string    `json:"vm"`
	Since time.Time `json:"since"`
	// Power is the power state to go back to.
	Power v1alpha1.PowerState `json:"power"`
	// Image and Template are what the rescue VM is made from, by name and uuid.
	Image    string                  `json:"image"`
	Template string                  `json:"template"`
	Disks    v1alpha1.RescueDisks    `json:"disks"`
	Networks v1alpha1.RescueNetworks `json:"networks"`
	// Generated says that the password is ours, in a Secret of ours.
	Generated bool `json:"generated"`
}

// journalFormat is the format that we write.
const journalFormat = 1

// newRescueJournal is what there is to remember when a rescue begins.
func newRescueJournal(f *Facts, now time.Time) rescueJournal {
	want := &f.Want.Rescue
	return rescueJournal{
		Format: journalFormat, Operation: rescueOperation, VM: f.VM.UUID, Since: now.UTC().Truncate(time.Second), Power: f.VM.Power,
		Image: want.Image, Template: want.Template.UUID, Disks: want.Disks, Networks: want.Networks, Generated: want.Generated,
	}
}

// String is the journal as the mark holds it.
func (j rescueJournal) String() string {
	text, err := json.Marshal(j)
	if err != nil {
		return "" // a struct of texts always marshals
	}
	return string(text)
}

// journal is the rescue that the VM remembers, nil for none.
func (f *Facts) journal() *rescueJournal {
	if f.VM == nil {
		return nil
	}
	return readRescueJournal(f.VM.OtherConfig, f.VM.UUID)
}

func readRescueJournal(otherConfig map[string]string, uuid string) *rescueJournal {
	var j rescueJournal
	text := otherConfig[xencache.MarkJournal]
	if text == "" || json.Unmarshal([]byte(text), &j) != nil || j.Operation != rescueOperation || j.VM != uuid {
		return nil
	}
	return &j
}

// laterJournal says that the VM's journal was written by a later version of the operator, which knows more of what is to be
// restored; "" if it was not.
func (f *Facts) laterJournal() string {
	if j := f.journal(); j != nil && j.Format > journalFormat {
		return fmt.Sprintf("the journal of the rescue on VM %s has format %d, and this version of the operator knows %d; run the one that began the rescue",
			j.VM, j.Format, journalFormat)
	}
	return ""
}

// rescueToken is what the spec says of the rescue, in short.
func rescueToken(rescue *v1alpha1.Rescue) string {
	text, err := json.Marshal(rescue)
	if err != nil {
		return "" // texts and numbers always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// rescueExpiry is when the rescue ends by itself; ok is false if it does not.
func (f *Facts) rescueExpiry() (at time.Time, ok bool) {
	j := f.journal()
	if j == nil || f.Want.Rescue.Timeout == 0 {
		return time.Time{}, false
	}
	return j.Since.Add(f.Want.Rescue.Timeout), true
}

// rescueTimedOut reports whether what is asked for has timed out before.
func (f *Facts) rescueTimedOut() bool {
	return f.VM != nil && f.Want.Rescue.On && f.VM.OtherConfig[markRescueTimedOut] == f.Want.Rescue.Token
}

// rescueWanted reports whether the instance is to be in rescue now.
func (f *Facts) rescueWanted(now time.Time) bool {
	if !f.Want.Rescue.On || f.rescueTimedOut() {
		return false
	}
	at, ends := f.rescueExpiry()
	return !ends || now.Before(at)
}

// rescueUnderWay reports whether anything of a rescue is there: what is remembered of it, its VM, or that VM's disks.
func (f *Facts) rescueUnderWay() bool {
	return f.journal() != nil || f.Rescue != nil || len(f.RescueTwins) > 0 || len(rescueLeftovers(f)) > 0
}

// rescueName is the name of the rescue VM.
func (f *Facts) rescueName() string {
	if f.VM != nil {
		return f.VM.Name + "-rescue"
	}
	return fmt.Sprintf("%s/%s-rescue", f.Me.Key.Namespace, f.Me.Key.Name)
}

// BeginsRescue reports whether a rescue is about to begin, so that what it needs from outside the pool can be looked at.
func (f *Facts) BeginsRescue(now time.Time) bool {
	return f.VM != nil && !f.Me.Deleting && f.rescueWanted(now) && !f.rescueUnderWay()
}
