package pool

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// Grant is what one namespace may use of one pool: the sum of the grants that select it. The zero value grants
// nothing.
type Grant struct {
	pool      string
	namespace string
	selected  bool

	networks            map[string]struct{}
	storageRepositories map[string]struct{}
	templates           map[string]struct{}
	adopt               bool
	rawDisks            bool
	placement           bool
	quota               v1alpha1.PoolQuota
}

// GrantFor sums up what the pool grants to a namespace with these labels. A selector that cannot be read selects
// nothing.
func GrantFor(pool *v1alpha1.XenPool, namespace string, namespaceLabels map[string]string) Grant {
	g := Grant{
		pool: pool.Name, namespace: namespace,
		networks: map[string]struct{}{}, storageRepositories: map[string]struct{}{}, templates: map[string]struct{}{},
	}
	for _, entry := range pool.Spec.Grants {
		if selects(entry.Namespaces, namespaceLabels) {
			g.add(entry)
		}
	}
	return g
}

func selects(namespaces v1alpha1.GrantedNamespaces, of map[string]string) bool {
	if namespaces.From == v1alpha1.NamespacesFromAll {
		return true
	}
	if namespaces.From != v1alpha1.NamespacesFromSelector || namespaces.Selector == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(namespaces.Selector)
	return err == nil && selector.Matches(labels.Set(of))
}

func (g *Grant) add(entry v1alpha1.PoolGrant) {
	first := !g.selected
	g.selected = true
	addAll(g.networks, entry.Networks)
	addAll(g.storageRepositories, entry.StorageRepositories)
	addAll(g.templates, entry.Templates)
	g.adopt = g.adopt || entry.Adopt == v1alpha1.AdoptAny
	g.rawDisks = g.rawDisks || entry.RawDisks
	g.placement = g.placement || entry.Placement
	var quota v1alpha1.PoolQuota
	if entry.Quota != nil {
		quota = *entry.Quota
	}
	if first {
		g.quota = quota
		return
	}
	g.quota = larger(g.quota, quota)
}

func addAll(set map[string]struct{}, names []string) {
	for _, name := range names {
		set[name] = struct{}{}
	}
}

// Any refuses a namespace that no grant selects at all.
func (g Grant) Any() error {
	if g.selected {
		return nil
	}
	return deny(v1alpha1.ReasonNamespaceNotAllowed,
		"no grant of XenPool %s selects namespace %s; ask its administrator to add one to spec.grants", g.pool, g.namespace)
}

// Network refuses a network that is not granted. The names are all by which it is known: alias, name-label, uuid.
func (g Grant) Network(names ...string) error {
	return g.named("network", "networks", g.networks, names)
}

// StorageRepository refuses a storage repository that is not granted, by any of its names.
func (g Grant) StorageRepository(names ...string) error {
	return g.named("storage repository", "storageRepositories", g.storageRepositories, names)
}

// Template refuses a template that is not granted, by any of its names.
func (g Grant) Template(names ...string) error {
	return g.named("template", "templates", g.templates, names)
}

// Adopt refuses the adoption of existing VMs.
func (g Grant) Adopt() error { return g.allowed(g.adopt, "adopt existing VMs", "adopt: Any") }

// RawDisks refuses disks that are named by uuid.
func (g Grant) RawDisks() error { return g.allowed(g.rawDisks, "name disks by uuid", "rawDisks: true") }

// Placement refuses to name a host.
func (g Grant) Placement() error { return g.allowed(g.placement, "name a host", "placement: true") }

// Quota is the limit for the namespace; absent figures are no limit.
func (g Grant) Quota() v1alpha1.PoolQuota { return g.quota }

func (g Grant) named(what, field string, granted map[string]struct{}, names []string) error {
	if err := g.Any(); err != nil {
		return err
	}
	if _, all := granted[v1alpha1.Any]; all {
		return nil
	}
	for _, name := range names {
		if _, found := granted[name]; found && name != "" && name != v1alpha1.Any {
			return nil
		}
	}
	return deny(v1alpha1.ReasonNamespaceNotAllowed,
		"namespace %s may not use %s %q of XenPool %s; a grant that selects the namespace must list it in %s",
		g.namespace, what, firstOf(names), g.pool, field)
}

func (g Grant) allowed(allowed bool, what, field string) error {
	if err := g.Any(); err != nil {
		return err
	}
	if allowed {
		return nil
	}
	return deny(v1alpha1.ReasonNamespaceNotAllowed,
		"namespace %s may not %s on XenPool %s; a grant that selects the namespace must say %s", g.namespace, what, g.pool, field)
}

func firstOf(names []string) string {
	for _, name := range names {
		if name != "" {
			return name
		}
	}
	return ""
}

