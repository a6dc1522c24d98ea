package classes

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Where a VM may run, and where it is put (xapi_vm_helpers.ml).

// memoryInUse is what a VM takes of its host: at least its dynamic minimum, and the overhead.
func memoryInUse(vm db.Record) int64 {
	return vm.Int("memory_dynamic_min") + vm.Int("memory_overhead")
}

// freeMemory is what a host has left for guests, if all give back what they can. A VM that is about to start there does not count
// against itself.
func (w *World) freeMemory(host, except string) int64 {
	r := w.DB().Get("host", host)
	free := w.DB().Get("host_metrics", r.Str("metrics")).Int("memory_total") - r.Int("memory_overhead")
	for _, vm := range r.Strs("resident_VMs") {
		free -= memoryInUse(w.DB().Get("VM", vm))
	}
	for vm, place := range w.scheduled {
		if place == host && vm != except {
			free -= memoryInUse(w.DB().Get("VM", vm))
		}
	}
	return max(free, 0)
}

// updateHostMemory writes a host's free memory, as its monitoring would.
func (w *World) updateHostMemory(host string) {
	if metrics := w.text("host", host, "metrics"); w.valid("host_metrics", metrics) {
		w.Set("host_metrics", metrics, db.Fields{"memory_free": w.freeMemory(host, "")})
	}
}

func (w *World) updateMemoryOverhead(vm string) {
	r := w.DB().Get("VM", vm)
	w.Set("VM", vm, db.Fields{"memory_overhead": overheadOf(r)})
}

func overheadOf(vm db.Record) int64 {
	return memoryOverhead(domainType(vm), vm.Int("memory_static_max"), vm.Int("VCPUs_max"), vm.Float("HVM_shadow_multiplier"))
}

// validateForStart checks the values that VM.create takes without a look.
func validateForStart(vm db.Record) error {
	atStartup, most := vm.Int("VCPUs_at_startup"), vm.Int("VCPUs_max")
	limits := limitsOf(vm)
	switch multiplier := vm.Float("HVM_shadow_multiplier"); {
	case most < 1:
		return xapi.Fail("INVALID_VALUE", "VCPUs_max", strconv.FormatInt(most, 10))
	case atStartup < 1:
		return xapi.Fail("INVALID_VALUE", "VCPUs-at-startup", strconv.FormatInt(atStartup, 10))
	case atStartup > most:
		return xapi.Fail("VALUE_NOT_SUPPORTED", "VCPUs-at-startup", strconv.FormatInt(atStartup, 10), "value greater than VCPUs-max")
	case !limits.coercible():
		return xapi.Fail("MEMORY_CONSTRAINT_VIOLATION")
	case multiplier < 1:
		return xapi.Fail("INVALID_VALUE", "HVM_shadow_multiplier", ocamlFloat(multiplier))
	}
	return nil
}

// ocamlFloat writes a number as OCaml does: always with a point.
func ocamlFloat(f float64) string {
	text := strconv.FormatFloat(f, 'g', 12, 64)
	if _, err := strconv.Atoi(text); err == nil {
		text += "."
	}
	return text
}

// checkCanBoot says why a VM cannot run on a host. The order of the checks is the real one's.
func (w *World) checkCanBoot(vm, host string, storage, memory bool) error {
	r, h := w.DB().Get("VM", vm), w.DB().Get("host", host)
	if err := validateForStart(r); err != nil {
		return err
	}
	metrics := w.DB().Get("host_metrics", h.Str("metrics"))
	if !metrics.Exists() || !metrics.Bool("live") {
		return xapi.Fail("HOST_NOT_LIVE")
	}
	alreadyHere := r.Str("power_state") == powerRunning && r.Str("resident_on") == host
	if !h.Bool("enabled") && !r.Bool("is_control_domain") && !alreadyHere {
		return xapi.Fail("HOST_DISABLED", host)
	}
	if storage {
		if err := w.checkSeesStorage(vm, host); err != nil {
			return err
		}
	}
	if err := w.checkSeesNetworks(vm, host); err != nil {
		return err
	}
	if memory {
		if err := w.checkMemory(r, vm, host); err != nil {
			return err
		}
	}
	return w.checkProcessors(r, h)
}

func (w *World) checkMemory(r db.Record, vm, host string) error {
	needed := memoryToStart(domainType(r), r.Int("memory_dynamic_min"), r.Int("memory_static_max"), r.Int("VCPUs_max"),
		r.Float("HVM_shadow_multiplier"))
	if free := w.freeMemory(host, vm); free < needed {
		return xapi.Fail("HOST_NOT_ENOUGH_FREE_MEMORY", strconv.FormatInt(needed, 10), strconv.FormatInt(free, 10))
	}
	return nil
}

