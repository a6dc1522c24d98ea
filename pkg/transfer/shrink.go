package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/contain"
	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/shrink"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Shrink makes a smaller copy of a disk that nobody writes to, beside it in its storage repository. The copy is complete and
// verified when the transfer has succeeded; otherwise it is destroyed.
type Shrink struct {
	// Pool names the XenPool, VDI is the uuid of the disk.
	Pool, VDI string
	// Size is the least size of the copy in bytes; storage may make it a little larger.
	Size int64
	// Name is the copy's, Marks are its other_config; its own uuid is added to them.
	Name  string
	Marks map[string]string
}

// Scratch is where disks are made smaller.
type Scratch struct {
	Space *shrink.Space
	// Most is how many disks are made smaller at a time.
	Most int
}

// allShrinks is what bounds the number of disks that are made smaller, beside the hosts' own bounds.
const allShrinks = "all shrinks"

// shrinking is one disk on its way.
type shrinking struct {
	*Shrink
	local  *Local
	handle *pool.Handle
	meter  *meter
	task   string
	source xenapi.VDIRef
	old    xenapi.VDI
	target xenapi.VDIRef
	size   int64 // of the copy
}

// shrink carries out a Shrink.
func (l *Local) shrink(ctx context.Context, id ID, m *meter, request *Shrink) error {
	handle, err := l.pools.Get(request.Pool)
	if err != nil {
		return &Failure{Reason: v1alpha1.ReasonPoolNotReady, Err: err}
	}
	if l.scratch.Space == nil {
		return &Failure{Reason: v1alpha1.ReasonShrinkRefused, Permanent: true, Err: errors.New("this operator has no scratch directory to make disks smaller in")}
	}
	s := &shrinking{Shrink: request, local: l, handle: handle, meter: m, task: TaskName(handle.Installation, id)}
	if err := s.find(); err != nil {
		return err
	}
	release, err := l.slots.take(ctx, allShrinks, l.scratch.Most)
	if err != nil {
		return err
	}
	defer release()
	if err := EndTasks(ctx, handle, id); err != nil {
		return poolFailure(err)
	}
	scratch, err := l.scratch.Space.Reserve(request.Size)
	if err != nil {
		return shrinkFailure(err)
	}
	defer scratch.Close()
	m.begin(s.old.VirtualSize + 2*request.Size)
	err = s.make(ctx)
	if err == nil {
		err = contain.Call(func() error { return s.copy(ctx, scratch) }) // what was made is undone all the same
	}
	if err != nil {
		return s.undo(ctx, shrinkFailure(err))
	}
	return nil
}

// find looks the disk up.
func (s *shrinking) find() error {
	found := false
	s.handle.Cache.View(func(v xencache.View) {
		if ref, vdi := v.VDIByUUID(s.VDI); vdi != nil {
			s.source, s.old, found = ref, *vdi, true
		}
	})
	if !found {
		return &Failure{Reason: v1alpha1.ReasonDiskNotFound, Err: fmt.Errorf("disk %s is no longer on pool %s", s.VDI, s.Pool)}
	}
	return nil
}

// make makes the disk that takes the copy, with what people have written on the other. Storage rounds sizes up, so it is asked what has come of it: a GPT's backup belongs
// at the very end.
func (s *shrinking) make(ctx context.Context) error {
	client := s.handle.Client
	ref, err := client.VDI.Create(ctx, xenapi.VDI{
		NameLabel: s.Name, NameDescription: s.old.NameDescription, Tags: s.old.Tags,
		SR: s.old.SR, VirtualSize: s.Size, Type: s.old.Type, OtherConfig: maps.Clone(s.Marks),
	})
	if err != nil {
		return fmt.Errorf("make a disk of %d bytes: %w", s.Size, err)
	}
	s.target = ref
	record, err := client.VDI.GetRecord(ctx, ref)
	if err != nil {
		return fmt.Errorf("look at the new disk: %w", err)
	}
	if s.size = record.VirtualSize; s.size >= s.old.VirtualSize {
		return &Failure{Reason: v1alpha1.ReasonShrinkRefused, Permanent: true, Err: fmt.Errorf(
			"the storage makes a disk of %d bytes where %d are asked for, and the disk has %d", s.size, s.Size, s.old.VirtualSize)}
	}
	if err := client.VDI.AddToOtherConfig(ctx, ref, xencache.MarkSelf, record.UUID); err != nil {
		return fmt.Errorf("mark the new disk: %w", err)
	}
	s.meter.set(func(state *State) { state.VDI = record.UUID })
	return nil
}

// copy reads the disk, makes it smaller, writes it and reads it again.
func (s *shrinking) copy(ctx context.Context, scratch *shrink.Scratch) error {
	var result *shrink.Result
	passed := ""
	err := s.read(ctx, s.source, s.old.VirtualSize, func(source disk.Stream) error {
		var err error
		result, err = shrink.Read(ctx, shrink.Request{Source: source, Size: s.size, Scratch: scratch, Moved: s.at(0)})
		if err == nil && result.Passing != nil {
			passed, err = s.pass(ctx, result.Passing)
		}
		return err
	})
	if err == nil && result.Passing == nil {
		passed, err = s.write(ctx, result.Disk)
	}
	if err != nil {
		return err
	}
	return s.verify(ctx, passed)
}

// at tells the meter how far a part of the work is that begins at a number of bytes.
func (s *shrinking) at(base int64) func(int64) {
	return func(bytes int64) {
		s.meter.set(func(state *State) { state.Transferred = base + bytes })
	}
}

