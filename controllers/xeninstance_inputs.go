package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/image"
	"github.com/kubexen/kubexen/pkg/instance"
	"github.com/kubexen/kubexen/pkg/pool"
	"github.com/kubexen/kubexen/pkg/xenapi"
	"github.com/kubexen/kubexen/pkg/xencache"
)

// gather collects what the pass needs to know from Kubernetes: flavor, image, the namespace's grant.
func (s *instanceScope) gather(ctx context.Context) (*instance.Inputs, error) {
	in := &instance.Inputs{Object: s.Object, Installation: s.pool.Installation, OwnerLives: s.ownerLives(ctx)}
	if reason, message, held := s.pool.Held(); held {
		in.HeldReason, in.Held = reason, message
	}
	grant, err := s.grant(ctx)
	if err != nil {
		return nil, err
	}
	resolver := &poolResolver{handle: s.pool, grant: grant, ownerLives: in.OwnerLives, key: s.key()}
	in.Resolver = resolver
	note(in, grant.Any())
	errors.As(asProblem(grant.Adopt()), &in.AdoptDenied)
	if s.Object.Spec.Source.Existing != nil {
		note(in, grant.Adopt())
	}
	if err := s.gatherFlavor(ctx, in); err != nil {
		return nil, err
	}
	if err := s.gatherRescue(ctx, in); err != nil {
		return nil, err
	}
	if s.Object.Spec.Source.SnapshotRef != nil {
		return in, s.gatherSnapshot(ctx, in, resolver)
	}
	if s.Object.Spec.Source.Backup != nil {
		s.gatherBackup(ctx, in)
		return in, nil
	}
	return in, s.gatherImage(ctx, in, resolver)
}

// note keeps an error of the grant as a problem.
func note(in *instance.Inputs, err error) {
	if err == nil || len(in.Problems) > 0 {
		return // a namespace that may do nothing need not be told each thing
	}
	var problem *instance.Problem
	if errors.As(asProblem(err), &problem) {
		in.Problems = append(in.Problems, *problem)
	}
}

// grant is what the instance's namespace may use of the pool.
func (s *instanceScope) grant(ctx context.Context) (pool.Grant, error) {
	labels, err := namespaceLabels(ctx, s.r.runtime.Client, s.Object.Namespace)
	return s.pool.Grant(s.Object.Namespace, labels), err
}

// ownerLives looks whether an instance that marks name still exists. In doubt it does.
func (s *instanceScope) ownerLives(ctx context.Context) func(xencache.Key) bool {
	return func(key xencache.Key) bool {
		var other v1alpha1.XenInstance
		err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, &other)
		return !apierrors.IsNotFound(err)
	}
}

func (s *instanceScope) gatherFlavor(ctx context.Context, in *instance.Inputs) error {
	ref := s.Object.Spec.FlavorRef
	if ref == nil {
		return nil
	}
	var flavor v1alpha1.XenFlavor
	err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, &flavor)
	if err == nil {
		in.Flavor = &flavor
	}
	return ignoreGone(err)
}

// gatherImage finds the template on the pool that holds the image.
func (s *instanceScope) gatherImage(ctx context.Context, in *instance.Inputs, resolver *poolResolver) error {
	ref := s.Object.Spec.Source.ImageRef
	if ref == nil {
		return nil
	}
	spec, status, err := s.image(ctx, ref)
	if apierrors.IsNotFound(err) {
		in.ImageProblem = &instance.Problem{Reason: v1alpha1.ReasonImageNotFound, Passing: true,
			Message: fmt.Sprintf("there is no %s %q; make it, or name another in source.imageRef", ref.Kind, ref.Name)}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", ref.Kind, ref.Name, err)
	}
	in.Image = image.Demanded(spec, status)
	template, missing := templateOf(ref, s.pool.Name, spec, status)
	if missing != "" {
		in.ImageProblem = &instance.Problem{Reason: v1alpha1.ReasonImageNotReady, Message: missing, Passing: true}
		return nil
	}
	in.ImageTemplate, resolver.imageTemplate = template, template
	return nil
}

