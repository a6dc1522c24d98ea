package classes

import (
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/blockstore"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Options say how the objects of a pool behave.
type Options struct {
	Disks     *blockstore.Store // the bytes of VDIs, by uuid; required
	Durations Durations         // zero fields take the defaults
	Guests    Guests
}

// Durations are how long operations take in the pool's time.
type Durations struct {
	Start         time.Duration // from the call until the domain runs
	Stop          time.Duration // forced off
	CleanStop     time.Duration // the guest shuts down when asked to
	Pause         time.Duration // also unpause
	Suspend       time.Duration // also resume
	Migrate       time.Duration // of memory, beside the disks
	Plug          time.Duration // also unplug, insert, eject
	Disk          time.Duration // one storage operation: create, resize, snapshot, clone, destroy
	CopyPerGiB    time.Duration // of a disk's virtual size
	GuestDeadline time.Duration // how long a guest may take to shut down
	Coalesce      time.Duration // from the end of a snapshot until its blocks are merged into what is left
	WrongPassword time.Duration // until a login is refused
}

// DefaultDurations are those of a small idle pool.
var DefaultDurations = Durations{
	Start: 2 * time.Second, Stop: time.Second, CleanStop: 5 * time.Second, Pause: 50 * time.Millisecond,
	Suspend: 3 * time.Second, Migrate: 5 * time.Second, Plug: 100 * time.Millisecond, Disk: 100 * time.Millisecond,
	CopyPerGiB: 250 * time.Millisecond, GuestDeadline: 20 * time.Minute,
	Coalesce: 30 * time.Second, WrongPassword: 5 * time.Second,
}

// RecordedDurations are those of the recorded server, whose hypervisor, storage and PAM were stand-ins.
var RecordedDurations = Durations{
	Start: 100 * time.Millisecond, Stop: 50 * time.Millisecond, CleanStop: 100 * time.Millisecond, Pause: 20 * time.Millisecond,
	Suspend: 100 * time.Millisecond, Migrate: 100 * time.Millisecond, Plug: 20 * time.Millisecond, Disk: 20 * time.Millisecond,
	CopyPerGiB: 250 * time.Millisecond, WrongPassword: 2 * time.Millisecond,
}

// orDefault fills in what is not set.
func (d Durations) orDefault() Durations {
	for _, pair := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&d.Start, DefaultDurations.Start}, {&d.Stop, DefaultDurations.Stop}, {&d.CleanStop, DefaultDurations.CleanStop},
		{&d.Pause, DefaultDurations.Pause}, {&d.Suspend, DefaultDurations.Suspend}, {&d.Migrate, DefaultDurations.Migrate},
		{&d.Plug, DefaultDurations.Plug}, {&d.Disk, DefaultDurations.Disk}, {&d.CopyPerGiB, DefaultDurations.CopyPerGiB},
		{&d.GuestDeadline, DefaultDurations.GuestDeadline}, {&d.Coalesce, DefaultDurations.Coalesce}, {&d.WrongPassword, DefaultDurations.WrongPassword},
	} {
		if *pair.field == 0 {
			*pair.field = pair.fallback
		}
	}
	return d
}

// World is the pool's objects and what the database does not know of them.
type World struct {
	*xapi.Pool

	disks     *blockstore.Store
	durations Durations
	guests    Guests
	domids    map[string]int64  // the last domain id of each host
	guestOf   map[string]*guest // what runs in the VMs, by the VM's reference
	scheduled map[string]string // the host that keeps room for a VM, by the VM's reference

	snapshotted map[string]db.Record // what a VM was when a snapshot was taken, by the snapshot's reference
}

// Register registers the messages of the classes. The pool's objects are in the database already.
func Register(p *xapi.Pool, o Options) *World {
	w := &World{Pool: p, disks: o.Disks, durations: o.Durations.orDefault(), guests: o.Guests,
		domids: map[string]int64{}, guestOf: map[string]*guest{}, scheduled: map[string]string{},
		snapshotted: map[string]db.Record{}}
	p.WrongPassword = w.durations.WrongPassword
	p.OnRefresh("VM", func(_ *xapi.Pool, ref string) { w.refreshVM(ref) })
	p.OnRefresh("VBD", func(_ *xapi.Pool, ref string) { w.refreshVBD(ref) })
	p.OnRefresh("VIF", func(_ *xapi.Pool, ref string) { w.refreshVIF(ref) })
	p.OnRefresh("VDI", func(_ *xapi.Pool, ref string) { w.refreshVDI(ref) })
	p.OnRefresh("SR", func(_ *xapi.Pool, ref string) { w.refreshSR(ref) })
	w.registerVMPower()
	w.registerVMCopies()
	w.registerVMSettings()
	w.registerVMQueries()
	w.registerMigration()
	w.registerVBD()
	w.registerVIF()
	w.registerVDI()
	w.registerSR()
	w.registerNetwork()
	w.registerVLAN()
	w.registerHost()
	w.registerVTPM()
	p.CancellableFromTheStart("VM.start", "VM.start_on", "VM.clean_shutdown", "VM.clean_reboot", "VM.resume", "VM.resume_on",
		"VM.clone", "VM.copy", "VM.snapshot", "VM.checkpoint", "VM.pool_migrate", "VM.migrate_send", "VDI.copy", "VDI.pool_migrate")
	w.adopt()
	return w
}

// handle registers a message whose answer is void.
func (w *World) handle(message string, f func(c *xapi.Call) error) {
	w.Handle(message, func(c *xapi.Call) (any, error) { return nil, f(c) })
}

// adopt takes over domains that a loaded state says are running, and remembers their domain ids.
func (w *World) adopt() {
	w.Lock()
	defer w.Unlock()
	for _, ref := range w.DB().Refs("VM") {
		vm := w.DB().Get("VM", ref)
		host := vm.Str("resident_on")
		w.domids[host] = max(w.domids[host], vm.Int("domid"))
		if vm.Str("power_state") == powerRunning && !vm.Bool("is_control_domain") {
			w.guestOf[ref] = &guest{agent: w.vmFacts(ref).guest.hasPVDrivers}
		}
	}
	for _, ref := range w.DB().Refs("host") {
		w.updateHostMemory(ref)
	}
}

// err is the refusal as a XenAPI error, or nil.
func (r refusal) err() error {
	if !r.refused() {
		return nil
	}
	return xapi.Fail(r.code, r.params...)
}

// valid says whether a reference leads to an object.
func (w *World) valid(class, ref string) bool {
	return ref != "" && ref != db.NullRef && w.DB().Get(class, ref).Exists()
}

// text reads a text field of an object that may not be there.
func (w *World) text(class, ref, field string) string {
	if r := w.DB().Get(class, ref); r.Exists() {
		return r.Str(field)
	}
	return ""
}
