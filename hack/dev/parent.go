package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// untilParentIsGone ends the returned context when "go run" that started this program is killed: go run cannot pass on
// a SIGKILL, and its child would run on unnoticed. A program that was built and started by itself may outlive its shell.
func untilParentIsGone(ctx context.Context) context.Context {
	if executable, err := os.Executable(); err != nil || !strings.Contains(executable, string(filepath.Separator)+"go-build") {
		return ctx
	}
	parent := os.Getppid()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return ctx
}
