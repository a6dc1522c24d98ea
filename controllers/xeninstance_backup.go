package controllers

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/transfer"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// partRestore begins the names of the transfers that make the disks of a backup.
const partRestore = "restore/"

// The first and the longest pause between two attempts to restore a disk.
const (
	restoreFirst = 5 * time.Second
	restoreMost  = 10 * time.Minute
)

// backups are the manifests that were read, so that each is read once while its VM is being made, and the attempts to restore
// disks. Nothing depends on them after a restart.
type backups struct {
	mu       sync.Mutex
	read     map[types.UID]*transfer.Backup
	refused  map[types.UID]refusal
	attempts map[transfer.ID]int
	// asked are the stores that are being read: who waits for one has VMs to see to.
	asked *transfer.Errands[*transfer.Backup]
}

// refusal is why a manifest could not be read, and when.
type refusal struct {
	problem *instance.Problem
	at      time.Time
}

// readAgain is how long after a failure a manifest is read again at the earliest.
const readAgain = 30 * time.Second

func newBackups(s *shared) *backups {
	return &backups{
		read: map[types.UID]*transfer.Backup{}, refused: map[types.UID]refusal{}, attempts: map[transfer.ID]int{},
		asked: transfer.NewErrands[*transfer.Backup](s.pools.Wake, s.clock, s.transferLog()),
	}
}

// refusedLately is why a manifest could not be read a moment ago, nil if it may be read now.
func (b *backups) refusedLately(uid types.UID, now time.Time) *instance.Problem {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last, failed := b.refused[uid]; failed && now.Sub(last.at) < readAgain {
		return last.problem
	}
	return nil
}

func (b *backups) refuse(uid types.UID, problem *instance.Problem, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused[uid] = refusal{problem, now}
}

func (b *backups) get(uid types.UID) *transfer.Backup {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read[uid]
}

func (b *backups) keep(uid types.UID, backup *transfer.Backup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read[uid] = backup
}

func (b *backups) forget(uid types.UID, owner xencache.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.read, uid)
	delete(b.refused, uid)
	maps.DeleteFunc(b.attempts, func(id transfer.ID, _ int) bool { return id.Owner == owner })
}

// attempt counts an attempt.
func (b *backups) attempt(id transfer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts[id]++
}

// pause is how long to wait after the attempts made so far.
func (b *backups) pause(id transfer.ID) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.attempts[id] > 8 {
		return restoreMost
	}
	return min(restoreFirst<<max(0, b.attempts[id]-1), restoreMost)
}

// gatherBackup reads what the VM is rebuilt from, as long as it is not complete, and finds how far its disks are.
func (s *instanceScope) gatherBackup(ctx context.Context, in *instance.Inputs) {
	if s.isComplete() && !s.Deleting() {
		s.restorer().Stop()
		s.r.backups.forget(s.Object.UID, s.key())
		return
	}
	backup := s.r.backups.get(s.Object.UID)
	if s.Deleting() {
		s.restorer().Stop()
	} else if backup == nil {
		var problem *instance.Problem
		if backup, problem = s.readBackup(ctx); problem != nil {
			in.ImageProblem = problem
			return
		}
		s.r.backups.keep(s.Object.UID, backup)
	}
	if backup == nil {
		return
	}
	in.Backup = instanceBackup(&backup.Manifest)
	in.Restores = map[string]instance.RestoreState{}
	for _, disk := range backup.Manifest.Disks {
		if state, known := s.restoreState(disk.Name); known {
			in.Restores[disk.Name] = state
		}
	}
}

// isComplete reports whether the VM was made and is there: then the backup does not matter any more.
func (s *instanceScope) isComplete() bool {
	there := false
	s.pool.Cache.View(func(v xencache.View) {
		_, vm := v.VMByUUID(s.Object.Status.UUID)
		there = vm != nil
	})
	return there
}

func (s *instanceScope) readBackup(ctx context.Context) (*transfer.Backup, *instance.Problem) {
	if problem := s.r.backups.refusedLately(s.Object.UID, s.r.runtime.Clock.Now()); problem != nil {
		return nil, problem
	}
	namespace, source := s.Object.Namespace, s.Object.Spec.Source.Backup.DeepCopy()
	backup, answered, err := s.r.backups.asked.Ask(ctx, s.restoreID("manifest"), func(ctx context.Context) (*transfer.Backup, error) {
		return transfer.ReadBackup(ctx, s.r.stores, namespace, source)
	})
	if err == nil && !answered {
		return nil, &instance.Problem{Reason: v1alpha1.ReasonWaitingForTransfer, Passing: true, Message: "the backup's manifest is being read"}
	}
	if err != nil {
		reason, permanent := transfer.IsPermanent(err)
		problem := &instance.Problem{Reason: reason, Passing: !permanent, Message: fmt.Sprintf("read the backup: %v", err)}
		s.r.backups.refuse(s.Object.UID, problem, s.r.runtime.Clock.Now())
		return nil, problem
	}
	return backup, nil
}

