package xapi

import (
	"slices"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
	"github.com/kubexen/kubexen/pkg/xensim/internal/wire"
)

// messageStore holds the messages of the pool (alerts and notes on objects). They are no rows of the database: events
// number them by a generation of their own, and valid_ref_counts says 0.
type messageStore struct {
	list       []message // oldest first
	generation int64
	deleted    []message // oldest first
}

type message struct {
	ref        string
	record     wire.Struct
	generation int64 // when it was created, or deleted
}

func registerMessages(p *Pool) {
	p.Handle("message.create", messageCreate)
	p.Handle("message.destroy", func(c *Call) (any, error) { return nil, c.destroyMessage(c.Self()) })
	p.Handle("message.destroy_many", func(c *Call) (any, error) {
		for _, ref := range c.Strs("messages") {
			if err := c.destroyMessage(ref); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	p.Handle("message.get_all", func(c *Call) (any, error) {
		refs := []string{}
		for _, m := range slices.Backward(c.messages.list) {
			refs = append(refs, m.ref)
		}
		return refs, nil
	})
	all := func(c *Call) (any, error) { return c.messageRecords(func(message) bool { return true }), nil }
	p.Handle("message.get_all_records", all)
	p.Handle("message.get_all_records_where", all)
	p.Handle("message.get_record", func(c *Call) (any, error) {
		if i := c.findMessage(c.Self()); i >= 0 {
			return c.messages.list[i].record, nil
		}
		return nil, HandleInvalid("message", c.Self())
	})
	p.Handle("message.get_by_uuid", messageByUUID)
	p.Handle("message.get_since", func(c *Call) (any, error) {
		since := c.Arg("since").(time.Time)
		return c.messageRecords(func(m message) bool { return m.time().After(since) }), nil
	})
	p.Handle("message.get", func(c *Call) (any, error) {
		since := c.Arg("since").(time.Time)
		return c.messageRecords(func(m message) bool {
			return m.text("cls") == c.Str("cls") && m.text("obj_uuid") == c.Str("obj_uuid") && m.time().After(since)
		}), nil
	})
}

func (m message) text(member string) string {
	v, _ := m.record.Get(member)
	s, _ := v.(string)
	return s
}

func (m message) time() time.Time {
	v, _ := m.record.Get("timestamp")
	t, _ := v.(time.Time)
	return t
}

// messageCreate checks that the object exists, as far as its class has a table.
func messageCreate(c *Call) (any, error) {
	class := c.Str("cls")
	if c.Model.Class(class) != nil {
		if _, ok := c.db.ByUUID(class, c.Str("obj_uuid")); !ok {
			return nil, Fail("UUID_INVALID", class, c.Str("obj_uuid"))
		}
	}
	return c.Post(c.Str("name"), c.Int("priority"), class, c.Str("obj_uuid"), c.Str("body")), nil
}

// Post adds a message about an object.
func (p *Pool) Post(name string, priority int64, class, objectUUID, body string) string {
	p.messages.generation++
	m := message{ref: NewRef(), generation: p.messages.generation, record: wire.Struct{
		{Name: "uuid", Value: NewUUID()}, {Name: "name", Value: name}, {Name: "priority", Value: priority},
		{Name: "cls", Value: class}, {Name: "obj_uuid", Value: objectUUID}, {Name: "timestamp", Value: p.Now()},
		{Name: "body", Value: body},
	}}
	p.messages.list = append(p.messages.list, m)
	p.wake()
	return m.ref
}

func (p *Pool) findMessage(ref string) int {
	return slices.IndexFunc(p.messages.list, func(m message) bool { return m.ref == ref })
}

func (p *Pool) destroyMessage(ref string) error {
	i := p.findMessage(ref)
	if i < 0 {
		return HandleInvalid("message", ref)
	}
	p.messages.generation++
	p.messages.deleted = append(p.messages.deleted, message{ref: ref, generation: p.messages.generation})
	p.messages.list = slices.Delete(p.messages.list, i, i+1)
	p.wake()
	return nil
}

func (p *Pool) messageRecords(keep func(message) bool) wire.Struct {
	out := wire.Struct{}
	for _, m := range slices.Backward(p.messages.list) {
		if keep(m) {
			out = append(out, wire.Member{Name: m.ref, Value: m.record})
		}
	}
	return out
}

func messageByUUID(c *Call) (any, error) {
	for _, m := range c.messages.list {
		if m.text("uuid") == c.Str("uuid") {
			return m.ref, nil
		}
	}
	return db.NullRef, Fail("UUID_INVALID", "message", c.Str("uuid"))
}
