package classes

import "testing"

func TestMACFromSeed(t *testing.T) {
	for name, test := range map[string]struct {
		seed   string
		device int
		want   string
	}{
		"first device, recording 3018":             {"ad39f595-e407-69f8-dd04-17595695f03c", 0, "e6:bb:0a:1b:c1:2e"},
		"first device, recording 1172":             {"52d63cca-6a40-7d40-ec3c-8b979d7589fa", 0, "a6:72:ff:49:8b:26"},
		"first device of a clone, recording 3022":  {"d5c16afc-0d42-adf0-9d3d-4829d9df5b8e", 0, "1e:c2:6d:e0:76:8f"},
		"second device of a clone, recording 3023": {"d5c16afc-0d42-adf0-9d3d-4829d9df5b8e", 1, "9a:a6:9e:ff:7f:8f"},
		"third device of a clone, recording 3024":  {"d5c16afc-0d42-adf0-9d3d-4829d9df5b8e", 2, "d2:16:a9:9b:df:ce"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := macFromSeed(test.seed, test.device); got != test.want {
				t.Errorf("macFromSeed(%q, %d) = %s, want %s", test.seed, test.device, got, test.want)
			}
		})
	}
}