func (w *World) checkProcessors(vm, host db.Record) error {
	present, err := strconv.ParseInt(host.Map("cpu_info")["cpu_count"], 10, 64)
	if known := err == nil; !known || vm.Int("VCPUs_max") <= present || platformFlag(vm, "vcpu-unrestricted") {
		return nil
	}
	return xapi.Fail("HOST_NOT_ENOUGH_PCPUS", strconv.FormatInt(vm.Int("VCPUs_max"), 10), strconv.FormatInt(present, 10))
}

// disksOf are the disks that a VM needs to run, the memory image of a suspended one included.
func (w *World) disksOf(vm string) []string {
	r := w.DB().Get("VM", vm)
	var disks []string
	for _, vbd := range r.Strs("VBDs") {
		if vdi := w.text("VBD", vbd, "VDI"); w.valid("VDI", vdi) {
			disks = append(disks, vdi)
		}
	}
	if image := r.Str("suspend_VDI"); r.Str("power_state") == powerSuspended && w.valid("VDI", image) {
		disks = append(disks, image)
	}
	return disks
}

func (w *World) checkSeesStorage(vm, host string) error {
	for _, vdi := range w.disksOf(vm) {
		if sr := w.text("VDI", vdi, "SR"); w.pluggedPBD(sr, host) == "" {
			return xapi.Fail("VM_REQUIRES_SR", vm, sr)
		}
	}
	return nil
}

// checkSeesNetworks: a network with interfaces (PIFs) is where it has one that is plugged. One without, an internal one, is on
// one host at a time: where the VMs on it run.
func (w *World) checkSeesNetworks(vm, host string) error {
	for _, vif := range w.DB().Get("VM", vm).Strs("VIFs") {
		network := w.text("VIF", vif, "network")
		r := w.DB().Get("network", network)
		if !r.Exists() {
			continue
		}
		if !w.networkReaches(r, vm, host) {
			return xapi.Fail("VM_REQUIRES_NETWORK", vm, network)
		}
	}
	return nil
}

func (w *World) networkReaches(network db.Record, vm, host string) bool {
	if pifs := network.Strs("PIFs"); len(pifs) > 0 {
		return slices.ContainsFunc(pifs, func(pif string) bool { return w.text("PIF", pif, "host") == host })
	}
	if network.Map("other_config")["is_host_internal_management_network"] == "true" {
		return true
	}
	for _, other := range network.Strs("VIFs") {
		owner := w.text("VIF", other, "VM")
		on := w.text("VM", owner, "resident_on")
		if owner != vm && w.DB().Get("VIF", other).Bool("currently_attached") && on != db.NullRef && on != "" && on != host {
			return false
		}
	}
	return true
}

// chooseHost puts a VM on a host: its affinity, if that can take it, else the one with the most free memory.
func (w *World) chooseHost(vm string) (string, error) {
	best, most := "", int64(-1)
	affinity := w.text("VM", vm, "affinity")
	for _, host := range w.DB().Refs("host") {
		if w.evacuating(host) || w.checkCanBoot(vm, host, true, true) != nil {
			continue
		}
		if host == affinity {
			return host, nil
		}
		if free := w.freeMemory(host, vm); free > most {
			best, most = host, free
		}
	}
	if best == "" {
		return "", xapi.Fail("NO_HOSTS_AVAILABLE")
	}
	return best, nil
}

// possibleHosts are the hosts that can take a VM now.
func (w *World) possibleHosts(vm string) []string {
	if host := w.text("VM", vm, "scheduled_to_be_resident_on"); w.valid("host", host) {
		return []string{host}
	}
	hosts := []string{}
	for _, host := range w.DB().Refs("host") {
		if w.checkCanBoot(vm, host, true, true) == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func (w *World) evacuating(host string) bool {
	return slices.Contains(currentOperations(w.DB().Get("host", host)), "evacuate")
}

// reserved runs f while a host keeps room for a VM and says what it is doing.
func (w *World) reserved(c *xapi.Call, vm, host, operation string, f func() error) error {
	w.scheduled[vm] = host
	w.Set("VM", vm, db.Fields{"scheduled_to_be_resident_on": host})
	defer func() {
		delete(w.scheduled, vm)
		if w.DB().Get("VM", vm).Exists() {
			w.Set("VM", vm, db.Fields{"scheduled_to_be_resident_on": db.NullRef})
		}
	}()
	return c.Operate("host", host, operation, func() error { return nil }, f)
}

// onHost describes a VM's place for a message.
func (w *World) onHost(host string) string {
	r := w.DB().Get("host", host)
	return fmt.Sprintf("on host: %s (uuid: %s)", r.Str("name_label"), r.Str("uuid"))
}
