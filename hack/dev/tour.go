package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

// scene is one thing that a user does, by kubectl alone.
type scene struct {
	title    string
	commands []string
}

// tour is what is shown after the samples are Ready: the workflows, one after the other, on the sample instances.
func (e *environment) tour() []scene {
	return []scene{
		{"an image from a web server, imported into the pool", []string{
			"apply --server-side -f " + e.file("tour/image.yaml"),
			"wait --for=condition=Ready --timeout=2m xenclusterimage/tools",
			"get xenclusterimages",
		}},
		{"a snapshot of a running VM, uploaded to the web server", []string{
			"apply --server-side -f " + e.file("tour/snapshot.yaml"),
			"wait --for=condition=Ready --timeout=2m -n demo xensnapshot/web-before",
			"get xensnapshots -n demo -o wide",
		}},
		{"a rescue: the VM stands still, and another one runs with its disks", []string{
			"xen rescue web -n demo --image tools",
			"get xeninstances -n demo -o wide",
			"xen unrescue web -n demo",
			"get xeninstances -n demo",
		}},
		{"a deletion, and the VM back from the trash", []string{
			"delete xeninstance web -n demo",
			"xen undelete web -n demo -f " + e.file("tour/web.yaml"),
			"wait --for=condition=Ready --timeout=2m -n demo xeninstance/web",
			"get xeninstances -n demo -o wide",
		}},
		{"a larger size that its user confirms: CPU, memory and disk in one restart, with a restore point of the disk", []string{
			"patch xeninstance web -n demo --type merge --patch={\"spec\":{\"resize\":{\"confirmation\":\"Manual\"}}}",
			"xen resize web -n demo --flavor medium --restart",
			"get xeninstance web -n demo -o jsonpath={.status.resize}",
			"xen confirm web -n demo",
			"get xeninstances -n demo",
		}},
		{"another host, while the VM runs", []string{
			"xen migrate web -n demo --host xs2",
			"get xeninstances -n demo -o wide",
		}},
	}
}

// showTour plays the scenes, each command and what it prints.
func (e *environment) showTour(ctx context.Context) error {
	if err := e.writeTour(); err != nil {
		return err
	}
	for _, scene := range e.tour() {
		e.story.tell("tour", "%s", scene.title)
		for _, command := range scene.commands {
			output, err := e.kubectl(ctx, strings.Fields(command)...)
			e.story.show("$ kubectl " + command + "\n" + strings.TrimRight(output, "\n"))
			if err != nil {
				return fmt.Errorf("the tour: %w", err)
			}
		}
	}
	e.story.tell("tour", "it is over; what was uploaded is in %s", e.store.dir)
	return nil
}

// toolsDisk is the size of the tour's image; a real one would hold a system.
const toolsDisk = 8 << 20

// writeTour puts an image into the store and writes the manifests of the tour.
func (e *environment) writeTour() error {
	image := make([]byte, toolsDisk)
	copy(image, "tools to repair a VM with")
	if err := os.WriteFile(e.store.path("tools.img"), image, 0o600); err != nil {
		return err
	}
	sum := sha256.Sum256(image)
	if err := os.MkdirAll(e.file("tour"), 0o755); err != nil {
		return err
	}
	web, err := os.ReadFile(e.root + "/config/samples/instance_web.yaml")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"web.yaml": string(web),
		"image.yaml": fmt.Sprintf(`apiVersion: kubexen.io/v1alpha1
kind: XenClusterImage
metadata:
  name: tools
spec:
  source:
    http:
      url: http://%s/tools.img
  checksum:
    algorithm: SHA256
    value: %s
  format: Raw
  pools:
  - name: lab
`, e.store.address, hex.EncodeToString(sum[:])),
		"snapshot.yaml": fmt.Sprintf(`apiVersion: kubexen.io/v1alpha1
kind: XenSnapshot
metadata:
  name: web-before
  namespace: demo
spec:
  instanceRef:
    name: web
  destination:
    format: VHD
    http:
      urlTemplate: http://%s/{namespace}-{snapshot}-{file}
`, e.store.address),
	} {
		if err := os.WriteFile(e.file("tour/"+name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
