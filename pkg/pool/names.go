package pool

import (
	"slices"
	"strings"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// Named is something of a pool that people name: a network, a storage repository, a template.
type Named[R ~string] struct {
	Ref       R
	UUID      string
	NameLabel string
}

// whatTemplate is what messages call a template. It has no aliases.
const whatTemplate = "template"

// resolve finds what a name means: an alias of the pool first, then a uuid, then a name-label that only one thing
// has.
func resolve[R ~string](what, pool, name, notFound string, aliases []v1alpha1.Alias, all []Named[R]) (Named[R], *Denial) {
	wanted := name
	at := slices.IndexFunc(aliases, func(a v1alpha1.Alias) bool { return a.Name == name })
	if at >= 0 {
		wanted = aliases[at].UUID
	}
	for _, thing := range all {
		if thing.UUID == wanted {
			return thing, nil
		}
	}
	if at >= 0 {
		return Named[R]{}, deny(notFound, "XenPool %s names %s %s as %q, but the pool has none with that uuid; correct the alias", pool, what, wanted, name)
	}
	var found []Named[R]
	for _, thing := range all {
		if thing.NameLabel == name {
			found = append(found, thing)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Named[R]{}, deny(notFound, "pool %s has no %s %q; correct the name%s", pool, what, name, orAlias(what))
	default:
		return Named[R]{}, deny(v1alpha1.ReasonAmbiguousName,
			"pool %s has %d of %s %q; name one by uuid or alias: %s", pool, len(found), what, name, uuids(found))
	}
}

// orAlias offers an alias for what can have one.
func orAlias(what string) string {
	if what == whatTemplate {
		return ""
	}
	return ", or add an alias to the XenPool"
}

// namesOf returns all names that mean the thing and nothing else. A grant of any of them is a grant of the thing; a
// name-label that another thing has too, or that an alias gives to another, is none.
func namesOf[R ~string](thing Named[R], aliases []v1alpha1.Alias, all []Named[R]) []string {
	candidates := []string{thing.NameLabel, thing.UUID}
	for _, alias := range aliases {
		if alias.UUID == thing.UUID {
			candidates = append(candidates, alias.Name)
		}
	}
	return slices.DeleteFunc(candidates, func(name string) bool {
		meant, denial := resolve("", "", name, "", aliases, all)
		return denial != nil || meant.UUID != thing.UUID
	})
}

func uuids[R ~string](things []Named[R]) string {
	texts := make([]string, 0, len(things))
	for _, thing := range things {
		texts = append(texts, thing.UUID)
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}
