package xencache

import (
	"time"

	"github.com/kubexen/kubexen/pkg/xenapi"
)

// What is trimmed away is read by nobody here and costs memory or wakes: large texts (last_booted_record,
// recommendations, NVRAM), lists that an index holds already, what is only eventually right (allowed_operations),
// and what changes with every heart-beat.

func trimPool(r *xenapi.Pool) {
	r.AllowedOperations, r.Blobs, r.GuiConfig, r.UEFICertificates, r.CustomUEFICertificates = nil, nil, nil, "", ""
	r.HealthCheckConfig, r.CurrentOperations, r.Recommendations = nil, nil, nil
	r.TelemetryNextCollection, r.LastUpdateSync = time.Time{}, time.Time{}
	r.Extra = nil
}

func trimHost(r *xenapi.Host) {
	r.AllowedOperations, r.Blobs, r.BIOSStrings, r.ChipsetInfo, r.Logging = nil, nil, nil, nil, nil
	r.ResidentVMs, r.HostCPUs, r.PCIs, r.PUSBs, r.PGPUs, r.Features = nil, nil, nil, nil, nil, nil
	r.UEFICertificates, r.LicenseParams, r.CurrentOperations = "", nil, nil
	r.Extra = nil
}

func trimHostMetrics(r *xenapi.HostMetrics) {
	r.LastUpdated = time.Time{}
	r.Extra = nil
}

func trimSR(r *xenapi.SR) {
	r.AllowedOperations, r.Blobs, r.VDIs, r.CurrentOperations = nil, nil, nil, nil
	r.Extra = nil
}

func trimSM(r *xenapi.SM) {
	r.Configuration, r.Copyright = nil, ""
	r.Extra = nil
}

func trimNetwork(r *xenapi.Network) {
	r.AllowedOperations, r.Blobs, r.VIFs, r.AssignedIps, r.CurrentOperations = nil, nil, nil, nil, nil
	r.Extra = nil
}

// trimPIF keeps which host an interface gives a way into which network.
func trimPIF(r *xenapi.PIF) {
	*r = xenapi.PIF{UUID: r.UUID, Host: r.Host, Network: r.Network, Management: r.Management, IP: r.IP}
}

func trimVM(r *xenapi.VM) {
	r.AllowedOperations, r.Blobs, r.BIOSStrings = nil, nil, nil
	r.LastBootedRecord, r.LastBootCPUFlags, r.Recommendations, r.SnapshotMetadata = "", nil, "", ""
	r.NVRAM = nil
	r.VBDs, r.VIFs, r.Snapshots, r.CrashDumps = nil, nil, nil, nil
	r.MemoryTarget = 0
	dropEmpty(&r.CurrentOperations)
	dropEmpty(&r.BlockedOperations)
	dropEmpty(&r.XenstoreData)
	dropEmpty(&r.SnapshotInfo)
	dropEmpty(&r.VCPUsParams)
	r.Extra = nil
}

func trimVMMetrics(r *xenapi.VMMetrics) {
	r.LastUpdated = time.Time{}
	r.VCPUsUtilisation, r.VCPUsCPU, r.VCPUsFlags, r.VCPUsParams = nil, nil, nil, nil
	r.NUMANodeMemory, r.OtherConfig, r.State = nil, nil, nil
	r.Extra = nil
}

func trimGuestMetrics(r *xenapi.VMGuestMetrics) {
	r.LastUpdated = time.Time{}
	r.Memory, r.Disks, r.OtherConfig = nil, nil, nil
	r.Extra = nil
}

func trimVDI(r *xenapi.VDI) {
	r.AllowedOperations, r.CrashDumps, r.VBDs, r.Snapshots, r.XenstoreData = nil, nil, nil, nil, nil
	dropEmpty(&r.CurrentOperations)
	dropEmpty(&r.SMConfig)
	dropEmpty(&r.OtherConfig)
	r.Extra = nil
}

func trimVBD(r *xenapi.VBD) {
	r.AllowedOperations, r.RuntimeProperties, r.QoSSupportedAlgorithms = nil, nil, nil
	dropEmpty(&r.CurrentOperations)
	dropEmpty(&r.QoSAlgorithmParams)
	dropEmpty(&r.OtherConfig)
	r.Extra = nil
}

func trimVIF(r *xenapi.VIF) {
	r.AllowedOperations, r.RuntimeProperties, r.QoSSupportedAlgorithms = nil, nil, nil
	dropEmpty(&r.CurrentOperations)
	dropEmpty(&r.QoSAlgorithmParams)
	dropEmpty(&r.OtherConfig)
	r.Extra = nil
}

func trimTask(r *xenapi.Task) {
	r.AllowedOperations, r.Backtrace, r.CurrentOperations = nil, "", nil
	dropEmpty(&r.OtherConfig)
	r.Extra = nil
}

// dropEmpty spares the memory of a map without entries.
func dropEmpty[K comparable, V any](m *map[K]V) {
	if len(*m) == 0 {
		*m = nil
	}
}
