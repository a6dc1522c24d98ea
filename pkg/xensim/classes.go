package xensim

import "github.com/kubexen/kubexen/pkg/xensim/internal/classes"

// registerClasses registers what VMs, disks, devices, networks and storage do.
func registerClasses(p *Pool) {
	p.world = classes.Register(p.Pool, classes.Options{Disks: p.disks})
}
