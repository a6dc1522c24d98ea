// Package gitops asks kstatus, Argo CD's Lua and Flux's CEL how they read the states of our objects, and holds them to
// one answer.
package gitops

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	healthLua = "../../config/gitops/argocd/health.lua"
	fluxFile  = "../../config/gitops/flux/virtual-machines.yaml"
	argoFile  = "../../config/gitops/argocd/kustomization.yaml"
	crdFiles  = "../../config/crd/bases/*.yaml"
)

// conditions of a state: the statuses of Ready, Reconciling, Stalled and Paused, in this order. Empty means absent.
type conditions [4]string

// states are what an object can say of itself, and how each tool has to read it.
var states = map[string]struct {
	conditions         conditions
	observedGeneration int64 // of generation 2; 0 means no status at all
	kstatus            status.Status
	argo               string
}{
	"just made":                         {conditions{}, -1, status.InProgressStatus, "Progressing"},
	"made, without any status":          {conditions{}, 0, status.InProgressStatus, "Progressing"},
	"being made":                        {conditions{"False", "True", "False", "False"}, 2, status.InProgressStatus, "Progressing"},
	"as asked, or waiting for its user": {conditions{"True", "False", "False", "False"}, 2, status.CurrentStatus, "Healthy"},
	"as asked before the last edit":     {conditions{"True", "False", "False", "False"}, 1, status.InProgressStatus, "Progressing"},
	"a change is in flight":             {conditions{"True", "True", "False", "False"}, 2, status.InProgressStatus, "Progressing"},
	"waiting for a dependency":          {conditions{"False", "False", "False", "False"}, 2, status.InProgressStatus, "Progressing"},
	"stalled":                           {conditions{"False", "False", "True", "False"}, 2, status.FailedStatus, "Degraded"},
	"stalled before the last edit":      {conditions{"False", "False", "True", "False"}, 1, status.InProgressStatus, "Progressing"},
	"its pool is unreachable":           {conditions{"Unknown", "False", "False", "False"}, 2, status.InProgressStatus, "Progressing"},
	"paused, as asked":                  {conditions{"True", "False", "False", "True"}, 2, status.CurrentStatus, "Suspended"},
	"paused in the middle of a change":  {conditions{"False", "False", "False", "True"}, 2, status.InProgressStatus, "Suspended"},
	"paused and stalled":                {conditions{"False", "False", "True", "True"}, 2, status.FailedStatus, "Degraded"},
}

func TestStates(t *testing.T) {
	script, err := os.ReadFile(healthLua)
	if err != nil {
		t.Fatal(err)
	}
	for name, state := range states {
		object := objectIn(state.conditions, state.observedGeneration)
		t.Run(name, func(t *testing.T) {
			if health := argoHealth(t, string(script), object); health != state.argo {
				t.Errorf("Argo CD reads %s, want %s", health, state.argo)
			}
			if state.observedGeneration == 0 {
				return // ours have a status from their first moment on, by the CRD's default; the others count on that
			}
			got, err := status.Compute(object)
			if err != nil || got.Status != state.kstatus {
				t.Errorf("kstatus reads %v (%v), want %s", got, err, state.kstatus)
			}
			for kind, expressions := range fluxExpressions(t) {
				evaluator, err := cel.NewStatusEvaluator(&expressions)
				if err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
				health, err := evaluator.Evaluate(context.Background(), object)
				if err != nil || health.Status != state.kstatus {
					t.Errorf("Flux reads %s as %v (%v), want %s", kind, health, err, state.kstatus)
				}
			}
		})
	}
}

func objectIn(c conditions, observedGeneration int64) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "kubexen.io/v1alpha1",
		"kind":       "XenInstance",
		"metadata":   map[string]any{"name": "web", "namespace": "team-a", "generation": int64(2)},
	}}
	if observedGeneration == 0 {
		return object
	}
	content := map[string]any{"observedGeneration": observedGeneration}
	var list []any
	for i, kind := range []string{"Ready", "Reconciling", "Stalled", "Paused"} {
		if c[i] != "" {
			list = append(list, map[string]any{"type": kind, "status": c[i], "reason": "Because", "message": "of something"})
		}
	}
	if list != nil {
		content["conditions"] = list
	}
	object.Object["status"] = content

	return object
}

// argoHealth runs the script as Argo CD does: the object is the global obj, the answer is a table.
func argoHealth(t *testing.T, script string, object *unstructured.Unstructured) string {
	t.Helper()
	// Through JSON, so that numbers are what Argo CD gives to Lua.
	text, err := object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := json.Unmarshal(text, &content); err != nil {
		t.Fatal(err)
	}
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", luaValue(state, content))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	answer, isTable := state.Get(-1).(*lua.LTable)
	if !isTable {
		t.Fatalf("the script answers %v", state.Get(-1))
	}
	if answer.RawGetString("message").String() == "" {
		t.Error("the script gives no message")
	}

	return answer.RawGetString("status").String()
}

func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, inner := range value {
			table.RawSetString(key, luaValue(state, inner))
		}

		return table
	case []any:
		table := state.NewTable()
		for _, inner := range value {
			table.Append(luaValue(state, inner))
		}

		return table
	case string:
		return lua.LString(value)
	case float64:
		return lua.LNumber(value)
	case bool:
		return lua.LBool(value)
	default:
		return lua.LNil
	}
}

// fluxExpressions reads the expressions of the Flux example, by kind.
func fluxExpressions(t *testing.T) map[string]kustomize.HealthCheckExpressions {
	t.Helper()
	var example struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	readYAML(t, fluxFile, &example)
	byKind := map[string]kustomize.HealthCheckExpressions{}
	for _, check := range example.Spec.HealthCheckExprs {
		byKind[check.Kind] = check.HealthCheckExpressions
	}

	return byKind
}

// TestEveryKindIsCovered compares the kinds that both tools are told of with the CRDs.
func TestEveryKindIsCovered(t *testing.T) {
	var component struct {
		ConfigMapGenerator []struct {
			Files []string `json:"files"`
		} `json:"configMapGenerator"`
	}
	readYAML(t, argoFile, &component)
	flux := fluxExpressions(t)
	paths, err := filepath.Glob(crdFiles)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, path := range paths {
		var definition struct {
			Spec struct {
				Names struct {
					Kind string `json:"kind"`
				} `json:"names"`
			} `json:"spec"`
		}
		readYAML(t, path, &definition)
		kind := definition.Spec.Names.Kind
		if _, there := flux[kind]; !there {
			t.Errorf("%s has no expressions for %s", fluxFile, kind)
		}
		entry := "resource.customizations.health.kubexen.io_" + kind + "=health.lua"
		if !slices.Contains(component.ConfigMapGenerator[0].Files, entry) {
			t.Errorf("%s has no %s", argoFile, entry)
		}
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
