package instance

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// A storage migration gives the disks new records: name and size go along, other_config and with it every mark does not
// (update_vdis, xapi_sr.ml). So the VM remembers what its disks carried, by the block devices, which stay. And because the copies
// have the names of their sources, these get a mark-name before: what an interrupted migration leaves behind can be told from
// anybody's disk by it.

// moveOperation is how the journal names what it is of.
const moveOperation = "Move"

// contentID is what the storage layer itself keeps in a disk's other_config.
const contentID = "content_id"

// moveJournal is what there is to put right after the disks have moved.
type moveJournal struct {
	Format    int    `json:"format"`
	Operation string `json:"operation"`
	// VM is the uuid of the VM that it was written for: a clone of it has a copy.
	VM    string       `json:"vm"`
	Disks []movingDisk `json:"disks"`
}

// movingDisk is a disk as it was before.
type movingDisk struct {
	// VBD is the uuid of its block device, VDI its own.
	VBD         string            `json:"vbd"`
	VDI         string            `json:"vdi"`
	Name        string            `json:"name"`
	OtherConfig map[string]string `json:"otherConfig,omitempty"`
}

// String is the journal as the mark holds it.
func (j moveJournal) String() string {
	text, err := json.Marshal(j)
	if err != nil {
		return "" // a struct of texts always marshals
	}
	return string(text)
}

// of finds what is remembered of the disk at a block device.
func (j *moveJournal) of(vbd string) *movingDisk {
	if j == nil {
		return nil
	}
	i := slices.IndexFunc(j.Disks, func(d movingDisk) bool { return d.VBD == vbd })
	if i < 0 {
		return nil
	}
	return &j.Disks[i]
}

// moveJournal is the move that the VM remembers, nil for none.
func (f *Facts) moveJournal() *moveJournal {
	if f.VM == nil {
		return nil
	}
	var j moveJournal
	text := f.VM.OtherConfig[xencache.MarkJournal]
	if text == "" || json.Unmarshal([]byte(text), &j) != nil || j.Operation != moveOperation || j.VM != f.VM.UUID {
		return nil
	}
	return &j
}

// heldByAnother reports whether another operation than a move has something to put right on the VM.
func (f *Facts) heldByAnother() bool {
	return f.VM.OtherConfig[xencache.MarkJournal] != "" && f.moveJournal() == nil
}

// MoveFacts is what hangs on the VM's disks besides the disks.
type MoveFacts struct {
	// Snapshots are the disks of the VM's snapshots, which go where the disks go that they are of.
	Snapshots []Disk
	// Copies are what an interrupted migration has left: disks with the mark-name that are nobody's.
	Copies []VDI
}

// movingName is the name that a disk has on its way.
func (m Me) movingName() string {
	return xencache.MarkName(m.Installation, m.Key, xencache.RoleMoving)
}

// mayMove reports whether the VM may have to go to another host, so that it is worth a look what that would take.
func (f *Facts) mayMove() bool {
	if f.VM == nil || f.building() || len(f.Hosts) < 2 {
		return false
	}
	elsewhere := !f.Want.Host.IsNull() && f.VM.Host != f.Want.Host
	return f.moveJournal() != nil || elsewhere || f.Want.Size != nil && !sized(f)
}

// observeMove looks up what a move goes by.
func (f *Facts) observeMove(cache *xencache.Cache, resolver Resolver) {
	if !f.mayMove() {
		return
	}
	f.Repositories = observeRepositories(cache, resolver)
	f.Move = &MoveFacts{}
	journal := f.moveJournal()
	cache.View(func(v xencache.View) {
		for _, snapshot := range v.SnapshotsOf(f.VM.Ref) {
			f.Move.Snapshots = append(f.Move.Snapshots, observeDisks(v, snapshot, func(xencache.Marks) bool { return false })...)
		}
		if journal == nil {
			return
		}
		for _, ref := range v.VDIsByMark(f.Me.Installation, f.Me.Key) {
			vdi := observeVDI(v, ref)
			known := vdi == nil || slices.ContainsFunc(journal.Disks, func(d movingDisk) bool { return d.VDI == vdi.UUID })
			if !known && vdi.Name == f.Me.movingName() && vdi.Marks.IsZero() && !vdi.Snapshot && len(v.VBDsOfVDI(ref)) == 0 {
				f.Move.Copies = append(f.Move.Copies, *vdi)
			}
		}
	})
}

