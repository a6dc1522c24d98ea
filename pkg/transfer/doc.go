// Package transfer moves disks between pools and stores. A Request says what is to go where, in data alone; a Runner carries
// it out and tells how far it is. Local, the only one so far, runs transfers in this process; one that makes a Job of each
// needs nothing but the Request.
//
// A transfer holds nothing but the disk that it reads or writes. It ends well only when the pool's task, the length, the
// format's own signs and the store's digest all say so. Begin with runner.go.
package transfer
