package xapi

import (
	"context"
	"fmt"
	"slices"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// closing gives a context that ends when the pool is closed; a restart of the toolstack does not end it.
func (p *Pool) closing() context.Context { return p.closingCtx }

// Restart restarts the toolstack: sessions and tasks are gone, calls under way have no answer, and what they did so
// far stays. Guests do not notice. With rewind the generation falls back, as after a restored database, so that
// clients hold tokens from the future.
func (p *Pool) Restart(rewind int64) {
	p.Lock()
	defer p.Unlock()
	p.kill(errRestart)
	p.life, p.kill = context.WithCancelCause(context.Background())
	p.DropSessions()
	for _, ref := range slices.Clone(p.db.Refs("task")) {
		p.dropTask(ref)
	}
	for _, class := range p.Model.Classes {
		if class.Field("current_operations") == nil {
			continue
		}
		for _, ref := range slices.Clone(p.db.Refs(class.Name)) {
			if len(p.db.Get(class.Name, ref).Map("current_operations")) > 0 {
				p.Set(class.Name, ref, db.Fields{"current_operations": map[string]string{}})
				p.Refresh(class.Name, ref)
			}
		}
	}
	p.Started()
	p.db.SetGeneration(max(1, p.db.Generation()-rewind))
	p.wake()
}

// Started marks the toolstack as started: it makes what it needs to have and says since when it runs.
func (p *Pool) Started() {
	if p.db.Count("user") == 0 {
		p.Create("user", db.Fields{"short_name": p.User, "fullname": p.User})
	}
	p.openOwnSessions()
	if host := p.db.Get("host", p.Coordinator()); host.Exists() {
		p.RemoveFrom("host", p.Coordinator(), "other_config", "agent_start_time")
		_ = p.AddTo("host", p.Coordinator(), "other_config", "agent_start_time", fmt.Sprintf("%d.", p.Now().Unix()))
	}
}

// Close ends everything and waits for what runs in the background.
func (p *Pool) Close() {
	p.Lock()
	p.closed = true
	p.kill(errClosed)
	p.closeNow(errClosed)
	p.wake()
	p.Unlock()
	p.work.Wait()
}
