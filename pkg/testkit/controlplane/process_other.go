//go:build !linux

package controlplane

import "syscall"

// dieWithParent changes nothing where the system has no parent-death signal: children are stopped by Stop alone.
func dieWithParent(attributes *syscall.SysProcAttr) *syscall.SysProcAttr { return attributes }
