package xensim

import "github.com/kubexen/kubexen/pkg/xensim/internal/classes"

// registerClasses registers what VMs, disks, devices, networks and storage do.
func registerClasses(p *Pool) {
	p.world = classes.Register(p.Pool, classes.Options{
		Disks: p.disks, Durations: p.options.Durations, Guests: p.options.Guests,
	})
}

// GuestControl is how a test plays the guest of a VM: what an operating system does by itself.
//
// All methods take the VM's reference. They have no effect on a VM that does not run.
type GuestControl struct{ pool *Pool }

// Guest gives the control of what runs in VMs.
func (p *Pool) Guest() GuestControl { return GuestControl{p} }

// SetAgent lets the guest's agent report, or fall silent.
func (g GuestControl) SetAgent(vm string, on bool) {
	g.pool.Lock()
	defer g.pool.Unlock()
	g.pool.world.SetAgent(vm, on)
}

// Shutdown lets the guest shut itself down.
func (g GuestControl) Shutdown(vm string) {
	g.pool.Lock()
	defer g.pool.Unlock()
	g.pool.world.GuestShutdown(vm)
}

// Reboot lets the guest reboot itself.
func (g GuestControl) Reboot(vm string) {
	g.pool.Lock()
	defer g.pool.Unlock()
	g.pool.world.GuestReboot(vm)
}

// IgnoreShutdown lets the guest not react, or react again, when it is asked to shut down.
func (g GuestControl) IgnoreShutdown(vm string, ignore bool) {
	g.pool.Lock()
	defer g.pool.Unlock()
	g.pool.world.IgnoreShutdown(vm, ignore)
}