// endRestores ends the tasks that a dead manager has left of a restore.
func (s *instanceScope) endRestores(ctx context.Context) error {
	if s.pool == nil || s.Object.Spec.Source.Backup == nil {
		return nil
	}
	return transfer.EndTasksBelow(ctx, s.pool, s.restoreID(""))
}

func (s *instanceScope) restoreID(disk string) transfer.ID {
	return transfer.ID{Owner: s.key(), Part: partRestore + disk}
}

func (s *instanceScope) restoreState(disk string) (instance.RestoreState, bool) {
	id := s.restoreID(disk)
	state, known := s.r.runner.State(id)
	if !known {
		return instance.RestoreState{}, false
	}
	result := instance.RestoreState{Percent: state.Percent()}
	switch state.Phase {
	case transfer.Succeeded:
		result.Over, result.Settled = true, s.r.runtime.Clock.Since(state.EndedAt) > copySettled
	case transfer.Failed:
		result.Over, result.Failed, result.RetryAt = true, copyProblem(state.Err), state.EndedAt.Add(s.r.backups.pause(id))
	case transfer.Waiting, transfer.Running:
	}
	return result, true
}

// restorer lets the runner of transfers make the disks of a backup.
type restorer struct {
	scope *instanceScope
	pool  *pool.Handle
}

func (s *instanceScope) restorer() restorer { return restorer{s, s.pool} }

// Start implements instance.Restorer.
func (r restorer) Start(request instance.RestoreRequest) error {
	backup := r.scope.r.backups.get(r.scope.Object.UID)
	if backup == nil {
		return nil // it is read again in the next pass
	}
	file, err := backup.Disk(r.scope.Object.Namespace, request.Disk)
	if err != nil {
		reason, _ := transfer.IsPermanent(err)
		return &instance.Problem{Reason: reason, Message: err.Error()}
	}
	r.pool.Cache.View(func(v xencache.View) {
		if sr := v.SR(request.SR); sr != nil {
			file.SR = sr.UUID
		}
	})
	file.Pool, file.Name, file.Marks, file.Done = r.pool.Name, request.Name, request.Marks, request.Done
	id := r.scope.restoreID(request.Disk)
	r.scope.r.backups.attempt(id)
	r.scope.r.runner.Start(id, transfer.Request{Import: file})
	return nil
}

// Stop implements instance.Restorer.
func (r restorer) Stop() bool {
	backup, stopped := r.scope.r.backups.get(r.scope.Object.UID), true
	if backup == nil {
		return true
	}
	for _, disk := range backup.Manifest.Disks {
		stopped = r.scope.r.runner.Stop(r.scope.restoreID(disk.Name)) && stopped
	}
	return stopped
}

// Keys of platform and boot parameters that a manifest may set: those of how the guest sees its machine. Others reach into the
// host, and a manifest is its tenant's word.
var (
	platformKeys = []string{
		"acpi", "apic", "pae", "nx", "hpet", "stdvga", "videoram", "vga", "viridian", "viridian_time_ref_count", "viridian_reference_tsc",
		"viridian_apic_assist", "viridian_crash_ctl", "viridian_stimer", "viridian_hcall_remote_tlb_flush", "secureboot", "timeoffset",
		"cores-per-socket", "device_id", "device-model",
	}
	bootKeys = []string{"order", "firmware"}
)

// only are the entries of some keys.
func only(m map[string]string, keys []string) map[string]string {
	kept := map[string]string{}
	for _, key := range keys {
		if value, found := m[key]; found && len(value) <= 64 && !strings.ContainsAny(value, "\x00\n") {
			kept[key] = value
		}
	}
	return kept
}

// instanceBackup is a manifest in the terms of an instance.
func instanceBackup(m *transfer.Manifest) *instance.Backup {
	vm := m.VM
	backup := &instance.Backup{
		Size:       instance.Size{VCPUs: vm.VCPUs, MaxVCPUs: vm.MaxVCPUs, MinMemory: vm.Memory, Memory: vm.Memory, MaxMemory: vm.MaxMemory},
		BootParams: only(vm.BootParams, bootKeys), Platform: only(vm.Platform, platformKeys), NVRAM: vm.NVRAM(),
	}
	maps.DeleteFunc(backup.BootParams, func(key, value string) bool {
		return key == "order" && strings.Trim(value, "cdn") != "" || key == "firmware" && value != "bios" && value != "uefi"
	})
	for _, disk := range m.Disks {
		backup.Disks = append(backup.Disks, instance.BackupDisk{
			Name: disk.Name, Device: strconv.Itoa(int(disk.Device)), Size: disk.Size, Bootable: disk.Bootable,
		})
	}
	for _, nic := range m.NICs {
		backup.NICs = append(backup.NICs, instance.BackupNIC{Device: nic.Device, MAC: strings.ToLower(nic.MAC), Network: nic.Network})
	}
	return backup
}
