package classes

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

func TestStartAndStop(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", true)

	s.call("VM.start", vm, false, false)
	running := s.record("VM", vm)
	metrics := s.record("VM_metrics", running.Str("metrics"))
	vbd := s.record("VBD", running.Strs("VBDs")[0])
	switch {
	case running.Str("power_state") != powerRunning, running.Str("resident_on") != s.Coordinator(), running.Int("domid") < 1:
		t.Errorf("a started VM is %s on %s with domain %d", running.Str("power_state"), running.Str("resident_on"), running.Int("domid"))
	case running.Str("scheduled_to_be_resident_on") != db.NullRef || len(running.Map("current_operations")) > 0:
		t.Errorf("a start leaves a reservation or an operation behind: %v", running.Map("current_operations"))
	case !vbd.Bool("currently_attached") || vbd.Str("device") != "xvda":
		t.Errorf("its disk is attached: %v, as %q", vbd.Bool("currently_attached"), vbd.Str("device"))
	case metrics.Time("start_time").Equal(db.Epoch) || !metrics.Bool("hvm") || metrics.Str("current_domain_type") != "hvm":
		t.Errorf("its metrics: %v", metrics.Fields())
	case running.Map("platform")["device-model"] != "qemu-upstream-compat" || running.Map("bios_strings")["bios-vendor"] != "Xen":
		t.Errorf("start fills in platform and bios_strings: %v %v", running.Map("platform"), running.Map("bios_strings"))
	case len(running.Map("xenstore_data")) != 0:
		t.Errorf("xenstore_data after the start: %v", running.Map("xenstore_data"))
	}
	protocols := []string{}
	for _, console := range running.Strs("consoles") {
		r := s.record("console", console)
		protocols = append(protocols, r.Str("protocol"))
		if !strings.HasSuffix(r.Str("location"), "/console?uuid="+r.Str("uuid")) {
			t.Errorf("console at %s", r.Str("location"))
		}
	}
	if !slices.Equal(protocols, []string{"vt100", "rfb"}) {
		t.Errorf("consoles %v", protocols)
	}

	s.call("VM.clean_shutdown", vm)
	halted := s.record("VM", vm)
	switch {
	case halted.Str("power_state") != powerHalted, halted.Str("resident_on") != db.NullRef, halted.Int("domid") != -1:
		t.Errorf("a VM that was shut down is %s on %s", halted.Str("power_state"), halted.Str("resident_on"))
	case len(halted.Strs("consoles")) != 0:
		t.Errorf("it has consoles %v", halted.Strs("consoles"))
	case halted.Str("guest_metrics") == db.NullRef:
		t.Error("it has lost its guest metrics, which stay until the next start")
	}
	if !sameWords(strings.Join(halted.Strs("allowed_operations"), " "), operationsByPowerState[powerHalted]) {
		t.Errorf("allowed operations %v", halted.Strs("allowed_operations"))
	}
}

// Each operation leads from a power state to the next.
func TestPowerStateMachine(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", true)
	for _, step := range []struct {
		message string
		params  []any
		state   string
	}{
		{"VM.start", []any{vm, true, false}, powerPaused},
		{"VM.unpause", []any{vm}, powerRunning},
		{"VM.pause", []any{vm}, powerPaused},
		{"VM.hard_reboot", []any{vm}, powerRunning},
		{"VM.hard_shutdown", []any{vm}, powerHalted},
	} {
		s.call(step.message, step.params...)
		if got := s.record("VM", vm).Str("power_state"); got != step.state {
			t.Fatalf("%s leaves the VM %s, want %s", step.message, got, step.state)
		}
	}
}

func TestSuspendAndResume(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", true)
	s.call("VM.start", vm, false, false)
	started := s.record("VM_metrics", s.record("VM", vm).Str("metrics")).Time("start_time")

	s.call("VM.suspend", vm)
	suspended := s.record("VM", vm)
	image := suspended.Str("suspend_VDI")
	if suspended.Str("power_state") != powerSuspended || suspended.Str("resident_on") != db.NullRef || !s.exists("VDI", image) {
		t.Fatalf("after suspend: %s on %s with image %s", suspended.Str("power_state"), suspended.Str("resident_on"), image)
	}
	s.refused("VM_BAD_POWER_STATE", "VM.start", vm, false, false)

	s.call("VM.resume", vm, false, false)
	resumed := s.record("VM", vm)
	if resumed.Str("power_state") != powerRunning || resumed.Str("suspend_VDI") != db.NullRef || s.exists("VDI", image) {
		t.Errorf("after resume: %s, image %s", resumed.Str("power_state"), resumed.Str("suspend_VDI"))
	}
	if again := s.record("VM_metrics", resumed.Str("metrics")).Time("start_time"); !again.Equal(started) {
		t.Errorf("start_time is %v, want %v: resuming is no boot", again, started)
	}
	s.call("VM.suspend", vm)
	image = s.record("VM", vm).Str("suspend_VDI")
	s.call("VM.hard_shutdown", vm)
	if s.exists("VDI", image) {
		t.Error("hard_shutdown of a suspended VM leaves its memory image")
	}
}