// templateOf is the UUID of the template that holds an image on a pool. Where VMs cannot be made from it yet, missing says so, and why,
// as far as the image tells.
func templateOf(ref *v1alpha1.ImageReference, pool string, spec *v1alpha1.XenImageSpec, status *v1alpha1.XenImageStatus) (uuid, missing string) {
	var on v1alpha1.ImagePoolStatus
	if at := slices.IndexFunc(status.Pools, func(p v1alpha1.ImagePoolStatus) bool { return p.Name == pool }); at >= 0 {
		on = status.Pools[at]
	}
	if on.Ready && on.TemplateUUID != "" {
		return on.TemplateUUID, ""
	}
	missing = fmt.Sprintf("%s %q is not ready on pool %s", ref.Kind, ref.Name, pool)
	switch {
	case !slices.ContainsFunc(spec.Pools, func(p v1alpha1.ImagePool) bool { return p.Name == pool }):
		missing += ", which is not among its spec.pools; name another image"
	case on.Message != "":
		missing += ": " + on.Message
	}
	return "", missing
}

// image reads the image that a reference names; both kinds have one spec.
func (s *instanceScope) image(ctx context.Context, ref *v1alpha1.ImageReference) (*v1alpha1.XenImageSpec, *v1alpha1.XenImageStatus, error) {
	if ref.Kind == v1alpha1.ImageKindCluster {
		var image v1alpha1.XenClusterImage
		err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Name: ref.Name}, &image)
		return &image.Spec, &image.Status, err
	}
	var image v1alpha1.XenImage
	err := s.r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: s.Object.Namespace, Name: ref.Name}, &image)
	return &image.Spec, &image.Status, err
}

// checkBeforeMaking looks at what only matters while there is no VM: the bootstrap data, and last, since who passes has it, the quota.
func (s *instanceScope) checkBeforeMaking(ctx context.Context) error {
	if s.facts.VM != nil || s.Deleting() || len(s.facts.Want.Problems) > 0 || s.Object.Spec.Source.Existing != nil {
		return nil
	}
	problems := &s.facts.Want.Problems
	if err := noted(problems, s.checkBootstrap(ctx)); err != nil || len(*problems) > 0 || s.Paused != "" || !s.nothingMade() {
		return err
	}
	return noted(problems, s.checkQuota(ctx))
}

// poolResolver resolves names as far as the namespace's grant allows.
type poolResolver struct {
	handle        *pool.Handle
	grant         pool.Grant
	key           xencache.Key
	ownerLives    func(xencache.Key) bool
	imageTemplate string
}

var _ instance.Resolver = (*poolResolver)(nil)

// noted adds what is a problem of the instance to its problems, and returns any other error.
func noted(problems *[]instance.Problem, err error) error {
	var problem *instance.Problem
	if errors.As(err, &problem) {
		*problems = append(*problems, *problem)
		return nil
	}
	return err
}

// asProblem turns a denial of the pool into a problem of the instance.
func asProblem(err error) error {
	var denial *pool.Denial
	if errors.As(err, &denial) {
		return &instance.Problem{Reason: denial.Reason, Message: denial.Message}
	}
	return err
}

