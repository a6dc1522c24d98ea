package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a child that ends with this process, whichever way this process ends.
type Process struct {
	Name    string
	LogPath string

	command *exec.Cmd
	ended   chan struct{} // closed when the child is gone; err is set before
	err     error
}

// StartProcess runs a program as a child with its output in the log file. On Linux the child is killed by the kernel
// when this process dies; an interrupt from the terminal goes to this process alone, which then stops its children in order.
func StartProcess(name, logPath string, command *exec.Cmd) (*Process, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own descriptor
	if command.Stdout == nil {
		command.Stdout = log
	}
	if command.Stderr == nil {
		command.Stderr = log
	}
	command.SysProcAttr = dieWithParent(&syscall.SysProcAttr{Setpgid: true})
	if err := fork(command); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{Name: name, LogPath: logPath, command: command, ended: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Ended is closed when the child is gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err says why the child ended, with the last lines of its log. It may be called once Ended is closed.
func (p *Process) Err() error {
	reason := "exit status 0"
	if p.err != nil {
		reason = p.err.Error()
	}
	return fmt.Errorf("%s ended: %s; the end of %s:\n%s", p.Name, reason, p.LogPath, lastLines(p.LogPath, 15))
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Stop asks the child to end, and kills it when the grace is over.
func (p *Process) Stop(grace time.Duration) {
	if grace > 0 {
		_ = p.command.Process.Signal(syscall.SIGTERM)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.ended:
			return
		case <-timer.C:
		}
	}
	p.Kill()
}

// Kill ends the child at once and waits until it is gone.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.ended
}

// WaitUntil asks again and again until the condition holds, the child ends, or the context does.
func (p *Process) WaitUntil(ctx context.Context, what string, holds func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = holds(ctx); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait until %s %s: %w", p.Name, what, ctx.Err()), last,
				errors.New(lastLines(p.LogPath, 15)))
		case <-p.ended:
			return p.Err()
		case <-tick.C:
		}
	}
}

type forkRequest struct {
	command *exec.Cmd
	done    chan error
}

// forks leads to the one goroutine that starts children. The kernel's parent-death signal belongs to the thread that
// forked, not to its process: a child of a thread that ends early would be killed early. So all children are forked
// from a thread that lives as long as the process.
var forks = sync.OnceValue(func() chan<- forkRequest {
	requests := make(chan forkRequest)
	go func() {
		runtime.LockOSThread()
		for request := range requests {
			request.done <- request.command.Start()
		}
	}()
	return requests
})

func fork(command *exec.Cmd) error {
	request := forkRequest{command: command, done: make(chan error, 1)}
	forks() <- request
	return <-request.done
}

func lastLines(path string, count int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return filepath.Base(path) + ": " + err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-count):], []byte("\n")))
}
