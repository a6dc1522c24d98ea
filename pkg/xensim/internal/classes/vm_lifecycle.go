package classes

import (
	"slices"
	"strings"
)

// What may be done with a VM when: the tables of xapi_vm_lifecycle.ml. Everything here takes facts and decides; the callers
// read the facts from the database.

// Power states as records spell them; errors spell them in lower case.
const (
	powerHalted    = "Halted"
	powerPaused    = "Paused"
	powerSuspended = "Suspended"
	powerRunning   = "Running"
)

// powerStatesFor lists, in the order in which an error names them, the power states that an operation needs. An operation
// that is not listed needs none.
var powerStatesFor = map[string][]string{
	"changing_VCPUs":              {powerHalted},
	"changing_static_range":       {powerHalted},
	"changing_memory_limits":      {powerHalted},
	"changing_shadow_memory":      {powerHalted},
	"changing_NVRAM":              {powerHalted},
	"make_into_template":          {powerHalted},
	"provision":                   {powerHalted},
	"start":                       {powerHalted},
	"start_on":                    {powerHalted},
	"create_vtpm":                 {powerHalted},
	"unpause":                     {powerPaused},
	"csvm":                        {powerSuspended},
	"resume":                      {powerSuspended},
	"resume_on":                   {powerSuspended},
	"awaiting_memory_live":        {powerRunning},
	"call_plugin":                 {powerRunning},
	"clean_reboot":                {powerRunning},
	"clean_shutdown":              {powerRunning},
	"changing_memory_live":        {powerRunning},
	"changing_shadow_memory_live": {powerRunning},
	"changing_VCPUs_live":         {powerRunning},
	"data_source_op":              {powerRunning},
	"pause":                       {powerRunning},
	"pool_migrate":                {powerRunning},
	"send_sysrq":                  {powerRunning},
	"send_trigger":                {powerRunning},
	"snapshot_with_quiesce":       {powerRunning},
	"suspend":                     {powerRunning},
	"sysprep":                     {powerRunning},
	"changing_dynamic_range":      {powerHalted, powerRunning},
	"clone":                       {powerHalted},
	"copy":                        {powerHalted},
	"create_template":             {powerHalted, powerSuspended},
	"destroy":                     {powerHalted, powerSuspended},
	"export":                      {powerHalted, powerSuspended},
	"hard_reboot":                 {powerPaused, powerRunning},
	"checkpoint":                  {powerPaused, powerSuspended, powerRunning},
	"get_boot_record":             {powerPaused, powerSuspended, powerRunning},
	"shutdown":                    {powerPaused, powerSuspended, powerRunning},
	"hard_shutdown":               {powerPaused, powerSuspended, powerRunning},
	"migrate_send":                {powerHalted, powerSuspended, powerRunning},
	"import":                      {},
}

// advertisedVMOperations are the operations that VM.allowed_operations may list, in the order in which it lists them.
var advertisedVMOperations = []string{
	"create_vtpm", "destroy", "metadata_export", "export", "make_into_template", "changing_NVRAM", "changing_VCPUs_live",
	"changing_shadow_memory", "changing_static_range", "changing_dynamic_range", "migrate_send", "pool_migrate", "resume_on",
	"resume", "suspend", "hard_reboot", "hard_shutdown", "clean_reboot", "clean_shutdown", "unpause", "pause", "start_on",
	"start", "provision", "checkpoint", "revert", "copy", "clone", "snapshot",
}

// templateOperations are what a template allows, beside destroy and migrate_send for one that is not a default template.
var templateOperations = []string{
	"changing_dynamic_range", "changing_static_range", "changing_memory_limits", "changing_shadow_memory", "changing_VCPUs",
	"changing_NVRAM", "clone", "copy", "export", "metadata_export", "provision",
}

// snapshotOperations are what a snapshot allows.
var snapshotOperations = []string{"revert", "clone", "copy", "export", "destroy", "hard_shutdown", "metadata_export"}

// controlDomainOperations are what a control domain allows.
var controlDomainOperations = []string{
	"data_source_op", "changing_memory_live", "awaiting_memory_live", "metadata_export", "changing_dynamic_range",
	"changing_memory_limits", "changing_static_range", "start", "start_on", "changing_VCPUs", "destroy",
}

// guestFacts is what is known of the guest's drivers and agent.
type guestFacts struct {
	bootedPV     bool              // the domain is PV, which offers everything by itself
	hasPVDrivers bool              // a driver version was reported
	features     map[string]string // VM_guest_metrics.other
}

func (g guestFacts) feature(name string) bool {
	return g.features[name] == "1"
}

