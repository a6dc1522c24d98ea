package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/console"
	"github.com/kubexen/kubexen/pkg/reconcile"
)

// +kubebuilder:rbac:groups=kubexen.io,resources=xenconsoles,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups=kubexen.io,resources=xenconsoles/status,verbs=get;patch
// +kubebuilder:rbac:groups=kubexen.io,resources=xenconsoles/finalizers,verbs=update
// +kubebuilder:rbac:groups=kubexen.io,resources=xeninstances/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch;delete

// consoleConcurrency is how many XenConsoles are worked on at a time. A pass makes no call to a pool.
const consoleConcurrency = 4

// instanceRefField is the field index by which consoles are found for their instance.
const instanceRefField = "spec.instanceRef.name"

// The keys of a Secret with a console's token.
const (
	tokenKey = "token"
	urlKey   = "url"
)

// consoleReconciler issues, renews and ends the URLs of consoles.
type consoleReconciler struct {
	runtime    *reconcile.Runtime
	gatewayURL string
}

func setupConsole(s *shared) error {
	r := &consoleReconciler{runtime: s.runtime(), gatewayURL: s.options.ConsoleURL}
	err := s.manager.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.XenConsole{}, instanceRefField,
		func(obj client.Object) []string { return []string{obj.(*v1alpha1.XenConsole).Spec.InstanceRef.Name} })
	if err != nil {
		return fmt.Errorf("index consoles by instance: %w", err)
	}
	return ctrl.NewControllerManagedBy(s.manager).
		Named("xenconsole").
		For(&v1alpha1.XenConsole{}, builder.WithPredicates(predicate.Or(askedAnew(), consoleTurned()))).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestForOwner(s.manager.GetScheme(), s.manager.GetRESTMapper(),
			&v1alpha1.XenConsole{}, handler.OnlyControllerOwner())).
		Watches(&v1alpha1.XenInstance{}, handler.EnqueueRequestsFromMapFunc(r.consolesOfInstance), builder.WithPredicates(powerTurned())).
		Watches(&v1alpha1.XenPool{}, handler.EnqueueRequestsFromMapFunc(r.consolesOfPool), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: consoleConcurrency}).
		Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *consoleReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	scope, err := reconcile.Open(ctx, r.runtime, req, &v1alpha1.XenConsole{},
		reconcile.Options[*v1alpha1.XenConsole]{Finalizer: v1alpha1.FinalizerConsole})
	if scope == nil || err != nil {
		return ctrl.Result{}, err
	}
	if scope.Deleting() {
		if err := r.dropSecret(ctx, scope.Object); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, scope.ReleaseFinalizer(ctx, v1alpha1.FinalizerConsole)
	}
	defer func() { err = errors.Join(err, scope.Close(ctx)) }()
	if err := r.keepPromises(ctx, scope); err != nil {
		return ctrl.Result{}, err
	}
	facts, err := r.observe(ctx, scope.Object)
	if err != nil {
		return ctrl.Result{}, err
	}
	decision := console.Decide(scope.Object, facts)
	token, err := r.act(ctx, scope.Object, decision)
	if err != nil {
		scope.Outcome = reconcile.Retry(v1alpha1.ReasonRetrying, err)
		return scope.Result(), nil
	}
	console.Report(scope.Object, decision, token, facts.Now)
	if err := r.forgetGateways(ctx, scope.Object, facts.Now); err != nil {
		return ctrl.Result{}, err
	}
	scope.Outcome = decision.Outcome
	return scope.Result(), nil
}

// observe gathers what a decision looks at. It asks the API server alone.
func (r *consoleReconciler) observe(ctx context.Context, c *v1alpha1.XenConsole) (console.Facts, error) {
	facts := console.Facts{Now: r.runtime.Clock.Now(), GatewayURL: r.gatewayURL}
	var instance v1alpha1.XenInstance
	err := r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.Spec.InstanceRef.Name}, &instance)
	if client.IgnoreNotFound(err) != nil {
		return facts, fmt.Errorf("read XenInstance %s: %w", c.Spec.InstanceRef.Name, err)
	}
	if err == nil {
		facts.Instance = &instance
		var pool v1alpha1.XenPool
		if err := r.runtime.Client.Get(ctx, client.ObjectKey{Name: instance.Spec.PoolRef.Name}, &pool); client.IgnoreNotFound(err) != nil {
			return facts, fmt.Errorf("read XenPool %s: %w", instance.Spec.PoolRef.Name, err)
		}
		facts.Policy = pool.Spec.Console
	}
	facts.TokenKept, err = r.tokenKept(ctx, c)
	return facts, err
}

