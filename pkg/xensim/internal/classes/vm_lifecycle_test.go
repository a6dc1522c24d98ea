package classes

import (
	"slices"
	"strings"
	"testing"
)

// operationsByPowerState repeats, in the other direction, what the recordings and xapi_vm_lifecycle.ml say: which operations
// each power state of a plain VM with drivers allows.
var operationsByPowerState = map[string]string{
	powerHalted: "create_vtpm destroy metadata_export export make_into_template changing_NVRAM changing_shadow_memory " +
		"changing_static_range changing_dynamic_range migrate_send start_on start copy clone snapshot",
	powerRunning: "metadata_export changing_VCPUs_live changing_dynamic_range migrate_send pool_migrate suspend hard_reboot " +
		"hard_shutdown clean_reboot clean_shutdown pause checkpoint snapshot",
	powerPaused:    "metadata_export hard_reboot hard_shutdown unpause checkpoint snapshot",
	powerSuspended: "destroy metadata_export export migrate_send resume_on resume hard_shutdown checkpoint snapshot",
}

func TestAllowedVMOperations(t *testing.T) {
	withDrivers := guestFacts{hasPVDrivers: true}
	for name, test := range map[string]struct {
		vm   vmFacts
		want string
	}{
		"halted":              {vmFacts{powerState: powerHalted}, operationsByPowerState[powerHalted]},
		"running with agent":  {vmFacts{powerState: powerRunning, guest: withDrivers}, operationsByPowerState[powerRunning]},
		"paused":              {vmFacts{powerState: powerPaused}, operationsByPowerState[powerPaused]},
		"suspended":           {vmFacts{powerState: powerSuspended}, operationsByPowerState[powerSuspended]},
		"running, no agent":   {vmFacts{powerState: powerRunning}, "metadata_export changing_dynamic_range hard_reboot hard_shutdown pause snapshot"},
		"default template":    {vmFacts{powerState: powerHalted, isTemplate: true, isDefaultTemplate: true}, "metadata_export export changing_NVRAM changing_shadow_memory changing_static_range changing_dynamic_range provision copy clone"},
		"own template":        {vmFacts{powerState: powerHalted, isTemplate: true}, "destroy metadata_export export changing_NVRAM changing_shadow_memory changing_static_range changing_dynamic_range migrate_send provision copy clone"},
		"snapshot":            {vmFacts{powerState: powerHalted, isTemplate: true, isSnapshot: true}, "destroy metadata_export export revert copy clone"},
		"checkpoint":          {vmFacts{powerState: powerSuspended, isTemplate: true, isSnapshot: true}, "destroy metadata_export export hard_shutdown revert copy clone"},
		"control domain":      {vmFacts{powerState: powerRunning, isControlDomain: true, isDomainZero: true, guest: guestFacts{bootedPV: true}}, "metadata_export changing_static_range changing_dynamic_range"},
		"starting":            {vmFacts{powerState: powerHalted, currentOperations: []string{"start"}}, ""},
		"shutting down":       {vmFacts{powerState: powerRunning, guest: withDrivers, currentOperations: []string{"clean_shutdown"}}, "hard_reboot hard_shutdown"},
		"being forced off":    {vmFacts{powerState: powerRunning, guest: withDrivers, currentOperations: []string{"hard_shutdown"}}, ""},
		"being copied":        {vmFacts{powerState: powerHalted, currentOperations: []string{"copy"}}, "export copy clone"},
		"start blocked":       {vmFacts{powerState: powerHalted, blocked: map[string]string{"start": "no"}}, strings.Replace(operationsByPowerState[powerHalted], "start_on start ", "start_on ", 1)},
		"halted with a vTPM":  {vmFacts{powerState: powerHalted, vtpms: 1}, strings.TrimPrefix(operationsByPowerState[powerHalted], "create_vtpm ")},
		"halted, disk resets": {vmFacts{powerState: powerHalted, resetOnBoot: true}, strings.TrimSuffix(operationsByPowerState[powerHalted], " snapshot")},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(allowedVMOperations(test.vm), " ")
			if !sameWords(got, test.want) {
				t.Errorf("allowed operations\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

// Every operation that is refused for the power state says which one it needs.
func TestPowerStateOfEveryOperation(t *testing.T) {
	expected := map[string]string{
		"start": "halted", "clean_shutdown": "running", "hard_shutdown": "paused, suspended, running",
		"hard_reboot": "paused, running", "destroy": "halted, suspended", "changing_dynamic_range": "halted, running",
		"unpause": "paused", "resume": "suspended", "migrate_send": "halted, suspended, running", "clone": "halted",
		"shutdown": "paused, suspended, running", "suspend": "running", "changing_VCPUs": "halted",
	}
	for operation, states := range expected {
		for _, state := range []string{powerHalted, powerPaused, powerSuspended, powerRunning} {
			vm := vmFacts{ref: "OpaqueRef:vm", powerState: state}
			got := checkPowerState(vm, operation)
			if slices.Contains(strings.Split(states, ", "), strings.ToLower(state)) {
				if got.refused() {
					t.Errorf("%s of a VM that is %s: %v, want no objection", operation, state, got)
				}
				continue
			}
			want := []string{"OpaqueRef:vm", states, strings.ToLower(state)}
			if got.code != "VM_BAD_POWER_STATE" || !slices.Equal(got.params, want) {
				t.Errorf("%s of a VM that is %s: %v, want VM_BAD_POWER_STATE%v", operation, state, got, want)
			}
		}
	}
}

func TestCheckVMOperationOrder(t *testing.T) {
	for name, test := range map[string]struct {
		vm        vmFacts
		operation string
		want      string
	}{
		"blocked comes before the power state": {
			vmFacts{powerState: powerRunning, blocked: map[string]string{"start": "maintenance"}}, "start", "OPERATION_BLOCKED",
		},
		"the power state comes before what runs": {
			vmFacts{powerState: powerRunning, currentOperations: []string{"pause"}}, "start", "VM_BAD_POWER_STATE",
		},
		"what runs comes before the template": {
			vmFacts{powerState: powerHalted, isTemplate: true, currentOperations: []string{"clone"}}, "start", "OTHER_OPERATION_IN_PROGRESS",
		},
		"a template does not start": {
			vmFacts{powerState: powerHalted, isTemplate: true}, "start", "VM_IS_TEMPLATE",
		},
		"a snapshot does not start": {
			vmFacts{powerState: powerHalted, isTemplate: true, isSnapshot: true}, "start", "VM_IS_SNAPSHOT",
		},
		"a default template is not destroyed": {
			vmFacts{powerState: powerHalted, isTemplate: true, isDefaultTemplate: true}, "destroy", "VM_IS_TEMPLATE",
		},
		"only templates are provisioned": {
			vmFacts{powerState: powerHalted}, "provision", "PROVISION_ONLY_ALLOWED_ON_TEMPLATE",
		},
		"only snapshots are reverted to": {
			vmFacts{powerState: powerHalted}, "revert", "REVERT_ONLY_ALLOWED_ON_SNAPSHOT",
		},
		"a VM that must stay is not migrated": {
			vmFacts{powerState: powerRunning, immobile: true, guest: guestFacts{hasPVDrivers: true}}, "pool_migrate", "VM_IS_IMMOBILE",
		},
		"a guest without an agent is not shut down cleanly": {
			vmFacts{powerState: powerRunning}, "clean_shutdown", "VM_LACKS_FEATURE",
		},
		"a guest that says it can is": {
			vmFacts{powerState: powerRunning, guest: guestFacts{features: map[string]string{"feature-shutdown": "1"}}}, "clean_shutdown", "",
		},
		"shutdown has its own name": {
			vmFacts{powerState: powerRunning, blocked: map[string]string{"clean_shutdown": "x", "hard_shutdown": "x"}}, "shutdown", "",
		},
		"a second hard shutdown waits": {
			vmFacts{powerState: powerRunning, currentOperations: []string{"hard_shutdown"}}, "hard_shutdown", "OTHER_OPERATION_IN_PROGRESS",
		},
		"a hard reboot beside a clean one": {
			vmFacts{powerState: powerRunning, currentOperations: []string{"clean_reboot"}}, "hard_reboot", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := checkVMOperation(test.vm, test.operation, true); got.code != test.want {
				t.Errorf("%s: %q %v, want %q", test.operation, got.code, got.params, test.want)
			}
		})
	}
}

func sameWords(a, b string) bool {
	left, right := strings.Fields(a), strings.Fields(b)
	slices.Sort(left)
	slices.Sort(right)
	return slices.Equal(left, right)
}
