package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// onlyCopies watches every VDI.destroy that the managers of a world send, at the moment when it is sent: a disk that a VM of ours
// has, whatever disk it is, and one that may hold the only copy of what its guest has written, is never destroyed. It holds in
// every test that has a World.
type onlyCopies struct {
	pool *Simulator

	mutex      sync.Mutex
	violations []error
}

var opaqueRef = regexp.MustCompile(`OpaqueRef:[0-9A-Za-z-]+`)

// wrap watches a transport to the pool.
func (o *onlyCopies) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		method, err := xenAPIMethod(request)
		if err != nil {
			return nil, err
		}
		if strings.TrimPrefix(method, "Async.") == "VDI.destroy" {
			if err := o.see(request); err != nil {
				return nil, err
			}
		}
		return next.RoundTrip(request)
	})
}

// see notes a destruction that should not be, and leaves the request as it was.
func (o *onlyCopies) see(request *http.Request) error {
	body, err := io.ReadAll(request.Body)
	if err := errors.Join(err, request.Body.Close()); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	refs := opaqueRef.FindAllString(string(body), -1) // the session, then the disk
	if len(refs) < 2 {
		return nil // of nothing
	}
	if err := o.mayGo(refs[len(refs)-1]); err != nil {
		o.mutex.Lock()
		defer o.mutex.Unlock()
		o.violations = append(o.violations, err)
	}
	return nil
}

// check tells what was seen.
func (o *onlyCopies) check() error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return errors.Join(o.violations...)
}

// mayGo complains if a disk may not be destroyed as the pool is now.
func (o *onlyCopies) mayGo(ref string) error {
	disks := o.pool.Records("VDI")
	disk, there := disks[ref]
	if !there {
		return nil // a call that is made again
	}
	config, _ := disk["other_config"].(map[string]string)
	complain := func(format string, args ...any) error {
		return fmt.Errorf("VDI.destroy of %s %q (%s): %s", role(disk), disk["name_label"], disk["uuid"], fmt.Sprintf(format, args...))
	}
	if holder := o.holder(ref, disk); holder != "" {
		return complain("the VM %s has it", holder)
	}
	if role(disk) == "new-root" {
		if of := config["kubexen.io/copy-of"]; !hasUUID(disks, of) {
			return complain("disk %s, which it is a copy of, is gone", of)
		}
		return nil
	}
	vm, record := o.vmOf(config)
	if record == nil || !slices.Contains([]string{"root-disk", "restore-point"}, role(disk)) {
		return nil
	}
	root := o.rootOf(vm)
	switch {
	case root == "":
		return complain("the VM has no root disk, so it may be the only copy")
	case disks[root] == nil:
		return complain("the VM's root disk is not on the pool")
	case role(disks[root]) == "restore-point":
		return complain("what the VM has in the place of its root disk is a restore point")
	}
	return nil
}

// holder is the VM of ours that a disk hangs at, with its power state; "" without one. What is made of the spec or of an image hangs
// there too, and goes when it is replaced: a config drive, and what a rescue VM has for itself.
func (o *onlyCopies) holder(ref string, disk map[string]any) string {
	config, _ := disk["other_config"].(map[string]string)
	if config["kubexen.io/role"] == "config-drive" {
		return ""
	}
	onLoan := config["kubexen.io/self"] == disk["uuid"] && config["kubexen.io/role"] != "rescue-disk"
	vms := o.pool.Records("VM")
	for _, vbd := range o.pool.Records("VBD") {
		vm, _ := vbd["VM"].(string)
		if vbd["VDI"] == ref && vbd["type"] != "CD" && (isComplete(vms[vm], "vm") || onLoan && isComplete(vms[vm], "rescue-vm")) {
			return fmt.Sprintf("%q, which is %v,", vms[vm]["name_label"], vms[vm]["power_state"])
		}
	}
	return ""
}

// isComplete reports whether a VM is ours in a role, and neither one that is being made nor in the trash.
func isComplete(vm map[string]any, role string) bool {
	config, _ := vm["other_config"].(map[string]string)
	return config["kubexen.io/installation"] == Installation && config["kubexen.io/role"] == role &&
		config["kubexen.io/self"] == vm["uuid"] && vm["is_a_snapshot"] != true &&
		config["kubexen.io/trashed-at"] == "" && !strings.HasPrefix(fmt.Sprint(vm["name_label"]), "kubexen/")
}

// vmOf is the VM of the instance that a disk belongs to, nil without one: while it is being made, when it is in the trash, and
// when it is gone, its disks may go with it.
func (o *onlyCopies) vmOf(disk map[string]string) (string, map[string]any) {
	if disk["kubexen.io/installation"] != Installation {
		return "", nil
	}
	for ref, vm := range o.pool.Records("VM") {
		config, _ := vm["other_config"].(map[string]string)
		if config["kubexen.io/ref"] == disk["kubexen.io/ref"] && isComplete(vm, "vm") {
			return ref, vm
		}
	}
	return "", nil
}

// rootOf is the disk at device 0 of a VM.
func (o *onlyCopies) rootOf(vm string) string {
	for _, vbd := range o.pool.Records("VBD") {
		if vbd["VM"] == vm && vbd["userdevice"] == "0" && vbd["type"] != "CD" {
			disk, _ := vbd["VDI"].(string)
			return disk
		}
	}
	return ""
}

func hasUUID(records map[string]map[string]any, uuid string) bool {
	for _, record := range records {
		if record["uuid"] == uuid {
			return true
		}
	}
	return false
}
