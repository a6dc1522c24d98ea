package classes

import (
	"slices"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Hosts that take VMs in, or are emptied.

func (w *World) registerHost() {
	w.handle("host.enable", func(c *xapi.Call) error { return w.hostSetEnabled(c, true) })
	w.handle("host.disable", func(c *xapi.Call) error { return w.hostSetEnabled(c, false) })
	w.Handle("host.compute_free_memory", func(c *xapi.Call) (any, error) { return w.freeMemory(c.Self(), ""), nil })
	w.Handle("host.compute_memory_overhead", func(c *xapi.Call) (any, error) {
		return w.DB().Get("host", c.Self()).Int("memory_overhead"), nil
	})
	w.Handle("host.get_vms_which_prevent_evacuation", func(c *xapi.Call) (any, error) {
		reasons := map[string]any{}
		for vm, place := range w.planEvacuation(c.Self()) {
			if place.reason != nil {
				reasons[vm] = append([]string{place.reason.Code}, place.reason.Params...)
			}
		}
		return reasons, nil
	})
	w.handle("host.assert_can_evacuate", func(c *xapi.Call) error {
		for _, place := range w.planEvacuation(c.Self()) {
			if place.reason != nil {
				return xapi.Fail("CANNOT_EVACUATE_HOST", place.reason.Error())
			}
		}
		return nil
	})
	w.Handle("host.get_uncooperative_resident_VMs", func(*xapi.Call) (any, error) { return []string{}, nil })
	w.handle("host.evacuate", w.hostEvacuate)
}

func (w *World) hostSetEnabled(c *xapi.Call, enabled bool) error {
	host := c.Self()
	if enabled {
		return c.Operate("host", host, "enable", func() error { return nil }, func() error {
			w.Set("host", host, db.Fields{"enabled": true})
			return nil
		})
	}
	w.Set("host", host, db.Fields{"enabled": false})
	return nil
}

// place is where a VM can go that has to leave its host, or why it cannot.
type place struct {
	host   string
	reason *xapi.Error
}

// planEvacuation finds a new host for each VM of a host, without giving the same memory away twice.
func (w *World) planEvacuation(host string) map[string]place {
	plan, promised := map[string]place{}, map[string]int64{}
	for _, vm := range w.DB().Get("host", host).Strs("resident_VMs") {
		r := w.DB().Get("VM", vm)
		if r.Bool("is_control_domain") || r.Str("power_state") != powerRunning {
			continue
		}
		plan[vm] = w.placeElsewhere(vm, host, promised)
	}
	return plan
}

func (w *World) placeElsewhere(vm, host string, promised map[string]int64) place {
	r := w.DB().Get("VM", vm)
	var reason *xapi.Error
	if err := w.checkVM(vm, "pool_migrate"); asError(err, &reason) && reason.Code != "OTHER_OPERATION_IN_PROGRESS" {
		return place{reason: reason}
	}
	reason = xapi.Fail("NO_HOSTS_AVAILABLE")
	for _, other := range w.DB().Refs("host") {
		if other == host {
			continue
		}
		if err := w.checkCanBoot(vm, other, true, true); err != nil {
			asError(err, &reason)
			continue
		}
		needed := memoryInUse(r)
		if w.freeMemory(other, vm)-promised[other] >= needed {
			promised[other] += needed
			return place{host: other}
		}
		reason = xapi.Fail("HOST_NOT_ENOUGH_FREE_MEMORY")
	}
	return place{reason: reason}
}

// hostEvacuate moves all VMs of a host to others, one after the other.
func (w *World) hostEvacuate(c *xapi.Call) error {
	host := c.Self()
	return c.Operate("host", host, "evacuate", func() error { return nil }, func() error {
		plan := w.planEvacuation(host)
		var vms []string
		for vm, place := range plan {
			if place.reason != nil {
				return place.reason
			}
			vms = append(vms, vm)
		}
		slices.Sort(vms)
		for i, vm := range vms {
			_, err := c.Call("VM.pool_migrate", map[string]any{
				"vm": vm, "host": plan[vm].host, "options": map[string]string{"live": "true"},
			})
			if err != nil {
				return err
			}
			c.Progress(float64(i+1) / float64(len(vms)+1))
		}
		return nil
	})
}
