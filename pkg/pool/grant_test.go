package pool

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

func granting(grants ...v1alpha1.PoolGrant) *v1alpha1.XenPool {
	return &v1alpha1.XenPool{ObjectMeta: metav1.ObjectMeta{Name: "lab"}, Spec: v1alpha1.XenPoolSpec{Grants: grants}}
}

func toAll(change func(*v1alpha1.PoolGrant)) v1alpha1.PoolGrant {
	grant := v1alpha1.PoolGrant{Namespaces: v1alpha1.GrantedNamespaces{From: v1alpha1.NamespacesFromAll}}
	change(&grant)
	return grant
}

func toTeam(team string, change func(*v1alpha1.PoolGrant)) v1alpha1.PoolGrant {
	grant := v1alpha1.PoolGrant{Namespaces: v1alpha1.GrantedNamespaces{
		From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": team}},
	}}
	change(&grant)
	return grant
}

func nothing(*v1alpha1.PoolGrant) {}

func TestGrantsAreClosedUntilOneOpensThem(t *testing.T) {
	lan := func(g *v1alpha1.PoolGrant) { g.Networks = []string{"lan"} }
	everything := func(g *v1alpha1.PoolGrant) {
		g.Networks, g.StorageRepositories, g.Templates = []string{"*"}, []string{"*"}, []string{"*"}
		g.Adopt, g.RawDisks, g.Placement = v1alpha1.AdoptAny, true, true
	}
	network := func(names ...string) func(Grant) error { return func(g Grant) error { return g.Network(names...) } }
	for name, tc := range map[string]struct {
		pool   *v1alpha1.XenPool
		labels map[string]string
		ask    func(Grant) error
		denied string // a part of the message; "" is granted
	}{
		"no grant at all":                      {pool: granting(), ask: network("lan"), denied: "no grant of XenPool lab selects namespace team-a"},
		"a grant for all":                      {pool: granting(toAll(lan)), ask: network("lan")},
		"another network":                      {pool: granting(toAll(lan)), ask: network("dmz"), denied: `may not use network "dmz"`},
		"by any of its names":                  {pool: granting(toAll(lan)), ask: network("alias", "lan", "uuid-1")},
		"everything":                           {pool: granting(toAll(everything)), ask: network("dmz")},
		"the star is no name":                  {pool: granting(toAll(lan)), ask: network("*"), denied: "may not use"},
		"an empty name is no name":             {pool: granting(toAll(lan)), ask: network(""), denied: "may not use"},
		"a selector that selects":              {pool: granting(toTeam("a", lan)), labels: map[string]string{"team": "a"}, ask: network("lan")},
		"a selector that does not":             {pool: granting(toTeam("b", lan)), labels: map[string]string{"team": "a"}, ask: network("lan"), denied: "no grant"},
		"a selector missing":                   {pool: granting(v1alpha1.PoolGrant{Namespaces: v1alpha1.GrantedNamespaces{From: v1alpha1.NamespacesFromSelector}, Networks: []string{"*"}}), ask: network("lan"), denied: "no grant"},
		"grants add up":                        {pool: granting(toAll(nothing), toAll(lan)), ask: network("lan")},
		"another namespace's grant adds none":  {pool: granting(toAll(nothing), toTeam("b", lan)), labels: map[string]string{"team": "a"}, ask: network("lan"), denied: "must list it in networks"},
		"storage is apart":                     {pool: granting(toAll(lan)), ask: func(g Grant) error { return g.StorageRepository("lan") }, denied: "storage repository"},
		"templates are apart":                  {pool: granting(toAll(lan)), ask: func(g Grant) error { return g.Template("lan") }, denied: "template"},
		"adoption is closed":                   {pool: granting(toAll(lan)), ask: Grant.Adopt, denied: "adopt: Any"},
		"adoption of None is closed":           {pool: granting(toAll(func(g *v1alpha1.PoolGrant) { g.Adopt = v1alpha1.AdoptNone })), ask: Grant.Adopt, denied: "adopt: Any"},
		"adoption is open":                     {pool: granting(toAll(everything)), ask: Grant.Adopt},
		"raw disks are closed":                 {pool: granting(toAll(lan)), ask: Grant.RawDisks, denied: "rawDisks: true"},
		"raw disks are open":                   {pool: granting(toAll(everything)), ask: Grant.RawDisks},
		"placement is closed":                  {pool: granting(toAll(lan)), ask: Grant.Placement, denied: "placement: true"},
		"placement is open":                    {pool: granting(toAll(everything)), ask: Grant.Placement},
		"placement without any grant is vague": {pool: granting(), ask: Grant.Placement, denied: "no grant"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.ask(GrantFor(tc.pool, "team-a", tc.labels))
			checkDenial(t, err, tc.denied, v1alpha1.ReasonNamespaceNotAllowed)
		})
	}
}

