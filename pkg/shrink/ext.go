package shrink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// toolTimeout bounds one run of a program of e2fsprogs. A check of 2 TiB takes minutes.
const toolTimeout = 2 * time.Hour

// volume is an ext file system in a scratch file of its own.
type volume struct {
	where string // the partition's name
	file  *sparse
	fs    *ext
}

// shrinkTo checks and mends the file system and makes it end before size bytes, if it does not. It reports how many bytes of the
// file are the file system's.
func (v *volume) shrinkTo(ctx context.Context, size int64, needed func(fs int64) int64) (int64, error) {
	if err := v.mend(ctx); err != nil {
		return 0, err
	}
	blocks := size / v.fs.blockSize
	if v.fs.blocks <= blocks {
		return v.fs.size(), nil
	}
	least, err := v.leastBlocks(ctx)
	if err != nil {
		return 0, err
	}
	if least > blocks {
		return 0, &Refusal{
			Reason: TooMuchData, Where: v.where, Needed: needed(least * v.fs.blockSize),
			Found: fmt.Sprintf("the data of %s needs %d MiB, and it would have %d MiB", v.fs.kind(), (least*v.fs.blockSize+mebibyte-1)/mebibyte, size/mebibyte),
		}
	}
	if err := v.resize(ctx, blocks); err != nil {
		return 0, err
	}
	return blocks * v.fs.blockSize, v.prove(ctx, blocks)
}

// Bits of e2fsck's exit code.
const (
	fsckUncorrected = 4
	fsckFailed      = 8
)

// mend runs e2fsck as a boot does: what is safe to mend is mended, a journal is carried out.
func (v *volume) mend(ctx context.Context) error {
	output, code, err := v.run(ctx, "e2fsck", "-f", "-p", scratchName)
	switch {
	case err != nil:
		return err
	case code&(fsckUncorrected|fsckFailed) != 0:
		return refuse(Damaged, v.where, "%s has faults that e2fsck -p does not mend: %s", v.fs.kind(), output)
	case code > 3:
		return &ToolError{"e2fsck", fmt.Errorf("it ended with %d for %s: %s", code, v.where, output)}
	}
	return v.readAgain()
}

// readAgain reads the superblock as it is after a repair.
func (v *volume) readAgain() error {
	probe := make([]byte, 2*superblock)
	if _, err := v.file.ReadAt(probe, 0); err != nil {
		return fmt.Errorf("read the superblock in the scratch file: %w", err)
	}
	fs := readExt(probe)
	if fs == nil {
		return refuse(Damaged, v.where, "e2fsck left no ext file system behind")
	}
	v.fs = fs
	return nil
}

var leastPattern = regexp.MustCompile(`minimum size of the filesystem: (\d+)`)

// leastBlocks is the fewest blocks that the data needs, as resize2fs reckons.
func (v *volume) leastBlocks(ctx context.Context) (int64, error) {
	output, code, err := v.run(ctx, "resize2fs", "-P", scratchName)
	if err != nil {
		return 0, err
	}
	found := leastPattern.FindStringSubmatch(output)
	if code != 0 || found == nil {
		return 0, refuse(Damaged, v.where, "resize2fs cannot tell how small %s may become: %s", v.fs.kind(), output)
	}
	least, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read what resize2fs says (%s): %w", output, err)
	}
	return least, nil
}

func (v *volume) resize(ctx context.Context, blocks int64) error {
	output, code, err := v.run(ctx, "resize2fs", scratchName, strconv.FormatInt(blocks, 10))
	switch {
	case err != nil:
		return err
	case code != 0 && strings.Contains(output, "smaller than minimum"), code != 0 && strings.Contains(output, "No space left"):
		return refuse(TooMuchData, v.where, "resize2fs does not make %s as small as %d MiB: %s", v.fs.kind(), blocks*v.fs.blockSize/mebibyte, output)
	case code != 0:
		return refuse(Damaged, v.where, "resize2fs does not make %s smaller: %s", v.fs.kind(), output)
	}
	return nil
}

// prove checks that what resize2fs has left is whole and of the size that was asked for.
func (v *volume) prove(ctx context.Context, blocks int64) error {
	output, code, err := v.run(ctx, "e2fsck", "-f", "-n", scratchName)
	if err != nil {
		return err
	}
	if code != 0 {
		return &ToolError{"resize2fs", fmt.Errorf("%s is not whole after it (e2fsck -n ended with %d): %s", v.where, code, output)}
	}
	if err := v.readAgain(); err != nil {
		return err
	}
	if v.fs.blocks != blocks {
		return &ToolError{"resize2fs", fmt.Errorf("%s has %d blocks after it, and %d were asked for", v.where, v.fs.blocks, blocks)}
	}
	return nil
}

// scratchName is how the programs find the scratch file, which has no name: it is the first file that they inherit.
const scratchName = "/proc/self/fd/3"

// run starts a program on the scratch file and returns what it said and its exit code. A program that did not run to its end is
// an error.
func (v *volume) run(ctx context.Context, program string, arguments ...string) (string, int, error) {
	path, err := find(program)
	if err != nil {
		return "", 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, path, arguments...)
	var output limited
	command.Stdout, command.Stderr = &output, &output
	// No message in another language, no configuration of the machine's.
	command.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "E2FSCK_CONFIG=/dev/null"}
	command.ExtraFiles = []*os.File{v.file.File}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.WaitDelay = time.Second
	err = command.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", 0, fmt.Errorf("%s of %s: %w", program, v.where, context.Cause(ctx))
	case err == nil:
		return output.text(), 0, nil
	case errors.As(err, &exit) && exit.Exited():
		if full := v.file.scratch.exhausted(); full != nil {
			return "", 0, full
		}
		return output.text(), exit.ExitCode(), nil
	}
	return "", 0, &ToolError{program, fmt.Errorf("%s: %w: %s", v.where, err, output.text())}
}

// find looks for a program also where those for the administrator are.
func find(program string) (string, error) {
	for _, name := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &ToolError{program, errors.New("it is not installed")}
}

// limited keeps the end of what a program says.
type limited struct{ buffer bytes.Buffer }

const (
	maxOutput = 16 * kibibyte
	maxText   = 200
)

func (l *limited) Write(p []byte) (int, error) {
	l.buffer.Write(p)
	if extra := l.buffer.Len() - maxOutput; extra > 0 {
		l.buffer.Next(extra)
	}
	return len(p), nil
}

// adviceBegins is how e2fsck begins its advice on how to call it.
const adviceBegins = "The superblock could not be read"

// text is the output as one line for people: without the scratch file's name, the program's version and what cannot be printed.
func (l *limited) text() string {
	var lines []string
	for line := range strings.Lines(l.buffer.String()) {
		line = strings.TrimSpace(strings.NewReplacer(scratchName+": ", "", scratchName, "it", "/usr/sbin/", "", "/sbin/", "").Replace(line))
		if strings.HasPrefix(line, adviceBegins) {
			break // what follows is about devices and backups of the superblock, at length
		}
		if line != "" && !strings.HasPrefix(line, "e2fsck 1.") && !strings.HasPrefix(line, "resize2fs 1.") {
			lines = append(lines, line)
		}
	}
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(strings.Join(lines, " "), "?"))
	if runes := []rune(text); len(runes) > maxText {
		text = string(runes[:maxText]) + "…"
	}
	return text
}
