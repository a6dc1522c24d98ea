package disk

import (
	"path"
	"strings"
)

// ovaName is the first member of an XVA.
const ovaName = "ova.xml"

// isTarVHDName knows the names in a Nova tarball: 0.vhd and so on, and what older clouds wrote.
func isTarVHDName(name string) bool { return strings.EqualFold(path.Ext(name), ".vhd") }