// moving are the disks that a move takes along, those of the snapshots included.
func (f *Facts) moving(fit *HostFit) []*Disk {
	var disks []*Disk
	origins := map[xenapi.VDIRef]bool{}
	for _, move := range fit.Moves {
		disks = append(disks, move.Disk)
		origins[move.Disk.VDI.Ref] = true
	}
	for i := range f.Move.Snapshots {
		if disk := &f.Move.Snapshots[i]; origins[disk.VDI.SnapshotOf] {
			disks = append(disks, disk)
		}
	}
	return disks
}

// remembered reports whether the VM remembers each disk that is going to move.
func (f *Facts) remembered(disks []*Disk) bool {
	journal := f.moveJournal()
	return !slices.ContainsFunc(disks, func(d *Disk) bool {
		known := journal.of(d.UUID)
		return known == nil || known.VDI != d.VDI.UUID
	})
}

// remember writes down what the disks carry. What an earlier attempt has written stays: the disks may have the mark-name by now.
func (r *Run) remember(ctx context.Context, disks []*Disk) error {
	old := r.moveJournal()
	journal := moveJournal{Format: journalFormat, Operation: moveOperation, VM: r.VM.UUID}
	for _, disk := range disks {
		entry := movingDisk{VBD: disk.UUID, VDI: disk.VDI.UUID, Name: disk.VDI.Name, OtherConfig: maps.Clone(disk.VDI.OtherConfig)}
		delete(entry.OtherConfig, contentID)
		if known := old.of(disk.UUID); known != nil && known.VDI == disk.VDI.UUID {
			entry = *known
		}
		journal.Disks = append(journal.Disks, entry)
	}
	if old == nil {
		return r.setMark(ctx, xencache.MarkJournal, journal.String())
	}
	return r.rewriteJournal(ctx, journal)
}

// wanted is what the other_config of the disk in place of the remembered one is to hold: the mark that says which disk it is
// names the new one.
func (d *movingDisk) wanted(vdi *VDI) map[string]string {
	config := maps.Clone(d.OtherConfig)
	if config[xencache.MarkSelf] == d.VDI {
		config[xencache.MarkSelf] = vdi.UUID
	}
	return config
}

// unrestored are the disks that do not have their names and marks back.
func (f *Facts) unrestored() []*Disk {
	var left []*Disk
	for _, disk := range f.journalDisks() {
		known := f.moveJournal().of(disk.UUID)
		restored := disk.VDI.Name == known.Name
		for key, value := range known.wanted(&disk.VDI) {
			restored = restored && disk.VDI.OtherConfig[key] == value
		}
		if !restored {
			left = append(left, disk)
		}
	}
	return left
}

// journalDisks are the disks that the journal knows and that are there.
func (f *Facts) journalDisks() []*Disk {
	var disks []*Disk
	journal := f.moveJournal()
	add := func(list []Disk) {
		for i := range list {
			if disk := &list[i]; journal.of(disk.UUID) != nil && !disk.VDI.Ref.IsNull() {
				disks = append(disks, disk)
			}
		}
	}
	add(f.VM.Disks)
	if f.Move != nil {
		add(f.Move.Snapshots)
	}
	return disks
}

// restore gives the disks their names and marks back.
func (r *Run) restore(ctx context.Context) error {
	journal := r.moveJournal()
	for _, disk := range r.unrestored() {
		known := journal.of(disk.UUID)
		config := maps.Clone(disk.VDI.OtherConfig)
		if config == nil {
			config = map[string]string{}
		}
		maps.Copy(config, known.wanted(&disk.VDI))
		if !maps.Equal(config, disk.VDI.OtherConfig) {
			if err := r.Client.VDI.SetOtherConfig(ctx, disk.VDI.Ref, config); err != nil {
				return r.doing(err, "give disk %s its marks back", disk.title())
			}
		}
		if disk.VDI.Name != known.Name {
			if err := r.Client.VDI.SetNameLabel(ctx, disk.VDI.Ref, known.Name); err != nil {
				return r.doing(err, "give disk %s its name back", disk.title())
			}
		}
	}
	return nil
}

// leftCopies are the copies that may be destroyed: only while each disk that was to move hangs where it did, so that none of
// them can be the only one.
func (f *Facts) leftCopies() []VDI {
	if f.Move == nil || f.moveJournal() == nil || len(f.journalDisks()) != len(f.moveJournal().Disks) {
		return nil
	}
	return f.Move.Copies
}

// discardCopies destroys what an interrupted migration has left.
func (r *Run) discardCopies(ctx context.Context) error {
	for _, vdi := range r.leftCopies() {
		if err := r.Client.VDI.Destroy(ctx, vdi.Ref); err != nil && !isGone(err) {
			return r.doing(err, "destroy the copy %s that a migration has left", vdi.UUID)
		}
	}
	return nil
}
