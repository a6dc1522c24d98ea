package instance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Names of the steps of a move.
const (
	stepMigrate   = "Migrate"
	stepSendDisks = "SendDisks"
)

// migrationRetry is how soon a migration that has failed is tried again: it moves a lot.
const migrationRetry = time.Minute

// wish is the host that the VM is to go to.
type wish struct {
	HostFit
	// Must says that the VM may be nowhere else, Sizes that it goes for the sake of its new size.
	Must, Sizes bool
	// Why says what asks for it.
	Why string
}

// obstacle is what keeps a wish from being carried out now.
type obstacle struct {
	reason   string
	requires v1alpha1.ChangeRequires
	text     string
}

// moveWish is where the VM is to go, nil if it is where it belongs. A preference counts once: the VM's affinity tells that it
// was acted on, so a VM that somebody moves afterwards is left where it is. A guest that is to stop anyway is not moved before.
func (f *Facts) moveWish() *wish {
	stops := f.running() && f.Want.Power != "" && f.Want.Power != v1alpha1.PowerStateRunning
	if f.VM == nil || f.Move == nil || f.building() || stops {
		return nil
	}
	if host := f.hostOf(f.Want.Host); host != nil {
		fit := f.placement(host, f.VM.Size)
		switch {
		case f.isOn(host, &fit):
		case f.Want.Pinned:
			return &wish{HostFit: fit, Must: true, Why: "placement.host is pinned"}
		case f.VM.Affinity != host.Ref:
			return &wish{HostFit: fit, Why: "placement.host"}
		}
	}
	if f.Want.Pinned || !f.resizeAwaitsMove() {
		return nil
	}
	best := bestFit(f.placements(*f.Want.Size))
	fit := f.placement(best.Host, f.VM.Size)
	return &wish{HostFit: fit, Sizes: true, Why: fmt.Sprintf("flavor %s fits no host that sees the disks", f.Want.Flavor)}
}

// resizeAwaitsMove reports whether a new size would be given to the VM now if it were on another host, one that has to get its
// disks for that. What keeps the resize keeps the disks.
func (f *Facts) resizeAwaitsMove() bool {
	if f.fitsInSight() || f.heldByAnother() || len(f.Me.PowerOnGates) > 0 {
		return false
	}
	return f.sizesNow() && len(resizeProblems(f)) == 0
}

// hostOf finds a host, nil if there is none.
func (f *Facts) hostOf(ref xenapi.HostRef) *Host {
	for i := range f.Hosts {
		if f.Hosts[i].Ref == ref {
			return &f.Hosts[i]
		}
	}
	return nil
}

// isOn reports whether the VM is where it would be on a host: running there, or off with its disks in sight.
func (f *Facts) isOn(host *Host, fit *HostFit) bool {
	if f.halted() {
		return fit.SeesDisks()
	}
	return f.VM.Host == host.Ref
}

// obstacles are what keeps the VM from going where it is to go.
func (f *Facts) obstacles(w *wish) []obstacle {
	var found []obstacle
	add := func(reason string, requires v1alpha1.ChangeRequires, format string, args ...any) {
		found = append(found, obstacle{reason, requires, fmt.Sprintf(format, args...)})
	}
	if !w.Fits() {
		add(w.Reason, v1alpha1.RequiresLive, "it cannot run there now: %s", w.text())
	}
	switch power := f.VM.Power; {
	case power == v1alpha1.PowerStatePaused || power == v1alpha1.PowerStateSuspended:
		add(v1alpha1.ReasonMigrationRefused, v1alpha1.RequiresPowerOff, "a VM that is %s is not moved; set powerState to Running or Halted", power)
	case power == v1alpha1.PowerStateRunning && f.immobile():
		add(v1alpha1.ReasonMigrationRefused, v1alpha1.RequiresPowerOff,
			"it cannot be moved while it runs: its platform has nested-virt or nomigrate; it moves when it is off")
	case power == v1alpha1.PowerStateRunning && !f.VM.Guest.CanMove:
		add(v1alpha1.ReasonMigrationRefused, v1alpha1.RequiresPowerOff,
			"it cannot be moved while it runs: the guest's drivers do not report; it moves when they do, or when it is off")
	}
	verb := xenapi.VMOperationPoolMigrate
	if len(w.Moves) > 0 {
		f.storageObstacles(w, add)
		verb = xenapi.VMOperationMigrateSend
	}
	if text, blocked := f.VM.Blocked[string(verb)]; blocked {
		add(v1alpha1.ReasonOperationBlocked, v1alpha1.RequiresHold, "%s is blocked on the VM (blocked_operations): %s", verb, text)
	}
	return found
}

