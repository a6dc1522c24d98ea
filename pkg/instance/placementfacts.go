package instance

import (
	"slices"
	"strconv"
	"strings"

	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// observeHosts says of the pool's hosts what placement goes by.
func (f *Facts) observeHosts(v xencache.View) []Host {
	hosts, at := []Host(nil), map[xenapi.HostRef]*Host{}
	for ref, record := range v.Hosts() {
		host := Host{
			Ref: ref, UUID: record.UUID, Name: record.NameLabel, Enabled: record.Enabled, CPUs: hostCPUs(record),
			Sees: map[xenapi.SRRef]bool{}, Lacks: map[xenapi.NetworkRef]bool{},
		}
		if metrics := v.HostMetrics(record.Metrics); metrics != nil {
			host.Live, host.MemoryTotal, host.MemoryFree = metrics.Live, metrics.MemoryTotal, metrics.MemoryFree
		}
		hosts = append(hosts, host)
	}
	slices.SortFunc(hosts, func(a, b Host) int { return strings.Compare(a.UUID, b.UUID) })
	for i := range hosts {
		at[hosts[i].Ref] = &hosts[i]
	}
	for _, pbd := range v.PBDs() {
		if host := at[pbd.Host]; host != nil && pbd.CurrentlyAttached {
			host.Sees[pbd.SR] = true
		}
	}
	f.observeNetworks(v, at)
	return hosts
}

// observeNetworks says which of the VM's networks a host does not reach. A network without any interface is internal: it is
// wherever it is wanted.
func (f *Facts) observeNetworks(v xencache.View, hosts map[xenapi.HostRef]*Host) {
	reached := map[xenapi.NetworkRef]map[xenapi.HostRef]bool{}
	for _, nic := range f.nics() {
		reached[nic.Network] = map[xenapi.HostRef]bool{}
	}
	for _, pif := range v.PIFs() {
		if host := hosts[pif.Host]; host != nil && pif.Management {
			host.Management = pif.Network
		}
		if by := reached[pif.Network]; by != nil {
			by[pif.Host] = true
		}
	}
	for network, by := range reached {
		for ref, host := range hosts {
			if len(by) > 0 && !by[ref] {
				host.Lacks[network] = true
			}
		}
	}
}

// hostCPUs is how many CPUs a host has, 0 if it does not tell.
func hostCPUs(record *xenapi.Host) int64 {
	n, _ := strconv.ParseInt(record.CPUInfo["cpu_count"], 10, 64) // what does not parse is not known
	return n
}

// observeRepositories lists the storage repositories that can take a disk in while its VM moves, as far as the namespace may
// use them. A resolver looks into the cache itself.
func observeRepositories(cache *xencache.Cache, resolver Resolver) []Repository {
	var able []Repository
	uuids := map[xenapi.SRRef]string{}
	cache.View(func(v xencache.View) {
		takes, thick := map[string]bool{}, map[string]bool{}
		for _, driver := range v.SMs() {
			takes[driver.Type] = driver.Features["VDI_MIRROR"] > 0 || driver.Features["VDI_MIRROR_IN"] > 0
			thick[driver.Type] = driver.Features["THIN_PROVISIONING"] == 0
		}
		for ref, sr := range v.SRs() {
			if sr.ContentType == "iso" || !takes[sr.Type] {
				continue
			}
			uuids[ref] = sr.UUID
			able = append(able, Repository{
				Ref: ref, Name: sr.NameLabel, Type: sr.Type, Shared: sr.Shared, Free: sr.PhysicalSize - sr.PhysicalUtilisation, Thick: thick[sr.Type],
			})
		}
	})
	able = slices.DeleteFunc(able, func(r Repository) bool {
		_, err := resolver.StorageRepository(uuids[r.Ref])
		return err != nil
	})
	slices.SortFunc(able, func(a, b Repository) int { return strings.Compare(uuids[a.Ref], uuids[b.Ref]) })
	return able
}
