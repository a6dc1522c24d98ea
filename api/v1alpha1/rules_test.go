package v1alpha1_test

import (
	"maps"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/kubexen/kubexen/pkg/testkit"
)

// ruleCase shows one CEL rule accepting and refusing. Accept and refuse are merge patches over a valid object; with
// update the object exists already and the patch changes it, which is what transition rules look at.
type ruleCase struct {
	object string // in testdata/objects
	update bool
	accept string
	refuse string
}

// ruleCases has at least one case for every rule: kind, then the rule's message.
var ruleCases = map[string]map[string][]ruleCase{
	"XenPool": {
		"an endpoint must be an https URL (http for a loopback address only)": {
			{object: "xenpool", accept: `spec: {endpoints: ["https://xs1"]}`, refuse: `spec: {endpoints: ["http://xs1"]}`},
			{object: "xenpool", accept: `spec: {endpoints: ["http://localhost:80"]}`, refuse: `spec: {endpoints: ["ftp://localhost"]}`},
			{object: "xenpool", accept: `spec: {endpoints: ["http://[::1]"]}`, refuse: `spec: {endpoints: ["xs1.example.org"]}`},
		},
		"an endpoint must be a bare host: no user, path, query or fragment": {
			{object: "xenpool", accept: `spec: {endpoints: ["https://xs1/"]}`, refuse: `spec: {endpoints: ["https://xs1/api"]}`},
			{object: "xenpool", accept: `spec: {endpoints: ["https://xs1:444"]}`, refuse: `spec: {endpoints: ["https://root:pw@xs1"]}`},
			{object: "xenpool", accept: `spec: {endpoints: ["https://192.0.2.1"]}`, refuse: `spec: {endpoints: ["https://xs1?a=b"]}`},
		},
		"exactly one of caBundleSecretRef, fingerprintsSHA256 and insecureSkipVerify: true must be set": {
			{object: "xenpool", accept: `spec: {tls: {insecureSkipVerify: false}}`, refuse: `spec: {tls: {insecureSkipVerify: true}}`},
			{object: "xenpool-insecure", accept: `spec: {tls: {insecureSkipVerify: true}}`, refuse: `spec: {tls: {insecureSkipVerify: false}}`},
		},
		"selector must be set exactly when from is Selector": {
			{object: "xenpool", accept: `spec: {grants: [{namespaces: {from: All}}]}`, refuse: `spec: {grants: [{namespaces: {from: Selector}}]}`},
			{
				object: "xenpool", accept: `spec: {grants: [{namespaces: {from: Selector, selector: {}}}]}`,
				refuse: `spec: {grants: [{namespaces: {from: All, selector: {}}}]}`,
			},
		},
		"memory must not be negative": {
			{object: "xenpool", accept: grantWithQuota(`memory: 0`), refuse: grantWithQuota(`memory: -1Gi`)},
		},
		"storage must not be negative": {
			{object: "xenpool", accept: grantWithQuota(`storage: "0"`), refuse: grantWithQuota(`storage: -1`)},
		},
	},
	"XenFlavor": {
		"a flavor is immutable: make a new one and name it in flavorRef": {
			{object: "xenflavor", update: true, accept: `metadata: {labels: {a: b}}`, refuse: `spec: {vcpus: 3, maxVCPUs: 6}`},
			{object: "xenflavor", update: true, accept: `spec: {cpuCap: 150}`, refuse: `spec: {cpuCap: null}`},
		},
		"maxVCPUs must not be below vcpus": {
			{object: "xenflavor", accept: `spec: {vcpus: 4, maxVCPUs: 4}`, refuse: `spec: {vcpus: 5, maxVCPUs: 4}`},
		},
		"coresPerSocket must divide maxVCPUs (vcpus where maxVCPUs is absent)": {
			{object: "xenflavor", accept: `spec: {maxVCPUs: 6, coresPerSocket: 3}`, refuse: `spec: {maxVCPUs: 4, coresPerSocket: 3}`},
			{object: "xenflavor", accept: `spec: {vcpus: 3, maxVCPUs: null, coresPerSocket: 3}`, refuse: `spec: {vcpus: 2, maxVCPUs: null, coresPerSocket: 3}`},
		},
		"maxMemory must not be below memory": {
			{object: "xenflavor", accept: `spec: {memory: 2Gi, maxMemory: 2048Mi}`, refuse: `spec: {memory: 2Gi, maxMemory: 2047Mi}`},
			{object: "xenflavor", accept: `spec: {memory: 1073741824, maxMemory: 1Gi}`, refuse: `spec: {memory: 1073741825, maxMemory: 1Gi}`},
		},
		"memory must be between 16Mi and 32Ti": {
			{object: "xenflavor", accept: `spec: {memory: 16Mi}`, refuse: `spec: {memory: 15Mi}`},
			{object: "xenflavor", accept: `spec: {memory: 32Ti, maxMemory: 32Ti}`, refuse: `spec: {memory: 33Ti, maxMemory: 33Ti}`},
		},
		"maxMemory must be at most 32Ti": {
			{object: "xenflavor", accept: `spec: {maxMemory: 32Ti}`, refuse: `spec: {maxMemory: 33Ti}`},
		},
		"rootDisk must be between 1Mi and 64Ti":      quantityCases("xenflavor", "rootDisk", "1Mi", "64Ti"),
		"ephemeralDisk must be between 1Mi and 64Ti": quantityCases("xenflavor", "ephemeralDisk", "1Mi", "64Ti"),
		"swapDisk must be between 1Mi and 2Ti":       quantityCases("xenflavor", "swapDisk", "1Mi", "2Ti"),
	},
	"XenImage":        imageCases("xenimage"),
	"XenClusterImage": imageCases("xenclusterimage"),
	"XenInstance": {
		"poolRef is immutable": {
			{object: "xeninstance", update: true, accept: `spec: {poolRef: {name: lab}}`, refuse: `spec: {poolRef: {name: other}}`},
		},
		"source is immutable": {
			{object: "xeninstance", update: true, accept: `spec: {description: new}`, refuse: `spec: {source: {imageRef: {name: other}}}`},
			{
				object: "xeninstance-template-name", update: true, accept: `spec: {flavorRef: {name: other}}`,
				refuse: `spec: {source: {templateName: null, templateUUID: 06fda4a9-93be-c816-cffc-cf4852227f3b}}`,
			},
		},
		"flavorRef is required unless source is existing, snapshotRef or backup, which have a size of their own": {
			{object: "xeninstance-backup-http", accept: `spec: {flavorRef: null}`, refuse: `spec: {flavorRef: null, source: {backup: null, templateName: a}}`},
			{object: "xeninstance-snapshot", accept: `spec: {flavorRef: {name: a}}`, refuse: `spec: {source: {snapshotRef: null, templateName: a}}`},
			{object: "xeninstance-iso", accept: `spec: {flavorRef: {name: other}}`, refuse: `spec: {flavorRef: null}`},
			{object: "xeninstance-existing", update: true, accept: `spec: {flavorRef: {name: medium}}`, refuse: `spec: {source: {existing: null, templateName: a}}`},
		},
		"nameLabel must not begin with kubexen/: such names tell the operator whose an unfinished VM is": {
			{object: "xeninstance", accept: `spec: {nameLabel: kubexen}`, refuse: `spec: {nameLabel: kubexen/one/XenInstance/a/b/vm}`},
			{object: "xeninstance", update: true, accept: `spec: {nameLabel: team/kubexen/web}`, refuse: `spec: {nameLabel: kubexen/web}`},
		},
		"adoption needs source.existing": {
			{object: "xeninstance-existing", accept: `spec: {adoption: {onMismatch: Hold}}`, refuse: `spec: {source: {existing: null, templateName: a}, flavorRef: {name: a}}`},
		},
		"bootstrap is for new VMs: it cannot stand with source.existing": {
			{object: "xeninstance-existing", accept: `spec: {description: a}`, refuse: `spec: {bootstrap: {generatePassword: true}}`},
		},
		"recreatePolicy IfMissing cannot stand with source.existing: there is nothing to make the VM from": {
			{object: "xeninstance-existing", accept: `spec: {recreatePolicy: Never}`, refuse: `spec: {recreatePolicy: IfMissing}`},
		},
		"rescue.imageRef cannot be the instance's own image: the guest could not tell its file systems from those to be repaired": {
			{
				object: "xeninstance", accept: `spec: {rescue: {imageRef: {kind: XenClusterImage, name: debian}}}`,
				refuse: `spec: {rescue: {imageRef: {kind: XenImage, name: debian}}}`,
			},
			{object: "xeninstance", accept: `spec: {rescue: {imageRef: null}}`, refuse: `spec: {rescue: {imageRef: {kind: XenImage, name: debian}}}`},
		},
		"the name of a XenInstance has at most 63 characters: it is the guest's host name": {
			{object: "xeninstance-iso", accept: `metadata: {name: ` + strings.Repeat("a", 63) + `}`, refuse: `metadata: {name: ` + strings.Repeat("a", 64) + `}`},
		},
		"exactly one of s3 and http must be set": {
			{object: "xeninstance-backup-http", accept: `spec: {source: {backup: {manifestSHA256: "` + digits(64) + `"}}}`, refuse: `spec: {source: {backup: {http: null}}}`},
		},
		s3EndpointRule: {
			{object: "xeninstance-backup-s3", accept: `spec: {source: {backup: {s3: {endpoint: "https://a/"}}}}`, refuse: `spec: {source: {backup: {s3: {endpoint: "https://a#b"}}}}`},
		},
		urlRule: {
			{object: "xeninstance-backup-http", accept: `spec: {source: {backup: {http: {url: "https://a/manifest.json"}}}}`, refuse: `spec: {source: {backup: {http: {url: "ftp://a/b"}}}}`},
		},
		"exactly one source must be set: imageRef, templateName, templateUUID, snapshotRef, backup, iso or existing": {
			{object: "xeninstance-snapshot", accept: `spec: {flavorRef: {name: a}}`, refuse: `spec: {source: {templateName: a}}`},
			{object: "xeninstance-iso", accept: `spec: {source: {iso: null, templateName: a}}`, refuse: `spec: {source: {templateName: a}}`},
			{object: "xeninstance-iso", accept: `spec: {source: {iso: {name: a}}}`, refuse: `spec: {source: {iso: null}}`},
		},
		"size must be between 1Mi and 64Ti": {
			{object: "xeninstance", accept: `spec: {rootDisk: {size: 64Ti}}`, refuse: `spec: {rootDisk: {size: 65Ti}}`},
			{object: "xeninstance", accept: `spec: {disks: [{name: a, size: 1Mi}]}`, refuse: `spec: {disks: [{name: a, size: 1}]}`},
		},
		"shrinkTo must be between 1Mi and 64Ti": {
			{object: "xeninstance", accept: `spec: {rootDisk: {shrinkTo: 1Mi}}`, refuse: `spec: {rootDisk: {shrinkTo: 1}}`},
			{object: "xeninstance", accept: `spec: {rootDisk: {shrinkTo: 64Ti}}`, refuse: `spec: {rootDisk: {shrinkTo: 65Ti}}`},
		},
		"confirmTimeoutSeconds needs confirmation Manual: nothing else waits for you": {
			{
				object: "xeninstance", accept: `spec: {resize: {confirmation: Manual, confirmTimeoutSeconds: 60}}`,
				refuse: `spec: {resize: {confirmation: Automatic, confirmTimeoutSeconds: 60}}`,
			},
			{
				object: "xeninstance", accept: `spec: {resize: {confirmation: null, confirmTimeoutSeconds: null, onTimeout: null}}`,
				refuse: `spec: {resize: {confirmation: null, confirmTimeoutSeconds: 60}}`,
			},
		},
		"onTimeout needs confirmTimeoutSeconds": {
			{
				object: "xeninstance", accept: `spec: {resize: {confirmTimeoutSeconds: 1, onTimeout: Confirm}}`,
				refuse: `spec: {resize: {confirmTimeoutSeconds: null, onTimeout: Confirm}}`,
			},
		},
		"exactly one of size (a new disk) and vdiUUID (an existing disk) must be set": {
			{object: "xeninstance", accept: `spec: {disks: [{name: a, size: 1Gi}]}`, refuse: `spec: {disks: [{name: a}]}`},
			{
				object: "xeninstance", accept: `spec: {disks: [{name: a, vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}]}`,
				refuse: `spec: {disks: [{name: a, size: 1Gi, vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}]}`,
			},
		},
		"root is the name of the root disk: give a data disk another": {
			{object: "xeninstance", accept: `spec: {disks: [{name: rooted, size: 1Gi}]}`, refuse: `spec: {disks: [{name: root, size: 1Gi}]}`},
		},
		"storageRepository is for new disks: it cannot stand with vdiUUID": {
			{
				object: "xeninstance", accept: `spec: {disks: [{name: a, size: 1Gi, storageRepository: b}]}`,
				refuse: `spec: {disks: [{name: a, storageRepository: b, vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}]}`,
			},
		},
		"a disk cannot shrink: size can only be raised": {
			{object: "xeninstance", update: true, accept: `spec: {disks: [{name: data, size: 11Gi}]}`, refuse: `spec: {disks: [{name: data, size: 9Gi}]}`},
			{object: "xeninstance", update: true, accept: `spec: {disks: [{name: other, size: 1Gi}]}`, refuse: `spec: {disks: [{name: other, size: 1Gi}, {name: data, size: 10239Mi}]}`},
		},
		"vdiUUID is immutable: take the entry out and add another name": {
			{
				object: "xeninstance", update: true, accept: `spec: {disks: [{name: other, vdiUUID: 00000000-0000-0000-0000-000000000000}]}`,
				refuse: `spec: {disks: [{name: shared, vdiUUID: 00000000-0000-0000-0000-000000000000}]}`,
			},
			{object: "xeninstance", update: true, accept: `spec: {disks: []}`, refuse: `spec: {disks: [{name: shared, size: 1Gi}]}`},
		},
		"device 3 is the config drive's": {
			{object: "xeninstance", accept: `spec: {disks: [{name: a, size: 1Gi, device: 4}]}`, refuse: `spec: {disks: [{name: a, size: 1Gi, device: 3}]}`},
		},
		"two disks have the same device": {
			{
				object: "xeninstance", accept: `spec: {disks: [{name: a, size: 1Gi, device: 4}, {name: b, size: 1Gi, device: 5}, {name: c, size: 1Gi}]}`,
				refuse: `spec: {disks: [{name: a, size: 1Gi, device: 4}, {name: b, size: 1Gi, device: 4}]}`,
			},
		},
		"two networks have the same device": {
			{
				object: "xeninstance", accept: `spec: {networks: [{name: a, device: 0}, {name: b, device: 1}, {name: c}]}`,
				refuse: `spec: {networks: [{name: a, device: 1}, {name: b, device: 1}]}`,
			},
		},
		"two networks have the same mac": {
			{
				object: "xeninstance", accept: `spec: {networks: [{name: a, mac: "02:00:00:00:00:aa"}, {name: b, mac: "02:00:00:00:00:ab"}, {name: c}]}`,
				refuse: `spec: {networks: [{name: a, mac: "02:00:00:00:00:aa"}, {name: b, mac: "02:00:00:00:00:AA"}]}`,
			},
		},
		"at least one of userData, networkData, metaData and generatePassword: true must be set": {
			{object: "xeninstance-iso", accept: `spec: {bootstrap: {metaData: {a: b}}}`, refuse: `spec: {bootstrap: {generatePassword: false}}`},
		},
		"a metaData key has at most 253 characters": {
			{
				object: "xeninstance", accept: `spec: {bootstrap: {metaData: {"` + long(253) + `": b}}}`,
				refuse: `spec: {bootstrap: {metaData: {"` + long(254) + `": b}}}`,
			},
		},
		"exactly one of secretKeyRef and configMapKeyRef must be set": {
			{object: "xeninstance", accept: `spec: {bootstrap: {userData: {secretKeyRef: {name: b}}}}`, refuse: `spec: {bootstrap: {userData: {configMapKeyRef: {name: a, key: b}}}}`},
			{
				object: "xeninstance", accept: `spec: {bootstrap: {networkData: {configMapKeyRef: {name: b}}}}`,
				refuse: `spec: {bootstrap: {networkData: {configMapKeyRef: null}}}`,
			},
		},
		"pin needs host": {
			{object: "xeninstance", accept: `spec: {placement: {host: null, pin: false}}`, refuse: `spec: {placement: {host: null}}`},
		},
	},
}