// storageObstacles are what keeps disks where they are.
func (f *Facts) storageObstacles(w *wish, add func(reason string, requires v1alpha1.ChangeRequires, format string, args ...any)) {
	hold := v1alpha1.RequiresHold
	switch {
	case f.rescueUnderWay():
		add(v1alpha1.ReasonInstanceBusy, hold, "its disks stay while the instance is in rescue; they move after the return")
		return // that they hang on the rescue VM needs no mention
	case f.heldByAnother():
		add(v1alpha1.ReasonInstanceBusy, v1alpha1.RequiresConfirmation, "its disks stay while a resize is not over; confirm or revert it first")
	}
	for _, disk := range f.moving(&w.HostFit) {
		switch {
		case disk.VDI.TracksChanges:
			add(v1alpha1.ReasonMigrationRefused, hold,
				"disk %s has changed block tracking on, which keeps it on %s; turn that off (VDI.disable_cbt)", disk.title(), disk.VDI.SRName)
		case disk.VDI.Resets:
			add(v1alpha1.ReasonMigrationRefused, hold, "disk %s is reset at each boot (on_boot), which keeps it on %s", disk.title(), disk.VDI.SRName)
		case disk.VDI.Users > 1:
			add(v1alpha1.ReasonMigrationRefused, hold, "disk %s hangs on another VM too, which keeps it on %s", disk.title(), disk.VDI.SRName)
		}
	}
}

// immobile reports whether the VM says of itself that it cannot be moved while it runs.
func (f *Facts) immobile() bool {
	return f.nested() || f.VM.platformFlag(platformNoMigrate)
}

// whenMoving brings the VM to the host that it is to be on. What cannot be done now is left alone, see whenMoveRefused.
func whenMoving(f *Facts, _ time.Time) (Plan, bool) {
	if f.Me.Held != "" {
		return undecided()
	}
	w := f.moveWish()
	if w != nil && len(f.obstacles(w)) == 0 {
		return Plan{Operation: operationMove, ID: w.Host.Name, Steps: f.moveSteps(w).Next(f)}, true
	}
	if f.moveJournal() != nil {
		return f.settleMove(), true
	}
	if f.prefers(w) {
		return Plan{Operation: operationMove, ID: f.hostOf(f.Want.Host).Name, Steps: []Step{preferHostStep}}, true
	}
	return undecided()
}

// prefers reports whether the pool is to be told where the VM should start: it is there, or it is off and begins its life
// wherever it can.
func (f *Facts) prefers(w *wish) bool {
	host := f.hostOf(f.Want.Host)
	if host == nil || f.VM.Affinity == host.Ref {
		return false
	}
	return w == nil && (f.halted() || f.VM.Host == host.Ref) || w != nil && !w.Must && f.halted()
}

var preferHostStep = Step{
	Name:  "PreferHost",
	Holds: func(f *Facts) bool { return f.VM.Affinity == f.Want.Host },
	Act: func(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
		return "", r.doing(r.Client.VM.SetAffinity(ctx, r.VM.Ref, r.Want.Host), "tell the pool which host the VM should start on")
	},
}

// settleMove puts right what a move has left, wherever it ended.
func (f *Facts) settleMove() Plan {
	plan := Plan{Operation: operationMove, Steps: afterMove.Next(f)}
	if host := f.hostOf(f.VM.Host); host != nil {
		plan.ID = host.Name
	}
	return plan
}

