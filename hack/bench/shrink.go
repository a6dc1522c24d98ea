package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kubexen/kubexen/pkg/disk"
	"github.com/kubexen/kubexen/pkg/shrink"
)

// shrinkEnv makes this program make a disk smaller: the VHD to read and the one to write.
const shrinkEnv = "KUBEXEN_BENCH_SHRINK"

// What is made smaller: a disk of 50 GiB with a GPT whose ext4 holds a GiB of files, to one of 4 GiB.
const (
	shrunkSize = 4 << 30
	shrunkData = 1 << 30
)

// shrinkDisk measures time and memory of making a disk smaller.
func shrinkDisk(ctx context.Context, r *report, dir string) error {
	source := filepath.Join(dir, "shrink.vhd")
	if err := guestDisk(ctx, dir, source); err != nil {
		return err
	}
	var times []float64
	memory := 0.0
	for range min(r.rounds, 3) {
		command := exec.CommandContext(ctx, os.Args[0])
		command.Env = append(os.Environ(), shrinkEnv+"="+source+" "+source+".smaller")
		command.Stderr = os.Stderr
		began := time.Now()
		said, err := command.Output()
		if err != nil {
			return fmt.Errorf("make a disk smaller: %w", err)
		}
		times = append(times, time.Since(began).Seconds()*(1<<30)/shrunkData)
		var own, tools float64
		if _, err := fmt.Sscan(string(said), &own, &tools); err != nil {
			return fmt.Errorf("read what it took of memory (%q): %w", said, err)
		}
		memory = max(memory, own+tools)
	}
	r.add(row{
		Name: "disk.shrink", Value: median(times), Unit: "s/GiB", N: len(times),
		Note: "for a GiB of files on a GPT disk of 50 GiB, to 4 GiB: VHD to VHD with e2fsck, resize2fs and digest",
	})
	r.add(row{
		Name: "disk.shrink.memory", Value: memory, Unit: "MiB", N: len(times), goal: atMost(128),
		Note: "the peaks of the operator and of e2fsprogs together, for these 50 GiB",
	})
	return nil
}

// guestDisk makes the disk, as the pool's export of it is.
func guestDisk(ctx context.Context, dir, vhd string) error {
	tree, raw := filepath.Join(dir, "tree"), filepath.Join(dir, "shrink.raw")
	noise, part := rand.NewChaCha8([32]byte{2}), make([]byte, 16<<20)
	for i := range shrunkData / len(part) {
		_, _ = noise.Read(part) // it never fails
		file := filepath.Join(tree, fmt.Sprint(i), "file")
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, part, 0o600)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.WriteFile(raw, nil, 0o600), os.Truncate(raw, sparseSize)); err != nil {
		return err
	}
	const start, sectors = 1 << 20, (sparseSize - 2<<20) / 512
	table := exec.CommandContext(ctx, "/usr/sbin/sfdisk", "-q", "--no-reread", "--no-tell-kernel", raw)
	table.Stdin = strings.NewReader(fmt.Sprintf("label: gpt\nstart=2048, size=%d, type=L\n", sectors))
	mkfs := exec.CommandContext(ctx, "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-E", fmt.Sprintf("offset=%d", start), raw, fmt.Sprintf("%dK", sectors/2))
	for _, command := range []*exec.Cmd{table, mkfs} {
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, out)
		}
	}
	return errors.Join(convert(raw, vhd), os.Remove(raw), os.RemoveAll(tree))
}

// asShrinker makes a disk smaller with the product's code, if the environment asks for it, and says what memory it took.
func asShrinker() (bool, error) {
	from, to, ok := strings.Cut(os.Getenv(shrinkEnv), " ")
	if !ok {
		return false, nil
	}
	if err := makeSmaller(from, to); err != nil {
		return true, err
	}
	var own, tools syscall.Rusage
	if err := errors.Join(syscall.Getrusage(syscall.RUSAGE_SELF, &own), syscall.Getrusage(syscall.RUSAGE_CHILDREN, &tools)); err != nil {
		return true, err
	}
	fmt.Println(float64(own.Maxrss)/1024, float64(tools.Maxrss)/1024)
	return true, nil
}

func makeSmaller(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	stream, err := disk.NewVHDStream(bufio.NewReaderSize(source, 1<<20))
	if err != nil {
		return err
	}
	scratch, err := shrink.NewSpace(filepath.Dir(to), 0).Reserve(shrunkSize)
	if err != nil {
		return err
	}
	defer scratch.Close()
	result, err := shrink.Read(context.Background(), shrink.Request{Source: stream, Size: shrunkSize, Scratch: scratch})
	if err != nil {
		return err
	}
	image, err := disk.NewVHDImage(result.Disk, disk.VHDOptions{})
	if err != nil {
		return err
	}
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer target.Close()
	if _, err := bufio.NewReader(image).WriteTo(target); err != nil {
		return err
	}
	_, err = shrink.SumOf(disk.NewStream(result.Disk))
	return err
}
