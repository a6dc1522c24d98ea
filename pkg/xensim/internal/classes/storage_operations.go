package classes

import "slices"

// What may be done with SRs and VDIs when: the rules of xapi_vdi.ml and xapi_sr_operations.ml.

// advertisedVDIOperations are the operations that VDI.allowed_operations may list, in its order. Newer ones (CBT, mirror) are
// possible but never listed.
var advertisedVDIOperations = []string{
	"generate_config", "update", "forget", "destroy", "snapshot", "resize_online", "resize", "copy", "clone",
}

// srOperations are the operations of SRs, in the order in which allowed_operations lists them.
var srOperations = []string{
	"vdi_enable_cbt", "vdi_list_changed_blocks", "unplug", "plug", "pbd_create", "vdi_disable_cbt", "update", "pbd_destroy",
	"forget", "destroy", "vdi_introduce", "vdi_resize", "vdi_clone", "vdi_data_destroy", "scan", "vdi_snapshot", "vdi_mirror",
	"vdi_create", "vdi_destroy", "vdi_set_on_boot",
}

// featureForVDI is the capability that an operation on a VDI needs of the storage driver.
var featureForVDI = map[string]string{
	"snapshot":            "VDI_SNAPSHOT",
	"destroy":             "VDI_DELETE",
	"resize":              "VDI_RESIZE",
	"resize_online":       "VDI_RESIZE_ONLINE",
	"update":              "VDI_UPDATE",
	"generate_config":     "VDI_GENERATE_CONFIG",
	"clone":               "VDI_CLONE",
	"mirror":              "VDI_MIRROR",
	"enable_cbt":          "VDI_CONFIG_CBT",
	"disable_cbt":         "VDI_CONFIG_CBT",
	"data_destroy":        "VDI_CONFIG_CBT",
	"list_changed_blocks": "VDI_CONFIG_CBT",
	"set_on_boot":         "VDI_RESET_ON_BOOT",
}

// featureForSR is the capability that an operation on an SR needs of the storage driver. A clone needs none, since xapi
// copies where the driver cannot clone.
var featureForSR = map[string]string{
	"vdi_create":              "VDI_CREATE",
	"vdi_destroy":             "VDI_DELETE",
	"vdi_resize":              "VDI_RESIZE",
	"vdi_introduce":           "VDI_INTRODUCE",
	"vdi_mirror":              "VDI_MIRROR",
	"vdi_enable_cbt":          "VDI_CONFIG_CBT",
	"vdi_disable_cbt":         "VDI_CONFIG_CBT",
	"vdi_data_destroy":        "VDI_CONFIG_CBT",
	"vdi_list_changed_blocks": "VDI_CONFIG_CBT",
	"vdi_set_on_boot":         "VDI_RESET_ON_BOOT",
	"update":                  "SR_UPDATE",
	"vdi_snapshot":            "VDI_SNAPSHOT",
}

// vdiFacts is what decides whether an operation may be done with a VDI.
type vdiFacts struct {
	ref               string
	vdiType           string
	sr                string
	srType            string
	isToolsSR         bool
	srPlugged         bool
	features          map[string]int64 // of the storage driver
	currentOperations []string
	sharable          bool
	isSnapshot        bool
	cbtEnabled        bool
	resetOnBoot       bool
	attached          int  // VBDs that have the disk open
	attachedRW        int  // … for writing
	attachedElsewhere bool // one of them is not of a snapshot
	vbdBusy           bool // a VBD is being plugged or unplugged
}

