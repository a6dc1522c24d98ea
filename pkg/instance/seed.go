package instance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/diskfs/go-diskfs/backend"
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
}

// Volume labels by which guests find the drive.
const (
	labelNoCloud     = "cidata"
	labelConfigDrive = "config-2"
)

// Image lays the drive out as a FAT16 file system.
func (s *Seed) Image() ([]byte, error) {
	label, files, err := labelNoCloud, map[string][]byte{}, error(nil)
	if s.Format == v1alpha1.BootstrapConfigDrive {
		label = labelConfigDrive
		files, err = s.configDriveFiles()
	} else {
		files, err = s.noCloudFiles()
	}
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
	if s.PasswordHash != "" {
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
	if s.PasswordHash != "" {
		vendor, err := json.Marshal(map[string]string{"cloud-init": string(s.vendorData())})
		if err != nil {
			return nil, err
		}
		files[latest+"vendor_data.json"] = vendor
	}
	return files, nil
}

// vendorData sets the generated password. Vendor data gives way to what the user's own data say.
func (s *Seed) vendorData() []byte {
	return fmt.Appendf(nil, "#cloud-config\npassword: %q\nchpasswd:\n  expire: false\nssh_pwauth: true\n", s.PasswordHash)
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

// memoryDisk is a disk in memory, in the form that the file system library wants.
type memoryDisk struct {
	data   []byte
	offset int64
}

var _ backend.Storage = (*memoryDisk)(nil)

func (m *memoryDisk) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memoryDisk) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(m.data)) {
		return 0, io.ErrShortWrite
	}
	return copy(m.data[off:], p), nil
}

func (m *memoryDisk) Read(p []byte) (int, error) {
	n, err := m.ReadAt(p, m.offset)
	m.offset += int64(n)
	return n, err
}

func (m *memoryDisk) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		m.offset = offset
	case io.SeekCurrent:
		m.offset += offset
	case io.SeekEnd:
		m.offset = int64(len(m.data)) + offset
	}
	return m.offset, nil
}

func (m *memoryDisk) Close() error                            { return nil }
func (m *memoryDisk) Path() string                            { return "" }
func (m *memoryDisk) Sys() (*os.File, error)                  { return nil, backend.ErrNotSuitable }
func (m *memoryDisk) Writable() (backend.WritableFile, error) { return m, nil }
func (m *memoryDisk) Stat() (fs.FileInfo, error)              { return memoryInfo{size: int64(len(m.data))}, nil }

// memoryInfo describes a memoryDisk.
type memoryInfo struct{ size int64 }

func (memoryInfo) Name() string       { return "config drive" }
func (i memoryInfo) Size() int64      { return i.size }
func (memoryInfo) Mode() fs.FileMode  { return 0o600 }
func (memoryInfo) ModTime() time.Time { return time.Time{} }
func (memoryInfo) IsDir() bool        { return false }
func (memoryInfo) Sys() any           { return nil }