func TestRebootChangesStartTime(t *testing.T) {
	s := newSite(t, Guests{Agent: true})
	vm := s.vm("web", false)
	s.call("VM.start", vm, false, false)
	s.eventually("VM", vm, "allowed to reboot cleanly", func(r db.Record) bool {
		return slices.Contains(r.Strs("allowed_operations"), "clean_reboot")
	})
	before := s.record("VM", vm)
	started := s.record("VM_metrics", before.Str("metrics")).Time("start_time")
	s.call("VM.clean_reboot", vm)
	after := s.record("VM", vm)
	if !s.record("VM_metrics", after.Str("metrics")).Time("start_time").After(started) {
		t.Error("start_time is as it was")
	}
	if after.Int("domid") == before.Int("domid") || !slices.Equal(after.Strs("consoles"), before.Strs("consoles")) {
		t.Errorf("domain %d, then %d; consoles %v, then %v", before.Int("domid"), after.Int("domid"), before.Strs("consoles"),
			after.Strs("consoles"))
	}
}

func TestGuestWithoutAgent(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", false)
	s.call("VM.start", vm, false, false)
	for _, message := range []string{"VM.clean_shutdown", "VM.clean_reboot", "VM.suspend"} {
		s.refused("VM_LACKS_FEATURE", message, vm)
	}
	s.refused("VM_LACKS_FEATURE", "VM.checkpoint", vm, "x")
	s.refused("VM_MISSING_PV_DRIVERS", "VBD.plug", s.vbd(vm, s.disk("Local storage", int(gib)), "5"))
	s.call("VM.shutdown", vm)
	if got := s.record("VM", vm).Str("power_state"); got != powerHalted {
		t.Errorf("shutdown leaves the VM %s", got)
	}
}

func TestGuestsActOnTheirOwn(t *testing.T) {
	s := newSite(t, Guests{Agent: true, BootDelay: 20 * time.Second})
	vm := s.vm("web", false)
	s.call("VM.start", vm, false, false)
	if slices.Contains(s.record("VM", vm).Strs("allowed_operations"), "clean_shutdown") {
		t.Error("the agent reports before it has booted")
	}
	s.eventually("VM", vm, "allowed to shut down cleanly", func(r db.Record) bool {
		return slices.Contains(r.Strs("allowed_operations"), "clean_shutdown")
	})
	networks := s.record("VM_guest_metrics", s.record("VM", vm).Str("guest_metrics")).Map("networks")
	if !strings.HasPrefix(networks["0/ip"], "192.0.2.") || networks["0/ip"] != networks["0/ipv4/0"] {
		t.Errorf("addresses %v", networks)
	}
	s.locked(func() { s.SetAgent(vm, false) })
	s.refused("VM_LACKS_FEATURE", "VM.clean_shutdown", vm)
	s.locked(func() { s.SetAgent(vm, true); s.IgnoreShutdown(vm, true) })
	s.refused("VM_SHUTDOWN_TIMEOUT", "VM.clean_shutdown", vm)
	s.locked(func() { s.GuestShutdown(vm) })
	if got := s.record("VM", vm).Str("power_state"); got != powerHalted {
		t.Errorf("a guest shut itself down, and its VM is %s", got)
	}
}

// A hard shutdown does not wait for what it makes pointless.
func TestHardShutdownCancelsCleanOne(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", true)
	s.call("VM.start", vm, false, false)
	s.locked(func() { s.IgnoreShutdown(vm, true) })
	s.durations.GuestDeadline = 24 * time.Hour
	task := s.call("Async.VM.clean_shutdown", vm).(string)
	s.eventually("VM", vm, "being shut down", func(r db.Record) bool { return len(r.Map("current_operations")) > 0 })
	s.call("VM.hard_shutdown", vm)
	s.eventually("task", task, "cancelled", func(r db.Record) bool { return r.Str("status") == "cancelled" })
	if got := s.record("VM", vm).Str("power_state"); got != powerHalted {
		t.Errorf("the VM is %s", got)
	}
}

// Calls that collide wait for each other, and then find what the other has left.
func TestCollidingCallsQueue(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", false)
	first := s.call("Async.VM.start", vm, false, false).(string)
	second := s.call("Async.VM.start", vm, false, false).(string)
	destroy := s.call("Async.VM.destroy", vm).(string)
	finished := func(r db.Record) bool { return r.Str("status") != "pending" }
	for task, want := range map[string][]string{
		first: {}, second: {"VM_BAD_POWER_STATE", vm, "halted", "running"},
		destroy: {"VM_BAD_POWER_STATE", vm, "halted, suspended", "running"},
	} {
		s.eventually("task", task, "finished", finished)
		if got := s.record("task", task).Strs("error_info"); !slices.Equal(got, want) {
			t.Errorf("task ended with %v, want %v", got, want)
		}
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	s := newSite(t, Guests{})
	vm := s.vm("web", false)
	s.durations.Start = 24 * time.Hour
	task := s.call("Async.VM.start", vm, false, false).(string)
	s.eventually("VM", vm, "starting", func(r db.Record) bool { return r.Str("scheduled_to_be_resident_on") != db.NullRef })
	s.call("task.cancel", task)
	s.eventually("task", task, "cancelled", func(r db.Record) bool { return r.Str("status") == "cancelled" })
	r := s.record("VM", vm)
	if r.Str("power_state") != powerHalted || len(r.Map("current_operations")) > 0 || r.Str("scheduled_to_be_resident_on") != db.NullRef {
		t.Errorf("after a cancelled start: %s, %v, reserved on %s", r.Str("power_state"), r.Map("current_operations"),
			r.Str("scheduled_to_be_resident_on"))
	}
}

// locked does something as the simulator itself would.
func (s *site) locked(f func()) {
	s.Lock()
	defer s.Unlock()
	f()
}
