package xapi

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// Fault is one line of a fault plan: which calls it befalls and what happens to them.
type Fault struct {
	// Which calls. An empty condition holds for all.
	Call   string `json:"call,omitempty"`   // "VM.start", "VM.*", "event.from"; Async. calls are called by their plain name; HTTP handlers by path
	Object string `json:"object,omitempty"` // reference, uuid or name_label of an object among the arguments; for storage calls also the SR it lies on
	Skip   int    `json:"skip,omitempty"`   // let so many matching calls pass first
	Count  int    `json:"count,omitempty"`  // befall so many calls, then no more; 0 is without end

	// What happens.
	Latency      Duration `json:"latency,omitempty"`      // before anything else, in wall-clock time
	Error        string   `json:"error,omitempty"`        // error code, instead of the effect
	Params       []string `json:"params,omitempty"`       // of the error code
	AfterEffect  bool     `json:"afterEffect,omitempty"`  // the error comes although the call took effect
	Drop         string   `json:"drop,omitempty"`         // "before" or "after" the effect: the connection breaks without an answer
	TruncateBody int      `json:"truncateBody,omitempty"` // so many bytes of the answer's body arrive, then the connection breaks
	CorruptBody  int      `json:"corruptBody,omitempty"`  // the byte after so many of a request's body arrives changed; for HTTP handlers
	LoseSession  bool     `json:"loseSession,omitempty"`  // the session is gone before the call
	LoseEvents   bool     `json:"loseEvents,omitempty"`   // event.from answers without what has happened since its token; one without a token still tells of all there is
	SlowTask     float64  `json:"slowTask,omitempty"`     // operations take so many times as long
	FailTask     bool     `json:"failTask,omitempty"`     // the error comes at the end of the operation's work, when its effect is undone or half done
	Midway       bool     `json:"midway,omitempty"`       // the error comes while the operation works, so that it undoes what it has done
	FullSR       bool     `json:"fullSR,omitempty"`       // storage calls find the SR full
	Restart      bool     `json:"restart,omitempty"`      // the toolstack restarts once the call has begun
	KillHost     string   `json:"killHost,omitempty"`     // the host of this name, uuid or reference dies once the call has begun
}

// Duration is a time.Duration that is written as text in JSON ("250ms").
type Duration time.Duration

// UnmarshalText reads "250ms".
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("read duration: %w", err)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalText writes "250ms".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// FaultPlan is the list of faults in force, each with the number of calls it has met.
type FaultPlan struct {
	mu   sync.Mutex
	list []*plannedFault
}

type plannedFault struct {
	Fault
	met int
}

// SetFaults replaces the fault plan.
func (p *Pool) SetFaults(faults []Fault) {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	p.faults.list = nil
	for _, f := range faults {
		p.faults.list = append(p.faults.list, &plannedFault{Fault: f})
	}
}

// Faults gives the fault plan.
func (p *Pool) Faults() []Fault {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	out := []Fault{}
	for _, f := range p.faults.list {
		out = append(out, f.Fault)
	}
	return out
}

// take gives the faults that befall a call, and counts it.
func (plan *FaultPlan) take(call string, names func() []string) []Fault {
	plan.mu.Lock()
	defer plan.mu.Unlock()
	var out []Fault
	for _, f := range plan.list {
		if !matchesCall(f.Call, call) || f.Object != "" && !slices.Contains(names(), f.Object) {
			continue
		}
		f.met++
		if f.met > f.Skip && (f.Count == 0 || f.met <= f.Skip+f.Count) {
			out = append(out, f.Fault)
		}
	}
	return out
}

func matchesCall(pattern, call string) bool {
	if pattern == "" || pattern == "*" || pattern == call {
		return true
	}
	n := len(pattern)
	return pattern[n-1] == '*' && len(call) >= n-1 && call[:n-1] == pattern[:n-1]
}

// Truncated is an answer of which only so many bytes of the body arrive.
type Truncated struct {
	Value any
	Bytes int
}

