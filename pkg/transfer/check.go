package transfer

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// Bounds of what a manifest may describe: those of the XenAPI, and beyond them what could not be meant.
const (
	maxDisks   = 250
	maxNICs    = 16
	maxVCPUs   = 1024
	maxMemory  = 64 << 40
	maxDiskB   = 64 << 40
	maxFileB   = 128 << 40
	lastDevice = 254
)

var (
	sha256Text = regexp.MustCompile(`^[0-9a-f]{64}$`)
	diskName   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
)

// maxManifest bounds what is read as a manifest, in bytes: one with all disks and interfaces has less than a quarter of it.
const maxManifest = 1 << 20

// parseManifest reads a manifest, or says why it is none. Its lists are counted before anything is made of them: a text of
// empty entries would take a hundred times its own memory.
func parseManifest(text []byte) (m Manifest, why string) {
	if len(text) > maxManifest {
		return m, fmt.Sprintf("it is longer than %d bytes", maxManifest)
	}
	var lists struct {
		Disks []json.RawMessage `json:"disks"`
		NICs  []json.RawMessage `json:"nics"`
	}
	if err := json.Unmarshal(text, &lists); err != nil {
		return m, "it is no JSON object as an upload has it"
	}
	if len(lists.Disks) > maxDisks || len(lists.NICs) > maxNICs {
		return m, fmt.Sprintf("it has %d disks and %d interfaces; at most %d and %d are possible", len(lists.Disks), len(lists.NICs), maxDisks, maxNICs)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, "an entry of it has not the kind that it must have" // the parser's words may quote anything
	}
	if m.Version < 1 {
		return Manifest{}, "it tells no version"
	}
	return m, ""
}

// What status takes: see XenSnapshotStatus.
const (
	lenUUID     = 36
	lenName     = 63
	lenFile     = 255
	lenDigest   = 64
	lenLocation = 2048
	mostShown   = 64
)

// unfit says what of a manifest status cannot say: whoever may write to a store can write a manifest, and a status that the API
// server refuses would be tried for ever.
func (m *Manifest) unfit(location func(string) string) string {
	_, known := extensions[m.Format]
	switch {
	case !known:
		return fmt.Sprintf("its files are of format %q", m.Format)
	case m.Consistency != "" && m.Consistency != v1alpha1.ConsistencyCrash && m.Consistency != v1alpha1.ConsistencyMemory:
		return fmt.Sprintf("its consistency is %q", m.Consistency)
	case len(m.Disks) > mostShown:
		return fmt.Sprintf("it has %d disks; at most %d are possible", len(m.Disks), mostShown)
	case len(m.SnapshotUUID) > lenUUID || len(m.InstanceUUID) > lenUUID:
		return "a uuid of it is too long"
	}
	if why := m.unfitDisks(); why != "" {
		return why
	}
	for _, file := range filesOf(*m, location) {
		if file.Name == "" || len(file.Name) > lenFile || len(file.SHA256) > lenDigest || len(file.Location) > lenLocation || file.SizeBytes < 0 {
			return "the name, size or digest of a file of it is none"
		}
	}
	return ""
}

func (m *Manifest) unfitDisks() string {
	names := map[string]struct{}{}
	for _, disk := range m.Disks {
		_, twice := names[disk.Name]
		names[disk.Name] = struct{}{}
		if twice || !diskName.MatchString(disk.Name) || len(disk.Name) > lenName {
			return fmt.Sprintf("its disk %q is named like another, or not as a disk is", disk.Name)
		}
		if disk.Size < 0 || disk.Size > maxDiskB || len(disk.VDI) > lenUUID {
			return fmt.Sprintf("its disk %q has %d bytes, or a uuid that is too long", disk.Name, disk.Size)
		}
	}
	return ""
}

// check holds a manifest against what it must be. It comes from a store that others may write to.
func (m *Manifest) check() error {
	if m.Version != ManifestVersion {
		return invalidManifest("it is of version %d, and this version reads %d", m.Version, ManifestVersion)
	}
	if _, known := extensions[m.Format]; !known {
		return invalidManifest("it has files of format %q", m.Format)
	}
	if len(m.Disks) == 0 || len(m.Disks) > maxDisks || len(m.NICs) > maxNICs {
		return invalidManifest("it has %d disks and %d interfaces; 1 to %d and at most %d are possible", len(m.Disks), len(m.NICs), maxDisks, maxNICs)
	}
	for _, check := range []func() error{m.checkVM, m.checkParent, m.checkDisks, m.checkNICs} {
		if err := check(); err != nil {
			return err
		}
	}
	return m.checkFile(m.File, true)
}

