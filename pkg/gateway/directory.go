package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xenconsoles;xeninstances;xenpools,verbs=get;list;watch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenconsoles/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",namespace=kubexen-system,resources=secrets,verbs=get

// digestField is the field index by which a token's console is found without looking at the others.
const digestField = "status.tokenSHA256"

// Objects is the Directory of the API server's objects, as a cache holds them.
type Objects struct {
	cache   cache.Cache
	gateway string // our own name: what we hold is counted by ourselves

	mu    sync.Mutex
	wakes map[string]map[chan struct{}]struct{} // by console, namespace/name

	late arrivals
}

// NewObjects makes a directory on a cache that is not started yet.
func NewObjects(ctx context.Context, objects cache.Cache, gateway string) (*Objects, error) {
	o := &Objects{cache: objects, gateway: gateway, wakes: map[string]map[chan struct{}]struct{}{}}
	err := objects.IndexField(ctx, &v1alpha1.XenConsole{}, digestField, func(obj client.Object) []string {
		if digest := obj.(*v1alpha1.XenConsole).Status.TokenSHA256; digest != "" {
			return []string{digest}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("index consoles by token: %w", err)
	}
	for _, kind := range []client.Object{&v1alpha1.XenConsole{}, &v1alpha1.XenInstance{}, &v1alpha1.XenPool{}} {
		informer, err := objects.GetInformer(ctx, kind)
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", kind, err)
		}
		if _, err := informer.AddEventHandler(o.handler()); err != nil {
			return nil, fmt.Errorf("watch %T: %w", kind, err)
		}
	}
	return o, nil
}

// handler wakes the sessions that a change concerns.
func (o *Objects) handler() toolscache.ResourceEventHandler {
	changed := func(obj any) {
		if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		switch obj := obj.(type) {
		case *v1alpha1.XenConsole:
			o.late.tell()
			o.wake(obj.Namespace + "/" + obj.Name)
		case *v1alpha1.XenInstance:
			o.wakeNamespace(obj.Namespace)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }, DeleteFunc: changed}
}

func (o *Objects) wake(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for wake := range o.wakes[key] {
		nudge(wake)
	}
}

// wakeNamespace wakes the sessions of a namespace: an instance changed, and few sessions are open.
func (o *Objects) wakeNamespace(namespace string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, wakes := range o.wakes {
		if len(key) > len(namespace) && key[:len(namespace)+1] == namespace+"/" {
			for wake := range wakes {
				nudge(wake)
			}
		}
	}
}

func nudge(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default: // it is awake already
	}
}

// ByDigest implements Directory.
func (o *Objects) ByDigest(ctx context.Context, digest string) (c Console, found bool) {
	found = o.late.await(ctx, func() bool {
		var list v1alpha1.XenConsoleList
		err := o.cache.List(ctx, &list, client.MatchingFields{digestField: digest}, client.UnsafeDisableDeepCopy)
		if err != nil || len(list.Items) != 1 {
			return false
		}
		c = o.describe(ctx, &list.Items[0])
		return true
	})
	return c, found
}

// Current implements Directory.
func (o *Objects) Current(ctx context.Context, key, uid string) (Console, bool) {
	namespace, name, err := toolscache.SplitMetaNamespaceKey(key)
	if err != nil {
		return Console{}, false
	}
	var c v1alpha1.XenConsole
	err = o.cache.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &c, client.UnsafeDisableDeepCopy)
	if err != nil || string(c.UID) != uid {
		return Console{}, false
	}
	return o.describe(ctx, &c), true
}

// Changes implements Directory.
func (o *Objects) Changes(key string) (<-chan struct{}, func()) {
	wake := make(chan struct{}, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wakes[key] == nil {
		o.wakes[key] = map[chan struct{}]struct{}{}
	}
	o.wakes[key][wake] = struct{}{}
	return wake, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.wakes[key], wake)
		if len(o.wakes[key]) == 0 {
			delete(o.wakes, key)
		}
	}
}

// describe reads a console together with its instance and the host that it runs on.
func (o *Objects) describe(ctx context.Context, c *v1alpha1.XenConsole) Console {
	d := Console{
		Namespace: c.Namespace, Name: c.Name, UID: string(c.UID), Instance: c.Spec.InstanceRef.Name,
		Text: c.Spec.Type == v1alpha1.ConsoleText, ViewOnly: c.Spec.Mode == v1alpha1.ConsoleViewOnly,
		TokenSHA256: c.Status.TokenSHA256, Series: c.Status.Series, IssuedFor: c.Status.VMUUID, MaxSession: time.Duration(c.Status.MaxSessionSeconds) * time.Second,
		MaxSessions: int(c.Spec.MaxSessions), OtherSessions: int(c.Status.OpenSessions(o.gateway, time.Now())),
		Deleting: !c.DeletionTimestamp.IsZero(),
	}
	if at, err := time.Parse(time.RFC3339, c.Status.ExpiresAt); err == nil {
		d.ExpiresAt = at
	}
	if c.Spec.NotAfter != nil {
		d.NotAfter = c.Spec.NotAfter.Time
	}
	var instance v1alpha1.XenInstance
	if err := o.cache.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: d.Instance}, &instance, client.UnsafeDisableDeepCopy); err != nil {
		return d
	}
	d.Running = instance.Status.PowerState == v1alpha1.PowerStateRunning && instance.DeletionTimestamp.IsZero()
	d.Target = Target{Pool: instance.Spec.PoolRef.Name, VMUUID: instance.GuestUUID(), Text: d.Text}
	var pool v1alpha1.XenPool
	if err := o.cache.Get(ctx, types.NamespacedName{Name: d.Target.Pool}, &pool, client.UnsafeDisableDeepCopy); err != nil {
		return d
	}
	for _, host := range pool.Status.Hosts {
		if host.Name == instance.Status.HostName {
			d.Target.Host = host.Address
		}
	}
	return d
}
