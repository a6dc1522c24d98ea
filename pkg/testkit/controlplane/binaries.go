package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// AssetsVariable names the environment variable that points at a directory with ready-made programs, as envtest uses it.
const AssetsVariable = "KUBEBUILDER_ASSETS"

// Binaries are the paths of a control plane's programs.
type Binaries struct {
	Etcd              string
	APIServer         string
	ControllerManager string
	Kubectl           string
}

// modulePath is what go.mod says in the repository's root; it tells the root from any other directory.
const modulePath = "github.com/kubexen/kubexen"

// Find returns the programs of a control plane: those in the directory that KUBEBUILDER_ASSETS names, else those that
// were built from the pinned modules before, else it builds them now and tells progress on the given writer. Processes
// that need them at the same time build once: the others wait.
func Find(ctx context.Context, progress io.Writer) (Binaries, error) {
	if dir := os.Getenv(AssetsVariable); dir != "" {
		found := binariesIn(dir)
		if err := found.check(); err != nil {
			return Binaries{}, fmt.Errorf("%s: %w", AssetsVariable, err)
		}
		return found, nil
	}
	root, err := RepositoryRoot()
	if err != nil {
		return Binaries{}, err
	}
	dir, err := cacheDirectory(root)
	if err != nil {
		return Binaries{}, err
	}
	found := binariesIn(dir)
	if found.check() == nil {
		return found, nil
	}
	unlock, err := lock(ctx, dir+".lock", progress)
	if err != nil {
		return Binaries{}, err
	}
	defer unlock()
	if found.check() == nil { // another process has built them while we waited
		return found, nil
	}
	if err := build(ctx, root, dir, progress); err != nil {
		return Binaries{}, err
	}
	return found, found.check()
}

// RepositoryRoot is the directory of the module, found upwards from the working directory.
func RepositoryRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.Contains(string(text), "module "+modulePath+"\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod of %s at or above %s: run this inside the repository", modulePath, start)
		}
	}
}

func binariesIn(dir string) Binaries {
	return Binaries{
		Etcd:              filepath.Join(dir, "etcd"),
		APIServer:         filepath.Join(dir, "kube-apiserver"),
		ControllerManager: filepath.Join(dir, "kube-controller-manager"),
		Kubectl:           filepath.Join(dir, "kubectl"),
	}
}

func (b Binaries) check() error {
	for _, path := range []string{b.Etcd, b.APIServer, b.ControllerManager, b.Kubectl} {
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	return nil
}

// cacheDirectory is keyed by everything that the programs are made from: a changed pin makes a new directory, and a
// branch with the old pin finds its own again.
func cacheDirectory(root string) (string, error) {
	key := sha256.New()
	fmt.Fprintln(key, runtime.GOOS, runtime.GOARCH, runtime.Version())
	for _, module := range modules {
		for _, name := range []string{"go.mod", "go.sum"} {
			text, err := os.ReadFile(filepath.Join(module.directory(root), name))
			if err != nil {
				return "", fmt.Errorf("pinned control plane: %w", err)
			}
			fmt.Fprintf(key, "%s/%s %d\n%s", module.name, name, len(text), text)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "kubexen")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	return filepath.Join(cache, "controlplane-"+hex.EncodeToString(key.Sum(nil))[:16]), nil
}
