package pool

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

// Consoles opens the consoles of VMs for a gateway: one session a pool, with the credentials that the XenPool names for consoles, else its
// own. The session is made when the first console of a pool is opened, and made anew when the credentials change.
type Consoles struct {
	// Pools reads XenPools; a cache serves.
	Pools client.Reader
	// Secrets reads the Secrets that they name; it must not be a cache.
	Secrets client.Reader
	// Gateway names this replica in the originator of its sessions.
	Gateway string
	Logger  logr.Logger

	mu      sync.Mutex
	clients map[string]*consoleClient
}

// consoleClient is the session of one pool.
type consoleClient struct {
	mu     sync.Mutex // held while the session is made, so that a hundred viewers make one
	of     string     // generation and versions that it was made for
	client *xenapi.Client
	looked time.Time
}

// lookAgain is how long a session is used before its Secrets are looked at again.
const lookAgain = 10 * time.Second

// Dial opens the stream of a VM's console on the host at an address: RFB, or with text the serial line.
func (c *Consoles) Dial(ctx context.Context, pool, host, vmUUID string, text bool) (net.Conn, error) {
	session, err := c.session(ctx, pool)
	if err != nil {
		return nil, err
	}
	location := xenapi.ConsoleLocation(host, vmUUID)
	if text {
		if location, err = textLocation(ctx, session, host, vmUUID); err != nil {
			return nil, err
		}
	}
	return session.DialConsole(ctx, location)
}

// textLocation finds the serial line. Unlike the screen, which a VM's uuid names, it has an address of its own that changes at each boot.
func textLocation(ctx context.Context, session *xenapi.Client, host, vmUUID string) (string, error) {
	vm, err := session.VM.GetByUUID(ctx, vmUUID)
	if err != nil {
		return "", err
	}
	consoles, err := session.VM.GetConsoles(ctx, vm)
	if err != nil {
		return "", err
	}
	for _, ref := range consoles {
		console, err := session.Console.GetRecord(ctx, ref)
		if err != nil {
			return "", err
		}
		if console.Protocol == xenapi.ConsoleProtocolVT100 {
			return xenapi.ConsoleLocation(host, console.UUID), nil
		}
	}
	return "", fmt.Errorf("VM %s has no text console now", vmUUID)
}

// session returns the session of a pool.
func (c *Consoles) session(ctx context.Context, name string) (*xenapi.Client, error) {
	c.mu.Lock()
	if c.clients == nil {
		c.clients = map[string]*consoleClient{}
	}
	entry, ok := c.clients[name]
	if !ok {
		entry = &consoleClient{}
		c.clients[name] = entry
	}
	c.mu.Unlock()
	entry.mu.Lock()
	defer entry.mu.Unlock()
	var pool v1alpha1.XenPool
	if err := c.Pools.Get(ctx, client.ObjectKey{Name: name}, &pool); err != nil {
		return nil, fmt.Errorf("read XenPool %s: %w", name, err)
	}
	if entry.client != nil && time.Since(entry.looked) < lookAgain {
		return entry.client, nil
	}
	entry.looked = time.Now()
	settings, of, err := c.settings(ctx, &pool)
	if err != nil {
		return entry.keep(err, c.Logger.WithValues("pool", name))
	}
	if entry.client != nil && entry.of == of {
		return entry.client, nil
	}
	session, err := xenapi.Connect(ctx, xenapi.Config{
		Endpoints: settings.Endpoints, Username: settings.Username, Password: settings.Password,
		CABundle: settings.CABundle, FingerprintsSHA256: settings.FingerprintsSHA256, InsecureSkipVerify: settings.InsecureSkipVerify,
		Originator: "kubexen-gateway/" + c.Gateway, Logger: c.Logger.WithValues("pool", name),
	})
	if err != nil {
		return entry.keep(fmt.Errorf("connect to pool %s: %w", name, err), c.Logger.WithValues("pool", name))
	}
	if old := entry.client; old != nil {
		go farewell(context.WithoutCancel(ctx), old)
	}
	entry.client, entry.of = session, of
	return session, nil
}

// keep goes on with the session that is there when a new one cannot be had: a wrong password in a Secret, or an API server that is away,
// takes nobody's console.
func (e *consoleClient) keep(err error, log logr.Logger) (*xenapi.Client, error) {
	if e.client == nil {
		return nil, err
	}
	log.Error(err, "Cannot renew the session for consoles, so the one that is there is kept")
	return e.client, nil
}

// settings reads what a session is made with, and what names the version of all that was read.
func (c *Consoles) settings(ctx context.Context, pool *v1alpha1.XenPool) (Settings, string, error) {
	pool = pool.DeepCopy()
	if p := pool.Spec.Console; p != nil && p.CredentialsSecretRef != nil {
		pool.Spec.CredentialsSecretRef = *p.CredentialsSecretRef
	}
	credentials, err := c.secret(ctx, pool.Spec.CredentialsSecretRef)
	if err != nil {
		return Settings{}, "", err
	}
	var ca *corev1.Secret
	of := fmt.Sprintf("%s/%d/%s", pool.UID, pool.Generation, secretVersion(credentials))
	if tls := pool.Spec.TLS; tls != nil && tls.CABundleSecretRef != nil {
		if ca, err = c.secret(ctx, *tls.CABundleSecretRef); err != nil {
			return Settings{}, "", err
		}
		of += "/" + secretVersion(ca)
	}
	settings, problem := SettingsFrom(pool, credentials, ca)
	if problem != nil {
		return Settings{}, "", fmt.Errorf("XenPool %s: %s", pool.Name, problem.Message)
	}
	return settings, of, nil
}

// secret reads one Secret; nil if there is none.
func (c *Consoles) secret(ctx context.Context, ref v1alpha1.SecretReference) (*corev1.Secret, error) {
	var secret corev1.Secret
	err := c.Secrets.Get(ctx, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return &secret, nil
}

func secretVersion(secret *corev1.Secret) string {
	if secret == nil {
		return ""
	}
	return secret.ResourceVersion
}

// Close logs out of all pools.
func (c *Consoles) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entry := range c.clients {
		entry.mu.Lock()
		if entry.client != nil {
			farewell(context.Background(), entry.client)
			entry.client = nil
		}
		entry.mu.Unlock()
	}
}

// farewell logs out, within bounds: it is called when everything else ends.
func farewell(ctx context.Context, session *xenapi.Client) {
	ctx, cancel := context.WithTimeout(ctx, logoutTimeout)
	defer cancel()
	_ = session.Close(ctx)
}
