package controllers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// brokenVM is a VM of somebody, with a number of disks of 64 MiB, and everything set that a return must not lose.
func brokenVM(t *testing.T, w *testkit.World, firmware string, disks int) (uuid string) {
	t.Helper()
	ref, uuid := existingVM(t, w, "broken")
	err := w.Simulator.Update("VM", ref, map[string]any{
		"HVM_boot_policy": "BIOS order", "HVM_boot_params": map[string]string{"order": "dcn", "firmware": firmware},
		"NVRAM": map[string]string{"EFI-variables": "AAAA"}, "tags": []string{"production"}, "name_description": "the web server",
		"blocked_operations": map[string]string{"start_on": "by hand", "pool_migrate": "it has a card"}, "order": int64(3), "start_delay": int64(5),
		"ha_restart_priority": "best-effort", "platform": map[string]string{"vga": "std", "videoram": "8", "nx": "true"},
		"VCPUs_params": map[string]string{"weight": "512", "cap": "150", "mask": "0,1"}, "VCPUs_max": int64(4), "VCPUs_at_startup": int64(2),
		"memory_static_max": int64(2 << 30), "memory_dynamic_max": int64(3 << 29), "memory_dynamic_min": int64(1 << 30), "memory_static_min": int64(1 << 29),
		"domain_type": "hvm", "HVM_shadow_multiplier": 1.5, "xenstore_data": map[string]string{"vm-data/role": "web"}, "shutdown_delay": int64(7),
		"bios_strings":      map[string]string{"bios-vendor": "Xen", "system-serial-number": "S-1234", "enclosure-asset-tag": "A-7"},
		"recommendations":   `<restrictions><restriction field="memory-static-max" max="137438953472"/></restrictions>`,
		"has_vendor_device": true, "actions_after_crash": "preserve", "user_version": int64(3),
	})
	for vif, record := range w.Simulator.Records("VIF") {
		if record["VM"] == ref {
			err = errors.Join(err, w.Simulator.Update("VIF", vif, map[string]any{
				"qos_algorithm_type": "ratelimit", "qos_algorithm_params": map[string]string{"kbps": "1000"},
				"locking_mode": "locked", "ipv4_allowed": []string{"192.0.2.9"},
				"ipv4_configuration_mode": "Static", "ipv4_addresses": []string{"192.0.2.9/24"}, "ipv4_gateway": "192.0.2.1",
				"ipv6_configuration_mode": "Static", "ipv6_addresses": []string{"2001:db8::9/64"}, "ipv6_gateway": "2001:db8::1",
			}))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	root := w.Simulator.FindByName(t, "VDI", "broken")
	if err := w.Simulator.Update("VDI", root, map[string]any{
		"virtual_size": int64(64 << 20), "name_description": "boots", "tags": []string{"gold"}, "xenstore_data": map[string]string{"vdi-data": "x"},
	}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < disks; i++ {
		disk := w.Simulator.Insert("VDI", map[string]any{
			"name_label": fmt.Sprintf("broken %d", i), "SR": w.Simulator.FindByName(t, "SR", "Local storage"), "virtual_size": int64(64 << 20),
			"managed": true, "type": "user", "name_description": "what the web server has", "tags": []string{fmt.Sprintf("data %d", i)},
			"read_only": i == 2, "sharable": i == 3, "on_boot": map[bool]string{true: "reset", false: "persist"}[i == 4],
		})
		mode := "RW"
		if i == 2 {
			mode = "RO"
		}
		w.Simulator.Insert("VBD", map[string]any{
			"VM": ref, "VDI": disk, "userdevice": fmt.Sprint(i * 2), "mode": mode, "type": "Disk", "unpluggable": true,
			"other_config": map[string]string{"owner": ""}, "qos_algorithm_type": "ionice", "qos_algorithm_params": map[string]string{"sched": "rt", "class": "2"},
		})
	}
	w.Adopted(ref)
	return uuid
}

// TestReturnIsExact: whatever the VM is like, after a rescue it is so again.
func TestReturnIsExact(t *testing.T) {
	t.Parallel()
	const running, halted = v1alpha1.PowerStateRunning, v1alpha1.PowerStateHalted
	for name, test := range map[string]struct {
		firmware string
		disks    int
		power    v1alpha1.PowerState
		attach   v1alpha1.RescueDisks
		onLoan   int
	}{
		"BIOS, one disk, running":             {"bios", 1, running, v1alpha1.RescueDisksAll, 1},
		"BIOS, one disk, halted":              {"bios", 1, halted, v1alpha1.RescueDisksRoot, 1},
		"BIOS, six disks, running":            {"bios", 6, running, v1alpha1.RescueDisksAll, 6},
		"BIOS, six disks, halted":             {"bios", 6, halted, v1alpha1.RescueDisksAll, 6},
		"UEFI, one disk, running":             {"uefi", 1, running, v1alpha1.RescueDisksAll, 1},
		"UEFI, one disk, halted":              {"uefi", 1, halted, v1alpha1.RescueDisksAll, 1},
		"UEFI, six disks, running":            {"uefi", 6, running, v1alpha1.RescueDisksAll, 6},
		"UEFI, six disks, running, root only": {"uefi", 6, running, v1alpha1.RescueDisksRoot, 1},
		"UEFI, six disks, halted":             {"uefi", 6, halted, v1alpha1.RescueDisksAll, 6},
		"as it was, whatever that is":         {"bios", 6, "", v1alpha1.RescueDisksAll, 6},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newWorld(t, withAgents)
			addRescueImage(t, w)
			uuid := brokenVM(t, w, test.firmware, test.disks)
			instance := web(w).With(func(i *v1alpha1.XenInstance) {
				i.Spec = v1alpha1.XenInstanceSpec{
					PoolRef: i.Spec.PoolRef, Source: v1alpha1.InstanceSource{Existing: &v1alpha1.ExistingVM{UUID: uuid}},
					Adoption: &v1alpha1.Adoption{OnMismatch: v1alpha1.MismatchApply}, PowerState: test.power,
				}
			}).Object()
			create(t, w, instance)
			w.WaitReady(t, instance)
			w.WaitAtRest(t)
			before, objects, disksThere := picture(w, uuid), census(w), guardDisks(w)

			edit(t, w, instance, func(i *v1alpha1.XenInstance) {
				inRescue(i)
				i.Spec.Rescue.AttachDisks = test.attach
			})
			waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
			checkLoans(t, w, instance, test.onLoan)
			edit(t, w, instance, outOfRescue)
			waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
			w.WaitAtRest(t)
			if diff := differences(before, picture(w, uuid)); diff != "" {
				t.Errorf("after the rescue:\n%s", diff)
			}
			if after := census(w); fmt.Sprint(after) != fmt.Sprint(objects) {
				t.Errorf("the pool had %v and has %v", objects, after)
			}
			disksThere(t)
		})
	}
}

// checkLoans complains unless the rescue VM has so many disks on loan, the root disk at 1 and the others from 4 on, and the
// interfaces of the instance's own VM.
func checkLoans(t *testing.T, w *testkit.World, instance *v1alpha1.XenInstance, want int) {
	t.Helper()
	own, rescue := byUUID(t, w, "VM", instance.Status.UUID), byUUID(t, w, "VM", instance.Status.Rescue.VMUUID)
	lent := map[string]string{}
	for _, vbd := range w.Simulator.Records("VBD") {
		if vbd["VM"] == own {
			lent[fmt.Sprint(vbd["VDI"])] = fmt.Sprint(vbd["mode"])
		}
	}
	devices := map[string]bool{}
	for _, vbd := range w.Simulator.Records("VBD") {
		if mode, isLoan := lent[fmt.Sprint(vbd["VDI"])]; isLoan && vbd["VM"] == rescue {
			devices[fmt.Sprint(vbd["userdevice"])] = true
			if vbd["mode"] != mode {
				t.Errorf("the disk at %v is %v on the rescue VM and was %s", vbd["userdevice"], vbd["mode"], mode)
			}
		}
	}
	if len(devices) != want || !devices["1"] || (want > 1 && !devices["4"]) {
		t.Errorf("disks on loan at %v, want %d", devices, want)
	}
	for _, vif := range w.Simulator.Records("VIF") {
		if shown := fmt.Sprint(vif["device"], vif["MAC"], vif["qos_algorithm_params"], vif["locking_mode"], vif["ipv4_allowed"]); vif["VM"] == rescue &&
			shown != fmt.Sprint("0", "aa:bb:cc:00:00:02", map[string]string{"kbps": "1000"}, "locked", []string{"192.0.2.9"}) {
			t.Errorf("the rescue VM has the interface %s", shown)
		}
	}
}

// e2fs runs a program of e2fsprogs.
func e2fs(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// TestABrokenDiskIsRepaired breaks a file on an ext4 root disk; the guest of the rescue VM writes the fix to the disk that it
// has at 1, and the VM has it afterwards.
func TestABrokenDiskIsRepaired(t *testing.T) {
	t.Parallel()
	const broken, fixed = "UUID=wrong / ext4 defaults 0 1\n", "UUID=right / ext4 defaults 0 1\n"
	w, _ := newWorld(t, withAgents)
	addRescueImage(t, w)
	uuid := brokenVM(t, w, "bios", 1)
	own := byUUID(t, w, "VM", uuid)
	instance := web(w).With(func(i *v1alpha1.XenInstance) {
		i.Spec = v1alpha1.XenInstanceSpec{
			PoolRef: i.Spec.PoolRef, Source: v1alpha1.InstanceSource{Existing: &v1alpha1.ExistingVM{UUID: uuid}},
			Adoption: &v1alpha1.Adoption{OnMismatch: v1alpha1.MismatchApply}, PowerState: v1alpha1.PowerStateRunning,
		}
	}).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	tree := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(tree, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "etc", "fstab"), []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "disk")
	e2fs(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, image, "64M")
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guestDisk(t, w, own, "0").WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}

	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	if _, err := w.Simulator.Guest().Disk(own, "0"); err == nil {
		t.Error("the VM itself has its disk while it is in rescue")
	}
	disk := guestDisk(t, w, byUUID(t, w, "VM", instance.Status.Rescue.VMUUID), "1")
	at := bytes.Index(readAll(t, disk), []byte(broken))
	if at < 0 {
		t.Fatal("the rescue VM does not see the broken file")
	}
	if _, err := disk.WriteAt([]byte(fixed), int64(at)); err != nil {
		t.Fatal(err)
	}
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)

	if err := os.WriteFile(image, readAll(t, guestDisk(t, w, own, "0")), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := e2fs(t, "debugfs", "-R", "cat /etc/fstab", image); !bytes.Contains([]byte(got), []byte(fixed)) {
		t.Errorf("the file is %q", got)
	}
	e2fs(t, "e2fsck", "-fn", image)
}

