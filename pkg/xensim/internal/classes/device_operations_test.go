package classes

import (
	"strings"
	"testing"
)

func runningVM(guest guestFacts) deviceVMFacts {
	return deviceVMFacts{ref: "OpaqueRef:vm", powerState: powerRunning, hvm: true, guest: guest, driversDetected: guest.hasPVDrivers}
}

func TestAllowedVBDOperations(t *testing.T) {
	disk := vbdFacts{vbdType: "Disk", unpluggable: true, writes: true, vdi: vdiOfVBDFacts{managed: true}}
	with := func(change func(*vbdFacts)) vbdFacts {
		vbd := disk
		change(&vbd)
		return vbd
	}
	drivers, halted := guestFacts{hasPVDrivers: true}, deviceVMFacts{powerState: powerHalted, hvm: true}
	for name, test := range map[string]struct {
		vbd  vbdFacts
		want string
	}{
		"disk of a halted VM, recording 0218": {with(func(v *vbdFacts) { v.vm = halted }), "attach"},
		"plugged, recording 0277": {with(func(v *vbdFacts) { v.vm, v.attached = runningVM(drivers), true }),
			"attach unpause unplug unplug_force pause"},
		"not plugged, recording 0322": {with(func(v *vbdFacts) { v.vm = runningVM(drivers) }), "attach unpause plug pause"},
		"plugged, no drivers, recording 0386": {with(func(v *vbdFacts) { v.vm, v.attached = runningVM(guestFacts{}), true }),
			"attach unpause pause"},
		"empty CD of a running VM, recording 0278": {with(func(v *vbdFacts) {
			v.vm, v.attached, v.vbdType, v.empty, v.writes = runningVM(drivers), true, "CD", true, false
		}), "attach unpause insert pause"},
		"CD with a disc in a running VM": {with(func(v *vbdFacts) {
			v.vm, v.attached, v.vbdType, v.writes = runningVM(drivers), true, "CD", false
		}), "attach unpause eject pause"},
		"CD with a disc in a suspended VM": {with(func(v *vbdFacts) {
			v.vm, v.attached, v.vbdType, v.writes = deviceVMFacts{powerState: powerSuspended, hvm: true}, true, "CD", false
		}), "attach"},
		"may not be unplugged": {with(func(v *vbdFacts) { v.vm, v.attached, v.unpluggable = runningVM(drivers), true, false }),
			"attach unpause pause"},
		"being plugged": {with(func(v *vbdFacts) { v.vm, v.currentOperations = runningVM(drivers), []string{"plug"} }), ""},
		"its VM starts": {with(func(v *vbdFacts) { v.vm, v.currentOperations = halted, []string{"attach"} }), ""},
		"the guest refuses hot-plug": {with(func(v *vbdFacts) {
			v.vm, v.attached = runningVM(drivers), true
			v.vm.hotplug = "no"
		}), "attach unpause pause"},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(vbdRefusals(test.vbd, false).allowed(vbdOperations), " ")
			if got != test.want {
				t.Errorf("allowed operations\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestVBDRefusals(t *testing.T) {
	drivers := guestFacts{hasPVDrivers: true}
	for name, test := range map[string]struct {
		vbd       vbdFacts
		operation string
		want      string
	}{
		"a disk open elsewhere for writing": {
			vbdFacts{vm: deviceVMFacts{powerState: powerHalted}, vbdType: "Disk", writes: true,
				vdi: vdiOfVBDFacts{managed: true, otherUsers: 1, otherWriters: true}}, "attach", "VDI_IN_USE",
		},
		"a reader beside readers": {
			vbdFacts{vm: deviceVMFacts{powerState: powerHalted}, vbdType: "Disk", vdi: vdiOfVBDFacts{managed: true, otherUsers: 1}},
			"attach", "",
		},
		"a writer beside readers": {
			vbdFacts{vm: deviceVMFacts{powerState: powerHalted}, vbdType: "Disk", writes: true,
				vdi: vdiOfVBDFacts{managed: true, otherUsers: 1}}, "attach", "VDI_IN_USE",
		},
		"a shared disk": {
			vbdFacts{vm: deviceVMFacts{powerState: powerHalted}, vbdType: "Disk", writes: true,
				vdi: vdiOfVBDFacts{managed: true, sharable: true, otherUsers: 1, otherWriters: true}}, "attach", "",
		},
		"a read-only disk": {
			vbdFacts{vm: deviceVMFacts{powerState: powerHalted}, vbdType: "Disk", writes: true,
				vdi: vdiOfVBDFacts{managed: true, readOnly: true}}, "attach", "VDI_READONLY",
		},
		"a guest without drivers": {
			vbdFacts{vm: runningVM(guestFacts{}), vbdType: "Disk", unpluggable: true, vdi: vdiOfVBDFacts{managed: true}},
			"plug", "VM_MISSING_PV_DRIVERS",
		},
		"a CD is not unplugged": {
			vbdFacts{vm: runningVM(drivers), vbdType: "CD", unpluggable: true, attached: true, empty: true},
			"unplug", "OPERATION_NOT_ALLOWED",
		},
		"a CD is plugged already": {
			vbdFacts{vm: runningVM(drivers), vbdType: "CD", unpluggable: true, attached: true, empty: true},
			"plug", "DEVICE_ALREADY_ATTACHED",
		},
		"a halted VM": {
			vbdFacts{vm: deviceVMFacts{powerState: powerHalted}, vbdType: "Disk", unpluggable: true, vdi: vdiOfVBDFacts{managed: true}},
			"plug", "VM_BAD_POWER_STATE",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := vbdRefusals(test.vbd, true)[test.operation]; got.code != test.want {
				t.Errorf("%s: %q %v, want %q", test.operation, got.code, got.params, test.want)
			}
		})
	}
}

func TestAllowedVIFOperations(t *testing.T) {
	drivers := guestFacts{hasPVDrivers: true}
	for name, test := range map[string]struct {
		vif  vifFacts
		want string
	}{
		"halted, recording 0172":   {vifFacts{vm: deviceVMFacts{powerState: powerHalted, hvm: true}}, "attach"},
		"plugged, recording 0276":  {vifFacts{vm: runningVM(drivers), attached: true}, "attach unplug"},
		"not plugged":              {vifFacts{vm: runningVM(drivers)}, "attach plug"},
		"plugged, no drivers":      {vifFacts{vm: runningVM(guestFacts{}), attached: true}, "attach"},
		"plugged into a PV domain": {vifFacts{vm: deviceVMFacts{powerState: powerRunning}, attached: true}, "attach unplug"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(vifRefusals(test.vif).allowed(vifOperations), " "); got != test.want {
				t.Errorf("allowed operations\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestDeviceNames(t *testing.T) {
	for number, device := range map[int]string{0: "xvda", 7: "xvdh", 25: "xvdz", 26: "xvdaa", 254: "xvdiu"} {
		if got := linuxDevice(number); got != device {
			t.Errorf("linuxDevice(%d) = %s, want %s", number, got, device)
		}
		if got, ok := diskNumber(device); !ok || got != number {
			t.Errorf("diskNumber(%s) = %d %v, want %d", device, got, ok, number)
		}
	}
	for name, valid := range map[string]bool{
		"0": true, "999": true, "autodetect": true, "xvdp": true, "xvdz": false, "hda": true, "sdb3": true, "eth0": false, "": false,
	} {
		if got := validUserdevice(name, "Disk"); got != valid {
			t.Errorf("validUserdevice(%q) = %v, want %v", name, got, valid)
		}
	}
}
