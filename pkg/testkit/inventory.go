package testkit

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// inventory is what a world's managers have on the pool, one line an object, in an order that does not depend on when
// it was made. Two runs of one workflow must leave the same, however often the manager died: a line more is a leak or
// a twin, a line less is a loss.
func (w *World) inventory() []string {
	var lines []string
	ours := func(class string, describe func(record map[string]any) string) {
		for ref, record := range w.Simulator.Records(class) {
			if !w.strangers.has(class, ref) {
				if line := describe(record); line != "" {
					lines = append(lines, class+" "+strings.ReplaceAll(line, w.Namespace, "<namespace>"))
				}
			}
		}
	}
	vms, disks := w.Simulator.Records("VM"), w.Simulator.Records("VDI")
	ours("VM", func(r map[string]any) string {
		return fmt.Sprintf("%s %q %s template=%v snapshot=%v memory=%v VCPUs=%v", role(r), r["name_label"], r["power_state"],
			r["is_a_template"], r["is_a_snapshot"], r["memory_static_max"], r["VCPUs_max"])
	})
	ours("VDI", func(r map[string]any) string {
		if r["managed"] == false {
			return "" // a node of a copy-on-write tree; which are there is the storage's business
		}
		return fmt.Sprintf("%s %q %v bytes, attached %d times", role(r), r["name_label"], r["virtual_size"], len(stringsOf(r["VBDs"])))
	})
	ours("VBD", func(r map[string]any) string {
		return fmt.Sprintf("%s of %q: %v %v %q attached=%v", r["userdevice"], nameIn(vms, r["VM"]), r["type"], r["mode"],
			nameIn(disks, r["VDI"]), r["currently_attached"])
	})
	ours("VIF", func(r map[string]any) string {
		return fmt.Sprintf("%s of %q attached=%v", r["device"], nameIn(vms, r["VM"]), r["currently_attached"])
	})
	ours("VTPM", func(r map[string]any) string { return fmt.Sprintf("of %q", nameIn(vms, r["VM"])) })
	for ref, r := range w.Simulator.Records("task") {
		status := strings.ToLower(fmt.Sprint(r["status"]))
		if _, old := w.oldTasks[ref]; !old || status == "pending" {
			lines = append(lines, fmt.Sprintf("task %q %s", r["name_label"], status))
		}
	}
	slices.Sort(lines)
	return lines
}

func role(record map[string]any) string {
	config, _ := record["other_config"].(map[string]string)
	if role := config["kubexen.io/role"]; role != "" {
		return role
	}
	return "(no role)"
}

func nameIn(records map[string]map[string]any, ref any) any {
	text, _ := ref.(string)
	return records[text]["name_label"]
}

// difference shows what one inventory has over the other.
func difference(want, got []string) string {
	var out strings.Builder
	left := slices.Clone(got)
	for _, line := range want {
		if i := slices.Index(left, line); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		fmt.Fprintf(&out, "  missing: %s\n", line)
	}
	for _, line := range left {
		fmt.Fprintf(&out, "  too much: %s\n", line)
	}
	return out.String()
}

// eachItem calls a function for each object of a list.
func eachItem(list client.ObjectList, each func(client.Object)) error {
	return meta.EachListItem(list, func(item runtime.Object) error {
		object, ok := item.(client.Object)
		if !ok {
			return fmt.Errorf("%T is no object", item)
		}
		each(object)
		return nil
	})
}
