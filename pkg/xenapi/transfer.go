package xenapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// DiskFormat is a form in which a disk's contents travel.
type DiskFormat string

// The disk formats. QCOW2 needs a server that lists it among the storage driver's supported image formats.
const (
	FormatRaw   DiskFormat = "raw"
	FormatVHD   DiskFormat = "vhd"
	FormatQCOW2 DiskFormat = "qcow2"
)

const (
	// transferIdle is how long a transfer may stand still.
	transferIdle = 5 * time.Minute
	// transferSettle is how long a transfer's task may go on after its last byte: the disk is flushed and detached.
	transferSettle = 5 * time.Minute
	copyBuffer     = 256 << 10
)

// Transfer is what all transfers have in common.
type Transfer struct {
	// Via is the address of the member to speak to, as in Host.Address; empty for the coordinator. A member that cannot see the disk redirects.
	Via string
	// Label is the name of the transfer's task, which administrators see; a text that fits by default.
	Label string
	// OnTask is told the transfer's task before data flows; its progress is the server's.
	OnTask func(TaskRef)
}

// ExportVDI asks for a disk's contents.
type ExportVDI struct {
	Transfer
	// VDI is the disk. While it is read it is attached to the control domain; just afterwards VDI.destroy may still answer VDI_IN_USE.
	VDI VDIRef
	// Format is FormatRaw if empty.
	Format DiskFormat
	// Base, with FormatVHD, makes a differencing disk of what changed since that VDI.
	Base VDIRef
}

// ImportVDI gives a disk new contents.
type ImportVDI struct {
	Transfer
	// VDI is the disk, which must be large enough: a larger image fails only when its last blocks are written.
	VDI VDIRef
	// Format is FormatRaw if empty.
	Format DiskFormat
	// Body is read to the end of Size bytes.
	Body io.Reader
	// Size is the length of Body in bytes. A XenAPI must know it beforehand.
	Size int64
}

// ExportVM asks for a VM with its disks as an XVA archive. The VM must be halted or suspended: export a running one's snapshot.
type ExportVM struct {
	Transfer
	// VM is the VM, template or snapshot.
	VM VMRef
	// Compression is "", "gzip" or "zstd".
	Compression string
}

// ImportVM makes VMs of an XVA archive.
type ImportVM struct {
	Transfer
	// SR takes the disks; the pool's default if null.
	SR SRRef
	// Restore keeps MAC addresses and the uuid, as for a VM that comes back.
	Restore bool
	// Force goes on where parts of the archive cannot be honoured.
	Force bool
	// Body is the archive, Size its length in bytes.
	Body io.Reader
	Size int64
}

// ExportVDI starts the export of a disk. The caller reads the Download to its end and closes it.
func (c *Client) ExportVDI(ctx context.Context, o ExportVDI) (*Download, error) {
	query := url.Values{"vdi": {string(o.VDI)}, "format": {string(orRaw(o.Format))}}
	if !o.Base.IsNull() {
		query.Set("base", string(o.Base))
	}
	return c.download(ctx, o.Transfer, "Export of a disk", handlerRequest{
		op: "export_raw_vdi", method: http.MethodGet, path: "/export_raw_vdi", query: query, length: -1, read: true,
	})
}

// ExportVM starts the export of a VM. The caller reads the Download to its end and closes it.
func (c *Client) ExportVM(ctx context.Context, o ExportVM) (*Download, error) {
	query := url.Values{"ref": {string(o.VM)}}
	if o.Compression != "" {
		query.Set("use_compression", o.Compression)
	}
	return c.download(ctx, o.Transfer, "Export of a VM", handlerRequest{
		op: "export", method: http.MethodGet, path: "/export", query: query, length: -1, read: true,
	})
}