// guestDisk is a disk as the guest of a VM has it.
func guestDisk(t *testing.T, w *testkit.World, vm, device string) xensim.GuestDisk {
	t.Helper()
	disk, err := w.Simulator.Guest().Disk(vm, device)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func readAll(t *testing.T, disk xensim.GuestDisk) []byte {
	t.Helper()
	content, err := io.ReadAll(io.NewSectionReader(disk, 0, disk.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestRescueImageOnOtherStorage: an image on storage of one host is copied to where the disks to be repaired are; the copy
// goes with the rescue VM.
func TestRescueImageOnOtherStorage(t *testing.T) {
	t.Parallel()
	w, fence := newWorld(t, twoHosts)
	addRescueImage(t, w)
	instance := web(w).With(storedOn(sharedStorage)).Object()
	create(t, w, instance)
	waitPowered(t, w, instance, v1alpha1.PowerStateRunning)
	w.WaitAtRest(t)
	before, objects := picture(w, instance.Status.UUID), census(w)
	fence.Arm(0)
	edit(t, w, instance, inRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonRescueActive)
	shared, rescue := w.Simulator.FindByName(t, "SR", sharedStorage), byUUID(t, w, "VM", instance.Status.Rescue.VMUUID)
	for _, vbd := range w.Simulator.Records("VBD") {
		if disk := w.Simulator.Records("VDI")[fmt.Sprint(vbd["VDI"])]; vbd["VM"] == rescue && disk["SR"] != shared {
			t.Errorf("the disk at %v is on storage %v", vbd["userdevice"], disk["SR"])
		}
	}
	if !slices.Contains(calls(fence), "Async.VM.copy") {
		t.Errorf("calls were %v", calls(fence))
	}
	edit(t, w, instance, outOfRescue)
	waitRescued(t, w, instance, v1alpha1.ReasonNotRequested)
	w.WaitAtRest(t)
	if diff := differences(before, picture(w, instance.Status.UUID)); diff != "" {
		t.Errorf("after the rescue:\n%s", diff)
	}
	if after := census(w); fmt.Sprint(after) != fmt.Sprint(objects) {
		t.Errorf("the pool had %v and has %v", objects, after)
	}
}