// vmFacts is what decides whether an operation may be done with a VM.
type vmFacts struct {
	ref               string
	powerState        string
	isTemplate        bool
	isDefaultTemplate bool
	isSnapshot        bool
	isControlDomain   bool
	isDomainZero      bool
	isSystemDomain    bool
	immobile          bool // nomigrate or nested-virt
	nestedVirt        bool
	blocked           map[string]string
	currentOperations []string
	guest             guestFacts
	resetOnBoot       bool // a disk forgets its contents at boot
	cachedResetOnBoot bool // … and is cached on its host
	appliance         string
	hasVGPU, hasVUSB  bool
	hasPCI            bool
	vtpms             int
}

// refusal is the API error of a check; the zero value means that nothing stands in the way.
type refusal struct {
	code   string
	params []string
}

func refuse(code string, params ...string) refusal {
	return refusal{code: code, params: params}
}

func (r refusal) refused() bool {
	return r.code != ""
}

// checkVMOperation is the order in which xapi looks for reasons against an operation; the first one is the answer. A strict
// check wants proof that the guest takes part where the operation needs its help.
func checkVMOperation(vm vmFacts, operation string, strict bool) refusal {
	for _, check := range []func() refusal{
		func() refusal { return checkBlocked(vm, operation) },
		func() refusal { return checkPowerState(vm, operation) },
		func() refusal { return checkConcurrent(vm, operation) },
		func() refusal { return checkKind(vm, operation) },
		func() refusal { return checkMobility(vm, operation, strict) },
		func() refusal { return checkControlDomain(vm, operation) },
		func() refusal { return checkGuestFeature(vm, operation, strict) },
		func() refusal { return checkDevices(vm, operation) },
		func() refusal { return checkMembership(vm, operation) },
	} {
		if found := check(); found.refused() {
			return found
		}
	}
	return refusal{}
}

// allowedVMOperations is VM.allowed_operations.
func allowedVMOperations(vm vmFacts) []string {
	allowed := []string{}
	for _, operation := range advertisedVMOperations {
		if !checkVMOperation(vm, operation, true).refused() {
			allowed = append(allowed, operation)
		}
	}
	return allowed
}

func checkBlocked(vm vmFacts, operation string) refusal {
	if reason, blocked := vm.blocked[operation]; blocked {
		return refuse("OPERATION_BLOCKED", vm.ref, reason)
	}
	return refusal{}
}

func checkPowerState(vm vmFacts, operation string) refusal {
	wanted, restricted := powerStatesFor[operation]
	if !restricted {
		return refusal{}
	}
	switch operation {
	case "changing_VCPUs", "changing_static_range", "changing_memory_limits":
		if vm.isControlDomain {
			wanted = []string{powerHalted, powerRunning}
		}
	case "clone", "copy":
		if vm.isSnapshot {
			wanted = []string{powerHalted, powerSuspended}
		}
	}
	if slices.Contains(wanted, vm.powerState) {
		return refusal{}
	}
	return refuse("VM_BAD_POWER_STATE", vm.ref, strings.ToLower(strings.Join(wanted, ", ")), strings.ToLower(vm.powerState))
}

// concurrentGroups are sets of operations that may run side by side.
var concurrentGroups = [][]string{{"clone", "copy", "export"}, {"snapshot", "checkpoint"}, {"get_boot_record"}}

func checkConcurrent(vm vmFacts, operation string) refusal {
	current := vm.currentOperations
	if len(current) == 0 || allowedBeside(operation, current) {
		return refusal{}
	}
	running := current[0]
	if len(current) > 1 {
		running = "{" + strings.Join(current, ",") + "}"
	}
	return refuse("OTHER_OPERATION_IN_PROGRESS", "VM."+running, vm.ref)
}

// allowedBeside says whether an operation may begin while others run: copies beside copies, snapshots beside snapshots, and a
// hard shutdown or reboot beside everything but itself, since it cancels what runs.
func allowedBeside(operation string, current []string) bool {
	for _, group := range concurrentGroups {
		inGroup := func(o string) bool { return slices.Contains(group, o) }
		if inGroup(operation) && !slices.ContainsFunc(current, func(o string) bool { return !inGroup(o) }) {
			return true
		}
	}
	switch operation {
	case "hard_shutdown":
		return !slices.Contains(current, "hard_shutdown")
	case "hard_reboot":
		return !slices.Contains(current, "hard_shutdown") && !slices.Contains(current, "hard_reboot")
	case "metadata_export", "clean_shutdown", "clean_reboot":
		return slices.Equal(current, []string{"migrate_send"})
	}
	return false
}

