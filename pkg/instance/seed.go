package instance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"sigs.k8s.io/yaml"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// Seed is what the guest finds on its config drive.
type Seed struct {
	Format      v1alpha1.BootstrapFormat
	InstanceID  string // the VM's uuid: cloud-init runs once per instance id
	Hostname    string
	UserData    []byte
	NetworkData []byte
	MetaData    map[string]string
	// PasswordHash is crypt(3)'s form of the generated password, "" without one. The password itself is never written.
	PasswordHash string
	// AuthorizedKeys are public SSH keys of the guest's default user.
	AuthorizedKeys []string
}

// Volume labels by which guests find the drive.
const (
	labelNoCloud     = "cidata"
	labelConfigDrive = "config-2"
)

// Image lays the drive out as a FAT16 file system.
func (s *Seed) Image() ([]byte, error) {
	label, lay := labelNoCloud, s.noCloudFiles
	if s.Format == v1alpha1.BootstrapConfigDrive {
		label, lay = labelConfigDrive, s.configDriveFiles
	}
	files, err := lay()
	if err != nil {
		return nil, err
	}
	return fatImage(label, files)
}

// noCloudFiles are the files of cloud-init's NoCloud layout.
func (s *Seed) noCloudFiles() (map[string][]byte, error) {
	meta := map[string]any{}
	for key, value := range s.MetaData {
		meta[key] = value
	}
	meta["instance-id"], meta["local-hostname"] = s.InstanceID, s.Hostname
	metaData, err := yaml.Marshal(meta)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"/meta-data": metaData, "/user-data": s.UserData}
	if s.NetworkData != nil {
		files["/network-config"] = s.NetworkData
	}
	if s.hasVendorData() {
		files["/vendor-data"] = s.vendorData()
	}
	return files, nil
}

// configDriveFiles are the files of OpenStack's config drive, version 2.
func (s *Seed) configDriveFiles() (map[string][]byte, error) {
	metaData, err := json.Marshal(map[string]any{
		"uuid": s.InstanceID, "name": s.Hostname, "hostname": s.Hostname, "meta": s.MetaData,
	})
	if err != nil {
		return nil, err
	}
	const latest = "/openstack/latest/"
	files := map[string][]byte{latest + "meta_data.json": metaData}
	if s.UserData != nil {
		files[latest+"user_data"] = s.UserData
	}
	if s.NetworkData != nil {
		files[latest+"network_data.json"] = s.NetworkData
	}
	if s.hasVendorData() {
		vendor, err := json.Marshal(map[string]string{"cloud-init": string(s.vendorData())})
		if err != nil {
			return nil, err
		}
		files[latest+"vendor_data.json"] = vendor
	}
	return files, nil
}

func (s *Seed) hasVendorData() bool { return s.PasswordHash != "" || len(s.AuthorizedKeys) > 0 }

// vendorData sets the default user's password and keys. Vendor data gives way to what the user's own data say.
func (s *Seed) vendorData() []byte {
	text := []byte("#cloud-config\n")
	if s.PasswordHash != "" {
		text = fmt.Appendf(text, "password: %q\nchpasswd:\n  expire: false\nssh_pwauth: true\n", s.PasswordHash)
	}
	for i, key := range s.AuthorizedKeys {
		if i == 0 {
			text = append(text, "ssh_authorized_keys:\n"...)
		}
		text = fmt.Appendf(text, "- %q\n", key)
	}
	return text
}

// fatImage makes a FAT16 file system with the files.
func fatImage(label string, files map[string][]byte) ([]byte, error) {
	memory := &memoryDisk{data: make([]byte, driveSize)}
	fat, err := fat16.Create(memory, driveSize, 0, 0, label, true)
	if err != nil {
		return nil, fmt.Errorf("make a FAT16 file system: %w", err)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if dir := path.Dir(name); dir != "/" {
			if err := fat.Mkdir(dir); err != nil {
				return nil, fmt.Errorf("make %s: %w", dir, err)
			}
		}
		file, err := fat.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", name, err)
		}
		if _, err := io.Copy(file, bytes.NewReader(files[name])); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		if err := file.Close(); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	return memory.data, nil
}