// Usage is what instances take of a pool, or what one would add.
type Usage struct {
	Instances int32
	VCPUs     int32
	// Memory and Storage are in bytes.
	Memory  int64
	Storage int64
}

// Plus adds up.
func (u Usage) Plus(other Usage) Usage {
	return Usage{u.Instances + other.Instances, u.VCPUs + other.VCPUs, u.Memory + other.Memory, u.Storage + other.Storage}
}

// Minus takes away.
func (u Usage) Minus(other Usage) Usage {
	return Usage{u.Instances - other.Instances, u.VCPUs - other.VCPUs, u.Memory - other.Memory, u.Storage - other.Storage}
}

// AtLeast takes of each figure the larger.
func (u Usage) AtLeast(other Usage) Usage {
	return Usage{max(u.Instances, other.Instances), max(u.VCPUs, other.VCPUs), max(u.Memory, other.Memory), max(u.Storage, other.Storage)}
}

// FlavorUsage is what a VM of a flavor takes: all that it can grow to while it runs, and the disks that it is given.
func FlavorUsage(flavor *v1alpha1.XenFlavorSpec) Usage {
	usage := Usage{VCPUs: flavor.VCPUs, Memory: flavor.Memory.Value()}
	if flavor.MaxVCPUs != nil {
		usage.VCPUs = *flavor.MaxVCPUs
	}
	if flavor.MaxMemory != nil {
		usage.Memory = flavor.MaxMemory.Value()
	}
	for _, disk := range []*resource.Quantity{flavor.RootDisk, flavor.EphemeralDisk, flavor.SwapDisk} {
		if disk != nil {
			usage.Storage += disk.Value()
		}
	}
	return usage
}

// QuotaCheck refuses to add to what a namespace uses if that exceeds the limit. Adding nothing of a kind is always
// allowed, so that a lowered quota never stops what is there.
func QuotaCheck(limit v1alpha1.PoolQuota, used, add Usage) error {
	var over []string
	exceed := func(what string, limit *int64, used, add int64, show func(int64) string) {
		if limit != nil && add > 0 && used+add > *limit {
			over = append(over, fmt.Sprintf("%s: %s used, %s wanted, %s allowed", what, show(used), show(add), show(*limit)))
		}
	}
	exceed("instances", count(limit.Instances), int64(used.Instances), int64(add.Instances), number)
	exceed("vcpus", count(limit.VCPUs), int64(used.VCPUs), int64(add.VCPUs), number)
	exceed("memory", bytes(limit.Memory), used.Memory, add.Memory, binary)
	exceed("storage", bytes(limit.Storage), used.Storage, add.Storage, binary)
	if len(over) == 0 {
		return nil
	}
	return deny(v1alpha1.ReasonQuotaExceeded, "the namespace's quota on the pool does not allow it: %s", strings.Join(over, "; "))
}

// larger takes of each figure the larger; no limit is the largest.
func larger(a, b v1alpha1.PoolQuota) v1alpha1.PoolQuota {
	return v1alpha1.PoolQuota{
		Instances: largerCount(a.Instances, b.Instances),
		VCPUs:     largerCount(a.VCPUs, b.VCPUs),
		Memory:    largerQuantity(a.Memory, b.Memory),
		Storage:   largerQuantity(a.Storage, b.Storage),
	}
}

func largerCount(a, b *int32) *int32 {
	if a == nil || b == nil {
		return nil
	}
	most := max(*a, *b)
	return &most
}

func largerQuantity(a, b *resource.Quantity) *resource.Quantity {
	if a == nil || b == nil {
		return nil
	}
	if a.Cmp(*b) >= 0 {
		return a
	}
	return b
}

func count(n *int32) *int64 {
	if n == nil {
		return nil
	}
	wide := int64(*n)
	return &wide
}

func bytes(q *resource.Quantity) *int64 {
	if q == nil {
		return nil
	}
	value := q.Value()
	return &value
}

func number(n int64) string { return fmt.Sprint(n) }

func binary(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

// Everything is what an administrator may use of a pool.
func Everything(pool *v1alpha1.XenPool) Grant {
	all := pool.DeepCopy()
	all.Spec.Grants = []v1alpha1.PoolGrant{{
		Namespaces: v1alpha1.GrantedNamespaces{From: v1alpha1.NamespacesFromAll},
		Networks:   []string{v1alpha1.Any}, StorageRepositories: []string{v1alpha1.Any}, Templates: []string{v1alpha1.Any},
		Adopt: v1alpha1.AdoptAny, RawDisks: true, Placement: true,
	}}
	return GrantFor(all, "", nil)
}
