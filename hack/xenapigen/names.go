package main

import (
	"go/token"
	"strings"
	"unicode"
)

// words maps a word of a wire name to what a Go reader expects; words not listed begin with a capital and are otherwise left alone.
var words = map[string]string{
	"api": "API", "bios": "BIOS", "cbt": "CBT", "cpu": "CPU", "dhcp": "DHCP", "dns": "DNS", "ha": "HA", "hvm": "HVM", "http": "HTTP", "https": "HTTPS",
	"id": "ID", "igmp": "IGMP", "io": "IO", "ip": "IP", "ipv4": "IPv4", "ipv6": "IPv6", "iscsi": "ISCSI", "kib": "KiB", "mac": "MAC", "mtu": "MTU", "nbd": "NBD", "ntp": "NTP",
	"numa": "NUMA", "os": "OS", "pci": "PCI", "pif": "PIF", "pifs": "PIFs", "pv": "PV", "pvh": "PVH", "qos": "QoS", "ro": "RO", "rw": "RW", "sm": "SM", "sr": "SR",
	"srs": "SRs", "ssh": "SSH", "ssl": "SSL", "tcp": "TCP", "tls": "TLS", "udp": "UDP", "uefi": "UEFI", "uri": "URI", "url": "URL", "urls": "URLs", "usb": "USB",
	"uuid": "UUID", "uuids": "UUIDs", "vbd": "VBD", "vbds": "VBDs", "vcpu": "VCPU", "vcpus": "VCPUs", "vdi": "VDI", "vdis": "VDIs", "vif": "VIF", "vifs": "VIFs", "vlan": "VLAN",
	"vm": "VM", "vms": "VMs", "vmpp": "VMPP", "vmss": "VMSS", "vtpm": "VTPM", "vtpms": "VTPMs", "wlb": "WLB", "xml": "XML", "rpc": "RPC", "cls": "Class",
	"crl": "CRL", "pem": "PEM", "rrd": "RRD", "vswitch": "VSwitch", "gpu": "GPU", "vgpu": "VGPU", "pbd": "PBD", "pbds": "PBDs", "ntpd": "NTPD", "xen": "Xen", "iommu": "IOMMU",
	"sdn": "SDN", "nvram": "NVRAM", "pusb": "PUSB", "pgpu": "PGPU", "cd": "CD", "lvhd": "LVHD", "iqn": "IQN", "ok": "OK", "fs": "FS", "sku": "SKU", "pvs": "PVS", "vusb": "VUSB",
	"secureboot": "SecureBoot", "softreboot": "SoftReboot", "vt100": "VT100", "qcow2": "QCOW2", "vhd": "VHD", "xapi": "XAPI", "ca": "CA", "domid": "DomID", "domarch": "DomArch",
	"userdevice": "UserDevice", "rrds": "RRDs", "rbac": "RBAC", "sriov": "SRIOV", "hba": "HBA", "pcis": "PCIs", "vgpus": "VGPUs", "cstate": "CState", "dom0": "Dom0", "ldaps": "LDAPS", "pool": "Pool", "ou": "OU",
	"dr": "DR", "ad": "AD", "sched": "Sched", "gran": "Granularity", "caching": "Caching", "vdpa": "VDPA", "ballooning": "Ballooning", "crashdump": "Crashdump",
}

// enumNames gives enumerations a singular name where the data model's is plural or says too little outside its class.
var enumNames = map[string]string{
	"task_status_type": "TaskStatus", "cls": "MessageClass", "tristate_type": "Tristate", "storage_operations": "SROperation",
	"update_guidances": "UpdateGuidance", "on_boot": "VDIOnBoot", "on_normal_exit": "OnNormalExit", "on_crash_behaviour": "OnCrash",
	"on_softreboot_behavior": "OnSoftReboot", "image_format_type": "ImageFormat", "ip_configuration_mode": "IPConfigurationMode",
	"ipv6_configuration_mode": "IPv6ConfigurationMode", "primary_address_type": "PrimaryAddressType",
}

var paramNames = map[string]string{
	"type": "kind", "import": "importing", "range": "span", "ctx": "context", "vM": "vm", "new_name": "name", "class": "class", "func": "function", "self": "self",
}

// goName turns a wire name such as VCPUs_at_startup into VCPUsAtStartup.
func goName(wire string) string {
	var b strings.Builder
	for _, part := range strings.FieldsFunc(wire, func(r rune) bool { return r == '_' || r == '-' || r == '.' || r == '/' || r == ' ' }) {
		if good, ok := words[part]; ok {
			b.WriteString(good)
			continue
		}
		if good, ok := words[strings.ToLower(part)]; ok && part == strings.ToUpper(part) {
			b.WriteString(good)
			continue
		}
		r := []rune(part)
		r[0] = unicode.ToUpper(r[0])
		b.WriteString(string(r))
	}
	return b.String()
}

func enumName(wire string) string {
	if name, ok := enumNames[wire]; ok {
		return name
	}
	name := goName(wire)
	if strings.HasSuffix(name, "Operations") {
		return strings.TrimSuffix(name, "s")
	}
	return name
}

// paramName turns a wire parameter into a Go one.
func paramName(wire string) string {
	if name, ok := paramNames[wire]; ok {
		return name
	}
	name := goName(wire)
	runes := []rune(name)
	// Lower the leading run of capitals, but leave the first letter of the next word: SRRef → srRef.
	for i := range runes {
		if i > 0 && i+1 < len(runes) && unicode.IsUpper(runes[i]) && unicode.IsLower(runes[i+1]) && runes[i+1] != 's' {
			break
		}
		if !unicode.IsUpper(runes[i]) {
			break
		}
		runes[i] = unicode.ToLower(runes[i])
	}
	if name = string(runes); token.IsKeyword(name) {
		return name + "Name"
	}
	return name
}
