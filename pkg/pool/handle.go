package pool

import (
	"context"
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// Handle is a pool that can be used now. Get a new one with each pass: the client changes when credentials or
// certificates do.
type Handle struct {
	// Name is that of the XenPool.
	Name string
	// UUID is the pool's own.
	UUID string
	// Installation is ours; all marks carry it.
	Installation string
	// Client calls the XenAPI.
	Client *xenapi.Client
	// Cache holds the pool's objects.
	Cache *xencache.Cache
	// Pool is the XenPool as its last pass saw it. Read only.
	Pool *v1alpha1.XenPool

	runner *runner
}

// Held says why nothing may be started, stopped, migrated or deleted on the pool.
func (h *Handle) Held() (reason, message string, held bool) {
	switch {
	case v1alpha1.IsPaused(h.Pool.Annotations):
		return v1alpha1.ReasonPoolPaused, "XenPool " + h.Name + " is paused by annotation " + v1alpha1.AnnotationPaused, true
	case h.Pool.Spec.Maintenance:
		return v1alpha1.ReasonMaintenance, "XenPool " + h.Name + " is in maintenance (spec.maintenance)", true
	default:
		return "", "", false
	}
}

// Grant sums up what a namespace with these labels may use of the pool.
func (h *Handle) Grant(namespace string, namespaceLabels map[string]string) Grant {
	return GrantFor(h.Pool, namespace, namespaceLabels)
}

// Network finds a network by alias, uuid or unique name-label, if the namespace may use it. The error is a *Denial.
func (h *Handle) Network(grant Grant, name string) (Named[xenapi.NetworkRef], error) {
	var all []Named[xenapi.NetworkRef]
	h.Cache.View(func(v xencache.View) {
		for ref, row := range v.Networks() {
			all = append(all, Named[xenapi.NetworkRef]{ref, row.UUID, row.NameLabel})
		}
	})
	aliases := h.Pool.Spec.Networks
	found, denial := resolve("network", h.Name, name, v1alpha1.ReasonNetworkNotFound, aliases, all)
	return granted(found, denial, grant.Network, namesOf(found, aliases, all), name)
}

// StorageRepository finds a storage repository as Network finds a network.
func (h *Handle) StorageRepository(grant Grant, name string) (Named[xenapi.SRRef], error) {
	var all []Named[xenapi.SRRef]
	h.Cache.View(func(v xencache.View) {
		for ref, row := range v.SRs() {
			all = append(all, Named[xenapi.SRRef]{ref, row.UUID, row.NameLabel})
		}
	})
	aliases := h.Pool.Spec.StorageRepositories
	found, denial := resolve("storage repository", h.Name, name, v1alpha1.ReasonStorageRepositoryNotFound, aliases, all)
	return granted(found, denial, grant.StorageRepository, namesOf(found, aliases, all), name)
}

// DefaultStorageRepository is where disks go whose spec names nothing: the XenPool's default, else the pool's own.
// Using it still takes a grant.
func (h *Handle) DefaultStorageRepository(grant Grant) (Named[xenapi.SRRef], error) {
	if d := h.Pool.Spec.Defaults; d != nil && d.StorageRepository != "" {
		return h.StorageRepository(grant, d.StorageRepository)
	}
	uuid := ""
	h.Cache.View(func(v xencache.View) {
		if _, record := v.Pool(); record != nil {
			if sr := v.SR(record.DefaultSR); sr != nil {
				uuid = sr.UUID
			}
		}
	})
	if uuid == "" {
		return Named[xenapi.SRRef]{}, deny(v1alpha1.ReasonStorageRepositoryNotFound,
			"pool %s has no default storage repository; name one, or set spec.defaults.storageRepository of the XenPool", h.Name)
	}
	return h.StorageRepository(grant, uuid)
}

// Template finds a template by uuid or unique name-label, if the namespace may use it. Snapshots are no templates.
func (h *Handle) Template(grant Grant, name string) (Named[xenapi.VMRef], error) {
	var all []Named[xenapi.VMRef]
	h.Cache.View(func(v xencache.View) {
		for ref, row := range v.VMs() {
			if row.IsATemplate && !row.IsASnapshot && !row.IsControlDomain {
				all = append(all, Named[xenapi.VMRef]{ref, row.UUID, row.NameLabel})
			}
		}
	})
	found, denial := resolve(whatTemplate, h.Name, name, v1alpha1.ReasonTemplateNotFound, nil, all)
	return granted(found, denial, grant.Template, namesOf(found, nil, all), name)
}

// granted lets through what was found and is granted. What was not found is told apart from what is not granted only
// to those who may use that name: others learn nothing of what the pool has.
func granted[R ~string](found Named[R], denial *Denial, check func(...string) error, names []string, asked string) (Named[R], error) {
	if denial != nil {
		if err := check(asked); err != nil {
			return Named[R]{}, err
		}
		return Named[R]{}, denial
	}
	if err := check(names...); err != nil {
		return Named[R]{}, err
	}
	return found, nil
}

// ReserveTask takes one of the pool's task slots for key before an Async call. Without a free one it returns false,
// and key is woken when there is.
func (h *Handle) ReserveTask(key xencache.Key) bool { return h.runner.slots.reserve(key) }

// ReleaseTask gives a slot back whose call failed.
func (h *Handle) ReleaseTask(key xencache.Key) { h.runner.wake(h.runner.slots.release(key)) }

// FollowTask wakes key, and gives its slot back, when the task has ended or is gone.
func (h *Handle) FollowTask(task xenapi.TaskRef, key xencache.Key) { h.Cache.WakeOnTask(task, key) }

// WakeOn wakes key with every change of a VM or disk that carries no mark, until Forget.
func (h *Handle) WakeOn(uuid string, key xencache.Key) { h.Cache.WakeOn(uuid, key) }

// Forget ends WakeOn for key, and gives up its place among the task slots.
func (h *Handle) Forget(key xencache.Key) {
	h.Cache.Forget(key)
	h.ReleaseTask(key)
}

// CatchUp waits until the cache has seen everything that happened up to now: for use after an unknown outcome.
func (h *Handle) CatchUp(ctx context.Context, d time.Duration) error {
	return h.Cache.CatchUp(ctx, d, h.Client.Event.Inject)
}