func grantWithQuota(quota string) string {
	return `spec: {grants: [{namespaces: {from: All}, quota: {` + quota + `}}]}`
}

func quantityCases(object, field, least, most string) []ruleCase {
	patch := func(value string) string { return "spec: {" + field + ": " + value + "}" }

	return []ruleCase{
		{object: object, accept: patch(least), refuse: patch("1Ki")},
		{object: object, accept: patch(most), refuse: patch("65Ti")},
	}
}

func long(length int) string { return strings.Repeat("k", length) }

func digits(count int) string { return strings.Repeat("0", count) }

func imageCases(object string) map[string][]ruleCase {
	cases := fileCases(object)
	maps.Copy(cases, map[string][]ruleCase{
		"an image is immutable: make a new one": {
			{object: object, update: true, accept: `metadata: {annotations: {a: b}}`, refuse: `spec: {minMemory: 2Gi}`},
		},
		"source.existing names an object of one pool: pools must have exactly one entry": {
			{object: object, accept: `spec: {pools: [{name: a}]}`, refuse: `spec: {pools: [{name: a}, {name: b}]}`},
		},
		"templateName, firmware and secureBoot are the template's own when source.existing.templateUUID is set": {
			{object: object + "-template", accept: `spec: {minDisk: 1Gi}`, refuse: `spec: {templateName: a}`},
			{object: object + "-template", accept: `spec: {minMemory: 1Gi}`, refuse: `spec: {firmware: UEFI}`},
		},
		"secureBoot needs firmware UEFI": {
			{object: object, accept: `spec: {firmware: BIOS, secureBoot: false}`, refuse: `spec: {firmware: BIOS, secureBoot: true}`},
			{object: object, accept: `spec: {firmware: null, secureBoot: null}`, refuse: `spec: {firmware: null, secureBoot: true}`},
		},
		"exactly one source must be set: existing, http, s3, glance or snapshot": {
			{object: object, accept: `spec: {minDisk: 1Gi}`, refuse: `spec: {source: {existing: null}}`},
			{object: object + "-snapshot", accept: `spec: {minDisk: 1Gi}`, refuse: `spec: {source: {existing: {templateUUID: 06fda4a9-93be-c816-cffc-cf4852227f3b}}}`},
			{object: object + "-s3", accept: `spec: {minDisk: 1Gi}`, refuse: `spec: {source: {http: {url: "https://a/b"}}, checksum: {algorithm: SHA256, value: "` + digits(64) + `"}}`},
		},
		"exactly one of templateUUID and vdiUUID must be set": {
			{object: object, accept: `spec: {minDisk: 1Gi}`, refuse: `spec: {source: {existing: {vdiUUID: null}}}`},
			{
				object: object + "-template", accept: `spec: {minDisk: 1Gi}`,
				refuse: `spec: {source: {existing: {vdiUUID: 8f80128c-ff30-4031-af96-0dd71289082c}}}`,
			},
		},
		"minDisk must be between 1Mi and 64Ti": quantityCases(object, "minDisk", "1Mi", "64Ti"),
		"minMemory must be between 16Mi and 32Ti": {
			{object: object, accept: `spec: {minMemory: 16Mi}`, refuse: `spec: {minMemory: 15Mi}`},
			{object: object, accept: `spec: {minMemory: 32Ti}`, refuse: `spec: {minMemory: 33Ti}`},
		},
	})

	return cases
}

