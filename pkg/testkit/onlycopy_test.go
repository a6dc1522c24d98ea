package testkit

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kubexen/kubexen/pkg/xensim"
)

// TestOnlyCopies says of which disks the destruction is a complaint.
func TestOnlyCopies(t *testing.T) {
	ours := func(role, self string) map[string]string {
		return map[string]string{
			"kubexen.io/installation": Installation, "kubexen.io/ref": "XenInstance/team-a/web", "kubexen.io/role": role, "kubexen.io/self": self,
		}
	}
	const vm, root, spare = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222", "33333333-3333-3333-3333-333333333333"
	for name, test := range map[string]struct {
		vm       map[string]string // nil for none
		name     string            // of the VM, "" for web
		attached string            // the role of the disk at device 0, "" for none
		at       string            // the device that the spare disk hangs at, "" for none
		kind     string            // of that device, "" for a disk
		spare    map[string]string
		destroy  string
		complain string
	}{
		"a restore point":                       {vm: ours("vm", vm), attached: "root-disk", spare: ours("restore-point", spare), destroy: spare},
		"the disk of the VM":                    {vm: ours("vm", vm), attached: "root-disk", spare: ours("restore-point", spare), destroy: root, complain: `the VM "web", which is Halted, has it`},
		"a restore point without a root disk":   {vm: ours("vm", vm), spare: ours("restore-point", spare), destroy: spare, complain: "the only copy"},
		"one beside another in its place":       {vm: ours("vm", vm), attached: "restore-point", spare: ours("root-disk", spare), destroy: spare, complain: "restore point"},
		"after the VM":                          {spare: ours("root-disk", spare), destroy: spare},
		"somebody else's":                       {vm: ours("vm", vm), spare: map[string]string{}, destroy: spare},
		"of another instance":                   {vm: map[string]string{}, spare: ours("root-disk", spare), destroy: spare},
		"a half copy whose source is there":     {vm: ours("vm", vm), attached: "root-disk", spare: copyOf(ours("new-root", spare), root), destroy: spare},
		"a half copy whose source is not there": {vm: ours("vm", vm), spare: copyOf(ours("new-root", spare), root), destroy: spare, complain: "is gone"},
		"a data disk of the VM":                 {vm: ours("vm", vm), attached: "root-disk", spare: ours("data-disk", spare), at: "4", destroy: spare, complain: "has it"},
		"a data disk that is detached":          {vm: ours("vm", vm), attached: "root-disk", spare: ours("data-disk", spare), destroy: spare},
		"an adopted VM's disk without marks":    {vm: ours("vm", vm), attached: "root-disk", spare: map[string]string{}, at: "4", destroy: spare, complain: "has it"},
		"a config drive":                        {vm: ours("vm", vm), attached: "root-disk", spare: ours("config-drive", spare), at: "3", destroy: spare},
		"what is in the drive":                  {vm: ours("vm", vm), attached: "root-disk", spare: map[string]string{}, at: "3", kind: "CD", destroy: spare},
		"a data disk of a VM in the trash":      {vm: trashed(ours("vm", vm)), attached: "root-disk", spare: ours("data-disk", spare), at: "4", destroy: spare},
		"a disk of a VM that is being made":     {vm: ours("vm", vm), name: "kubexen/team-a/web", spare: map[string]string{}, at: "0", destroy: spare},
		"a disk on loan to a rescue VM":         {vm: ours("rescue-vm", vm), spare: ours("data-disk", spare), at: "4", destroy: spare, complain: "has it"},
		"what a rescue VM has for itself":       {vm: ours("rescue-vm", vm), spare: ours("rescue-disk", spare), at: "0", destroy: spare},
		"a fresh clone at a rescue VM":          {vm: ours("rescue-vm", vm), spare: ours("image", root), at: "0", destroy: spare},
	} {
		t.Run(name, func(t *testing.T) {
			simulator := StartSimulator(t, xensim.Options{})
			sr := simulator.FindByName(t, "SR", "Local storage")
			refs := map[string]string{}
			disk := func(uuid string, config map[string]string) {
				refs[uuid] = simulator.Insert("VDI", map[string]any{"uuid": uuid, "name_label": uuid, "SR": sr, "virtual_size": int64(1) << 30, "managed": true, "type": "user", "other_config": config})
			}
			if test.attached != "" {
				disk(root, ours(test.attached, root))
			}
			disk(spare, test.spare)
			if test.vm != nil {
				ref := simulator.Insert("VM", map[string]any{"uuid": vm, "name_label": cmp.Or(test.name, "web"), "power_state": "Halted", "other_config": test.vm})
				if test.attached != "" {
					simulator.Insert("VBD", map[string]any{"VM": ref, "VDI": refs[root], "userdevice": "0", "type": "Disk"})
				}
				if test.at != "" {
					simulator.Insert("VBD", map[string]any{"VM": ref, "VDI": refs[spare], "userdevice": test.at, "type": cmp.Or(test.kind, "Disk")})
				}
			}
			copies := &onlyCopies{pool: simulator}
			sent := false
			transport := copies.wrap(roundTripper(func(request *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(request.Body)
				sent = err == nil && bytes.Contains(body, []byte(refs[test.destroy]))
				return &http.Response{Body: http.NoBody}, err
			}))
			body := "<methodName>Async.VDI.destroy</methodName><string>OpaqueRef:session</string><string>" + refs[test.destroy] + "</string>"
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://pool", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			response, err := transport.RoundTrip(request)
			if err != nil || !sent || response.Body.Close() != nil {
				t.Fatalf("the call does not pass: %v", err)
			}
			switch err := copies.check(); {
			case test.complain == "" && err != nil:
				t.Errorf("it complains: %v", err)
			case test.complain != "" && (err == nil || !strings.Contains(err.Error(), test.complain)):
				t.Errorf("it says %v, want %q", err, test.complain)
			}
		})
	}
}

func copyOf(config map[string]string, uuid string) map[string]string {
	config["kubexen.io/copy-of"] = uuid
	return config
}

func trashed(config map[string]string) map[string]string {
	config["kubexen.io/trashed-at"] = "2020-01-01T00:00:00Z"
	return config
}