// afterMove gives the disks back what they have lost on their way.
var afterMove = Sequence{
	{Name: "RestoreDisks", Holds: func(f *Facts) bool { return len(f.unrestored()) == 0 }, Act: restoreDisks},
	{Name: "DiscardCopies", Holds: noCopies, Act: discardCopies},
	{Name: "ForgetMove", Holds: func(f *Facts) bool { return f.moveJournal() == nil }, Act: forgetMove},
}

// moveSteps are the way to a host: a live migration where it sees the disks, else with those that it does not see. Where the VM
// must be there, the pool is told before: what counts once the pin is gone is the host that was asked for last.
func (f *Facts) moveSteps(w *wish) Sequence {
	var way Sequence
	if w.Must {
		way = append(way, preferHostStep)
	}
	if len(w.Moves) == 0 {
		return append(way, Step{
			Name: stepMigrate, For: w.Host.Name, Long: true, RetryAfter: migrationRetry,
			Holds: func(f *Facts) bool { return f.VM.Host == w.Host.Ref },
			Act:   func(ctx context.Context, r *Run) (xenapi.TaskRef, error) { return r.migrate(ctx, w.Host) },
		})
	}
	disks := f.moving(&w.HostFit)
	return append(way,
		Step{
			Name: "RememberDisks", Holds: func(f *Facts) bool { return f.remembered(disks) },
			Act: func(ctx context.Context, r *Run) (xenapi.TaskRef, error) { return "", r.remember(ctx, disks) },
		},
		Step{Name: "DiscardCopies", Holds: noCopies, Act: discardCopies},
		Step{
			Name: "NameMovingDisks", Holds: func(f *Facts) bool { return f.named(disks) },
			Act: func(ctx context.Context, r *Run) (xenapi.TaskRef, error) { return "", r.nameMoving(ctx, disks) },
		},
		Step{
			Name: stepSendDisks, For: w.Host.Name, Long: true, RetryAfter: migrationRetry,
			Holds: func(*Facts) bool { return false }, // the wish is over then
			Act:   func(ctx context.Context, r *Run) (xenapi.TaskRef, error) { return r.sendDisks(ctx, w) },
		},
	)
}

func noCopies(f *Facts) bool { return len(f.leftCopies()) == 0 }

func restoreDisks(ctx context.Context, r *Run) (xenapi.TaskRef, error) { return "", r.restore(ctx) }

func discardCopies(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.discardCopies(ctx)
}

func forgetMove(ctx context.Context, r *Run) (xenapi.TaskRef, error) {
	return "", r.doing(r.Client.VM.RemoveFromOtherConfig(ctx, r.VM.Ref, xencache.MarkJournal), "forget the move")
}

// named reports whether the disks have the name that they have on their way.
func (f *Facts) named(disks []*Disk) bool {
	for _, disk := range disks {
		if disk.VDI.Name != f.Me.movingName() {
			return false
		}
	}
	return true
}

func (r *Run) nameMoving(ctx context.Context, disks []*Disk) error {
	for _, disk := range disks {
		if name := r.Me.movingName(); disk.VDI.Name != name {
			if err := r.Client.VDI.SetNameLabel(ctx, disk.VDI.Ref, name); err != nil {
				return r.doing(err, "name disk %s for its way", disk.title())
			}
		}
	}
	return nil
}

// migrate moves the running guest.
func (r *Run) migrate(ctx context.Context, to *Host) (xenapi.TaskRef, error) {
	task, err := r.Client.VM.PoolMigrateAsync(ctx, r.VM.Ref, to.Ref, map[string]string{"live": "true"})
	return task, r.doing(err, "move the VM to %s", to.Name)
}

// sendDisks moves the disks that the host does not see, and with them the guest if it runs.
func (r *Run) sendDisks(ctx context.Context, w *wish) (xenapi.TaskRef, error) {
	way, err := r.Client.Host.MigrateReceive(ctx, w.Host.Ref, w.Host.Management, map[string]string{})
	if err != nil {
		return "", r.doing(err, "prepare host %s for the VM", w.Host.Name)
	}
	task, err := r.Client.VM.MigrateSendAsync(ctx, r.VM.Ref, way, true, r.diskMap(w), map[xenapi.VIFRef]xenapi.NetworkRef{}, map[string]string{}, nil, nil)
	return task, r.doing(err, "move the VM with its disks to %s", w.Host.Name)
}

