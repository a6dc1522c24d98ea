package classes

import (
	"fmt"
	"strconv"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// VLANs: interfaces that carry a network under a tag over another interface (xapi_vlan.ml).

const (
	mostVLANTag = 4094 // 4095 is reserved by 802.1Q
	vlanMAC     = "fe:ff:ff:ff:ff:ff"
)

func (w *World) registerVLAN() {
	w.Handle("VLAN.create", func(c *xapi.Call) (any, error) {
		return w.createVLAN(c, c.Str("tagged_PIF"), c.Str("network"), c.Int("tag"))
	})
	w.handle("VLAN.destroy", func(c *xapi.Call) error {
		w.DB().Delete("PIF", w.text("VLAN", c.Self(), "untagged_PIF"))
		w.DB().Delete("VLAN", c.Self())
		return nil
	})
	w.Handle("pool.create_VLAN", func(c *xapi.Call) (any, error) {
		return w.createVLANs(c, c.Str("device"))
	})
	w.Handle("pool.create_VLAN_from_PIF", func(c *xapi.Call) (any, error) {
		pif, err := c.Record("PIF", c.Str("pif"))
		if err != nil {
			return nil, err
		}
		return w.createVLANs(c, pif.Str("device"))
	})
	w.handle("PIF.plug", func(c *xapi.Call) error { return w.plugPIF(c, true) })
	w.handle("PIF.unplug", func(c *xapi.Call) error { return w.plugPIF(c, false) })
}

func (w *World) plugPIF(c *xapi.Call, attached bool) error {
	pif := w.DB().Get("PIF", c.Self())
	if !attached && pif.Bool("management") {
		return xapi.Fail("PIF_IS_MANAGEMENT_INTERFACE", c.Self())
	}
	w.Set("PIF", c.Self(), db.Fields{"currently_attached": attached})
	return nil
}

// createVLAN puts a network on an interface under a tag and gives the VLAN.
func (w *World) createVLAN(c *xapi.Call, tagged, network string, tag int64) (string, error) {
	pif, err := c.Record("PIF", tagged)
	if err != nil {
		return "", err
	}
	net, err := c.Record("network", network)
	if err != nil {
		return "", err
	}
	for _, other := range net.Strs("PIFs") {
		if host := w.text("PIF", other, "host"); host == pif.Str("host") {
			return "", xapi.Fail("NETWORK_ALREADY_CONNECTED", host, other)
		}
	}
	if pif.Int("VLAN") >= 0 {
		return "", xapi.Fail("PIF_IS_VLAN", tagged)
	}
	if tag < 0 || tag > mostVLANTag {
		return "", xapi.Fail("VLAN_TAG_INVALID", strconv.FormatInt(tag, 10))
	}
	for _, vlan := range pif.Strs("VLAN_slave_of") {
		if w.DB().Get("VLAN", vlan).Int("tag") == tag {
			return "", xapi.Fail("PIF_VLAN_EXISTS", pif.Str("device"))
		}
	}
	untagged := w.Create("PIF", db.Fields{"device": pif.Str("device"), "network": network, "host": pif.Str("host"),
		"MAC": vlanMAC, "MTU": pif.Int("MTU"), "VLAN": tag, "metrics": pif.Str("metrics"), "physical": false,
		"currently_attached": true, "ip_configuration_mode": "None", "ipv6_configuration_mode": "None",
		"primary_address_type": pif.Str("primary_address_type"), "managed": true})
	vlan := w.Create("VLAN", db.Fields{"tagged_PIF": tagged, "untagged_PIF": untagged, "tag": tag})
	w.Set("PIF", untagged, db.Fields{"VLAN_master_of": vlan})
	return vlan, nil
}

// createVLANs does so on all hosts' interfaces of a device and gives the new interfaces.
func (w *World) createVLANs(c *xapi.Call, device string) (any, error) {
	var tagged []string
	for _, ref := range w.DB().Refs("PIF") {
		if pif := w.DB().Get("PIF", ref); pif.Str("device") == device && pif.Int("VLAN") < 0 {
			tagged = append(tagged, ref)
		}
	}
	untagged := make([]string, 0, len(tagged))
	for _, pif := range tagged {
		vlan, err := w.createVLAN(c, pif, c.Str("network"), c.Int("VLAN"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", device, err)
		}
		untagged = append(untagged, w.text("VLAN", vlan, "untagged_PIF"))
	}
	return untagged, nil
}