// checkKind is what templates, snapshots and plain VMs refuse.
func checkKind(vm vmFacts, operation string) refusal {
	switch {
	case vm.isSnapshot && !slices.Contains(snapshotOperations, operation):
		return refuse("VM_IS_SNAPSHOT", vm.ref, operation)
	case vm.isTemplate && !vm.isSnapshot && !templateAllows(vm, operation):
		return refuse("VM_IS_TEMPLATE", vm.ref, operation)
	case operation == "provision" && !vm.isTemplate:
		return refuse("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")
	case operation == "revert" && !vm.isSnapshot:
		return refuse("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")
	}
	return refusal{}
}

func templateAllows(vm vmFacts, operation string) bool {
	if operation == "destroy" || operation == "migrate_send" {
		return !vm.isDefaultTemplate
	}
	return slices.Contains(templateOperations, operation)
}

// movesGuest says whether an operation saves or moves the state of the running guest.
func movesGuest(operation string) bool {
	switch operation {
	case "suspend", "checkpoint", "pool_migrate", "migrate_send":
		return true
	}
	return false
}

func checkMobility(vm vmFacts, operation string, strict bool) refusal {
	switch {
	case movesGuest(operation) && vm.immobile && strict:
		return refuse("VM_IS_IMMOBILE", vm.ref)
	case operation == "changing_dynamic_range" && vm.nestedVirt && strict:
		return refuse("VM_IS_USING_NESTED_VIRT", vm.ref)
	}
	return refusal{}
}

func checkControlDomain(vm vmFacts, operation string) refusal {
	switch {
	case vm.isDomainZero && (operation == "changing_VCPUs" || operation == "destroy"):
		return refuse("OPERATION_NOT_ALLOWED", "This operation is not allowed on dom0")
	case vm.isControlDomain && !slices.Contains(controlDomainOperations, operation):
		return refuse("OPERATION_NOT_ALLOWED", "This operation is not allowed on a control domain")
	}
	return refusal{}
}

func checkGuestFeature(vm vmFacts, operation string, strict bool) refusal {
	guest := vm.guest
	if vm.powerState != powerRunning || guest.bootedPV || guest.hasPVDrivers {
		return refusal{}
	}
	lacks := false
	switch operation {
	case "clean_shutdown":
		lacks = strict && !guest.feature("feature-shutdown") && !guest.feature("feature-poweroff")
	case "clean_reboot":
		lacks = strict && !guest.feature("feature-shutdown") && !guest.feature("feature-reboot")
	case "changing_VCPUs_live":
		lacks = !guest.feature("feature-vcpu-hotplug")
	case "suspend", "checkpoint", "pool_migrate", "migrate_send":
		lacks = strict && !guest.feature("feature-suspend")
	}
	if lacks {
		return refuse("VM_LACKS_FEATURE", vm.ref)
	}
	return refusal{}
}

func checkDevices(vm vmFacts, operation string) refusal {
	savesDisks := operation == "checkpoint" || operation == "snapshot" || operation == "suspend"
	switch {
	case operation == "snapshot_with_quiesce":
		return refuse("VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", vm.ref)
	case savesDisks && vm.resetOnBoot, operation == "pool_migrate" && vm.cachedResetOnBoot:
		return refuse("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
	case vm.hasPCI && movesGuest(operation):
		return refuse("VM_HAS_PCI_ATTACHED", vm.ref)
	case vm.hasVGPU && movesGuest(operation) && !vgpuAllows(vm, operation):
		return refuse("VM_HAS_VGPU", vm.ref)
	case vm.hasVUSB && (movesGuest(operation) || operation == "snapshot"):
		return refuse("VM_HAS_VUSBS", vm.ref)
	}
	return refusal{}
}

// vgpuAllows lists the operations without a running guest, whose VGPU has no state to save.
func vgpuAllows(vm vmFacts, operation string) bool {
	return operation == "migrate_send" && vm.powerState == powerHalted ||
		operation == "checkpoint" && vm.powerState == powerSuspended
}

func checkMembership(vm vmFacts, operation string) refusal {
	switch {
	case operation == "make_into_template" && vm.appliance != "":
		return refuse("VM_IS_PART_OF_AN_APPLIANCE", vm.ref, vm.appliance)
	case operation == "query_services" && !vm.isSystemDomain:
		return refuse("NOT_SYSTEM_DOMAIN", vm.ref)
	case operation == "create_vtpm" && vm.vtpms > 0:
		return refuse("VTPM_MAX_AMOUNT_REACHED", "1")
	}
	return refusal{}
}