// ImportVDI writes a disk's contents, and returns when the server's task for it has ended.
func (c *Client) ImportVDI(ctx context.Context, o ImportVDI) error {
	query := url.Values{"vdi": {string(o.VDI)}, "format": {string(orRaw(o.Format))}}
	_, err := c.upload(ctx, o.Transfer, "Import of a disk", o.Body, handlerRequest{
		op: "import_raw_vdi", method: http.MethodPut, path: "/import_raw_vdi", query: query, length: o.Size,
	})
	return err
}

// ImportVM makes VMs of an archive and returns their references.
func (c *Client) ImportVM(ctx context.Context, o ImportVM) ([]VMRef, error) {
	query := url.Values{}
	if !o.SR.IsNull() {
		query.Set("sr_id", string(o.SR))
	}
	if o.Restore {
		query.Set("restore", "true")
	}
	if o.Force {
		query.Set("force", "true")
	}
	task, err := c.upload(ctx, o.Transfer, "Import of a VM", o.Body, handlerRequest{
		op: "import", method: http.MethodPut, path: "/import", query: query, length: o.Size,
	})
	if err != nil {
		return nil, err
	}
	v, err := task.Value()
	if err != nil {
		return nil, err
	}
	var vms []VMRef
	for _, ref := range v.Strings() {
		vms = append(vms, VMRef(ref))
	}
	return vms, nil
}

func orRaw(format DiskFormat) DiskFormat {
	if format == "" {
		return FormatRaw
	}
	return format
}

// referenceGrace is how long somebody who has given up still waits for the reference of the task that he is about to leave.
const referenceGrace = 5 * time.Second

// beginTransfer makes the transfer's task, which alone tells how it ended: the answer's 200 comes before the work.
func (c *Client) beginTransfer(ctx context.Context, t Transfer, label string, r handlerRequest) (TaskRef, handlerRequest, error) {
	if t.Label != "" {
		label = t.Label
	}
	if t.Via != "" {
		c.mu.Lock()
		of := c.endpoints[0]
		c.mu.Unlock()
		via, err := member(of, t.Via)
		if err != nil {
			return "", r, err
		}
		r.via = via
	}
	if ctx.Err() != nil {
		return "", r, fmt.Errorf("%s: %w", r.op, ctx.Err())
	}
	// Whoever gives up while the task is made must still learn its reference, if he can soon: nobody else would end it.
	making, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(referenceGrace, cancel) })()
	task, err := c.Task.Create(making, label, "")
	if err == nil && ctx.Err() != nil {
		c.endTask(ctx, task)
		err = ctx.Err()
	}
	if err != nil {
		return "", r, fmt.Errorf("%s: %w", r.op, err)
	}
	r.query.Set("task_id", string(task))
	if t.OnTask != nil {
		t.OnTask(task)
	}
	return task, r, nil
}

// dropTask stops and destroys the task of a transfer that has been given up. It does so even when the caller's context has ended.
func (c *Client) dropTask(ctx context.Context, task TaskRef) { c.tidyTask(ctx, task, c.CancelTask) }

// endTask does it for a task that perhaps no handler has taken over: the pool would only mark it, for whoever completes it.
func (c *Client) endTask(ctx context.Context, task TaskRef) {
	c.tidyTask(ctx, task, func(ctx context.Context, task TaskRef) error {
		record, err := c.Task.GetRecord(ctx, task)
		switch {
		case err != nil || record.Done():
			return err
		case slices.Contains(record.AllowedOperations, TaskAllowedOperationCancel): // a handler has
			return c.Task.Cancel(ctx, task)
		}
		return c.Task.SetStatus(ctx, task, TaskStatusCancelled)
	})
}

func (c *Client) tidyTask(ctx context.Context, task TaskRef, stop func(context.Context, TaskRef) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginTimeout)
	defer cancel()
	err := stop(ctx, task)
	if destroyErr := c.Task.Destroy(ctx, task); !errors.Is(destroyErr, ErrHandleInvalid) {
		err = errors.Join(err, destroyErr)
	}
	if err != nil {
		c.log.V(1).Info("the task of an abandoned transfer was not tidied up", "reason", err.Error())
	}
}

