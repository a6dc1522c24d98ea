package xapi

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// What event.from adds to the client's time-out: changes are gathered for eventBatch before they are told, and a call
// that heard nothing waits eventSlack longer than it was asked (recordings 0510, 0513, 0519). Both are wall-clock
// times, as the client's own time-out is.
const (
	eventBatch = 50 * time.Millisecond
	eventSlack = 500 * time.Millisecond
)

func registerEvents(p *Pool) {
	p.Handle("event.from", eventFrom)
	p.Handle("event.inject", eventInject)
	p.Handle("event.get_current_id", func(c *Call) (any, error) { return c.old.next, nil })
	p.Handle("event.register", eventRegister)
	p.Handle("event.unregister", eventUnregister)
	p.Handle("event.next", eventNext)
}

// subscription is one of the classes that a client asks for: "*", "vm", "vm/OpaqueRef:…". Case does not matter.
type subscription struct{ class, ref string }

func parseSubscriptions(classes []string) []subscription {
	subs := make([]subscription, len(classes))
	for i, text := range classes {
		class, ref, _ := strings.Cut(text, "/")
		subs[i] = subscription{strings.ToLower(class), ref}
	}
	return subs
}

func wantsClass(subs []subscription, class string) bool {
	class = strings.ToLower(class)
	for _, s := range subs {
		if s.class == "*" || s.class == class {
			return true
		}
	}
	return false
}

func wantsObject(subs []subscription, class, ref string) bool {
	class = strings.ToLower(class)
	for _, s := range subs {
		if s.class == "*" || s.class == class && (s.ref == "" || s.ref == ref) {
			return true
		}
	}
	return false
}

// token is how far a client has heard: the generation of the database and that of the messages.
type token struct{ database, messages int64 }

func (t token) String() string { return fmt.Sprintf("%020d,%020d", t.database, t.messages) }

func parseToken(text string) (token, error) {
	if text == "" {
		return token{}, nil
	}
	first, second, ok := strings.Cut(text, ",")
	if ok {
		a, errA := strconv.ParseInt(first, 10, 64)
		b, errB := strconv.ParseInt(second, 10, 64)
		if errA == nil && errB == nil {
			return token{a, b}, nil
		}
	}
	return token{}, Fail("EVENT_FROM_TOKEN_PARSE_FAILURE", text)
}

// change is what one event tells.
type change struct {
	class, ref string
	generation int64
	record     any
}

// batch is what changed since a token: one change an object, with its present record.
type batch struct {
	messages, adds, mods, dels []change
	last                       token
}

func (b *batch) empty() bool {
	return len(b.messages)+len(b.adds)+len(b.mods)+len(b.dels) == 0
}

// collect gathers the changes after a token, from the newest rows of each table that was asked for.
func (p *Pool) collect(subs []subscription, since token) *batch {
	b := &batch{last: since}
	for _, class := range p.Model.Classes {
		if class.HasEvents() && wantsClass(subs, class.Name) {
			p.collectClass(b, subs, class, since.database)
		}
	}
	if wantsClass(subs, "message") {
		p.collectMessages(b, since.messages)
	}
	b.last.messages = max(b.last.messages, p.messages.generation)
	return b
}

func (p *Pool) collectClass(b *batch, subs []subscription, class *datamodel.Class, since int64) {
	p.db.Since(class.Name, since, func(c db.Change) {
		if !wantsObject(subs, class.Name, c.Ref) {
			return
		}
		b.last.database = max(b.last.database, c.Modified)
		told := change{class.Name, c.Ref, c.Modified, c.Record}
		if c.Created > since {
			b.adds = append(b.adds, told)
		} else {
			b.mods = append(b.mods, told)
		}
	})
	p.db.DeletedSince(class.Name, since, func(d db.Deleted) {
		if !wantsObject(subs, class.Name, d.Ref) {
			return
		}
		if d.Created <= since { // what came and went since then does not even move the token
			b.last.database = max(b.last.database, d.Removed)
			b.dels = append(b.dels, change{class.Name, d.Ref, d.Removed, nil})
		}
	})
}

