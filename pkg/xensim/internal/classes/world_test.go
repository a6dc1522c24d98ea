package classes

import (
	"compress/gzip"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// site is a pool under test, with a client that is logged in.
type site struct {
	*World
	t       *testing.T
	session string
}

// newSite makes a pool like the recorded one. Its clock runs a thousand times as fast as the wall's.
func newSite(t *testing.T, guests Guests) *site {
	t.Helper()
	model, err := datamodel.Load("24.19")
	if err != nil {
		t.Fatal(err)
	}
	p := xapi.NewPool(model, xapi.NewClock(1000))
	t.Cleanup(p.Close)
	file, err := os.Open("../../testdata/state.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	state, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	p.Lock()
	err = p.DB().Load(state)
	p.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	disks, err := blockstore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disks.Close() })
	s := &site{World: Register(p, Options{Disks: disks, Guests: guests}), t: t}
	s.session = s.call("session.login_with_password", "root", "").(string)
	return s
}

// try calls a message.
func (s *site) try(message string, params ...any) (any, error) {
	s.t.Helper()
	for i, param := range params {
		params[i] = onWire(param)
	}
	if s.session != "" {
		params = append([]any{s.session}, params...)
	}
	return s.Dispatch(s.t.Context(), xapi.Request{Method: message, Params: params})
}

// onWire turns a Go value into one as it comes from a client.
func onWire(value any) any {
	switch value := value.(type) {
	case int:
		return int64(value)
	case []string:
		list := make([]any, len(value))
		for i, item := range value {
			list[i] = item
		}
		return list
	case db.Fields:
		members := wire.Struct{}
		for name, field := range value {
			members = append(members, wire.Member{Name: name, Value: onWire(field)})
		}
		return members
	case map[string]string:
		members := wire.Struct{}
		for name, text := range value {
			members = append(members, wire.Member{Name: name, Value: text})
		}
		return members
	}
	return value
}

// call calls a message that must succeed.
func (s *site) call(message string, params ...any) any {
	s.t.Helper()
	result, err := s.try(message, params...)
	if err != nil {
		s.t.Fatalf("%s: %v", message, err)
	}
	return result
}

// refused calls a message that must fail with a code, and gives the parameters.
func (s *site) refused(code, message string, params ...any) []string {
	s.t.Helper()
	_, err := s.try(message, params...)
	var failed *xapi.Error
	if !errors.As(err, &failed) || failed.Code != code {
		s.t.Fatalf("%s: %v, want %s", message, err, code)
	}
	return failed.Params
}

// record reads an object.
func (s *site) record(class, ref string) db.Record {
	s.t.Helper()
	s.Lock()
	defer s.Unlock()
	r := s.DB().Get(class, ref)
	if !r.Exists() {
		s.t.Fatalf("no %s %s", class, ref)
	}
	return r
}

// exists says whether an object is there.
func (s *site) exists(class, ref string) bool {
	s.Lock()
	defer s.Unlock()
	return s.DB().Get(class, ref).Exists()
}

// named finds the one object with a name.
func (s *site) named(class, name string) string {
	s.t.Helper()
	s.Lock()
	defer s.Unlock()
	refs := s.DB().ByName(class, name)
	if len(refs) != 1 {
		s.t.Fatalf("%d objects of class %s are called %q", len(refs), class, name)
	}
	return refs[0]
}

// vm makes a VM with one disk and one interface. With an agent it asks for one that reports at its first start.
func (s *site) vm(name string, agent bool) string {
	s.t.Helper()
	data := map[string]string{}
	if agent {
		data[agentKey] = "1"
	}
	vm := s.call("VM.create", db.Fields{
		"name_label": name, "name_description": "", "user_version": 1, "is_a_template": false, "affinity": db.NullRef,
		"memory_static_max": int(gib), "memory_dynamic_max": int(gib), "memory_dynamic_min": int(gib), "memory_static_min": int(gib / 2),
		"VCPUs_params": map[string]string{}, "VCPUs_max": 2, "VCPUs_at_startup": 1, "actions_after_shutdown": "destroy",
		"actions_after_reboot": "restart", "actions_after_crash": "restart", "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "",
		"PV_args": "", "PV_bootloader_args": "", "PV_legacy_args": "", "HVM_boot_policy": "BIOS order",
		"HVM_boot_params": map[string]string{"order": "cd"}, "platform": map[string]string{}, "PCI_bus": "",
		"other_config": map[string]string{}, "recommendations": "", "xenstore_data": data,
	}).(string)
	s.vbd(vm, s.disk("Local storage", int(gib)), "0")
	s.call("VIF.create", db.Fields{
		"device": "0", "network": s.named("network", "Pool-wide network associated with eth0"), "VM": vm, "MAC": "", "MTU": 1500,
		"other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
	return vm
}

// disk makes a disk.
func (s *site) disk(sr string, size int) string {
	s.t.Helper()
	return s.call("VDI.create", db.Fields{
		"name_label": "disk", "name_description": "", "SR": s.named("SR", sr), "virtual_size": size, "type": "user", "sharable": false,
		"read_only": false, "other_config": map[string]string{},
	}).(string)
}

// vbd gives a VM a disk.
func (s *site) vbd(vm, vdi, device string) string {
	s.t.Helper()
	return s.call("VBD.create", db.Fields{
		"VM": vm, "VDI": vdi, "userdevice": device, "bootable": false, "mode": "RW", "type": "Disk", "unpluggable": true,
		"empty": false, "other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}).(string)
}

// host adds a host like the first one, which sees the shared SR and the pool's networks.
func (s *site) host(name string) string {
	s.t.Helper()
	s.Lock()
	defer s.Unlock()
	first := s.DB().Get("host", s.Coordinator())
	metrics := s.Create("host_metrics", db.Fields{"memory_total": 16 * gib, "live": true})
	host := s.Create("host", db.Fields{
		"name_label": name, "address": "127.0.0.2", "enabled": true, "metrics": metrics, "memory_overhead": gib,
		"cpu_info": first.Map("cpu_info"),
	})
	for _, sr := range s.DB().Refs("SR") {
		if r := s.DB().Get("SR", sr); r.Bool("shared") {
			s.Create("PBD", db.Fields{"host": host, "SR": sr, "currently_attached": true})
			s.Refresh("SR", sr)
		}
	}
	for _, network := range s.DB().Refs("network") {
		if len(s.DB().Get("network", network).Strs("PIFs")) > 0 {
			s.Create("PIF", db.Fields{"host": host, "network": network, "IP": "127.0.0.2", "currently_attached": true})
		}
	}
	s.updateHostMemory(host)
	return host
}

// eventually waits until something holds of an object.
func (s *site) eventually(class, ref, what string, holds func(db.Record) bool) {
	s.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		s.Lock()
		r := s.DB().Get(class, ref)
		s.Unlock()
		if r.Exists() && holds(r) {
			return
		}
		select {
		case <-deadline:
			s.t.Fatalf("%s %s: never %s", class, ref, what)
		case <-time.After(time.Millisecond):
		}
	}
}
