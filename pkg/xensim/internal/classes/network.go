package classes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// Networks that VMs are plugged into.

func (w *World) registerNetwork() {
	w.Handle("network.create", w.networkCreate)
	w.handle("network.destroy", w.networkDestroy)
	w.handle("network.set_default_locking_mode", func(c *xapi.Call) error {
		w.Set("network", c.Self(), db.Fields{"default_locking_mode": c.Str("value")})
		return nil
	})
	w.handle("network.add_purpose", w.networkAddPurpose)
	w.handle("network.remove_purpose", func(c *xapi.Call) error {
		purpose := slices.DeleteFunc(slices.Clone(w.DB().Get("network", c.Self()).Strs("purpose")),
			func(p string) bool { return p == c.Str("value") })
		w.Set("network", c.Self(), db.Fields{"purpose": purpose})
		return nil
	})
}

// reservedBridges are prefixes of names that a client may not give to a bridge.
var reservedBridges = []string{"xen", "xapi", "vif", "tap", "eth"}

func (w *World) networkCreate(c *xapi.Call) (any, error) {
	fields := c.Fields("args")
	bridges := map[string]bool{}
	for _, network := range w.DB().Refs("network") {
		bridges[w.text("network", network, "bridge")] = true
	}
	const longest = 15
	bridge, _ := fields["bridge"].(string)
	switch {
	case bridge == "":
		for number := 0; bridge == "" || bridges[bridge]; number++ {
			bridge = fmt.Sprintf("xapi%d", number)
		}
	case len(bridge) > longest, slices.ContainsFunc(reservedBridges, func(p string) bool { return strings.HasPrefix(bridge, p) }):
		return nil, xapi.Fail("INVALID_VALUE", "bridge", bridge)
	case bridges[bridge]:
		return nil, xapi.Fail("BRIDGE_NAME_EXISTS", bridge)
	}
	fields["bridge"], fields["default_locking_mode"] = bridge, "unlocked"
	if mtu, _ := fields["MTU"].(int64); mtu <= 0 {
		fields["MTU"] = int64(1500)
	}
	return w.Create("network", fields), nil
}

// networkDestroy refuses while something is plugged in; interfaces that are not plugged go with the network.
func (w *World) networkDestroy(c *xapi.Call) error {
	network := c.Self()
	r := w.DB().Get("network", network)
	var plugged []string
	for _, vif := range r.Strs("VIFs") {
		if w.DB().Get("VIF", vif).Bool("currently_attached") {
			plugged = append(plugged, vif)
		}
	}
	switch {
	case len(plugged) > 0:
		return xapi.Fail("NETWORK_CONTAINS_VIF", plugged...)
	case len(r.Strs("PIFs")) > 0:
		return xapi.Fail("NETWORK_CONTAINS_PIF", r.Strs("PIFs")...)
	case r.Map("other_config")["is_host_internal_management_network"] == "true":
		return xapi.Fail("CANNOT_DESTROY_SYSTEM_NETWORK", network)
	}
	for _, vif := range r.Strs("VIFs") {
		w.deleteVIF(vif)
	}
	w.DB().Delete("network", network)
	return nil
}

func (w *World) networkAddPurpose(c *xapi.Call) error {
	network, purpose := c.Self(), c.Str("value")
	old := w.DB().Get("network", network).Strs("purpose")
	if slices.Contains(old, purpose) {
		return nil
	}
	opposite := map[string]string{"nbd": "insecure_nbd", "insecure_nbd": "nbd"}[purpose]
	for _, other := range w.DB().Refs("network") {
		if opposite != "" && slices.Contains(w.DB().Get("network", other).Strs("purpose"), opposite) {
			return xapi.Fail("NETWORK_INCOMPATIBLE_PURPOSES", purpose, opposite)
		}
	}
	w.Set("network", network, db.Fields{"purpose": append([]string{purpose}, old...)})
	return nil
}