// diskMap says of each disk where it goes: XenAPI wants all of them named, also those that stay. A snapshot's disk whose origin
// is gone would go to the pool's default, a CD that is not named be ejected, so both stay where the host can see them.
func (r *Run) diskMap(w *wish) map[xenapi.VDIRef]xenapi.SRRef {
	places := map[xenapi.VDIRef]xenapi.SRRef{}
	for i := range r.VM.Disks {
		if vdi := &r.VM.Disks[i].VDI; !vdi.Ref.IsNull() && (!r.VM.Disks[i].CD || w.Host.Sees[vdi.SR]) {
			places[vdi.Ref] = vdi.SR
		}
	}
	for _, move := range w.Moves {
		places[move.Disk.VDI.Ref] = move.To.Ref
	}
	for i := range r.Move.Snapshots {
		vdi := &r.Move.Snapshots[i].VDI
		if vdi.Ref.IsNull() || r.Move.Snapshots[i].CD {
			continue
		}
		places[vdi.Ref] = vdi.SR
		if origin, moves := places[vdi.SnapshotOf]; moves {
			places[vdi.Ref] = origin
		}
	}
	return places
}

// whenMoveRefused says why the VM is not where it is to be. Nothing was touched, and everything else is as asked.
func whenMoveRefused(f *Facts, _ time.Time) (Plan, bool) {
	if problem := f.Want.HostProblem; problem != nil {
		return stop(reconcile.Done().Because(problem.Reason, problem.Message).After(recheckAfter))
	}
	w := f.moveWish()
	if w == nil {
		return undecided()
	}
	found := f.obstacles(w)
	if len(found) == 0 {
		return undecided() // the pool is held
	}
	if first := found[0]; first.reason == v1alpha1.ReasonInstanceBusy {
		return undecided() // what it waits for says more, and status.pendingChanges has it
	} else if w.Must || w.Sizes {
		return stop(reconcile.Terminal(first.reason, f.moveText(w, found)).After(recheckAfter))
	}
	return stop(reconcile.Done().Because(found[0].reason, f.moveText(w, found)).After(recheckAfter))
}

// moveText says where the VM is, where it is to be, and what keeps it.
func (f *Facts) moveText(w *wish, found []obstacle) string {
	texts := make([]string, len(found))
	for i, o := range found {
		texts[i] = o.text
	}
	where := "the VM is off"
	if f.VM.HostName != "" {
		where = "the VM is on " + f.VM.HostName
	}
	return fmt.Sprintf("%s and is to be on %s (%s): %s", where, w.Host.Name, w.Why, strings.Join(texts, "; "))
}

// pendingMove lists a move that is not carried out yet.
func pendingMove(f *Facts, add adder) {
	if problem := f.Want.HostProblem; problem != nil {
		add("placement.host", v1alpha1.RequiresHold, "%s", cut(problem.Message, maxText))
	}
	w := f.moveWish()
	if w == nil {
		return
	}
	requires, found := v1alpha1.RequiresLive, f.obstacles(w)
	for _, o := range found {
		if o.requires != v1alpha1.RequiresLive {
			requires = o.requires
			break
		}
	}
	message := fmt.Sprintf("to host %s (%s)", w.Host.Name, w.Why)
	if len(w.Moves) > 0 {
		message += ", with " + movesText(w.Moves)
	}
	if len(found) > 0 {
		message = f.moveText(w, found)
	}
	add("placement.host", requires, "%s", cut(message, maxText))
}

// movesText names disks and where they go.
func movesText(moves []DiskMove) string {
	texts := make([]string, len(moves))
	for i, move := range moves {
		texts[i] = fmt.Sprintf("disk %s to %s", move.Disk.title(), move.To.Name)
	}
	return strings.Join(texts, ", ")
}

// sizesNow reports whether a new size is carried out now, and not when the VM is off some day.
func (f *Facts) sizesNow() bool {
	return f.halted() || (f.running() && f.Want.Resize.Strategy == v1alpha1.ResizeRestart)
}