// checkVDIOperation is the order in which xapi looks for reasons against an operation on a VDI.
func checkVDIOperation(vdi vdiFacts, operation string) refusal {
	notCopying := func(o string) bool { return o != "copy" }
	mirrored := operation == "destroy" && slices.Contains(vdi.currentOperations, "mirror")
	switch {
	case slices.ContainsFunc(vdi.currentOperations, notCopying) && !mirrored:
		return refuse("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi.ref)
	case operation == "resize" && !vdi.srPlugged:
		return refuse("SR_NO_PBDS", vdi.sr)
	case vdiInUse(vdi, operation):
		return refuse("VDI_IN_USE", vdi.ref, operation)
	case vdi.vbdBusy && operation != "data_destroy":
		return refuse("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi.ref)
	}
	if feature := featureForVDI[operation]; feature != "" {
		if _, has := vdi.features[feature]; !has {
			return refuse("SR_OPERATION_NOT_SUPPORTED", vdi.sr)
		}
	}
	if found := checkVDICBT(vdi, operation); found.refused() {
		return found
	}
	return checkVDIKind(vdi, operation)
}

// allowedVDIOperations is VDI.allowed_operations.
func allowedVDIOperations(vdi vdiFacts) []string {
	allowed := []string{}
	for _, operation := range advertisedVDIOperations {
		if !checkVDIOperation(vdi, operation).refused() {
			allowed = append(allowed, operation)
		}
	}
	return allowed
}

// vdiInUse says whether an operation has to wait until the disk is closed: some run live, a copy beside readers.
func vdiInUse(vdi vdiFacts, operation string) bool {
	switch operation {
	case "snapshot", "resize_online", "blocked", "clone", "mirror", "enable_cbt", "disable_cbt", "data_destroy":
		return false
	case "copy":
		return vdi.attachedRW > 0
	case "list_changed_blocks":
		return vdi.attachedElsewhere
	}
	return vdi.attached > 0
}

func checkVDICBT(vdi vdiFacts, operation string) refusal {
	if vdi.vdiType == "cbt_metadata" {
		switch operation {
		case "clone", "copy", "disable_cbt", "enable_cbt", "mirror", "resize", "resize_online", "snapshot", "set_on_boot":
			return refuse("VDI_INCOMPATIBLE_TYPE", vdi.ref, "cbt_metadata")
		}
	}
	if vdi.cbtEnabled && (operation == "mirror" || operation == "set_on_boot") {
		return refuse("VDI_CBT_ENABLED", vdi.ref)
	}
	return refusal{}
}

func checkVDIKind(vdi vdiFacts, operation string) refusal {
	switch operation {
	case "forget":
		if vdi.vdiType == "rrd" {
			return refuse("VDI_HAS_RRDS", vdi.ref)
		}
	case "destroy":
		return checkVDIDestroy(vdi)
	case "data_destroy":
		switch {
		case !vdi.isSnapshot:
			return refuse("OPERATION_NOT_ALLOWED", "VDI is not a snapshot: "+vdi.ref)
		case !vdi.cbtEnabled:
			return refuse("VDI_NO_CBT_METADATA", vdi.ref)
		}
		return checkVDIDestroy(vdi)
	case "snapshot":
		switch {
		case vdi.sharable:
			return refuse("VDI_IS_SHARABLE", vdi.ref)
		case vdi.resetOnBoot:
			return refuse("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
		case slices.Contains(vdi.currentOperations, "copy"):
			return refuse("OPERATION_NOT_ALLOWED", "Snapshot operation not allowed during copy.")
		}
	case "copy":
		if vdi.resetOnBoot {
			return refuse("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
		}
	case "enable_cbt", "disable_cbt":
		return checkTracking(vdi)
	}
	return refusal{}
}

// checkTracking says whether the tracking of changed blocks may be turned on or off.
func checkTracking(vdi vdiFacts) refusal {
	switch {
	case vdi.isSnapshot:
		return refuse("OPERATION_NOT_ALLOWED", "VDI is a snapshot: "+vdi.ref)
	case vdi.vdiType != "user" && vdi.vdiType != "system":
		return refuse("VDI_INCOMPATIBLE_TYPE", vdi.ref, vdi.vdiType)
	case vdi.resetOnBoot:
		return refuse("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
	}
	return refusal{}
}

func checkVDIDestroy(vdi vdiFacts) refusal {
	switch {
	case vdi.srType == "udev":
		return refuse("VDI_IS_A_PHYSICAL_DEVICE", vdi.ref)
	case vdi.isToolsSR:
		return refuse("SR_OPERATION_NOT_SUPPORTED", vdi.sr)
	case vdi.vdiType == "rrd":
		return refuse("VDI_HAS_RRDS", vdi.ref)
	}
	return refusal{}
}

// srFacts is what decides whether an operation may be done with an SR.
type srFacts struct {
	ref               string
	isToolsSR         bool
	features          map[string]int64
	pbds, pluggedPBDs int
	managedVDIs       bool
	currentOperations []string
}

// srRefusals finds what stands against each operation on an SR.
func srRefusals(sr srFacts) refusals {
	found := refusals{}
	for operation, feature := range featureForSR {
		_, has := sr.features[feature]
		if !has || sr.isToolsSR && (feature == "VDI_CREATE" || feature == "VDI_DELETE") {
			found.add(refuse("SR_OPERATION_NOT_SUPPORTED", sr.ref), operation)
		}
	}
	if sr.pluggedPBDs > 0 {
		found.add(refuse("SR_HAS_PBD", sr.ref), "destroy", "forget")
	}
	if sr.pbds == 0 {
		found.add(refuse("SR_NO_PBDS", sr.ref), "destroy")
	}
	if sr.managedVDIs {
		found.add(refuse("SR_NOT_EMPTY"), "destroy")
	}
	if len(sr.currentOperations) > 0 {
		busy := refuse("OTHER_OPERATION_IN_PROGRESS", "SR", sr.ref, sr.currentOperations[0])
		notPlug := func(o string) bool { return o != "plug" }
		for _, operation := range srOperations {
			if notPlug(operation) || slices.ContainsFunc(sr.currentOperations, notPlug) {
				found.add(busy, operation)
			}
		}
	}
	return found
}