// settle waits for the end of a transfer's task. A caller who does not wait any longer leaves no task behind.
func (c *Client) settle(ctx context.Context, task TaskRef) (Task, error) {
	waiting, cancel := context.WithTimeout(ctx, transferSettle)
	defer cancel()
	record, err := c.WaitTask(waiting, task, nil)
	if ctx.Err() != nil && errors.Is(err, ErrOutcomeUnknown) {
		c.dropTask(ctx, task)
	}
	return record, err
}

// Download is an export under way. Its Read returns io.EOF only when the server's task for it has succeeded: an error on the server's side
// otherwise looks like the end of the data.
type Download struct {
	// Task is the server's task.
	Task TaskRef
	// Size is the length in bytes, or -1 where the server does not say, which is usual.
	Size int64

	c       *Client
	ctx     context.Context //nolint:containedctx // a Reader has no other way to take one
	conn    *handlerConn
	body    io.Reader
	op      string
	left    int64 // of Size
	head    []byte
	headed  bool
	settled bool  // the task has been waited for
	done    error // what further Reads return
	release func() bool
	close   sync.Once
	closed  error
}

func (c *Client) download(ctx context.Context, t Transfer, label string, r handlerRequest) (*Download, error) {
	task, r, err := c.beginTransfer(ctx, t, label, r)
	if err != nil {
		return nil, err
	}
	h, err := c.openHandler(ctx, r)
	if err != nil {
		c.endTask(ctx, task)
		return nil, err
	}
	h.Conn = idleConn{h.Conn, ctx, transferIdle}
	body, size := h.body()
	return &Download{
		Task: task, Size: size, c: c, ctx: ctx, conn: h, body: body, op: r.op, left: size, release: interruptWhenDone(ctx, h.Conn),
	}, nil
}

// Read implements io.Reader.
func (d *Download) Read(p []byte) (int, error) {
	if d.done != nil {
		return 0, d.done
	}
	if !d.headed {
		if err := d.readHead(); err != nil {
			return 0, err
		}
	}
	if len(d.head) > 0 {
		n := copy(p, d.head)
		d.head = d.head[n:]
		return n, nil
	}
	n, err := d.body.Read(p)
	if d.Size >= 0 {
		d.left -= int64(n)
	}
	if err != nil && n == 0 {
		return 0, d.finish(err)
	}
	return n, nil // a last error comes again with the next Read
}

// errorHead is how long the beginning of an error's head is: HTTP/1.1 500.
const errorHead = len("HTTP/1.1 500")

// readHead looks whether the body begins with another answer's head, which is how an export fails that had answered 200.
func (d *Download) readHead() error {
	d.headed = true
	head := make([]byte, errorHead)
	n, err := io.ReadFull(d.body, head)
	if d.Size >= 0 {
		d.left -= int64(n)
	}
	d.head = head[:n]
	if n < errorHead {
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return d.finish(err)
		}
		return nil
	}
	if string(head[:7]) != "HTTP/1." || head[8] != ' ' || head[9] != '4' && head[9] != '5' {
		return nil
	}
	if err := d.finish(io.EOF); !errors.Is(err, io.EOF) {
		return err
	}
	d.done = nil // the task succeeded: a disk may begin with anything
	return nil
}

// errUnconfirmed takes the place of ErrOutcomeUnknown: an export has no outcome but its data, and that can be had again.
var errUnconfirmed = errors.New("the task that would confirm the export is gone")

// finish asks the task how the export went. cause is why reading ended.
func (d *Download) finish(cause error) error {
	clean := errors.Is(cause, io.EOF) && d.left <= 0
	if d.ctx.Err() != nil {
		d.done = &TransportError{Op: d.op, Endpoint: d.conn.endpoint.Host, Phase: PhaseAnswer, Read: true, Err: d.ctx.Err()}
		return d.done
	}
	_, err := d.c.settle(d.ctx, d.Task)
	d.settled = true
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		d.done = &TransportError{Op: d.op, Endpoint: d.conn.endpoint.Host, Phase: PhaseAnswer, Read: true, Err: errUnconfirmed}
	case err != nil:
		d.done = fmt.Errorf("%s: %w", d.op, err)
	case clean:
		d.done = io.EOF
	default:
		if errors.Is(cause, io.EOF) {
			cause = io.ErrUnexpectedEOF
		}
		d.done = &TransportError{Op: d.op, Endpoint: d.conn.endpoint.Host, Phase: PhaseAnswer, Read: true, Err: cause}
	}
	return d.done
}

