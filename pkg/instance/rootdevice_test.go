package instance

import (
	"reflect"
	"testing"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// TestDeviceSettings: what others have set on the root disk's block device is the same on the one that is made anew. One that is
// as we make it leaves no mark.
func TestDeviceSettings(t *testing.T) {
	asMade := func() xenapi.VBD {
		return xenapi.VBD{Bootable: true, Mode: xenapi.VBDModeRW, Unpluggable: true, OtherConfig: map[string]string{"kubexen.io/role": "root-disk"}}
	}
	tests := map[string]struct {
		change func(*xenapi.VBD)
		marked bool
	}{
		"as we make it": {func(*xenapi.VBD) {}, false},
		"a priority": {func(r *xenapi.VBD) {
			r.QoSAlgorithmType, r.QoSAlgorithmParams = "ionice", map[string]string{"sched": "rt"}
		}, true},
		"an entry":            {func(r *xenapi.VBD) { r.OtherConfig["owner"] = "" }, true},
		"read only":           {func(r *xenapi.VBD) { r.Mode = xenapi.VBDModeRO }, true},
		"not booted from":     {func(r *xenapi.VBD) { r.Bootable = false }, true},
		"not to be unplugged": {func(r *xenapi.VBD) { r.Unpluggable = false }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			record := asMade()
			test.change(&record)
			text := (&Disk{Record: &record}).settings().String()
			if (text != "") != test.marked {
				t.Fatalf("the mark is %q", text)
			}
			got := asMade()
			settingsFor(&VDI{OtherConfig: map[string]string{markDevice: text}}).apply(&got)
			got.Extra = nil
			if !reflect.DeepEqual(got, record) {
				t.Errorf("it was %+v, is %+v", record, got)
			}
		})
	}
}
