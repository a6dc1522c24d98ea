package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/xensim"
)

// uploads compares the manager's raw upload with curl | curl from the same pool to the same web server, and measures what
// the manager needs for a large sparse disk. The manager and the curls are processes of their own.
func uploads(ctx context.Context, r *report) error {
	o, err := startWorld(ctx, xensim.Options{ClockScale: benchClockScale, Guests: xensim.Guests{Agent: true, BootDelay: time.Second}})
	if err != nil {
		return err
	}
	defer o.stop()
	operator, err := buildProgram(ctx)
	if err != nil {
		return err
	}
	defer operator.remove()
	manager, err := operator.start(o, "--allow-private-endpoints", "127.0.0.1")
	if err != nil {
		return err
	}
	defer manager.Kill()
	if err := o.wait(ctx, testkit.Pool(testkit.PoolName).Object(), ready); err != nil {
		return err
	}
	store := newSink()
	defer store.Close()
	if err := o.withData(ctx, "full", convertedSize, convertedData); err != nil {
		return err
	}
	if err := o.againstCurl(ctx, r, store, manager.Pid()); err != nil {
		return err
	}
	if err := o.differential(ctx, r, store, "full", convertedSize); err != nil {
		return fmt.Errorf("a difference: %w", err)
	}
	if err := o.withData(ctx, "sparse", sparseSize, sparseData); err != nil {
		return err
	}
	return o.uploadMemory(ctx, r, store, manager.Pid())
}

// withData makes a running instance whose root disk has data in ranges that are spread over it.
func (o *operator) withData(ctx context.Context, name string, size, data int64) error {
	if err := o.addImage(ctx, name, size); err != nil {
		return err
	}
	instance := testkit.Instance(benchNamespace, name, testkit.PoolName).FromClusterImage(name).OfFlavor("small").
		DeletedBy(v1alpha1.DeletionDelete).Object()
	if err := o.client.Create(ctx, instance); err != nil {
		return err
	}
	if err := o.wait(ctx, instance, ready); err != nil {
		return err
	}
	disk, err := o.rootOf(instance.Status.UUID)
	if err != nil {
		return err
	}
	return spread(disk, size, data)
}

// rootOf is the root disk of a running VM, as its guest has it.
func (o *operator) rootOf(uuid string) (xensim.GuestDisk, error) {
	for ref, vm := range o.pool.Records("VM") {
		if vm["uuid"] == uuid {
			return o.pool.Guest().Disk(ref, "0")
		}
	}
	return nil, fmt.Errorf("there is no VM %s", uuid)
}

// spread writes data in ranges of 4 MiB, as makeDisk does.
func spread(disk io.WriterAt, size, data int64) error {
	const part = 4 << 20
	noise, content := rand.NewChaCha8([32]byte{1}), make([]byte, part)
	for i := range data / part {
		_, _ = noise.Read(content) // it never fails
		if _, err := disk.WriteAt(content, i*(size/(data/part))); err != nil {
			return err
		}
	}
	return nil
}

// addImage puts an image with an empty disk on the pool.
func (o *operator) addImage(ctx context.Context, name string, size int64) error {
	repository := ""
	for ref, sr := range o.pool.Records("SR") {
		if sr["name_label"] == "Local storage" {
			repository = ref
		}
	}
	disk, err := o.pool.Insert("VDI", map[string]any{"name_label": name, "SR": repository, "virtual_size": size, "managed": true, "type": "user"})
	if err != nil {
		return fmt.Errorf("make the disk of image %s: %w", name, err)
	}
	image := &v1alpha1.XenClusterImage{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.XenImageSpec{
		Source: v1alpha1.ImageSource{Existing: &v1alpha1.ExistingImage{VDIUUID: fmt.Sprint(o.pool.Records("VDI")[disk]["uuid"])}},
		Pools:  []v1alpha1.ImagePool{{Name: testkit.PoolName}},
	}}
	if err := o.client.Create(ctx, image); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	return o.wait(ctx, image, ready)
}

