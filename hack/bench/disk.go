package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kubexen/kubexen/pkg/disk"
)

// diskGroup compares our conversion of disks with QEMU's: each a process of its own, from the same file to a file.
var diskGroup = group{
	name:  "disk",
	about: "a disk into a VHD: ours and qemu-img convert in turn; memory of a large sparse one; a large disk made smaller; uploads: ours and curl | curl in turn",
	run:   runDisk,
}

// convertEnv makes this program convert a disk: the file to read and the one to write, as a VHD.
const convertEnv = "KUBEXEN_BENCH_CONVERT"

// What is converted: a disk of which a quarter holds data, and one that is large and nearly empty.
const (
	convertedSize = 2 << 30
	convertedData = 512 << 20
	sparseSize    = 50 << 30
	sparseData    = 64 << 20
)

func runDisk(ctx context.Context, r *report) error {
	dir, err := os.MkdirTemp("", "kubexen-bench-disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	raw, qcow2 := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	if err := makeDisk(raw, convertedSize, convertedData); err != nil {
		return err
	}
	if _, err := spend(qemuImg(ctx, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)); err != nil {
		return err
	}
	for _, source := range []struct{ name, path, format string }{{"disk.vhd.cpu", raw, "raw"}, {"disk.vhd.cpu.qcow2", qcow2, "qcow2"}} {
		if err := convertCPU(ctx, r, source.name, source.path, source.format); err != nil {
			return err
		}
	}
	if err := convertMemory(ctx, r, dir); err != nil {
		return err
	}
	if err := shrinkDisk(ctx, r, dir); err != nil {
		return err
	}
	return uploads(ctx, r)
}

// makeDisk writes data in ranges of 4 MiB, spread over a file of size bytes.
func makeDisk(path string, size, data int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return err
	}
	const part = 4 << 20
	noise, content := rand.NewChaCha8([32]byte{1}), make([]byte, part)
	for i := range data / part {
		_, _ = noise.Read(content) // it never fails
		if _, err := file.WriteAt(content, i*(size/(data/part))); err != nil {
			return err
		}
	}
	return file.Sync()
}

// spent is what a process cost.
type spent struct {
	cpu time.Duration
	rss float64 // MiB, at its peak
}

// spend runs a process to its end.
func spend(command *exec.Cmd) (spent, error) {
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return spent{}, fmt.Errorf("%s: %w (qemu-img is of Debian's qemu-utils)", strings.Join(command.Args, " "), err)
	}
	state := command.ProcessState
	u := spent{cpu: state.UserTime() + state.SystemTime()}
	if kernel, ok := state.SysUsage().(*syscall.Rusage); ok {
		u.rss = float64(kernel.Maxrss) / 1024
	}
	return u, nil
}

func qemuImg(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "qemu-img", args...)
}

// ourConvert is this program again; see asConverter.
func ourConvert(ctx context.Context, from, to string) *exec.Cmd {
	command := exec.CommandContext(ctx, os.Args[0])
	command.Env = append(os.Environ(), convertEnv+"="+from+" "+to)
	return command
}

func convertCPU(ctx context.Context, r *report, name, from, format string) error {
	rounds := min(r.rounds, 5)
	var ours, theirs []float64
	for range rounds {
		for _, side := range []struct {
			command *exec.Cmd
			into    *[]float64
		}{
			{ourConvert(ctx, from, from+".ours"), &ours},
			{qemuImg(ctx, "convert", "-f", format, "-O", "vpc", "-o", "subformat=dynamic,force_size=on", from, from+".theirs"), &theirs},
		} {
			u, err := spend(side.command)
			if err != nil {
				return err
			}
			*side.into = append(*side.into, u.cpu.Seconds()*(1<<30)/convertedData)
		}
	}
	if _, err := spend(qemuImg(ctx, "compare", "-f", "vpc", "-F", "vpc", from+".ours", from+".theirs")); err != nil {
		return err
	}
	a, b := median(ours), median(theirs)
	r.add(row{
		Name: name, Value: a, Unit: "s/GiB", Against: b, Ratio: a / b, N: rounds, goal: atMost(1),
		Note: fmt.Sprintf("CPU for a GiB of data, %s to VHD, file to file, without digests; qemu-img finds both alike", format),
	})
	return nil
}

// convertMemory takes what a large disk needs more than a small one.
func convertMemory(ctx context.Context, r *report, dir string) error {
	peak := func(name string, size, data int64) (float64, error) {
		raw, qcow2 := filepath.Join(dir, name+".raw"), filepath.Join(dir, name+".qcow2")
		if err := makeDisk(raw, size, data); err != nil {
			return 0, err
		}
		if _, err := spend(qemuImg(ctx, "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)); err != nil {
			return 0, err
		}
		u, err := spend(ourConvert(ctx, qcow2, qcow2+".vhd"))
		return u.rss, err
	}
	small, err := peak("small", 4<<20, 4<<20)
	if err != nil {
		return err
	}
	large, err := peak("large", sparseSize, sparseData)
	if err != nil {
		return err
	}
	r.add(row{
		Name: "disk.memory", Value: max(large-small, 0), Unit: "MiB", N: 1, goal: atMost(64),
		Note: fmt.Sprintf("growth of the peak, a sparse qcow2 of 50 GiB to VHD (%.0f MiB in all)", large),
	})
	return nil
}

// asConverter converts a disk with the product's code, if the environment asks for it.
func asConverter() (bool, error) {
	from, to, ok := strings.Cut(os.Getenv(convertEnv), " ")
	if !ok {
		return false, nil
	}
	return true, convert(from, to)
}

func convert(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	d, err := disk.Open(source, info.Size(), "")
	if err != nil {
		return err
	}
	image, err := disk.NewVHDImage(d, disk.VHDOptions{})
	if err != nil {
		return err
	}
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	n, err := io.Copy(target, image)
	if err == nil && n != image.Len() {
		err = fmt.Errorf("%d bytes, announced %d", n, image.Len())
	}
	return errors.Join(err, target.Close())
}
