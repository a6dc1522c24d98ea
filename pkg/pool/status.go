package pool

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// Facts are what a pass over a XenPool found.
type Facts struct {
	// Secrets says what is wrong with the Secrets that the spec names, nil if nothing is.
	Secrets *Problem
	// SecretVersion is the resourceVersion of the Secret with the credentials.
	SecretVersion string
	// Connection is what is known of the connection.
	Connection State
	// Inventory is what the pool holds; nil before it was seen for the first time.
	Inventory *Inventory
	// Orphans carry our marks and have no owner.
	Orphans []Marked
	// Installation is ours.
	Installation string
	// Users are XenInstances that name the pool, which keep it from being deleted.
	Users int
	// Images are templates and disks of living images, which take them away before the pool is deleted.
	Images int
	// Deleting says that the user asked for the XenPool to go.
	Deleting bool
}

// livenessCheck is how often a pool's silence is looked at. It costs a look at a clock, no call and no write.
const livenessCheck = 30 * time.Second

// Judge says what the facts mean for the XenPool.
func Judge(pool *v1alpha1.XenPool, f Facts) reconcile.Outcome {
	if f.Deleting && f.Users > 0 {
		return reconcile.Wait(v1alpha1.ReasonPoolInUse, fmt.Sprintf(
			"%d XenInstances still name this pool; delete them first (annotation %s lets go of those that cannot be reached)",
			f.Users, v1alpha1.AnnotationForceDelete))
	}
	if f.Deleting && f.Images > 0 {
		return reconcile.Wait(v1alpha1.ReasonPoolInUse, fmt.Sprintf(
			"%d templates and disks of images are still being removed; see the images that name this pool", f.Images)).After(livenessCheck)
	}
	problem := f.Secrets
	if problem == nil {
		problem = f.Connection.Problem
	}
	if !f.Connection.Usable {
		return unusable(problem)
	}
	outcome := reconcile.Done().After(livenessCheck)
	if f.Inventory != nil && readWriter(f.Inventory.Writer, f.Installation, pool.Spec.TakeoverFrom) == writerForeign {
		denial := foreignWriter(pool.Name, f.Inventory.Writer, f.Installation)
		return reconcile.Terminal(denial.Reason, denial.Message).After(livenessCheck)
	}
	if problem != nil {
		return outcome.Because(problem.Reason, "the pool is used with the earlier settings: "+problem.Message)
	}
	if pool.Spec.Maintenance {
		return outcome.Because(v1alpha1.ReasonMaintenance, "spec.maintenance holds power, move and delete acts")
	}
	return outcome.Because(v1alpha1.ReasonConnected, "")
}

// unusable says what a connection that cannot be used comes to.
func unusable(problem *Problem) reconcile.Outcome {
	if problem == nil {
		return reconcile.Wait(v1alpha1.ReasonConnecting, "the connection is being made")
	}
	if problem.stalled() {
		return reconcile.Terminal(problem.Reason, problem.Message)
	}
	// A pool that was silent for a while may answer again without anything having changed there: no event says so.
	return reconcile.Wait(problem.Reason, problem.Message).After(livenessCheck)
}

// Report writes the status. What is not known now stays as it was last known.
func Report(pool *v1alpha1.XenPool, f Facts) {
	status := &pool.Status
	setConnectionConditions(&status.Conditions, f)
	if status.UUID == "" && f.Connection.Usable {
		status.UUID = f.Connection.UUID
	}
	if f.Connection.Usable && f.Connection.Coordinator != "" {
		status.Coordinator = coordinatorURL(pool, f.Connection.Coordinator)
	}
	if accepted := f.Connection.AcceptedSecret; accepted != "" {
		at := metav1.NewTime(f.Connection.AcceptedAt.Truncate(time.Second))
		if status.Credentials == nil || status.Credentials.SecretResourceVersion != accepted {
			status.Credentials = &v1alpha1.PoolCredentialsStatus{SecretResourceVersion: accepted, LastAcceptedAt: &at}
		}
	}
	if f.Inventory != nil && f.Connection.Usable {
		reportInventory(pool, f)
	}
}

func reportInventory(pool *v1alpha1.XenPool, f Facts) {
	i, status := f.Inventory, &pool.Status
	enabled := 0
	for _, host := range i.Hosts {
		if host.Enabled {
			enabled++
		}
	}
	status.Version = i.Version
	status.HostSummary = fmt.Sprintf("%d/%d", enabled, len(i.Hosts))
	status.Hosts = capped(i.Hosts, v1alpha1.MaxReportedHosts)
	status.StorageRepositories = capped(i.StorageRepositories, v1alpha1.MaxReportedStorageRepositories)
	status.Networks = capped(i.Networks, v1alpha1.MaxReportedNetworks)
	status.Instances, status.UnmanagedInstances = i.Instances, i.Unmanaged
	status.TrashCount = int32(len(i.Trash))
	status.Trash = trashStatus(i.Trash, pool.Spec.TrashRetention())
	status.OrphanCount = int32(len(f.Orphans))
	status.Orphans = orphanStatus(f.Orphans)
}