// TestEveryRuleHasACase fails for a rule in a CRD that no case shows, and for a case whose rule is gone.
func TestEveryRuleHasACase(t *testing.T) {
	for kind, schema := range loadSchemas(t) {
		messages := map[string]struct{}{}
		collect := func(_ string, field, _ *apiextensionsv1.JSONSchemaProps) {
			for _, rule := range field.XValidations {
				messages[rule.Message] = struct{}{}
			}
		}
		collect("", schema, nil)
		walkParts(schema, collect)
		for message := range messages {
			if message == "" {
				t.Errorf("%s has a rule without a message", kind)
			}
			if len(ruleCases[kind][message]) == 0 {
				t.Errorf("%s: no case shows the rule %q", kind, message)
			}
		}
		for message := range ruleCases[kind] {
			if _, there := messages[message]; !there {
				t.Errorf("%s: a case shows the rule %q, which no schema has", kind, message)
			}
		}
	}
}

func TestRules(t *testing.T) {
	environment := testkit.Start(t)
	namespace := environment.Namespace(t)
	for kind, rules := range ruleCases {
		for message, cases := range rules {
			for _, c := range cases {
				t.Run(kind+"/"+message, func(t *testing.T) {
					base := loadObject(t, c.object, namespace)
					if c.update {
						base = created(t, environment, base)
					}
					if err := try(t, environment, c, patched(t, base, c.accept)); err != nil {
						t.Errorf("accept %s: %v", c.accept, err)
					}
					err := try(t, environment, c, patched(t, base, c.refuse))
					if !errors.IsInvalid(err) || !strings.Contains(err.Error(), message) {
						t.Errorf("refuse %s: %v", c.refuse, err)
					}
				})
			}
		}
	}
}

// try asks the API server what it would say; nothing is stored.
func try(t *testing.T, environment *testkit.Environment, c ruleCase, object *unstructured.Unstructured) error {
	t.Helper()
	if c.update {
		return environment.Client.Update(t.Context(), object, client.DryRunAll)
	}

	return environment.Client.Create(t.Context(), object, client.DryRunAll)
}

// created stores an object for the time of the test.
func created(t *testing.T, environment *testkit.Environment, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	if err := environment.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	deleteAfterwards(t, environment, object.DeepCopy())

	return object
}

// patched applies a JSON merge patch, written as YAML, to a copy of an object.
func patched(t *testing.T, object *unstructured.Unstructured, patch string) *unstructured.Unstructured {
	t.Helper()
	original, err := object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	change, err := yaml.YAMLToJSON([]byte(patch))
	if err != nil {
		t.Fatalf("%s: %v", patch, err)
	}
	text, err := jsonpatch.MergePatch(original, change)
	if err != nil {
		t.Fatalf("%s: %v", patch, err)
	}
	changed := &unstructured.Unstructured{}
	if err := changed.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}

	return changed
}
