package xensim

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/xapi"
)

// registerGeneral registers what pool, host and the classes without a life of their own do.
func registerGeneral(p *Pool) {
	registerHost(p)
	registerPoolObject(p)
	registerHTTPInfo(p)
	p.Handle("user.create", func(c *xapi.Call) (any, error) { return nil, xapi.Fail("NOT_IMPLEMENTED", "User.create") })
	p.Handle("blob.create", func(c *xapi.Call) (any, error) {
		return c.Create("blob", db.Fields{"mime_type": c.Str("mime_type"), "public": c.Bool("public"), "last_updated": db.Epoch}), nil
	})
}

func registerHost(p *Pool) {
	now := func(c *xapi.Call) (any, error) { return c.Now(), nil }
	p.Handle("host.get_servertime", now)
	p.Handle("host.get_server_localtime", now)
	p.Handle("host.list_methods", func(*xapi.Call) (any, error) { return nil, xapi.Fail("NOT_IMPLEMENTED", "list_method") })
	p.Handle("host.call_plugin", hostCallPlugin)
	p.Handle("host.get_management_interface", hostManagementInterface)
	p.Handle("host.dmesg", func(*xapi.Call) (any, error) { return "", nil })
	p.Handle("host.get_log", func(*xapi.Call) (any, error) { return "", nil })
	p.Handle("host.get_system_status_capabilities", func(*xapi.Call) (any, error) {
		return "<system-status-capabilities></system-status-capabilities>", nil
	})
	p.Handle("host.get_data_sources", func(*xapi.Call) (any, error) { return []any{}, nil })
	p.Handle("host.has_extension", func(*xapi.Call) (any, error) { return false, nil })
	p.Handle("host.call_extension", func(c *xapi.Call) (any, error) {
		return nil, xapi.Fail("MESSAGE_METHOD_UNKNOWN", c.Str("call"))
	})
	p.Handle("host.set_hostname_live", func(c *xapi.Call) (any, error) {
		c.Set("host", c.Self(), db.Fields{"hostname": c.Str("hostname")})
		return nil, nil
	})
	p.Handle("host.reboot", func(c *xapi.Call) (any, error) { return nil, hostCycle(p, c, true) })
	p.Handle("host.shutdown", func(c *xapi.Call) (any, error) { return nil, hostCycle(p, c, false) })
	p.Handle("host.restart_agent", hostRestartAgent(p))
}

// hostCallPlugin runs a dom0 plug-in. The only one is the recorded server's, which repeats what it is given.
func hostCallPlugin(c *xapi.Call) (any, error) {
	if c.Str("plugin") != "echo" {
		return nil, xapi.Fail("XENAPI_MISSING_PLUGIN", c.Str("plugin"))
	}
	if c.Str("fn") == "fail" {
		return nil, xapi.Fail("MY_PLUGIN_ERROR", "a", "b")
	}
	args := c.Map("args")
	parts := make([]string, 0, len(args))
	for _, key := range slices.Sorted(maps.Keys(args)) {
		parts = append(parts, "'"+key+"': '"+args[key]+"'")
	}
	return "rig:" + c.Str("fn") + ":{" + strings.Join(parts, ", ") + "}", nil
}

func hostManagementInterface(c *xapi.Call) (any, error) {
	for _, pif := range c.DB().Get("host", c.Self()).Strs("PIFs") {
		if c.DB().Get("PIF", pif).Bool("management") {
			return pif, nil
		}
	}
	return nil, xapi.Fail("HOST_HAS_NO_MANAGEMENT_IP")
}

// hostBoot is how long a host takes to boot.
const hostBoot = 3 * time.Minute

// hostCycle shuts a host down, and for a reboot starts it again. It must be disabled and without guests.
func hostCycle(p *Pool, c *xapi.Call, again bool) error {
	ref := c.Self()
	host := c.DB().Get("host", ref)
	if host.Bool("enabled") {
		return xapi.Fail("HOST_NOT_DISABLED")
	}
	for _, vm := range host.Strs("resident_VMs") {
		if !c.DB().Get("VM", vm).Bool("is_control_domain") {
			return xapi.Fail("HOST_IN_USE", ref, "VM", vm)
		}
	}
	metrics := host.Str("metrics")
	c.Set("host_metrics", metrics, db.Fields{"live": false})
	p.silence(ref)
	if !again {
		return nil
	}
	p.After(hostBoot, func() {
		c.Set("host_metrics", metrics, db.Fields{"live": true})
		c.Set("host", ref, db.Fields{"enabled": true})
		if err := p.revive(ref); err != nil {
			p.Logf("host %s does not come back: %v", host.Str("name_label"), err)
		}
	})
	return nil
}

func hostRestartAgent(p *Pool) xapi.Handler {
	return func(c *xapi.Call) (any, error) {
		if c.Self() == c.Coordinator() {
			p.After(0, func() { go p.RestartToolstack(0) })
		}
		return nil, nil
	}
}

func registerPoolObject(p *Pool) {
	p.Handle("pool.sync_database", func(*xapi.Call) (any, error) { return nil, nil })
	p.Handle("pool.get_license_state", func(*xapi.Call) (any, error) {
		return map[string]string{"edition": "xcp-ng", "expiry": "never"}, nil
	})
	p.Handle("pool.has_extension", func(*xapi.Call) (any, error) { return false, nil })
	p.Handle("pool.test_archive_target", func(*xapi.Call) (any, error) { return nil, xapi.Fail("MESSAGE_REMOVED") })
	p.Handle("pool.designate_new_master", func(c *xapi.Call) (any, error) {
		ref := c.Str("host")
		if _, err := c.Record("host", ref); err != nil {
			return nil, err
		}
		if ref != c.Coordinator() {
			p.After(time.Second, func() { go func() { _ = p.SetCoordinator(ref) }() })
		}
		return nil, nil
	})
	for _, message := range []string{"pool.enable_ha", "pool.disable_ha", "pool.ha_compute_max_host_failures_to_tolerate"} {
		p.Handle(message, func(*xapi.Call) (any, error) { return nil, xapi.Fail("HA_NOT_ENABLED") })
	}
}

// registerHTTPInfo registers the paths that give statistics. Nothing is measured here, so there is nothing to give;
// who lacks credentials learns that first, as with the real one.
func registerHTTPInfo(p *Pool) {
	for path, realm := range map[string]string{"/rrd_updates": "rrd_updates", "/vm_rrd": "vm_rrd", "/host_rrd": "host_rrd"} {
		p.HandleHTTP("GET", path, realm, func(x *xapi.Exchange) error {
			x.Error(404, "Not Found", "")
			return nil
		})
	}
}
