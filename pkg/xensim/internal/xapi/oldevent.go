package xapi

import (
	"crypto/md5" //nolint:gosec // the real server digests session references so; nothing is protected by it
	"fmt"
	"slices"
	"strings"
	"time"
)

// oldEvents is the queue of the deprecated calls event.register and event.next: what happens while somebody is
// registered for it gets a number and is kept for those who were.
type oldEvents struct {
	queue []oldEvent // oldest first
	next  int64      // number of the next event
	seen  int64      // generation up to which the queue is filled
}

type oldEvent struct {
	id        int64
	time      time.Time
	operation string
	change
}

// oldEventsMost bounds the queue; the real one bounds its size in bytes.
const oldEventsMost = 10_000

// queueOld takes what changed into the queue, as far as somebody is registered for it.
func (p *Pool) queueOld() {
	since := p.old.seen
	p.old.seen = p.db.Generation()
	for _, s := range p.sessions {
		if len(s.subscriptions) > 0 {
			p.queueMatching(since)
			return
		}
	}
}

func (p *Pool) queueMatching(since int64) {
	var all []subscription
	for _, s := range p.sessions {
		all = append(all, parseSubscriptions(s.subscriptions)...)
	}
	b := p.collect(all, token{since, p.messages.generation})
	add := func(list []change, operation string) {
		for _, c := range slices.Backward(list) { // the newest stands first
			p.old.queue = append(p.old.queue, oldEvent{p.old.next, p.Clock.Now(), operation, c})
			p.old.next++
		}
	}
	add(b.adds, "add")
	add(b.mods, "mod")
	add(b.dels, "del")
	if n := len(p.old.queue); n > oldEventsMost {
		p.old.queue = slices.Clone(p.old.queue[n-oldEventsMost:])
	}
}

func eventRegister(c *Call) (any, error) {
	s := c.sessions[c.Session]
	if len(s.subscriptions) == 0 {
		s.lastEvent = c.old.next
	}
	s.subscriptions = append(s.subscriptions, c.Strs("classes")...)
	return nil, nil
}

func eventUnregister(c *Call) (any, error) {
	s := c.sessions[c.Session]
	s.subscriptions = slices.DeleteFunc(s.subscriptions, func(class string) bool {
		return slices.ContainsFunc(c.Strs("classes"), func(other string) bool { return strings.EqualFold(class, other) })
	})
	return nil, nil
}

// eventNext blocks without end until something happens to what event.register asked for.
func eventNext(c *Call) (any, error) {
	s := c.sessions[c.Session]
	if len(s.subscriptions) == 0 {
		return nil, Fail("SESSION_NOT_REGISTERED", fmt.Sprintf("trackid=%x", md5.Sum([]byte(c.Session)))) //nolint:gosec // as above
	}
	for {
		if _, alive := c.sessions[c.Session]; !alive {
			return nil, Fail("SESSION_INVALID", c.Session)
		}
		if len(c.old.queue) > 0 && s.lastEvent < c.old.queue[0].id-1 {
			s.lastEvent = c.old.next
			return nil, Fail("EVENTS_LOST")
		}
		events := c.oldAnswer(s)
		s.lastEvent = c.old.next
		if len(events) > 0 {
			return events, nil
		}
		if err := c.untilChange(time.Now().Add(time.Hour)); err != nil {
			return nil, err
		}
	}
}

// oldAnswer writes the events that a session has not heard: classes are spelled as they were registered, and times are
// real, in OCaml's form of a float.
func (p *Pool) oldAnswer(s *session) []any {
	events := []any{}
	subs := parseSubscriptions(s.subscriptions)
	for _, e := range p.old.queue {
		if e.id < s.lastEvent || !wantsObject(subs, e.class, e.ref) {
			continue
		}
		out := eventOf(e.change, e.operation)
		out[0].Value = fmt.Sprint(e.id)
		out[1].Value = fmt.Sprintf("%d.", e.time.Unix())
		for _, name := range s.subscriptions {
			if class, _, _ := strings.Cut(name, "/"); strings.EqualFold(class, e.class) {
				out[2].Value = class
			}
		}
		events = append(events, out)
	}
	return events
}
