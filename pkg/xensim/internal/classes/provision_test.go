package classes

import (
	"slices"
	"testing"
)

func TestParseProvisionedDisks(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []provisionedDisk
		ok   bool
	}{
		"the Debian template": {
			`<provision><disk device="0" size="10737418240" sr="" bootable="true" type="system"/></provision>`,
			[]provisionedDisk{{device: "0", size: 10737418240, bootable: true, vdiType: "system"}}, true,
		},
		"two disks": {
			`<provision><disk device="0" size="1" sr="a" bootable="true"/><disk device="1" size="2" sr="b" bootable="false" type="user"/></provision>`,
			[]provisionedDisk{
				{device: "0", size: 1, sr: "a", bootable: true, vdiType: "system"}, {device: "1", size: 2, sr: "b", vdiType: "user"},
			}, true,
		},
		"no disks":        {`<provision></provision>`, nil, true},
		"not XML":         {`disks`, nil, false},
		"without an SR":   {`<provision><disk device="0" size="1" bootable="true"/></provision>`, nil, false},
		"a size in words": {`<provision><disk device="0" size="big" sr="" bootable="true"/></provision>`, nil, false},
		"another root":    {`<disks/>`, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parseProvisionedDisks(test.text)
			if ok != test.ok || !slices.Equal(got, test.want) {
				t.Errorf("got %+v %v, want %+v %v", got, ok, test.want, test.ok)
			}
		})
	}
}