func (m *Manifest) checkVM() error {
	vm := &m.VM
	if vm.VCPUs < 1 || vm.MaxVCPUs < vm.VCPUs || vm.MaxVCPUs > maxVCPUs || vm.Memory < 16<<20 || vm.MaxMemory < vm.Memory || vm.MaxMemory > maxMemory {
		return invalidManifest("no VM has %d to %d VCPUs and %d to %d bytes of memory", vm.VCPUs, vm.MaxVCPUs, vm.Memory, vm.MaxMemory)
	}
	if vm.EFIVariables == "" {
		return nil
	}
	if why := unfitVariables(vm.EFIVariables); why != "" {
		return invalidManifest("its UEFI variables are none: %s", why)
	}
	return nil
}

func (m *Manifest) checkParent() error {
	if p := m.Parent; p != nil && (p.Manifest == "" || len(p.Manifest) > 1024 || strings.ContainsAny(p.Manifest, ":\\\x00") || !sha256Text.MatchString(p.SHA256)) {
		return invalidManifest("what it lies upon is %q with digest %q; a relative path and 64 hexadecimal digits are wanted", p.Manifest, p.SHA256)
	}
	return nil
}

func (m *Manifest) checkDisks() error {
	for i, disk := range m.Disks {
		twice := slices.ContainsFunc(m.Disks[:i], func(other ManifestDisk) bool { return other.Name == disk.Name || other.Device == disk.Device })
		switch {
		case !diskName.MatchString(disk.Name) || twice:
			return invalidManifest("its disk %q is named or placed like another, or not named at all", disk.Name)
		case disk.Device < 0 || disk.Device > lastDevice:
			return invalidManifest("its disk %q is at device %d; 0 to %d are possible", disk.Name, disk.Device, lastDevice)
		case disk.Size < 1 || disk.Size > maxDiskB:
			return invalidManifest("its disk %q has %d bytes; 1 to %d are possible", disk.Name, disk.Size, int64(maxDiskB))
		case disk.Base != "" && m.Parent == nil:
			return invalidManifest("its disk %q is a difference, and it does not say to what", disk.Name)
		}
		if err := m.checkFile(disk.File, m.File != nil); err != nil {
			return err
		}
	}
	if m.disk("root") < 0 {
		return invalidManifest("it has no disk called root")
	}
	return nil
}

// checkFile holds an entry of a file against what it must be; it may be absent where another file has the content.
func (m *Manifest) checkFile(file *ManifestFile, mayBeAbsent bool) error {
	switch {
	case file == nil && mayBeAbsent:
		return nil
	case file == nil:
		return invalidManifest("a disk of it has no file")
	case file.Name == "" || len(file.Name) > 255 || strings.ContainsAny(file.Name, "/\\?#%\x00") || file.Name == "." || file.Name == "..":
		return invalidManifest("a file of it is called %q; the name of a file beside it is wanted", file.Name)
	case file.Size < 1 || file.Size > maxFileB || !sha256Text.MatchString(file.SHA256):
		return invalidManifest("its file %s has %d bytes and the digest %q", file.Name, file.Size, file.SHA256)
	}
	return nil
}

func (m *Manifest) checkNICs() error {
	for i, nic := range m.NICs {
		twice := slices.ContainsFunc(m.NICs[:i], func(other ManifestNIC) bool { return other.Device == nic.Device })
		address, err := net.ParseMAC(nic.MAC)
		if err != nil || len(address) != 6 || address[0]&1 != 0 || twice || !deviceNumber.MatchString(nic.Device) || len(nic.Network) > 255 {
			return invalidManifest("its interface %q has the MAC address %q", nic.Device, nic.MAC)
		}
	}
	return nil
}

var deviceNumber = regexp.MustCompile(`^([0-9]|1[0-5])$`)

// disk is the place of a disk among those of the manifest, −1 if it has none of the name.
func (m *Manifest) disk(name string) int {
	return slices.IndexFunc(m.Disks, func(d ManifestDisk) bool { return d.Name == name })
}
