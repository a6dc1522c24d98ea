package classes

// The arithmetic of memory: what a VM needs of a host, and which limits may be set on it. Pure functions, as in xapi's
// memory.ml, memory_check.ml and vm_memory_constraints.ml; all quantities in bytes unless the name says MiB.

const mib = int64(1) << 20

// memoryLimits are the five memory fields of a VM.
type memoryLimits struct {
	staticMin, dynamicMin, target, dynamicMax, staticMax int64
}

// ordered says whether the limits obey static_min <= dynamic_min <= dynamic_max <= static_max.
func (l memoryLimits) ordered() bool {
	return l.staticMin <= l.dynamicMin && l.dynamicMin <= l.dynamicMax && l.dynamicMax <= l.staticMax
}

// pinned says whether the limits leave nothing to ballooning: dynamic_min = dynamic_max = static_max.
func (l memoryLimits) pinned() bool {
	return l.staticMin <= l.dynamicMin && l.dynamicMin == l.dynamicMax && l.dynamicMax == l.staticMax
}

// coercible says whether a VM with these limits may start: xapi moves the dynamic range into the static one by itself, but
// not a maximum below its minimum.
func (l memoryLimits) coercible() bool {
	return l.staticMax >= l.staticMin && l.dynamicMax >= l.dynamicMin
}

// memoryModel is how one kind of domain uses memory outside of the guest.
type memoryModel struct {
	extraMiB int64 // per domain, inside and outside of it
	shim     bool  // a PV guest in a PVH shim
}

var memoryModels = map[string]memoryModel{
	"hvm":       {extraMiB: 2},
	"pvh":       {extraMiB: 2},
	"pv":        {extraMiB: 1},
	"pv_in_pvh": {extraMiB: 2, shim: true},
}

// memoryOverhead is VM.memory_overhead: shadow pages (256 a VCPU, two for each MiB of the guest), and what the domain needs
// beside the guest.
func memoryOverhead(domainType string, staticMax, vcpusMax int64, shadowMultiplier float64) int64 {
	model, known := memoryModels[domainType]
	if !known {
		model = memoryModels["hvm"]
	}
	if domainType == "pv" {
		shadowMultiplier = 1
	}
	staticMaxMiB := ceilDiv(staticMax, mib)
	const pagesPerMiB = 256
	shadowMiB := ceilDiv(256*vcpusMax+2*staticMaxMiB, pagesPerMiB)
	shadowMiB = max(1, int64(float64(shadowMiB)*shadowMultiplier))
	overheadMiB := model.extraMiB + shadowMiB
	if model.shim {
		overheadMiB += 23 + staticMaxMiB/90
	}
	return overheadMiB * mib
}

// memoryToStart is what a host must have free for a domain that starts with so much guest memory.
func memoryToStart(domainType string, guest, staticMax, vcpusMax int64, shadowMultiplier float64) int64 {
	return ceilDiv(guest, mib)*mib + memoryOverhead(domainType, staticMax, vcpusMax, shadowMultiplier)
}

// maximiseMemory is the largest static maximum, in whole MiB, with which a VM fits into total. The approximate answer leaves
// room for 64 VCPUs.
func maximiseMemory(domainType string, total, vcpusMax int64, shadowMultiplier float64, approximate bool) int64 {
	if approximate {
		vcpusMax = 64
	}
	low, high := int64(0), total
	for low < high {
		middle := low + (high-low+1)/2
		if memoryToStart(domainType, middle, middle, vcpusMax, shadowMultiplier) <= total {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low / mib * mib
}

func ceilDiv(a, b int64) int64 {
	return (a + b - 1) / b
}
