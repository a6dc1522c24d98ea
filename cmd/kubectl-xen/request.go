package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// managedBy marks the XenConsoles that this program makes, which are the ones that it may renew.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "kubectl-xen"
)

// request is the console that the user wants.
type request struct {
	instance string
	kind     v1alpha1.ConsoleType
	client   v1alpha1.ConsoleClient
	viewOnly bool
	access   string
	ttl      time.Duration
	timeout  time.Duration
}

func (r *request) register(flags *pflag.FlagSet) {
	flags.StringVar(&r.access, "access", string(v1alpha1.AccessURLToken), "where the token is kept: URLToken, or SecretToken where the pool wants it")
	flags.DurationVar(&r.ttl, "ttl", 10*time.Minute, "time to connect")
	flags.DurationVar(&r.timeout, "timeout", 2*time.Minute, "how long to wait for the URL")
}

// opened is a console that can be connected to.
type opened struct {
	url   string // with the token, as the client opens it
	token string
}

// gateway is the host:port of the gateway, and whether it speaks TLS.
func (o opened) gateway() (*url.URL, error) {
	u, err := url.Parse(o.url)
	if err != nil || u.Host == "" {
		return nil, errors.New("the console has no usable URL")
	}
	u.RawQuery, u.Fragment = "", ""
	return u, nil
}

// object is the XenConsole that the request asks for. Its name follows from what it is, so that asking twice is asking once.
func (r *request) object(namespace string) *v1alpha1.XenConsole {
	parts := []string{r.instance, strings.ToLower(string(r.client))}
	if r.kind == v1alpha1.ConsoleText {
		parts = append(parts, "text")
	}
	mode := v1alpha1.ConsoleInteractive
	if r.viewOnly {
		mode = v1alpha1.ConsoleViewOnly
		parts = append(parts, "view")
	}
	return &v1alpha1.XenConsole{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: strings.Join(parts, "-"), Labels: map[string]string{managedByLabel: managedBy}},
		Spec: v1alpha1.XenConsoleSpec{
			InstanceRef: v1alpha1.InstanceReference{Name: r.instance}, Type: r.kind, Client: r.client, Mode: mode,
			Access: v1alpha1.ConsoleAccess(r.access), TTLSeconds: int32(r.ttl / time.Second),
		},
	}
}

// connect opens a console of the instance that a command names.
func (r *request) connect(ctx context.Context, c *cluster, instance string) (opened, error) {
	r.instance = instance
	api, namespace, err := c.open()
	if err != nil {
		return opened{}, err
	}
	return r.open(ctx, api, namespace)
}

// open makes the XenConsole, or takes the one that is there, and waits until it has a URL.
func (r *request) open(ctx context.Context, api client.WithWatch, namespace string) (opened, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, errors.New("waited long enough"))
	defer cancel()
	var instance v1alpha1.XenInstance
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: r.instance}, &instance); err != nil {
		return opened{}, fmt.Errorf("find the instance: %w", err)
	}
	console := r.object(namespace)
	err := api.Create(ctx, console)
	if apierrors.IsAlreadyExists(err) {
		console, err = r.reuse(ctx, api, console)
	}
	if err != nil {
		return opened{}, fmt.Errorf("ask for a console: %w", err)
	}
	console, err = awaitURL(ctx, api, console)
	if err != nil {
		return opened{}, err
	}
	return read(ctx, api, console)
}

// reuse takes a console of ours as it is, or renews it where its URL is over or it was asked for differently.
func (r *request) reuse(ctx context.Context, api client.Client, wanted *v1alpha1.XenConsole) (*v1alpha1.XenConsole, error) {
	var found v1alpha1.XenConsole
	if err := api.Get(ctx, client.ObjectKeyFromObject(wanted), &found); err != nil {
		return nil, err
	}
	if found.Labels[managedByLabel] != managedBy {
		return nil, fmt.Errorf("XenConsole %s is there and was not made by kubectl xen: use it, or give it another name", found.Name)
	}
	if !meta.IsStatusConditionTrue(found.Status.Conditions, v1alpha1.ConditionExpired) && found.Spec.Access == wanted.Spec.Access {
		return &found, nil
	}
	before := client.MergeFrom(found.DeepCopy())
	found.Spec.Access, found.Spec.TTLSeconds = wanted.Spec.Access, wanted.Spec.TTLSeconds
	found.Spec.RenewToken = time.Now().UTC().Format(time.RFC3339Nano)
	return &found, api.Patch(ctx, &found, before)
}

// awaitURL watches the console until the manager has said something about this very spec.
func awaitURL(ctx context.Context, api client.WithWatch, console *v1alpha1.XenConsole) (*v1alpha1.XenConsole, error) {
	last := "nothing was heard of the manager"
	for {
		watcher, err := api.Watch(ctx, &v1alpha1.XenConsoleList{}, client.InNamespace(console.Namespace), client.MatchingFields{"metadata.name": console.Name})
		if err != nil {
			return nil, fmt.Errorf("watch the console: %w", err)
		}
		found, said, err := follow(ctx, watcher, console)
		watcher.Stop()
		if said != "" {
			last = said
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no URL was issued (%w): %s", context.Cause(ctx), last)
		}
		if found != nil || err != nil {
			return found, err
		}
	}
}

// follow reads one watch until it ends or the console has a URL.
func follow(ctx context.Context, watcher watch.Interface, console *v1alpha1.XenConsole) (found *v1alpha1.XenConsole, said string, err error) {
	for {
		select {
		case <-ctx.Done():
			return nil, said, nil
		case event, ok := <-watcher.ResultChan():
			if !ok {
				return nil, said, nil
			}
			current, ok := event.Object.(*v1alpha1.XenConsole)
			if !ok {
				return nil, said, nil
			}
			if event.Type == watch.Deleted {
				return nil, said, errors.New("the console was deleted")
			}
			if current.Status.ObservedGeneration < console.Generation {
				continue
			}
			if ready := meta.FindStatusCondition(current.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
				said = ready.Reason + ": " + ready.Message
			}
			if meta.IsStatusConditionTrue(current.Status.Conditions, v1alpha1.ConditionStalled) {
				return nil, said, errors.New(said)
			}
			if meta.IsStatusConditionTrue(current.Status.Conditions, v1alpha1.ConditionURLIssued) {
				return current, said, nil
			}
		}
	}
}

// read finds the token where the access has it.
func read(ctx context.Context, api client.Client, console *v1alpha1.XenConsole) (opened, error) {
	if console.Status.SecretRef != nil {
		var secret corev1.Secret
		if err := api.Get(ctx, client.ObjectKey{Namespace: console.Namespace, Name: console.Status.SecretRef.Name}, &secret); err != nil {
			return opened{}, fmt.Errorf("read the Secret with the token: %w", err)
		}
		return opened{url: string(secret.Data["url"]), token: string(secret.Data["token"])}, nil
	}
	u, err := url.Parse(console.Status.URL)
	if err != nil {
		return opened{}, errors.New("the console has no usable URL")
	}
	token := u.Query().Get("token")
	if values, err := url.ParseQuery(u.Fragment); err == nil && token == "" {
		token = values.Get("token")
	}
	return opened{url: console.Status.URL, token: token}, nil
}
