package controlplane

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reservedPort is a TCP port on loopback that is bound but not listened on. A child that binds with SO_REUSEPORT (as
// kube-apiserver does with --permit-port-sharing) gets exactly this port, and nobody else can take it in between, nor
// while the child restarts.
type reservedPort struct {
	descriptor int
	Port       int
}

func reservePort() (*reservedPort, error) {
	descriptor, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(descriptor)
	port, err := bindShared(descriptor)
	if err != nil {
		_ = unix.Close(descriptor)
		return nil, fmt.Errorf("reserve a port on loopback: %w", err)
	}
	return &reservedPort{descriptor: descriptor, Port: port}, nil
}

func bindShared(descriptor int) (int, error) {
	if err := unix.SetsockoptInt(descriptor, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(descriptor, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	address, err := unix.Getsockname(descriptor)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	bound, isIPv4 := address.(*unix.SockaddrInet4)
	if !isIPv4 {
		return 0, fmt.Errorf("unexpected address %T", address)
	}
	return bound.Port, nil
}

func (p *reservedPort) release() { _ = unix.Close(p.descriptor) }