// read opens the content of a disk as it is on the pool. A VHD says where its zeros are; a disk that is too large for one is read
// raw.
func (s *shrinking) read(ctx context.Context, ref xenapi.VDIRef, size int64, use func(disk.Stream) error) error {
	release, err := s.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	format := xenapi.FormatVHD
	if size > disk.VHDMaxSize {
		format = xenapi.FormatRaw
	}
	download, err := s.handle.Client.ExportVDI(ctx, xenapi.ExportVDI{VDI: ref, Format: format, Transfer: xenapi.Transfer{Label: s.task}})
	if err != nil {
		return err
	}
	defer download.Close()
	body := bufio.NewReaderSize(download, copyBuffer)
	if format == xenapi.FormatRaw {
		return use(disk.NewRawStream(body, size))
	}
	stream, err := disk.NewVHDStream(body)
	if err != nil {
		return err
	}
	if stream.Size() < size {
		return fmt.Errorf("the export has %d bytes, and the disk %d", stream.Size(), size)
	}
	return use(sized{stream, size})
}

// sized is a stream of a disk whose size in the VHD's geometry may be larger than the disk's.
type sized struct {
	disk.Stream
	size int64
}

// Size implements disk.Stream.
func (s sized) Size() int64 { return s.size }

// slot waits until a transfer may go through the host of the disk's storage.
func (s *shrinking) slot(ctx context.Context) (func(), error) {
	var host string
	s.handle.Cache.View(func(v xencache.View) { host = hostOf(v, s.old.SR) })
	return s.local.slots.take(ctx, s.handle.Name+"/"+host, s.handle.Pool.Spec.TransferLimit())
}

// write writes what is on scratch, and returns its digest. A VHD needs only what is data.
func (s *shrinking) write(ctx context.Context, content disk.Disk) (string, error) {
	release, err := s.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	format, image := xenapi.FormatRaw, disk.NewRawImage(content)
	if s.size <= disk.VHDMaxSize {
		format = xenapi.FormatVHD
		if image, err = disk.NewVHDImage(content, disk.VHDOptions{Created: s.local.clock.Now()}); err != nil {
			return "", err
		}
	}
	if err := s.send(ctx, format, image); err != nil {
		return "", err
	}
	return shrink.SumOf(disk.NewStream(content))
}

// pass writes what passes once. Only its end tells that all of it was well.
func (s *shrinking) pass(ctx context.Context, content disk.Stream) (string, error) {
	digest := &digesting{Stream: content, digest: shrink.NewDigest(s.size)}
	if err := s.send(ctx, xenapi.FormatRaw, disk.NewRawStreamImage(digest)); err != nil {
		return "", err
	}
	if _, err := digest.Next(); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the disk to its end: %w", err)
	}
	return digest.digest.Sum(), nil
}

// send sends an image into the new disk.
func (s *shrinking) send(ctx context.Context, format xenapi.DiskFormat, image disk.Image) error {
	told := s.at(s.old.VirtualSize)
	body := contain.Reader(&counting{Reader: image, moved: func(n int64) {
		told(int64(float64(n) / float64(image.Len()) * float64(s.Size))) // the meter counts what the disk has
	}})
	return s.handle.Client.ImportVDI(ctx, xenapi.ImportVDI{
		VDI: s.target, Format: format, Body: body, Size: image.Len(), Transfer: xenapi.Transfer{Label: s.task},
	})
}

// verify reads the new disk.
func (s *shrinking) verify(ctx context.Context, want string) error {
	return s.read(ctx, s.target, s.size, func(stream disk.Stream) error {
		told := s.at(s.old.VirtualSize + s.Size)
		got, err := shrink.SumOf(&digesting{Stream: stream, moved: told})
		if err != nil {
			return fmt.Errorf("read the new disk again: %w", err)
		}
		if got != want {
			return &Failure{Reason: v1alpha1.ReasonChecksumMismatch, Err: fmt.Errorf("the new disk holds other bytes than were written to it: digest %s, not %s", got, want)}
		}
		return nil
	})
}

// undo destroys the unfinished copy. The pool may hold it for a moment longer; then its mark tells that it is to be removed.
func (s *shrinking) undo(ctx context.Context, err error) error {
	if s.target.IsNull() {
		return err
	}
	ctx, cancel := tidy(ctx)
	defer cancel()
	if left := s.handle.Client.VDI.Destroy(ctx, s.target); left == nil {
		s.meter.set(func(state *State) { state.VDI = "" })
	}
	return err
}

// shrinkFailure gives an error of a Shrink its reason. What will not pass soon is permanent: the VM is off meanwhile.
func shrinkFailure(err error) error {
	var refusal *shrink.Refusal
	var tool *shrink.ToolError
	var space *shrink.SpaceError
	switch {
	case errors.As(err, &refusal), errors.As(err, &tool):
		return &Failure{Reason: v1alpha1.ReasonShrinkRefused, Permanent: true, Err: err}
	case errors.As(err, &space), errors.Is(err, xenapi.ErrSRFull), errors.Is(err, xenapi.ErrSRBackendNoSpace):
		return &Failure{Reason: v1alpha1.ReasonInsufficientStorage, Permanent: true, Err: err}
	}
	return poolFailure(err)
}

// digesting is a stream that is hashed, or watched, as it passes.
type digesting struct {
	disk.Stream
	digest *shrink.Digest
	moved  func(int64)
}

// Next implements disk.Stream.
func (d *digesting) Next() (disk.Chunk, error) {
	chunk, err := d.Stream.Next()
	if err == nil && d.digest != nil {
		d.digest.Add(chunk)
	}
	if err == nil && d.moved != nil {
		d.moved(chunk.Offset)
	}
	return chunk, err
}

// counting tells how much was read.
type counting struct {
	io.Reader
	n     int64
	moved func(int64)
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.moved(c.n)
	return n, err
}
