package classes

import (
	"fmt"
	"maps"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Guests say what runs in VMs.
type Guests struct {
	Agent     bool          // every guest has an agent, not only those that ask for one
	BootDelay time.Duration // from the start of the domain until the agent reports
	Network   string        // first three parts of the addresses that guests report; default 192.0.2
}

// guest is what runs in a VM's domain.
type guest struct {
	agent           bool // an agent runs and reports
	ignoresShutdown bool // it does not react when asked to shut down
	boot            int  // tells one boot from the next
}

// agentKey in xenstore_data asks for a guest with an agent that reports at once. It is cleared when the domain runs, as the
// recorded server does with all of xenstore_data then.
const agentKey = "vm-data/sim-agent"

// The guest that reports: a Debian with the tools of XCP-ng, as recorded.
var (
	agentOSVersion = map[string]string{
		"name": "Debian GNU/Linux 12 (bookworm)", "uname": "6.1.0-37-amd64", "distro": "debian", "major": "12", "minor": "11",
	}
	agentDrivers  = map[string]string{"major": "8", "minor": "2", "micro": "0", "build": "1"}
	agentFeatures = map[string]string{"feature-shutdown": "1", "feature-reboot": "1", "feature-suspend": "1"}
)

// boot starts the guest of a domain: its metrics are new, and its agent reports now or after a while.
func (w *World) boot(vm string) {
	boot := 1
	if old := w.guestOf[vm]; old != nil {
		boot = old.boot + 1
	}
	g := &guest{boot: boot}
	w.guestOf[vm] = g
	w.dropGuestMetrics(vm)
	metrics := w.Create("VM_guest_metrics", db.Fields{
		"live": true, "last_updated": w.Now(), "can_use_hotplug_vbd": "unspecified", "can_use_hotplug_vif": "unspecified",
	})
	w.Set("VM", vm, db.Fields{"guest_metrics": metrics})
	data := w.DB().Get("VM", vm).Map("xenstore_data")
	if _, asked := data[agentKey]; asked {
		w.Set("VM", vm, db.Fields{"xenstore_data": map[string]string{}})
		w.report(vm, "192.0.2.17", "fe80::216:3eff:fe00:1")
		return
	}
	if w.guests.Agent {
		w.After(w.guests.BootDelay, func() {
			if current := w.guestOf[vm]; current != nil && current.boot == boot {
				w.SetAgent(vm, true)
			}
		})
	}
}

// report writes what an agent says of its guest; the address is that of the first interface.
func (w *World) report(vm, ipv4, ipv6 string) {
	w.guestOf[vm].agent = true
	networks := map[string]string{"0/ip": ipv4, "0/ipv4/0": ipv4, "0/ipv6/0": ipv6}
	w.Set("VM_guest_metrics", w.text("VM", vm, "guest_metrics"), db.Fields{
		"os_version": maps.Clone(agentOSVersion), "PV_drivers_version": maps.Clone(agentDrivers), "PV_drivers_up_to_date": true,
		"PV_drivers_detected": true, "networks": networks, "other": maps.Clone(agentFeatures), "last_updated": w.Now(), "live": true,
	})
}

// addresses makes up stable addresses of a VM's guest from its MAC.
func (w *World) addresses(vm string) (ipv4, ipv6 string) {
	network := w.guests.Network
	if network == "" {
		network = "192.0.2"
	}
	mac := [6]int{}
	for _, vif := range w.DB().Get("VM", vm).Strs("VIFs") {
		r := w.DB().Get("VIF", vif)
		if r.Str("device") == "0" {
			_, _ = fmt.Sscanf(r.Str("MAC"), "%x:%x:%x:%x:%x:%x", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5])
		}
	}
	last := (mac[3]<<16 | mac[4]<<8 | mac[5]) % 253
	ipv4 = fmt.Sprintf("%s.%d", network, last+1)
	return ipv4, fmt.Sprintf("fe80::%02x%02x:%02xff:fe%02x:%02x%02x", mac[0]^2, mac[1], mac[2], mac[3], mac[4], mac[5])
}

// SetAgent turns the agent of a running guest on or off. The pool must be locked.
func (w *World) SetAgent(vm string, on bool) {
	g := w.guestOf[vm]
	if g == nil {
		return
	}
	if on {
		ipv4, ipv6 := w.addresses(vm)
		w.report(vm, ipv4, ipv6)
	} else {
		g.agent = false
		w.Set("VM_guest_metrics", w.text("VM", vm, "guest_metrics"), db.Fields{
			"os_version": map[string]string{}, "PV_drivers_version": map[string]string{}, "PV_drivers_up_to_date": false,
			"PV_drivers_detected": false, "networks": map[string]string{}, "other": map[string]string{}, "last_updated": w.Now(),
		})
	}
	w.refreshWithDevices(vm)
}

// IgnoreShutdown lets a running guest react no more, or again, when it is asked to shut down. The pool must be locked.
func (w *World) IgnoreShutdown(vm string, ignore bool) {
	if g := w.guestOf[vm]; g != nil {
		g.ignoresShutdown = ignore
	}
}

// GuestShutdown lets a running guest shut itself down: what happens next is the VM's actions_after_shutdown. The pool must be
// locked.
func (w *World) GuestShutdown(vm string) {
	if !w.running(vm) {
		return
	}
	if w.text("VM", vm, "actions_after_shutdown") == "restart" {
		w.GuestReboot(vm)
		return
	}
	w.domainEnds(vm, powerHalted)
	w.refreshWithDevices(vm)
}

// GuestReboot lets a running guest reboot itself. The pool must be locked.
func (w *World) GuestReboot(vm string) {
	if !w.running(vm) {
		return
	}
	if w.text("VM", vm, "actions_after_reboot") == "destroy" {
		w.domainEnds(vm, powerHalted)
	} else {
		w.domainReboots(vm)
	}
	w.refreshWithDevices(vm)
}

// running says whether a VM's guest runs.
func (w *World) running(vm string) bool {
	return w.guestOf[vm] != nil && w.text("VM", vm, "power_state") == powerRunning
}

// askToStop asks the guest to shut down, or to reboot, and waits for it.
func (w *World) askToStop(c *xapi.Call, vm string, deadline time.Duration) error {
	if g := w.guestOf[vm]; g == nil || g.agent && !g.ignoresShutdown {
		return c.Wait(w.durations.CleanStop)
	} else if !g.agent && !g.ignoresShutdown {
		return xapi.Fail("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", vm)
	}
	if err := c.Wait(deadline); err != nil {
		return err
	}
	return xapi.Fail("VM_SHUTDOWN_TIMEOUT", vm, fmt.Sprintf("%.0f.", deadline.Seconds()))
}

func (w *World) dropGuestMetrics(vm string) {
	metrics := w.text("VM", vm, "guest_metrics")
	w.Set("VM", vm, db.Fields{"guest_metrics": db.NullRef})
	w.DB().Delete("VM_guest_metrics", metrics)
}