// setConnectionConditions tells the two questions of a connection apart: does it answer, does it let us in.
func setConnectionConditions(conditions *[]metav1.Condition, f Facts) {
	problem := f.Connection.Problem
	switch {
	case f.Connection.Usable:
		reconcile.SetCondition(conditions, v1alpha1.ConditionReachable, metav1.ConditionTrue, v1alpha1.ReasonConnected, "")
	case problem != nil && problem.Reason == v1alpha1.ReasonConnecting:
		reconcile.SetCondition(conditions, v1alpha1.ConditionReachable, metav1.ConditionUnknown, problem.Reason, problem.Message)
	case problem != nil && problem.answered():
		reconcile.SetCondition(conditions, v1alpha1.ConditionReachable, metav1.ConditionTrue, problem.Reason, problem.Message)
	case problem != nil:
		reconcile.SetCondition(conditions, v1alpha1.ConditionReachable, metav1.ConditionFalse, problem.Reason, problem.Message)
	}
	switch {
	case f.Secrets != nil:
		reconcile.SetCondition(conditions, v1alpha1.ConditionCredentialsValid, metav1.ConditionFalse, f.Secrets.Reason, f.Secrets.Message)
	case problem != nil && problem.Reason == v1alpha1.ReasonUnauthorized:
		reconcile.SetCondition(conditions, v1alpha1.ConditionCredentialsValid, metav1.ConditionFalse, problem.Reason, problem.Message)
	case f.SecretVersion != "" && f.Connection.AcceptedSecret == f.SecretVersion:
		reconcile.SetCondition(conditions, v1alpha1.ConditionCredentialsValid, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "")
	case meta.FindStatusCondition(*conditions, v1alpha1.ConditionCredentialsValid) == nil:
		reconcile.SetCondition(conditions, v1alpha1.ConditionCredentialsValid, metav1.ConditionUnknown, v1alpha1.ReasonNotYetObserved, "")
	}
}

// answered reports whether somebody at the endpoints spoke to us, although not to our liking.
func (p Problem) answered() bool {
	switch p.Reason {
	case v1alpha1.ReasonUnauthorized, v1alpha1.ReasonPermissionDenied, v1alpha1.ReasonIdentityChanged, v1alpha1.ReasonDuplicatePool:
		return true
	default:
		return false
	}
}

// coordinatorURL shows the coordinator as an endpoint would name it.
func coordinatorURL(pool *v1alpha1.XenPool, host string) string {
	for _, endpoint := range pool.Spec.Endpoints {
		if strings.HasPrefix(endpoint, "http://") {
			return "http://" + host
		}
	}
	return "https://" + host
}

func capped[T any](list []T, most int) []T { return list[:min(len(list), most)] }

// SettingsFrom reads what a connection is made with from the spec and the Secrets that it names. A Secret that is nil
// was not found.
func SettingsFrom(pool *v1alpha1.XenPool, credentials, ca *corev1.Secret) (Settings, *Problem) {
	ref := pool.Spec.CredentialsSecretRef
	if credentials == nil {
		return Settings{}, missing("Secret %s/%s (spec.credentialsSecretRef) does not exist", ref.Namespace, ref.Name)
	}
	s := Settings{
		Endpoints:     pool.Spec.Endpoints,
		Username:      string(credentials.Data[corev1.BasicAuthUsernameKey]),
		Password:      string(credentials.Data[corev1.BasicAuthPasswordKey]),
		SecretVersion: credentials.ResourceVersion,
	}
	if s.Username == "" || s.Password == "" {
		return Settings{}, missing("Secret %s/%s (spec.credentialsSecretRef) must have the keys %s and %s",
			ref.Namespace, ref.Name, corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
	}
	tls := pool.Spec.TLS
	if tls == nil {
		return s, nil
	}
	s.FingerprintsSHA256, s.InsecureSkipVerify = tls.FingerprintsSHA256, tls.InsecureSkipVerify
	if tls.CABundleSecretRef == nil {
		return s, nil
	}
	if ca == nil {
		return Settings{}, missing("Secret %s/%s (spec.tls.caBundleSecretRef) does not exist", tls.CABundleSecretRef.Namespace, tls.CABundleSecretRef.Name)
	}
	if s.CABundle = ca.Data[caKey]; len(s.CABundle) == 0 {
		return Settings{}, missing("Secret %s/%s (spec.tls.caBundleSecretRef) has no key %s",
			tls.CABundleSecretRef.Namespace, tls.CABundleSecretRef.Name, caKey)
	}
	return s, nil
}

// caKey is where a Secret holds certificates of authorities, as in Secrets of type kubernetes.io/tls.
const caKey = "ca.crt"

func missing(format string, args ...any) *Problem {
	return &Problem{Reason: v1alpha1.ReasonSecretNotFound, Message: fmt.Sprintf(format, args...)}
}