func (p *Pool) collectMessages(b *batch, since int64) {
	for _, m := range slices.Backward(p.messages.list) {
		if m.generation <= since {
			break
		}
		b.messages = append(b.messages, change{"message", m.ref, 0, m.record})
	}
	for _, m := range p.messages.deleted {
		if m.generation > since {
			b.messages = append(b.messages, change{"message", m.ref, 0, nil})
		}
	}
}

// eventFrom answers at once when something changed since the token, else waits. Objects are told once, with their
// present record; messages come first, then adds, mods and dels (xapi_event.ml).
func eventFrom(c *Call) (any, error) {
	since, err := parseToken(c.Str("token"))
	if err != nil {
		return nil, err
	}
	subs := parseSubscriptions(c.Strs("classes"))
	timeout := time.Duration(min(c.Float("timeout"), 24*3600) * float64(time.Second))
	deadline := time.Now().Add(timeout)
	if timeout > 0 {
		deadline = deadline.Add(eventSlack)
	}
	for waited := false; ; waited = true {
		if _, alive := c.sessions[c.Session]; !alive {
			return nil, Fail("SESSION_INVALID", c.Session)
		}
		b := c.collect(subs, since)
		if waited && !b.empty() { // let what belongs together come together
			if err := c.sleepReal(eventBatch); err != nil {
				return nil, err
			}
			b = c.collect(subs, since)
		}
		if !b.empty() || !time.Now().Before(deadline) {
			if c.Str("token") != "" {
				c.loseEvents(b)
			}
			return c.answer(b), nil
		}
		if err := c.untilChange(deadline); err != nil {
			return nil, err
		}
	}
}

// sleepReal lets wall-clock time pass.
func (c *Call) sleepReal(d time.Duration) error {
	return c.Yield(func(ctx context.Context) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	})
}

func (c *Call) untilChange(deadline time.Time) error {
	changed := c.changed
	return c.Yield(func(ctx context.Context) error {
		timer := time.NewTimer(min(time.Until(deadline), math.MaxInt64))
		defer timer.Stop()
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		return nil
	})
}

func (p *Pool) answer(b *batch) any {
	events := make([]any, 0, len(b.messages)+len(b.adds)+len(b.mods)+len(b.dels))
	for _, c := range b.messages {
		op := "add"
		if c.record == nil {
			op = "del"
		}
		events = append(events, eventOf(c, op))
	}
	for _, c := range b.adds {
		events = append(events, eventOf(c, "add"))
	}
	for _, c := range b.mods {
		events = append(events, eventOf(c, "mod"))
	}
	for _, c := range b.dels {
		events = append(events, eventOf(c, "del"))
	}
	return wire.Struct{
		{Name: "events", Value: events},
		{Name: "valid_ref_counts", Value: p.refCounts()},
		{Name: "token", Value: token{max(b.last.database, 0), max(b.last.messages, 0)}.String()},
	}
}

func eventOf(c change, op string) wire.Struct {
	event := wire.Struct{
		{Name: "id", Value: strconv.FormatInt(c.generation, 10)},
		{Name: "timestamp", Value: "0.0"},
		{Name: "class", Value: strings.ToLower(c.class)},
		{Name: "operation", Value: op},
		{Name: "ref", Value: c.ref},
	}
	if c.record != nil {
		event = append(event, wire.Member{Name: "snapshot", Value: c.record})
	}
	return event
}

// refCounts gives the number of objects of every class, whatever was asked for. Messages count 0: they are not rows.
func (p *Pool) refCounts() wire.Struct {
	out := make(wire.Struct, 0, len(p.Model.Classes))
	for i := len(p.Model.Classes) - 1; i >= 0; i-- {
		name := p.Model.Classes[i].Name
		out = append(out, wire.Member{Name: strings.ToLower(name), Value: wire.Int32(p.db.Count(name))})
	}
	return out
}

// eventInject marks an object as changed and gives a token with which event.from tells of it at once: a barrier.
func eventInject(c *Call) (any, error) {
	class, ref := c.Str("class"), c.Str("ref")
	generation := c.db.Generation()
	if c.Model.Class(class) == nil || !c.db.Touch(class, ref) {
		return nil, HandleInvalid(class, ref)
	}
	return token{generation, c.messages.generation}.String(), nil
}