// againstCurl uploads the same disk in turn: by the manager, and by curl | curl. What is compared is the time from the first
// byte at the store to the last, and the CPU time of the processes.
func (o *operator) againstCurl(ctx context.Context, r *report, store *sink, manager int) error {
	var ours, theirs, ourCPU, theirCPU []float64
	rounds := min(r.rounds, 3)
	for i := range rounds {
		s := benchSnapshot(fmt.Sprintf("full-%d", i), "full", store, v1alpha1.DiskFormatRaw)
		s.Spec.KeepLocal = v1alpha1.KeepAlways
		before, err := cpuSeconds(manager)
		if err != nil {
			return err
		}
		if err := o.client.Create(ctx, s); err != nil {
			return err
		}
		if err := o.wait(ctx, s, ready); err != nil {
			return err
		}
		after, err := cpuSeconds(manager)
		if err != nil {
			return err
		}
		curl := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(
			`curl -fsSk -u root:bench "%s/export_raw_vdi?vdi=%s&format=raw" | curl -fsS -T - "%s/curl/%d"`, o.endpoint, s.Status.Disks[0].VDIUUID, store.URL, i))
		curl.Stderr = os.Stderr
		if err := curl.Run(); err != nil {
			return fmt.Errorf("curl | curl: %w", err)
		}
		const perGiB = float64(1<<30) / convertedSize
		ourCPU = append(ourCPU, (after-before)*perGiB)
		theirCPU = append(theirCPU, (curl.ProcessState.UserTime()+curl.ProcessState.SystemTime()).Seconds()*perGiB)
		for path, into := range map[string]*[]float64{"/" + s.Name + "/root.raw": &ours, fmt.Sprintf("/curl/%d", i): &theirs} {
			file, there := store.file(path)
			if !there || file.size != convertedSize {
				return fmt.Errorf("%s has %d bytes, want %d", path, file.size, convertedSize)
			}
			*into = append(*into, float64(file.size)/(1<<20)/file.time.Seconds())
		}
	}
	a, b := median(ours), median(theirs)
	r.add(row{Name: "disk.export.pipe", Value: a, Unit: "MiB/s", Against: b, Ratio: a / b, N: rounds, goal: atLeast(0.9),
		Note: "a raw disk from the pool by TLS to a web server, with digests; against curl | curl"})
	a, b = median(ourCPU), median(theirCPU)
	r.add(row{Name: "disk.export.cpu", Value: a, Unit: "s/GiB", Against: b, Ratio: a / b, N: rounds,
		Note: "CPU time of the manager for such an upload, all else that it did meanwhile included; against both curls, which compute no digest"})
	return nil
}

// cpuSeconds is the CPU time that a process has used.
func cpuSeconds(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, fields, _ := strings.Cut(string(text), ") ") // the name may have spaces
	var user, system float64
	if columns := strings.Fields(fields); len(columns) > 12 {
		_, err = fmt.Sscan(columns[11]+" "+columns[12], &user, &system)
	}
	return (user + system) / 100, err // in hundredths of a second, whatever the kernel's own tick is
}

// uploadMemory is what the manager needs more than at rest while it uploads a large sparse disk.
func (o *operator) uploadMemory(ctx context.Context, r *report, store *sink, pid int) error {
	if err := o.waitSettled(ctx); err != nil {
		return err
	}
	before, err := residentMiB(pid)
	if err != nil {
		return err
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o600); err != nil { // the peak counts from here
		return fmt.Errorf("reset the peak of the manager's memory: %w", err)
	}
	s := benchSnapshot("sparse", "sparse", store, v1alpha1.DiskFormatVHD)
	if err := o.client.Create(ctx, s); err != nil {
		return err
	}
	if err := o.wait(ctx, s, ready); err != nil {
		return err
	}
	after, err := peakMiB(pid)
	if err != nil {
		return err
	}
	r.add(row{Name: "disk.upload.memory", Value: max(after-before, 0), Unit: "MiB", N: 1, goal: atMost(64),
		Note: fmt.Sprintf("growth of the manager's peak, upload of a sparse disk of 50 GiB as VHD (%.0f MiB in all)", after)})
	return nil
}

// peakMiB is the most memory that a process has held.
func peakMiB(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("the process has no peak of its memory")
}
