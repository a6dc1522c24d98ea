package instance

import (
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/filesystem/fat16"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// TestSeedImage reads the drive back: label, files and contents.
func TestSeedImage(t *testing.T) {
	seed := Seed{
		InstanceID: testUUID, Hostname: "web", UserData: []byte("#cloud-config\n"), NetworkData: []byte("version: 2\n"),
		MetaData: map[string]string{"tier": "front"}, PasswordHash: "$6$salt$hash",
	}
	tests := map[string]struct {
		format v1alpha1.BootstrapFormat
		label  string
		files  map[string]string // a part of the contents by name
		absent []string
	}{
		"NoCloud": {
			format: v1alpha1.BootstrapNoCloud, label: "cidata",
			files: map[string]string{
				"meta-data": "instance-id: " + testUUID, "user-data": "#cloud-config", "network-config": "version: 2", "vendor-data": "$6$salt$hash",
			},
		},
		"ConfigDrive": {
			format: v1alpha1.BootstrapConfigDrive, label: "config-2",
			files: map[string]string{
				"openstack/latest/meta_data.json": `"uuid":"` + testUUID, "openstack/latest/user_data": "#cloud-config",
				"openstack/latest/network_data.json": "version: 2", "openstack/latest/vendor_data.json": "$6$salt$hash",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seed := seed
			seed.Format = test.format
			image, err := seed.Image()
			if err != nil {
				t.Fatal(err)
			}
			if len(image) != driveSize {
				t.Errorf("the image has %d bytes, want %d", len(image), driveSize)
			}
			fat, err := fat16.Read(&memoryDisk{data: image}, driveSize, 0, 512)
			if err != nil {
				t.Fatal(err)
			}
			if label := strings.TrimSpace(fat.Label()); !strings.EqualFold(label, test.label) {
				t.Errorf("label %q, want %q", label, test.label)
			}
			for file, part := range test.files {
				content, err := fat.ReadFile("/" + file)
				if err != nil {
					t.Errorf("read %s: %v", file, err)
				} else if !strings.Contains(string(content), part) {
					t.Errorf("%s is %q, want %q in it", file, content, part)
				}
			}
		})
	}
}

// TestSeedImageHoldsLargeUserData: user data may be as large as a Secret.
func TestSeedImageHoldsLargeUserData(t *testing.T) {
	seed := Seed{Format: v1alpha1.BootstrapNoCloud, InstanceID: testUUID, Hostname: "web", UserData: []byte(strings.Repeat("x", 1<<20))}
	image, err := seed.Image()
	if err != nil {
		t.Fatal(err)
	}
	fat, err := fat16.Read(&memoryDisk{data: image}, driveSize, 0, 512)
	if err != nil {
		t.Fatal(err)
	}
	content, err := fat.ReadFile("/user-data")
	if err != nil {
		t.Fatal(err)
	}
	if len(content) != 1<<20 {
		t.Errorf("user data has %d bytes, want %d", len(content), 1<<20)
	}
}

// TestSHA512Crypt holds the hash against what openssl passwd -6 makes of the same password and salt.
func TestSHA512Crypt(t *testing.T) {
	tests := map[string]struct{ password, salt, want string }{
		"short": {
			"Hello world!", "saltstring",
			"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
		},
		"longer than the digest": {
			"a much longer password than the digest has bytes: 0123456789012345678901234567890123456789", "abcdefghijklmnop",
			"$6$abcdefghijklmnop$egxVq.XMBvLa7GZZQsVJMGrZWT7SxiHdh.wRau2yCl78rqlXqQ0wXmLLYTlcb7b0aU6iYpvk0dTtXOFy7nG5R.",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := sha512Crypt(test.password, test.salt); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestNewPasswordsDiffer: two passwords are not the same, and neither shows in its hash.
func TestNewPasswordsDiffer(t *testing.T) {
	first, second := NewPassword(), NewPassword()
	if first == second || len(first) != passwordLength {
		t.Errorf("passwords %q and %q", first, second)
	}
	if hash := HashPassword(first); strings.Contains(hash, first) || !strings.HasPrefix(hash, "$6$") {
		t.Errorf("hash %q", hash)
	}
}