// tokenKept tells whether the token is where the access puts it, and is the one whose digest the status has.
func (r *consoleReconciler) tokenKept(ctx context.Context, c *v1alpha1.XenConsole) (bool, error) {
	if !console.Shows(c, r.gatewayURL) {
		return false, nil
	}
	switch c.Spec.Access {
	case v1alpha1.AccessEncryptedToken:
		return c.Status.EncryptedToken != "" && c.Status.PublicKeySHA256 == console.KeyDigest(c.Spec.PublicKey), nil
	case v1alpha1.AccessSecretToken:
		var secret corev1.Secret
		err := r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: console.SecretName(c)}, &secret)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read the Secret with the token: %w", err)
		}
		token := string(secret.Data[tokenKey])
		return v1alpha1.ConsoleTokenDigest(token) == c.Status.TokenSHA256 && string(secret.Data[urlKey]) == console.URL(r.gatewayURL, c.Spec.Client, token), nil
	default:
		return c.Status.SecretRef == nil && c.Status.EncryptedToken == "", nil
	}
}

// act does what was decided, up to the status. The Secret is written before the status names its token: a crash between leaves a Secret
// that opens nothing, and the next pass writes it again.
func (r *consoleReconciler) act(ctx context.Context, c *v1alpha1.XenConsole, d console.Decision) (*console.Token, error) {
	switch d.Act {
	case console.Issue:
		secret := console.NewToken()
		token := &console.Token{Digest: v1alpha1.ConsoleTokenDigest(secret), URL: console.URL(r.gatewayURL, c.Spec.Client, "")}
		switch c.Spec.Access {
		case v1alpha1.AccessSecretToken:
			token.Secret = console.SecretName(c)
			return token, r.writeSecret(ctx, c, secret)
		case v1alpha1.AccessEncryptedToken:
			var err error
			token.Sealed, err = console.Seal(secret, c.Spec.PublicKey)
			return token, errors.Join(err, r.dropSecret(ctx, c))
		default:
			token.URL = console.URL(r.gatewayURL, c.Spec.Client, secret)
			return token, r.dropSecret(ctx, c)
		}
	case console.End:
		return nil, r.dropSecret(ctx, c)
	case console.Delete:
		uid := c.UID
		err := r.runtime.Client.Delete(ctx, c, client.Preconditions{UID: &uid})
		return nil, client.IgnoreNotFound(err)
	case console.Keep:
	}
	return nil, nil
}

// writeSecret puts the token into a Secret that the console owns. One of that name that is somebody else's is left alone.
func (r *consoleReconciler) writeSecret(ctx context.Context, c *v1alpha1.XenConsole, token string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: console.SecretName(c)}}
	secret.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(c, v1alpha1.GroupVersion.WithKind("XenConsole"))}
	secret.Data = map[string][]byte{tokenKey: []byte(token), urlKey: []byte(console.URL(r.gatewayURL, c.Spec.Client, token))}
	err := r.runtime.Client.Create(ctx, secret, r.runtime.FieldOwner)
	if !apierrors.IsAlreadyExists(err) {
		return wrapped("make the Secret with the token", err)
	}
	var found corev1.Secret
	if err := r.runtime.Live.Get(ctx, client.ObjectKeyFromObject(secret), &found); err != nil {
		return wrapped("read the Secret with the token", err)
	}
	if !metav1.IsControlledBy(&found, c) {
		return fmt.Errorf("the Secret %s is to hold the token, but it exists and belongs to somebody else: rename the XenConsole, or remove the Secret", secret.Name)
	}
	patch := client.MergeFrom(found.DeepCopy())
	found.Data = secret.Data
	return wrapped("write the Secret with the token", r.runtime.Client.Patch(ctx, &found, patch, r.runtime.FieldOwner))
}

// dropSecret removes the Secret with the token, if it is this console's.
func (r *consoleReconciler) dropSecret(ctx context.Context, c *v1alpha1.XenConsole) error {
	if c.Status.SecretRef == nil && c.Spec.Access != v1alpha1.AccessSecretToken {
		return nil
	}
	var secret corev1.Secret
	err := r.runtime.Live.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: console.SecretName(c)}, &secret)
	if apierrors.IsNotFound(err) || (err == nil && !metav1.IsControlledBy(&secret, c)) {
		return nil
	}
	if err != nil {
		return wrapped("read the Secret with the token", err)
	}
	return wrapped("remove the Secret with the token", client.IgnoreNotFound(r.runtime.Client.Delete(ctx, &secret)))
}

