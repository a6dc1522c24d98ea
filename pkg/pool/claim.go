package pool

import (
	"time"

	"github.com/kubexen/kubexen/api/v1alpha1"
)

// claim is a XenPool's hold on a pool's uuid: two XenPools must not both act on one pool.
type claim struct {
	pool    string
	latched bool
	created time.Time
}

func newClaim(uuid string, pool *v1alpha1.XenPool) claim {
	return claim{pool: pool.Name, latched: pool.Status.UUID == uuid, created: pool.CreationTimestamp.Time}
}

// before says whose claim is the better: who has had the pool before, then who is older, then by name, so that a
// restart of the manager does not change it.
func (c claim) before(other claim) bool {
	if c.latched != other.latched {
		return c.latched
	}
	if !c.created.Equal(other.created) {
		return c.created.Before(other.created)
	}
	return c.pool < other.pool
}

// claim takes the pool's uuid for a XenPool. It returns the name of the XenPool that has the better claim, or "".
func (g *Registry) claim(uuid string, pool *v1alpha1.XenPool) string {
	mine := newClaim(uuid, pool)
	g.mu.Lock()
	defer g.mu.Unlock()
	held, found := g.claims[uuid]
	if found && held.pool != mine.pool {
		if held.before(mine) {
			return held.pool
		}
		if loser := g.runners[held.pool]; loser != nil {
			go loser.lose(uuid, mine.pool)
		}
	}
	g.claims[uuid] = mine
	return ""
}

// lose ends a connection whose pool another XenPool has the better claim to.
func (r *runner) lose(uuid, winner string) {
	r.mu.Lock()
	live := r.live
	r.mu.Unlock()
	r.kill(live, duplicate(uuid, winner))
}
