package v1alpha1

import "strings"

// Annotations that users set. None of them is ever removed by the operator.
const (
	// AnnotationPaused, whatever its value, holds every act on the object. On a XenPool nothing is started, stopped,
	// migrated or deleted there. Observation and status go on.
	AnnotationPaused = "kubexen.io/paused"

	// AnnotationReconcileRequestedAt asks for a fresh pass when its value changes: attempts are counted anew and what
	// was stalled is tried again. The value is echoed in status.lastHandledReconcileAt.
	AnnotationReconcileRequestedAt = "kubexen.io/reconcile-requested-at"

	// AnnotationForceDelete lets a deletion finish without the pool, which may leave objects behind there. Its value is
	// the reason; it is written into an Event.
	AnnotationForceDelete = "kubexen.io/force-delete"

	// AnnotationVMUUID binds a XenInstance to a VM on its pool. The operator writes it once; it travels with backups of
	// the object. An administrator may set it to bind the object to a VM that was restored elsewhere.
	AnnotationVMUUID = "kubexen.io/vm-uuid"

	// AnnotationSnapshotUUID names the snapshot on the pool that a XenSnapshot is. The operator writes it once; it travels
	// with backups of the object, so that a restored XenSnapshot is never taken again.
	AnnotationSnapshotUUID = "kubexen.io/snapshot-uuid"

	// AnnotationGeneratedFor stands on a Secret with a generated password and names its XenInstance. The operator writes it,
	// so that it knows its own Secrets after a restore without owner references.
	AnnotationGeneratedFor = "kubexen.io/generated-for"

	// GatePowerOnPrefix and a name make an annotation that holds the VM's power-on while it is present, whatever its
	// value: gate.kubexen.io/poweron.<name>.
	GatePowerOnPrefix = "gate.kubexen.io/poweron."

	// GateDeletePrefix and a name make an annotation that holds the deletion of the VM while it is present:
	// gate.kubexen.io/delete.<name>.
	GateDeletePrefix = "gate.kubexen.io/delete."
)

// Finalizers, one a kind. They are set only where deletion would otherwise lose the way to finish.
const (
	// FinalizerPool keeps a XenPool while instances live on it.
	FinalizerPool = "kubexen.io/xenpool"
	// FinalizerConsole keeps a XenConsole until the Secret with its token is gone.
	FinalizerConsole = "kubexen.io/xenconsole"
	// FinalizerImage keeps an image until the template that was made for it on its pool is gone.
	FinalizerImage = "kubexen.io/xenimage"
	// FinalizerSnapshot keeps a XenSnapshot until it is gone from the pool, and its upload as its deletionPolicy says.
	FinalizerSnapshot = "kubexen.io/xensnapshot"
	// FinalizerInstance keeps a XenInstance until its VM is dealt with as its deletionPolicy says.
	FinalizerInstance = "kubexen.io/xeninstance"
)

// Gates returns the names of the gates with the given prefix that stand in the annotations, in no particular order.
func Gates(annotations map[string]string, prefix string) []string {
	var names []string
	for key := range annotations {
		if name, found := strings.CutPrefix(key, prefix); found && name != "" {
			names = append(names, name)
		}
	}

	return names
}

// IsPaused tells whether the annotations hold every act on their object.
func IsPaused(annotations map[string]string) bool {
	_, paused := annotations[AnnotationPaused]
	return paused
}
