package xenapi

import (
	"context"
	"strconv"
	"time"
)

// eventGrace is how much longer than asked an event.from may take: half a second of the server's own, the rest for a large first answer.
const eventGrace = 60 * time.Second

// Event is one change of one object.
type Event struct {
	// ID orders events, which are not in order of time within a batch. Messages have 0 (recording 0509).
	ID int64
	// Class is in lower case, such as vm_guest_metrics.
	Class string
	// Operation says whether the object appeared, changed or went.
	Operation EventOperation
	// Ref is the object's reference.
	Ref string
	// Record is the object as it was when the batch was made: a VM, VDI and so on (the value, not a pointer), a [Value] for a class without a
	// type here, nil for EventOperationDel.
	Record any
}

// EventBatch is what one event.from answers.
type EventBatch struct {
	// Events are messages first, then what appeared, changed and went. Several changes of an object are one event.
	Events []Event
	// Token continues behind this batch.
	Token string
	// ValidRefCounts counts the objects of each class (lower case) on the server. A server forgets old deletions without saying so: where its
	// count is not that of a cache, the cache has missed one.
	ValidRefCounts map[string]int64
	// Serial is the session's, see [Client.SessionSerial]. A token of another session than the one before may lie ahead of the database.
	Serial uint64
}

// EventFrom waits until one of the classes changes, at most for timeout, and returns what changed since token. The empty token asks for everything
// that there is, as added. A class is "vm", "vm/OpaqueRef:…" for one object, or "*". The wait has a connection of its own.
//
// It fails with [ErrEventsLost] when the session is lost while it waits: the toolstack has probably been restarted, the database may have gone back
// behind token, and waiting on would miss everything until it has caught up. Begin again with the empty token.
func (c *Client) EventFrom(ctx context.Context, classes []string, token string, timeout time.Duration) (EventBatch, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout+eventGrace)
	defer cancel()
	var batch EventBatch
	err := c.attempts(ctx, request{
		client: c.events, method: "event.from", read: true, args: []any{classes, token, timeout.Seconds()}, continues: token != "",
	}, func(s *scanner) error {
		batch = EventBatch{}
		return readRecord(s, &batch)
	})
	if err != nil {
		return EventBatch{}, err
	}
	batch.Serial = c.SessionSerial()
	for _, event := range batch.Events {
		c.noticeTask(event)
	}
	return batch, nil
}

// noticeTask gives the slot of a task back that has ended.
func (c *Client) noticeTask(event Event) {
	if event.Class != "task" {
		return
	}
	task, ok := event.Record.(Task)
	if event.Operation == EventOperationDel || ok && task.Done() {
		c.tasks.finished(TaskRef(event.Ref))
	}
}

func (b *EventBatch) class() string { return "event batch" }

func (b *EventBatch) readField(s *scanner, name []byte) error {
	switch string(name) {
	case "events":
		return readList(s, &b.Events, readEvent)
	case "token":
		return readString(s, &b.Token)
	case "valid_ref_counts":
		return readMap(s, &b.ValidRefCounts, readKey[string], readInt)
	default:
		return readVoid(s, nil)
	}
}

func readEvent(s *scanner, out *Event) error { return readRecord(s, out) }

func (e *Event) class() string { return "event" }

func (e *Event) readField(s *scanner, name []byte) error {
	switch string(name) {
	case "id":
		return e.readID(s)
	case "class":
		return readString(s, &e.Class)
	case "operation":
		return readString(s, &e.Operation)
	case "ref":
		return readString(s, &e.Ref)
	case "snapshot":
		record, err := readSnapshot(s, e.Class)
		e.Record = record
		return err
	default: // timestamp is always 0.0
		return readVoid(s, nil)
	}
}

func (e *Event) readID(s *scanner) error {
	_, text, err := s.scalar()
	if err != nil {
		return err
	}
	e.ID, err = strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return s.fail(ErrUnexpectedType, "an event id that is no integer")
	}
	return nil
}
