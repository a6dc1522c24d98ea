package pool

import (
	"slices"
	"testing"

	"github.com/kubexen/kubexen/api/v1alpha1"
	"github.com/kubexen/kubexen/pkg/xenapi"
)

const (
	lanUUID    = "11111111-0000-0000-0000-000000000000"
	dmzUUID    = "22222222-0000-0000-0000-000000000000"
	twinUUID   = "33333333-0000-0000-0000-000000000000"
	secondUUID = "44444444-0000-0000-0000-000000000000"
)

var networks = []Named[xenapi.NetworkRef]{
	{"n1", lanUUID, "lan"}, {"n2", dmzUUID, "dmz"}, {"n3", twinUUID, "twin"}, {"n4", secondUUID, "twin"},
}

func TestWhatANameMeans(t *testing.T) {
	for name, tc := range map[string]struct {
		asked   string
		aliases []v1alpha1.Alias
		uuid    string
		denied  string
		reason  string
	}{
		"a unique name-label":        {asked: "lan", uuid: lanUUID},
		"a uuid":                     {asked: twinUUID, uuid: twinUUID},
		"an alias":                   {asked: "backend", aliases: []v1alpha1.Alias{{Name: "backend", UUID: dmzUUID}}, uuid: dmzUUID},
		"an alias hides a label":     {asked: "lan", aliases: []v1alpha1.Alias{{Name: "lan", UUID: dmzUUID}}, uuid: dmzUUID},
		"an alias into nothing":      {asked: "lan", aliases: []v1alpha1.Alias{{Name: "lan", UUID: "5"}}, denied: "correct the alias", reason: v1alpha1.ReasonNetworkNotFound},
		"an unknown name":            {asked: "wan", denied: `has no network "wan"`, reason: v1alpha1.ReasonNetworkNotFound},
		"a label that two have":      {asked: "twin", denied: twinUUID + ", " + secondUUID, reason: v1alpha1.ReasonAmbiguousName},
		"an alias tells twins apart": {asked: "twin", aliases: []v1alpha1.Alias{{Name: "twin", UUID: secondUUID}}, uuid: secondUUID},
	} {
		t.Run(name, func(t *testing.T) {
			found, denial := resolve("network", "lab", tc.asked, v1alpha1.ReasonNetworkNotFound, tc.aliases, networks)
			if tc.denied != "" {
				checkDenial(t, denial, tc.denied, tc.reason)
				return
			}
			if denial != nil || found.UUID != tc.uuid {
				t.Errorf("means %+v (%v), want %s", found, denial, tc.uuid)
			}
		})
	}
}

func TestAGrantOfANameIsOfNothingElse(t *testing.T) {
	aliases := []v1alpha1.Alias{{Name: "lan", UUID: dmzUUID}, {Name: "second", UUID: secondUUID}}
	for name, tc := range map[string]struct {
		thing Named[xenapi.NetworkRef]
		want  []string
	}{
		"its label belongs to an alias of another": {networks[0], []string{lanUUID}},
		"alias, label and uuid":                    {networks[1], []string{"dmz", dmzUUID, "lan"}},
		"its label is a twin's too":                {networks[2], []string{twinUUID}},
		"a twin with an alias":                     {networks[3], []string{secondUUID, "second"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := namesOf(tc.thing, aliases, networks); !slices.Equal(got, tc.want) {
				t.Errorf("granted by %v, want %v", got, tc.want)
			}
		})
	}
}

func TestATenantLearnsNothingOfWhatItMayNotUse(t *testing.T) {
	grant := GrantFor(granting(toAll(func(g *v1alpha1.PoolGrant) { g.Networks = []string{"lan", "wan"} })), "team-a", nil)
	ask := func(name string) error {
		found, denial := resolve("network", "lab", name, v1alpha1.ReasonNetworkNotFound, nil, networks)
		_, err := granted(found, denial, grant.Network, namesOf(found, nil, networks), name)
		return err
	}
	if err := ask("lan"); err != nil {
		t.Errorf("a granted network is denied: %v", err)
	}
	checkDenial(t, ask("wan"), "has no network", v1alpha1.ReasonNetworkNotFound)
	checkDenial(t, ask("dmz"), `may not use network "dmz"`, v1alpha1.ReasonNamespaceNotAllowed)
	checkDenial(t, ask("secret"), `may not use network "secret"`, v1alpha1.ReasonNamespaceNotAllowed)
	checkDenial(t, ask("twin"), `may not use network "twin"`, v1alpha1.ReasonNamespaceNotAllowed)
}