// refused makes a problem that waiting does not mend.
func refused(reason, format string, args ...any) error {
	return &instance.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Network resolves a network; "" is the XenPool's default.
func (r *poolResolver) Network(name string) (xenapi.NetworkRef, error) {
	if name == "" && r.handle.Pool.Spec.Defaults != nil {
		name = r.handle.Pool.Spec.Defaults.Network
	}
	if name == "" {
		return "", refused(v1alpha1.ReasonNetworkNotFound,
			"the interface names no network and XenPool %s has no defaults.network", r.handle.Name)
	}
	found, err := r.handle.Network(r.grant, name)
	return found.Ref, asProblem(err)
}

// StorageRepository resolves a storage repository; "" is the default.
func (r *poolResolver) StorageRepository(name string) (xenapi.SRRef, error) {
	if name == "" {
		found, err := r.handle.DefaultStorageRepository(r.grant)
		return found.Ref, asProblem(err)
	}
	found, err := r.handle.StorageRepository(r.grant, name)
	return found.Ref, asProblem(err)
}

// Template resolves a template. The one that holds an image needs no grant of its own: naming the image was allowed.
func (r *poolResolver) Template(name, uuid string) (xenapi.VMRef, error) {
	if uuid != "" && uuid == r.imageTemplate {
		var found xenapi.VMRef
		r.handle.Cache.View(func(v xencache.View) { found, _ = v.VMByUUID(uuid) })
		if found.IsNull() {
			return "", refused(v1alpha1.ReasonImageNotReady, "the image's template %s is not on pool %s", uuid, r.handle.Name)
		}
		return found, nil
	}
	if uuid != "" {
		name = uuid
	}
	found, err := r.handle.Template(r.grant, name)
	return found.Ref, asProblem(err)
}

// ISO resolves an ISO by name among the storage repositories that hold ISOs.
func (r *poolResolver) ISO(name string) (xenapi.VDIRef, error) {
	var found []xenapi.VDIRef
	var repository string
	r.handle.Cache.View(func(v xencache.View) {
		for ref, vdi := range v.VDIs() {
			if sr := v.SR(vdi.SR); vdi.NameLabel == name && sr != nil && sr.ContentType == "iso" {
				found, repository = append(found, ref), sr.UUID
			}
		}
	})
	switch len(found) {
	case 0:
		return "", refused(v1alpha1.ReasonISONotFound, "pool %s has no ISO %q; put it into an ISO storage repository and rescan that", r.handle.Name, name)
	case 1:
		_, err := r.handle.StorageRepository(r.grant, repository)
		return found[0], asProblem(err)
	}
	return "", refused(v1alpha1.ReasonAmbiguousName, "pool %s has %d ISOs called %q; rename all but one", r.handle.Name, len(found), name)
}

// Disk resolves a disk that was there before us. One that is another instance's is not to be had.
func (r *poolResolver) Disk(uuid string) (xenapi.VDIRef, error) {
	if err := r.grant.RawDisks(); err != nil {
		return "", asProblem(err)
	}
	var ref xenapi.VDIRef
	var marks xencache.Marks
	r.handle.Cache.View(func(v xencache.View) {
		found, vdi := v.VDIByUUID(uuid)
		if vdi != nil {
			ref, marks = found, xencache.ReadMarks(vdi.OtherConfig)
		}
	})
	switch {
	case ref.IsNull():
		return "", refused(v1alpha1.ReasonDiskNotFound, "pool %s has no disk %s", r.handle.Name, uuid)
	case !marks.IsZero() && marks.Ref != r.key && !marks.IsCopyOf(uuid) && (marks.Installation != r.handle.Installation || r.ownerLives(marks.Ref)):
		return "", refused(v1alpha1.ReasonOwnedByAnother, "disk %s belongs to %s", uuid, marks.Ref)
	}
	return ref, nil
}

// maxNamedHosts is how many hosts a message names.
const maxNamedHosts = 16

// Host resolves a host by name or uuid.
func (r *poolResolver) Host(name string) (xenapi.HostRef, error) {
	if err := r.grant.Placement(); err != nil {
		return "", asProblem(err)
	}
	var found xenapi.HostRef
	var names []string
	r.handle.Cache.View(func(v xencache.View) {
		for ref, host := range v.Hosts() {
			if host.NameLabel == name || host.UUID == name {
				found = ref
			}
			names = append(names, host.NameLabel)
		}
	})
	if found.IsNull() {
		slices.Sort(names)
		return "", refused(v1alpha1.ReasonHostNotFound, "pool %s has no host %q in placement.host; it has %s", r.handle.Name, name,
			strings.Join(names[:min(len(names), maxNamedHosts)], ", "))
	}
	return found, nil
}
