package xensim

import (
	"fmt"
	"net"

	"github.com/kubexen/kubexen/pkg/xensim/internal/transfer"
)

// registerTransfers registers the HTTP handlers that move disks, VMs and consoles.
func registerTransfers(p *Pool) error {
	transfer.Register(p.Pool, transfer.Options{
		Disks:     p.disks,
		Attach:    p.world.AttachToControlDomain,
		BaseURL:   p.baseURL,
		VNC:       p.options.VNC,
		WebSocket: p.options.Profile == "26.17",
		QCOW2:     p.options.Profile == "26.17",
	})
	return nil
}

// baseURL is where a host is reached. The pool is locked.
func (p *Pool) baseURL(host string) string {
	scheme := "https"
	if p.options.HTTP {
		scheme = "http"
	}
	address := p.DB().Get("host", host).Str("address")
	return scheme + "://" + net.JoinHostPort(address, fmt.Sprint(p.port))
}
