package classes

import (
	"crypto/md5" //nolint:gosec // the server's own derivation, no secret
	"fmt"
	"regexp"
)

// macPattern is what VIF.create takes: six pairs of hexadecimal digits, multicast included (recording 0175).
var macPattern = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$`)

func validMAC(mac string) bool {
	return macPattern.MatchString(mac)
}

// macFromSeed is the address that a VIF without one gets: it depends on the VM's mac_seed and the VIF's device only, so that
// a VM keeps its addresses while it keeps its seed (xapi_vif_helpers.ml).
func macFromSeed(seed string, device int) string {
	hashed := []byte(seed)
	for range 2*device + 1 {
		sum := md5.Sum(hashed) //nolint:gosec // see the import
		hashed = sum[:]
	}
	second := md5.Sum(hashed)      //nolint:gosec // see the import
	first := hashed[0]&0xfe | 0x02 // locally administered, unicast
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", first, hashed[1], hashed[2], hashed[3], second[1], second[2])
}
