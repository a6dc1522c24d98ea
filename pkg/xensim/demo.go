package xensim

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the pool that the recordings began with
	"fmt"
	"maps"
	"slices"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// seedState is the one-host pool of the recordings. The demonstration pool grows out of it, so that its records are
// those of a real server, and so that what names a template or a network works with both.
//
//go:embed testdata/state.json.gz
var seedState []byte

// demoTemplates are the templates beside the seed's two: name, memory in GiB, firmware.
var demoTemplates = []struct {
	name     string
	memory   int64
	firmware string
}{
	{"Ubuntu Noble Numbat 24.04", 2, "bios"},
	{"Rocky Linux 9", 2, "uefi"},
	{"AlmaLinux 9", 2, "uefi"},
	{"Windows Server 2022 (64-bit)", 4, "uefi"},
}

// demoPool fills an empty pool for demonstrations: hosts with a local SR each, a shared SR, an ISO SR, three networks
// for guests, the usual templates.
func demoPool(p *xapi.Pool, hosts int) error {
	state, err := gzip.NewReader(bytes.NewReader(seedState))
	if err != nil {
		return fmt.Errorf("read the demonstration pool: %w", err)
	}
	if err := p.DB().Load(state); err != nil {
		return fmt.Errorf("read the demonstration pool: %w", err)
	}
	d := &demo{Pool: p, first: p.Coordinator()}
	d.tidy()
	for i := 2; i <= hosts; i++ {
		d.addHost(i)
	}
	for _, t := range demoTemplates {
		d.addTemplate(t.name, t.memory<<30, t.firmware)
	}
	return nil
}

type demo struct {
	*xapi.Pool
	first string // reference of the first host
}

// tidy takes the marks of the recording off the seed.
func (d *demo) tidy() {
	for _, ref := range slices.Clone(d.DB().Refs("task")) {
		d.DB().Delete("task", ref)
	}
	d.Set("pool", d.PoolRef(), db.Fields{"name_label": "demo"})
	d.Set("host", d.first, db.Fields{"name_label": "xs1", "hostname": "xs1"})
	d.Set("VM", d.DB().Get("host", d.first).Str("control_domain"), db.Fields{"name_label": "Control domain on host: xs1"})
	d.Set("host_metrics", d.DB().Get("host", d.first).Str("metrics"), db.Fields{"memory_free": int64(60 << 30)})
	for _, ref := range d.DB().Refs("SR") {
		sr := d.DB().Get("SR", ref)
		description := map[string]string{"ext": "Local disk of xs1", "nfs": "Shared by all hosts", "iso": "Installation media"}[sr.Str("type")]
		d.Set("SR", ref, db.Fields{"name_description": description, "shared": sr.Str("type") != "ext"})
	}
	for _, ref := range d.DB().Refs("SM") {
		d.Set("SM", ref, db.Fields{"name_description": "Storage driver", "copyright": ""})
	}
}

// copyOf makes another object from one of the class, with changes.
func (d *demo) copyOf(class, ref string, changes db.Fields) string {
	fields := d.DB().Get(class, ref).Fields()
	delete(fields, "uuid")
	for name := range fields {
		if _, derived := datamodel.Derived(class, name); derived {
			delete(fields, name)
		}
	}
	maps.Copy(fields, changes)
	return d.Create(class, fields)
}

// addHost adds a member that is like the first host.
func (d *demo) addHost(number int) {
	name := fmt.Sprintf("xs%d", number)
	first := d.DB().Get("host", d.first)
	host := d.copyOf("host", d.first, db.Fields{"name_label": name, "hostname": name, "control_domain": db.NullRef,
		"metrics": d.copyOf("host_metrics", first.Str("metrics"), db.Fields{}), "address": fmt.Sprintf("127.0.0.%d", number)})
	domain := d.DB().Get("VM", first.Str("control_domain"))
	d.Set("host", host, db.Fields{"control_domain": d.copyOf("VM", first.Str("control_domain"), db.Fields{
		"name_label": "Control domain on host: " + name, "resident_on": host, "affinity": host,
		"metrics": d.copyOf("VM_metrics", domain.Str("metrics"), db.Fields{})})})
	for _, cpu := range slices.Clone(first.Strs("host_CPUs")) {
		d.copyOf("host_cpu", cpu, db.Fields{"host": host})
	}
	for _, pif := range slices.Clone(first.Strs("PIFs")) {
		r := d.DB().Get("PIF", pif)
		d.copyOf("PIF", pif, db.Fields{"host": host, "MAC": fmt.Sprintf("ec:f4:bb:00:%02x:%s", number, r.Str("MAC")[15:]),
			"metrics": d.copyOf("PIF_metrics", r.Str("metrics"), db.Fields{})})
	}
	for _, pbd := range slices.Clone(first.Strs("PBDs")) {
		d.plugStorage(pbd, host, name)
	}
}

// plugStorage gives a host its way to a shared SR, or an SR like the first host's local one.
func (d *demo) plugStorage(pbd, host, name string) {
	sr := d.DB().Get("PBD", pbd).Str("SR")
	if r := d.DB().Get("SR", sr); !r.Bool("shared") {
		sr = d.copyOf("SR", sr, db.Fields{"name_label": r.Str("name_label") + " on " + name, "name_description": "Local disk of " + name})
	}
	d.copyOf("PBD", pbd, db.Fields{"host": host, "SR": sr,
		"other_config": map[string]string{"storage_driver_domain": d.DB().Get("host", host).Str("control_domain")}})
}

func (d *demo) addTemplate(name string, memory int64, firmware string) {
	model := d.DB().ByName("VM", "Debian Bookworm 12")[0]
	r := d.DB().Get("VM", model)
	boot := maps.Clone(r.Map("HVM_boot_params"))
	boot["firmware"] = firmware
	d.copyOf("VM", model, db.Fields{"name_label": name, "HVM_boot_params": boot, "memory_static_max": memory,
		"memory_dynamic_max": memory, "memory_dynamic_min": memory, "memory_static_min": memory,
		"metrics": d.copyOf("VM_metrics", r.Str("metrics"), db.Fields{})})
}
