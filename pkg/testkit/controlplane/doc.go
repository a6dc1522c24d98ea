// Package controlplane starts a real Kubernetes control plane on the loopback interface: etcd, kube-apiserver and, when
// asked, kube-controller-manager with the few controllers without which owner references, namespaces and aggregated
// roles do nothing. The programs are those that the modules under hack/controlplane pin; they are built once and kept
// in the user's cache directory.
//
// Everything is thrown away by Stop, and also when the process that started it is killed: the children die with it.
//
// Begin reading at Start. What tests want beyond processes (namespaces, CRDs, clients) lives one level up, in testkit;
// the demo (hack/dev) uses this package directly.
package controlplane
