package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
)

// environment is everything that runs.
type environment struct {
	story *story
	root  string // of the repository
	dir   string // absolute

	plane     *controlplane.ControlPlane
	client    client.WithWatch
	simulator *simulator
	manager   *controlplane.Process
	gateway   *controlplane.Process
	consoles  string // host:port of the gateway
	store     *store
}

// up starts everything, tells about it, and returns when it is interrupted, when a part of it dies, or, with --exit,
// when the samples are Ready.
func up(ctx context.Context, options options) error {
	e, err := newEnvironment(options)
	if err != nil {
		return err
	}
	defer e.stop()
	e.story.tell("demo", "a Kubernetes API, a simulated XenServer pool and the operator, all on this machine, in %s", options.dir)
	if err := e.start(ctx); err != nil {
		return err
	}
	e.story.line("ready")
	e.story.show(e.howToGoOn(options))

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go e.watchChildren(ctx, cancel)
	go e.tellObjects(ctx)
	go e.tellCalls(ctx)
	if options.samples {
		if err := e.applySamples(ctx); err != nil {
			return errors.Join(err, causeOf(ctx))
		}
		if err := e.waitSamples(ctx, options); err != nil {
			return errors.Join(err, causeOf(ctx))
		}
		if options.tour {
			if err := e.showTour(ctx); err != nil {
				return errors.Join(err, causeOf(ctx))
			}
		}
		if options.exit {
			return nil
		}
	}
	<-ctx.Done()
	return causeOf(ctx)
}

func newEnvironment(options options) (*environment, error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(options.dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := claim(dir); err != nil {
		return nil, err
	}
	return &environment{story: newStory(os.Stdout), root: root, dir: dir}, nil
}

// claim makes sure that one directory serves one environment at a time. The lock lives as long as this process.
func claim(dir string) error {
	path := filepath.Join(dir, "in-use")
	descriptor, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := syscall.Flock(descriptor, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another environment runs in %s: stop it, or choose another --dir", dir)
	}
	return nil
}

// start brings up the parts; what does not need each other comes up at the same time.
func (e *environment) start(ctx context.Context) error {
	parts, partsContext := errgroup.WithContext(ctx)
	parts.Go(func() error { return e.startControlPlane(partsContext) })
	parts.Go(func() error {
		if err := e.buildPrograms(partsContext); err != nil {
			return err
		}
		return e.startSimulator(partsContext)
	})
	if err := parts.Wait(); err != nil {
		return err
	}
	if err := e.startStore(); err != nil {
		return err
	}
	if err := e.writeSecrets(ctx); err != nil {
		return err
	}
	if err := e.writeSamples(); err != nil {
		return err
	}
	return e.startOperator(ctx)
}

func (e *environment) startControlPlane(ctx context.Context) error {
	e.story.tell("kubernetes", "starting etcd and the API server")
	plane, err := controlplane.Start(ctx, controlplane.Options{Dir: e.dir, Progress: os.Stdout})
	if err != nil {
		return err
	}
	e.plane = plane
	if e.client, err = client.NewWithWatch(plane.Config, client.Options{Scheme: testkit.NewScheme()}); err != nil {
		return err
	}
	e.story.tell("kubernetes", "the API server is ready at %s", plane.Config.Host)
	if err := testkit.InstallCRDs(ctx, e.client, filepath.Join(e.root, "config", "crd", "bases")); err != nil {
		return err
	}
	e.story.tell("kubernetes", "installing config/default: kinds, roles, deletion protection, the manager's service account")
	parts, partsContext := errgroup.WithContext(ctx)
	parts.Go(func() error {
		_, err := e.kubectl(partsContext, "apply", "--server-side", "--kustomize", filepath.Join(e.root, "config", "default"))
		return err
	})
	parts.Go(func() error { return plane.StartControllerManager(partsContext) })
	return parts.Wait()
}

// watchChildren ends everything when a part of it dies: an environment with a hole is worse than none.
func (e *environment) watchChildren(ctx context.Context, cancel context.CancelCauseFunc) {
	for _, process := range append(e.plane.Processes(), e.simulator.process, e.manager, e.gateway) {
		go func() {
			select {
			case <-ctx.Done():
			case <-process.Ended():
				cancel(process.Err())
			}
		}()
	}
}

// causeOf is what ended a context, other than the user.
func causeOf(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// stop ends the operator first, so that it can end well while everything is there.
func (e *environment) stop() {
	for _, process := range []*controlplane.Process{e.gateway, e.manager} {
		if process != nil {
			process.Stop(programGrace)
		}
	}
	if e.simulator != nil {
		e.simulator.process.Kill()
	}
	if e.store != nil {
		_ = e.store.server.Close() // nothing is left to be told
	}
	if e.plane != nil {
		e.plane.Stop()
	}
}

func (e *environment) howToGoOn(options options) string {
	text := fmt.Sprintf(`  export KUBECONFIG=%s
  export PATH=$PATH:%s:%s  # its plug-in kubectl xen, and kubectl itself if you have none
  kubectl get xenpools,xeninstances --all-namespaces
  a XenAPI client connects with what stands in %s
`, e.plane.KubeconfigPath, e.file("bin"), filepath.Dir(e.plane.Kubectl), e.file("xenserver.json"))
	if options.samples {
		text += "  kubectl xen text web -n demo --gateway-insecure  # a serial console; the gateway signs its own certificate here\n"
	} else {
		text += fmt.Sprintf("  kubectl apply --server-side -k %s  # a pool, sizes, an image and instances\n", e.file("samples"))
	}
	if !options.exit {
		text += "  Ctrl-C stops everything.\n"
	}
	return text
}

func (e *environment) file(name string) string { return filepath.Join(e.dir, name) }