// faultsAtDoor befall the connection of a call before it has any effect.
func (c *Call) faultsAtDoor() error {
	for _, f := range c.befallen {
		if f.Latency > 0 {
			if err := c.sleepReal(time.Duration(f.Latency)); err != nil {
				return err
			}
		}
		if f.LoseSession {
			c.dropSession(c.Session)
			return Fail("SESSION_INVALID", c.Session)
		}
		if f.Drop == "before" {
			return &DropConnection{}
		}
	}
	return nil
}

// faultsOnWayOut befall the connection of a call after it had its effect.
func (c *Call) faultsOnWayOut(result any, err error) (any, error) {
	for _, f := range c.befallen {
		if f.Drop == "after" {
			return nil, &DropConnection{}
		}
		if f.TruncateBody > 0 && err == nil {
			result = Truncated{result, f.TruncateBody}
		}
	}
	return result, err
}

// guarded runs a call under the faults that befall its effect.
func (p *Pool) guarded(c *Call) (any, error) {
	for _, f := range c.befallen {
		if f.KillHost != "" {
			p.killHost(f.KillHost)
		}
		switch {
		case f.Restart:
			p.Unlock()
			p.Restart(0)
			p.Lock()
			return nil, &DropConnection{}
		case f.FullSR && allocates[c.Message.FullName()]:
			return nil, Fail("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")
		case f.Error != "" && !f.AfterEffect && !f.FailTask && !f.Midway:
			return nil, Fail(f.Error, f.Params...)
		}
	}
	result, err := p.run(c)
	for _, f := range c.befallen {
		if f.Error != "" && (f.AfterEffect || f.FailTask) && err == nil {
			return nil, Fail(f.Error, f.Params...)
		}
	}
	return result, err
}

// failsMidway is the error that comes while the operation works, if one is planned.
func (c *Call) failsMidway() error {
	for _, f := range c.befallen {
		if f.Midway && f.Error != "" {
			return Fail(f.Error, f.Params...)
		}
	}
	return nil
}

// killHost lets a host die; the pool is locked.
func (p *Pool) killHost(host string) {
	p.Unlock()
	defer p.Lock()
	if err := p.HostDies(host); err != nil {
		p.Logf("fault plan: %v", err)
	}
}

// allocates names the calls that a full SR refuses.
var allocates = map[string]bool{"VDI.create": true, "VDI.clone": true, "VDI.copy": true, "VDI.snapshot": true,
	"VDI.resize": true, "VDI.pool_migrate": true, "VM.provision": true, "VM.clone": true, "VM.copy": true,
	"VM.snapshot": true, "VM.checkpoint": true, "VM.suspend": true, "VM.revert": true}

// slowness is how many times as long the call's work takes.
func (c *Call) slowness() float64 {
	slow := 1.0
	for _, f := range c.befallen {
		if f.SlowTask > 0 {
			slow *= f.SlowTask
		}
	}
	return slow
}

// loseEvents empties a batch when the fault plan says so; the token goes on as if the events had been told.
func (c *Call) loseEvents(b *batch) {
	for _, f := range c.befallen {
		if f.LoseEvents {
			b.messages, b.adds, b.mods, b.dels = nil, nil, nil, nil
		}
	}
}

// DropConnection is the outcome of a call whose client gets no answer.
type DropConnection struct{}

func (d *DropConnection) Error() string { return "the fault plan drops the connection" }

// names gives what a fault may call the objects among a call's arguments.
func (c *Call) names() []string {
	var out []string
	add := func(ref string) {
		out = append(out, ref)
		class := c.db.ClassOf(ref)
		if class == "" {
			return
		}
		r := c.db.Get(class, ref)
		out = append(out, r.Str("uuid"), r.Str("name_label"))
		if sr := r.Str("SR"); sr != "" {
			out = append(out, sr, c.db.Get("SR", sr).Str("uuid"), c.db.Get("SR", sr).Str("name_label"))
		}
	}
	for _, v := range c.args {
		switch v := v.(type) {
		case string:
			add(v)
		case db.Fields:
			for _, inner := range v {
				if ref, ok := inner.(string); ok {
					add(ref)
				}
			}
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" || s == db.NullRef })
}
