package classes

import (
	"testing"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

func TestVLANs(t *testing.T) {
	s := newSite(t, Guests{})
	eth0 := s.record("network", s.named("network", "Pool-wide network associated with eth0")).Strs("PIFs")
	tagged := ""
	for _, pif := range eth0 {
		if s.record("PIF", pif).Str("device") == "eth0" {
			tagged = pif
		}
	}
	network := func(name string) string {
		return s.call("network.create", db.Fields{"name_label": name, "name_description": "", "MTU": 1500,
			"other_config": map[string]string{}, "tags": []string{}}).(string)
	}
	blue := network("blue")
	vlan := s.call("VLAN.create", tagged, 42, blue).(string)
	untagged := s.record("VLAN", vlan).Str("untagged_PIF")
	if pif := s.record("PIF", untagged); pif.Int("VLAN") != 42 || pif.Str("network") != blue || pif.Str("VLAN_master_of") != vlan {
		t.Errorf("the interface is %v", pif.Fields())
	}
	s.refused("NETWORK_ALREADY_CONNECTED", "VLAN.create", tagged, 43, blue)
	red := network("red")
	s.refused("PIF_VLAN_EXISTS", "VLAN.create", tagged, 42, red)
	s.refused("VLAN_TAG_INVALID", "VLAN.create", tagged, 4095, red)
	s.refused("PIF_IS_VLAN", "VLAN.create", untagged, 7, red)
	s.call("VLAN.destroy", vlan)
	if got := s.record("network", blue).Strs("PIFs"); len(got) != 0 {
		t.Errorf("the network is left with %v", got)
	}
	if pifs := s.call("pool.create_VLAN_from_PIF", tagged, red, 42).([]string); len(pifs) != 1 {
		t.Errorf("interfaces %v", pifs)
	}
}