// checkDenial compares an error with the part of a denial's message that is expected, "" for none.
func checkDenial(t *testing.T, err error, message, reason string) {
	t.Helper()
	var denial *Denial
	switch {
	case message == "" && err != nil:
		t.Errorf("denied: %v", err)
	case message != "" && !errors.As(err, &denial):
		t.Errorf("got %v, want a denial with %q", err, message)
	case message != "" && (!strings.Contains(denial.Message, message) || denial.Reason != reason):
		t.Errorf("denied for %s: %s; want %s: …%s…", denial.Reason, denial.Message, reason, message)
	}
}

func TestWhatAFlavorTakes(t *testing.T) {
	quantity := func(text string) *resource.Quantity { q := resource.MustParse(text); return &q }
	eight := int32(8)
	for name, tc := range map[string]struct {
		flavor v1alpha1.XenFlavorSpec
		want   Usage
	}{
		"a plain one":    {v1alpha1.XenFlavorSpec{VCPUs: 2, Memory: *quantity("1Gi")}, Usage{VCPUs: 2, Memory: 1 << 30}},
		"with head-room": {v1alpha1.XenFlavorSpec{VCPUs: 2, MaxVCPUs: &eight, Memory: *quantity("1Gi"), MaxMemory: quantity("4Gi")}, Usage{VCPUs: 8, Memory: 4 << 30}},
		"with disks": {
			v1alpha1.XenFlavorSpec{VCPUs: 1, Memory: *quantity("1Gi"), RootDisk: quantity("10Gi"), EphemeralDisk: quantity("5Gi"), SwapDisk: quantity("1Gi")},
			Usage{VCPUs: 1, Memory: 1 << 30, Storage: 16 << 30},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := FlavorUsage(&tc.flavor); got != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
	if got, want := (Usage{1, 2, 3, 4}).AtLeast(Usage{4, 3, 2, 1}), (Usage{4, 3, 3, 4}); got != want {
		t.Errorf("the larger of each: %+v, want %+v", got, want)
	}
}

func TestQuotas(t *testing.T) {
	gi := int64(1 << 30)
	limit := v1alpha1.PoolQuota{Instances: ptr.To[int32](2), VCPUs: ptr.To[int32](8), Memory: ptr.To(resource.MustParse("16Gi")), Storage: ptr.To(resource.MustParse("100Gi"))}
	for name, tc := range map[string]struct {
		limit     v1alpha1.PoolQuota
		used, add Usage
		denied    string
	}{
		"no limit":                     {v1alpha1.PoolQuota{}, Usage{9, 99, 999 * gi, 9999 * gi}, Usage{1, 9, 9 * gi, 9 * gi}, ""},
		"just fits":                    {limit, Usage{1, 4, 8 * gi, 50 * gi}, Usage{1, 4, 8 * gi, 50 * gi}, ""},
		"one instance too many":        {limit, Usage{Instances: 2}, Usage{Instances: 1}, "instances: 2 used, 1 wanted, 2 allowed"},
		"too much memory":              {limit, Usage{Memory: 15 * gi}, Usage{Memory: 2 * gi}, "memory: 15Gi used, 2Gi wanted, 16Gi allowed"},
		"two limits are told together": {limit, Usage{VCPUs: 8, Storage: 100 * gi}, Usage{VCPUs: 1, Storage: gi}, "vcpus: 8 used, 1 wanted, 8 allowed; storage: 100Gi used, 1Gi wanted, 100Gi allowed"},
		"a lowered quota stops nobody": {limit, Usage{Instances: 9, VCPUs: 99, Memory: 99 * gi}, Usage{}, ""},
		"over in one, adds in another": {limit, Usage{Instances: 9}, Usage{Memory: gi}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			checkDenial(t, QuotaCheck(tc.limit, tc.used, tc.add), tc.denied, v1alpha1.ReasonQuotaExceeded)
		})
	}
}

func TestOfSeveralQuotasTheLargerCounts(t *testing.T) {
	small := func(g *v1alpha1.PoolGrant) {
		g.Quota = &v1alpha1.PoolQuota{Instances: ptr.To[int32](1), Memory: ptr.To(resource.MustParse("1Gi"))}
	}
	large := func(g *v1alpha1.PoolGrant) {
		g.Quota = &v1alpha1.PoolQuota{Instances: ptr.To[int32](5), Memory: ptr.To(resource.MustParse("512Mi"))}
	}
	both := GrantFor(granting(toAll(small), toAll(large)), "team-a", nil).Quota()
	if *both.Instances != 5 || both.Memory.String() != "1Gi" {
		t.Errorf("of two quotas came %d instances, %s memory", *both.Instances, both.Memory)
	}
	if one := GrantFor(granting(toAll(small)), "team-a", nil).Quota(); one.Instances == nil || *one.Instances != 1 {
		t.Errorf("of one quota came %v", one)
	}
	if none := GrantFor(granting(toAll(small), toAll(nothing)), "team-a", nil).Quota(); none.Instances != nil || none.Memory != nil {
		t.Errorf("a grant without a quota did not lift the limit: %v", none)
	}
}