// keepPromises writes what must outlive the status: that a URL was issued, and whose console this is.
func (r *consoleReconciler) keepPromises(ctx context.Context, scope *reconcile.Scope[*v1alpha1.XenConsole]) error {
	c := scope.Object
	if c.Status.IssuedAt != nil {
		if err := scope.Annotate(ctx, v1alpha1.AnnotationURLIssued, c.Status.RenewToken); err != nil {
			return err
		}
	}
	var instance v1alpha1.XenInstance
	err := r.runtime.Client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.Spec.InstanceRef.Name}, &instance)
	if err != nil || !instance.DeletionTimestamp.IsZero() {
		return client.IgnoreNotFound(err)
	}
	return scope.Own(ctx, metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "XenInstance", Name: instance.Name, UID: instance.UID,
	})
}

// forgetGateways takes the entries of gateways that died out of the status: nobody else would, and the list is bounded. A gateway that
// was only cut off writes its entry again.
func (r *consoleReconciler) forgetGateways(ctx context.Context, c *v1alpha1.XenConsole, now time.Time) error {
	var alive []v1alpha1.ConsoleSessions
	for _, s := range c.Status.Sessions {
		if now.Sub(s.RenewedAt.Time) <= v1alpha1.ConsoleSessionsCountFor {
			alive = append(alive, s)
		}
	}
	if len(alive) == len(c.Status.Sessions) {
		return nil
	}
	var current v1alpha1.XenConsole
	if err := r.runtime.Live.Get(ctx, client.ObjectKeyFromObject(c), &current); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := current.DeepCopy()
	current.Status.Sessions = slices.DeleteFunc(current.Status.Sessions, func(s v1alpha1.ConsoleSessions) bool {
		return now.Sub(s.RenewedAt.Time) > v1alpha1.ConsoleSessionsCountFor
	})
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	err := r.runtime.Client.Status().Patch(ctx, &current, patch, r.runtime.FieldOwner)
	if err != nil {
		return wrapped("forget gateways that are gone", client.IgnoreNotFound(err))
	}
	c.ResourceVersion = current.ResourceVersion
	return nil
}

// consolesOfInstance finds the consoles of an instance.
func (r *consoleReconciler) consolesOfInstance(ctx context.Context, obj client.Object) []ctrl.Request {
	var consoles v1alpha1.XenConsoleList
	err := r.runtime.Client.List(ctx, &consoles, client.InNamespace(obj.GetNamespace()), client.MatchingFields{instanceRefField: obj.GetName()},
		client.UnsafeDisableDeepCopy)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list consoles of an instance")
		return nil
	}
	requests := make([]ctrl.Request, 0, len(consoles.Items))
	for i := range consoles.Items {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&consoles.Items[i])})
	}
	return requests
}

// consolesOfPool finds the consoles of the instances on a pool.
func (r *consoleReconciler) consolesOfPool(ctx context.Context, pool client.Object) []ctrl.Request {
	var instances v1alpha1.XenInstanceList
	if err := r.runtime.Client.List(ctx, &instances, client.MatchingFields{poolField: pool.GetName()}, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "list instances of a pool")
		return nil
	}
	var requests []ctrl.Request
	for i := range instances.Items {
		requests = append(requests, r.consolesOfInstance(ctx, &instances.Items[i])...)
	}
	return requests
}

// consoleTurned lets through what gateways wrote, and our own word that a URL was issued, which is to be remembered.
func consoleTurned() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.XenConsole)
		after, also := e.ObjectNew.(*v1alpha1.XenConsole)
		if !ok || !also {
			return false
		}
		now := metav1.Now().Time
		return before.Status.TokenSHA256 != after.Status.TokenSHA256 || len(before.Status.Sessions) != len(after.Status.Sessions) ||
			before.Status.OpenSessions("", now) != after.Status.OpenSessions("", now) ||
			!before.Status.LastBusy(now).Equal(after.Status.LastBusy(now))
	}}
}

// powerTurned lets through what a console looks at in its instance.
func powerTurned() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*v1alpha1.XenInstance)
		after, also := e.ObjectNew.(*v1alpha1.XenInstance)
		return ok && also && (before.Status.PowerState != after.Status.PowerState || before.GuestUUID() != after.GuestUUID() ||
			before.Spec.DesiredPowerState() != after.Spec.DesiredPowerState() ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero())
	}}
}

// wrapped says what was being done; nil stays nil.
func wrapped(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