// Close ends the export; one that has not been read to its end is cancelled.
func (d *Download) Close() error {
	d.close.Do(func() {
		d.release()
		d.closed = d.conn.Close()
		if !d.settled {
			d.c.dropTask(d.ctx, d.Task)
		}
		if d.done == nil {
			d.done = ErrClosed
		}
	})
	return d.closed
}

// upload sends body and waits for the task. It returns the task's last record.
func (c *Client) upload(ctx context.Context, t Transfer, label string, body io.Reader, r handlerRequest) (Task, error) {
	if r.length < 0 {
		return Task{}, fmt.Errorf("%s: %w: a length of %d", r.op, ErrBadArgument, r.length)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	task, r, err := c.beginTransfer(ctx, t, label, r)
	if err != nil {
		return Task{}, err
	}
	h, err := c.openHandler(ctx, r)
	if err != nil {
		c.endTask(ctx, task)
		return Task{}, err
	}
	h.Conn = idleConn{h.Conn, ctx, transferIdle}
	defer interruptWhenDone(ctx, h.Conn)()
	sent, err := c.sendBody(ctx, h, body, r.length)
	c.discard(h)
	var source *sourceError
	switch {
	case errors.As(err, &source):
		c.dropTask(ctx, task)
		return Task{}, fmt.Errorf("%s: after %s of %d bytes: %w", r.op, strconv.FormatInt(sent, 10), r.length, source.err)
	case ctx.Err() != nil:
		c.dropTask(ctx, task)
		return Task{}, &TransportError{Op: r.op, Endpoint: h.endpoint.Host, Phase: PhaseSend, Err: ctx.Err()}
	}
	record, taskErr := c.settle(ctx, task)
	switch {
	case taskErr != nil && !errors.Is(taskErr, ErrOutcomeUnknown):
		return record, fmt.Errorf("%s: %w", r.op, taskErr)
	case err != nil:
		return record, &TransportError{Op: r.op, Endpoint: h.endpoint.Host, Phase: PhaseSend, Err: err}
	case taskErr != nil:
		return record, fmt.Errorf("%s: %w", r.op, taskErr)
	}
	return record, nil
}

// sourceError is a failure of the upload's source, not of the pool.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// sendBody copies exactly length bytes and then waits for the server to close. A server that gives up closes early; the task says why.
func (c *Client) sendBody(ctx context.Context, h *handlerConn, body io.Reader, length int64) (int64, error) {
	source := &countedSource{src: io.LimitReader(body, length)}
	sent, err := io.CopyBuffer(struct{ io.Writer }{h.Conn}, source, make([]byte, copyBuffer))
	switch {
	case source.err != nil:
		return sent, &sourceError{source.err}
	case err != nil:
		return sent, err
	case sent < length:
		return sent, &sourceError{io.ErrUnexpectedEOF}
	}
	if h.status == 0 {
		if err := h.readHead(ctx, 0); err != nil {
			return sent, err
		}
		if h.status != http.StatusOK {
			return sent, c.statusError(&http.Response{StatusCode: h.status, Body: io.NopCloser(io.LimitReader(h.Conn, maxErrorBody))})
		}
	}
	// What comes after the head says in other words what the task says.
	if _, err := io.Copy(io.Discard, io.LimitReader(h.Conn, maxErrorBody)); err != nil {
		return sent, err
	}
	return sent, nil
}

// countedSource remembers the source's own errors, so that they are not taken for the connection's.
type countedSource struct {
	src io.Reader
	err error
}

func (s *countedSource) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
