package classes

import "testing"

func TestMemoryOverhead(t *testing.T) {
	for name, test := range map[string]struct {
		domainType       string
		staticMax, vcpus int64
		want             int64
	}{
		"2 GiB and 4 VCPUs, recording 0264":         {"hvm", 2 * gib, 4, 23068672},
		"2 GiB and 1 VCPU, recording 3030":          {"hvm", 2 * gib, 1, 19922944},
		"256 MiB and 1 VCPU, the empty template":    {"hvm", 256 * mib, 1, 5242880},
		"a control domain of 2 GiB and 2 VCPUs":     {"pv", 2 * gib, 2, 19922944},
		"1 GiB without VCPUs, recording 3074":       {"hvm", gib, 0, 10485760},
		"an unknown kind of domain is taken as HVM": {"unspecified", 2 * gib, 1, 19922944},
	} {
		t.Run(name, func(t *testing.T) {
			if got := memoryOverhead(test.domainType, test.staticMax, test.vcpus, 1); got != test.want {
				t.Errorf("memoryOverhead = %d, want %d", got, test.want)
			}
		})
	}
}

func TestMemoryToStart(t *testing.T) {
	const recorded3045 = int64(324642275328)
	if got := memoryToStart("hvm", 300*gib, 300*gib, 1, 1); got != recorded3045 {
		t.Errorf("a VM of 300 GiB needs %d, want %d", got, recorded3045)
	}
}

func TestMaximiseMemory(t *testing.T) {
	for name, test := range map[string]struct {
		total, vcpus int64
		approximate  bool
		want         int64
	}{
		"4 GiB with room for VCPUs, recording 1574": {4 * gib, 4, true, 4192206848},
		"1 GiB with room for VCPUs, recording 4033": {gib, 2, true, 996147200},
	} {
		t.Run(name, func(t *testing.T) {
			if got := maximiseMemory("hvm", test.total, test.vcpus, 1, test.approximate); got != test.want {
				t.Errorf("maximiseMemory = %d, want %d", got, test.want)
			}
		})
	}
}

func TestMemoryLimits(t *testing.T) {
	for name, test := range map[string]struct {
		limits                     memoryLimits
		ordered, pinned, coercible bool
	}{
		"pinned":                        {memoryLimits{staticMin: 1, dynamicMin: 4, dynamicMax: 4, staticMax: 4}, true, true, true},
		"ballooning":                    {memoryLimits{staticMin: 1, dynamicMin: 2, dynamicMax: 3, staticMax: 4}, true, false, true},
		"dynamic outside of static":     {memoryLimits{staticMin: 1, dynamicMin: 2, dynamicMax: 8, staticMax: 4}, false, false, true},
		"static maximum below minimum":  {memoryLimits{staticMin: 5, dynamicMin: 5, dynamicMax: 5, staticMax: 4}, false, false, false},
		"dynamic maximum below minimum": {memoryLimits{staticMin: 1, dynamicMin: 4, dynamicMax: 2, staticMax: 4}, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.limits.ordered(); got != test.ordered {
				t.Errorf("ordered = %v, want %v", got, test.ordered)
			}
			if got := test.limits.pinned(); got != test.pinned {
				t.Errorf("pinned = %v, want %v", got, test.pinned)
			}
			if got := test.limits.coercible(); got != test.coercible {
				t.Errorf("coercible = %v, want %v", got, test.coercible)
			}
		})
	}
}
