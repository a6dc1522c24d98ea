package xapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kubexen/kubexen/pkg/xensim/internal/datamodel"
	"github.com/kubexen/kubexen/pkg/xensim/internal/db"
)

// Pool is a pool of hosts under one toolstack.
type Pool struct {
	Clock    *Clock
	Model    *datamodel.Model
	User     string
	Password string
	Logf     func(format string, args ...any)

	WrongPassword time.Duration           // until a login with one is refused
	HostDies      func(host string) error // what a fault plan does to a host that it lets die

	mu      sync.Mutex // covers everything below
	db      *db.DB
	seen    int64         // generation that waiters were last told of
	changed chan struct{} // closed at the next change

	handlers map[string]Handler
	refresh  map[string]func(*Pool, string)
	sessions map[string]*session
	tasks    map[string]*task
	messages messageStore

	cancellable map[string]bool // messages whose tasks may be cancelled from the start

	old    oldEvents
	faults *FaultPlan
	calls  callLog
	routes []httpRoute

	//nolint:containedctx // the life of a toolstack is not that of any call
	life context.Context // ends when the toolstack restarts
	kill context.CancelCauseFunc
	//nolint:containedctx // nor is that of the pool
	closingCtx context.Context // ends when the pool is closed
	closeNow   context.CancelCauseFunc
	closed     bool
	work       sync.WaitGroup
	busy       int // what goes on in the background: Async calls, and what After has planned
}

// Handler implements a message. It runs with the pool locked. Its result is of the type that the data model gives the
// message; nil stands for void.
type Handler func(c *Call) (any, error)

var (
	errRestart = errors.New("the toolstack restarts")
	errClosed  = errors.New("the pool is closed")
)

// NewPool makes a pool with an empty database.
func NewPool(model *datamodel.Model, clock *Clock) *Pool {
	p := &Pool{Clock: clock, Model: model, User: "root", Logf: func(string, ...any) {},
		db: db.New(model), changed: make(chan struct{}), handlers: map[string]Handler{},
		refresh: map[string]func(*Pool, string){}, sessions: map[string]*session{}, tasks: map[string]*task{},
		cancellable: map[string]bool{}}
	p.life, p.kill = context.WithCancelCause(context.Background())
	p.closingCtx, p.closeNow = context.WithCancelCause(context.Background())
	p.faults = &FaultPlan{}
	registerOwn(p)
	return p
}

// Handle registers the implementation of a message ("VM.start"); the last registration counts.
func (p *Pool) Handle(message string, h Handler) {
	if p.Model.Message(message) == nil {
		return // of another version
	}
	p.handlers[message] = h
}

// OnRefresh registers what computes allowed_operations of a class's objects. It is called with the pool locked,
// whenever current_operations of an object changed.
func (p *Pool) OnRefresh(class string, f func(p *Pool, ref string)) { p.refresh[class] = f }

// Refresh recomputes allowed_operations of an object.
func (p *Pool) Refresh(class, ref string) {
	if f := p.refresh[class]; f != nil && p.db.Get(class, ref).Exists() {
		f(p, ref)
	}
}

// Lock takes the pool's lock.
func (p *Pool) Lock() { p.mu.Lock() }

// Unlock tells waiters of what changed and lets the lock go.
func (p *Pool) Unlock() {
	if p.db.Generation() != p.seen {
		p.seen = p.db.Generation()
		p.queueOld()
		p.wake()
	}
	p.mu.Unlock()
}

// wake lets everyone who waits for a change look again.
func (p *Pool) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// DB is the database; the pool must be locked.
func (p *Pool) DB() *db.DB { return p.db }

// Now is the pool's time, as it stands in records: whole seconds.
func (p *Pool) Now() time.Time { return p.Clock.Now().Truncate(time.Second) }

// NewRef makes a reference that was never used.
func NewRef() string { return "OpaqueRef:" + NewUUID() }

// NewUUID makes a uuid.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Create adds an object with a new reference, and a new uuid unless the fields have one.
func (p *Pool) Create(class string, fields db.Fields) string {
	ref := NewRef()
	if _, given := fields["uuid"]; !given && p.Model.Class(class).Field("uuid") != nil {
		with := db.Fields{"uuid": NewUUID()}
		for k, v := range fields {
			with[k] = v
		}
		fields = with
	}
	p.db.Create(class, ref, fields)
	return ref
}

// PoolRef is the reference of the pool object.
func (p *Pool) PoolRef() string {
	if refs := p.db.Refs("pool"); len(refs) > 0 {
		return refs[0]
	}
	return db.NullRef
}

// Coordinator is the reference of the host that coordinates the pool.
func (p *Pool) Coordinator() string {
	if pool := p.db.Get("pool", p.PoolRef()); pool.Exists() {
		return pool.Str("master")
	}
	return db.NullRef
}

// After runs f with the pool locked when a duration of the pool's time has passed, unless the pool is closed before.
// The pool must be locked when it is called.
// It is for what happens by itself: a guest's agent that starts to report, a guest that shuts itself down.
func (p *Pool) After(d time.Duration, f func()) {
	p.busy++
	p.work.Go(func() {
		err := p.Clock.Sleep(p.closing(), d)
		p.Lock()
		defer p.Unlock()
		p.busy--
		if err == nil && !p.closed {
			f()
		}
		p.wake()
	})
}

// Busy says whether anything goes on in the background; the pool must be locked.
func (p *Pool) Busy() bool { return p.busy > 0 }

// Changed gives a channel that is closed when the database changes next; the pool must be locked.
func (p *Pool) Changed() <-chan struct{} { return p.changed }
