package testkit

import (
	"bytes"
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
		attached string            // the role of the disk at device 0, "" for none
		spare    map[string]string
		destroy  string
		complain string
	}{
		"a restore point":                       {vm: ours("vm", vm), attached: "root-disk", spare: ours("restore-point", spare), destroy: spare},
		"the disk of the VM":                    {vm: ours("vm", vm), attached: "root-disk", spare: ours("restore-point", spare), destroy: root, complain: "it is the root disk"},
		"a restore point without a root disk":   {vm: ours("vm", vm), spare: ours("restore-point", spare), destroy: spare, complain: "the only copy"},
		"one beside another in its place":       {vm: ours("vm", vm), attached: "restore-point", spare: ours("root-disk", spare), destroy: spare, complain: "restore point"},
		"after the VM":                          {spare: ours("root-disk", spare), destroy: spare},
		"somebody else's":                       {vm: ours("vm", vm), spare: map[string]string{}, destroy: spare},
		"of another instance":                   {vm: map[string]string{}, spare: ours("root-disk", spare), destroy: spare},
		"a half copy whose source is there":     {vm: ours("vm", vm), attached: "root-disk", spare: copyOf(ours("new-root", spare), root), destroy: spare},
		"a half copy whose source is not there": {vm: ours("vm", vm), spare: copyOf(ours("new-root", spare), root), destroy: spare, complain: "is gone"},
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
				ref := simulator.Insert("VM", map[string]any{"uuid": vm, "name_label": "web", "power_state": "Halted", "other_config": test.vm})
				if test.attached != "" {
					simulator.Insert("VBD", map[string]any{"VM": ref, "VDI": refs[root], "userdevice": "0", "type": "Disk"})
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
