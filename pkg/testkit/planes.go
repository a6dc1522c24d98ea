package testkit

import "sync"

// planes are the control planes of this process. One serves one test and its subtests at a time, or one subtest of a test that has
// none; another is started only when tests run in parallel.
var planes = leases{start: startEnvironment}

type leases struct {
	start func() (*Environment, error)

	mu   sync.Mutex
	all  []*Environment
	idle []*Environment
	// of says who has which, by the name of the test that asked first.
	of map[string]*lease
	// err is why one did not start. It is not tried again: every test would wait for it.
	err error
}

// lease is a control plane in use.
type lease struct {
	once        sync.Once
	environment *Environment
	err         error
	users       int
}

// owner is a test.
type owner interface {
	Name() string
	Cleanup(func())
}

// take gives the test the control plane that it or a parent has, else an idle one, else a new one.
func (l *leases) take(t owner) (*Environment, error) {
	l.mu.Lock()
	name := l.holder(t.Name())
	held := l.of[name]
	if held == nil {
		held = &lease{}
		if l.of == nil {
			l.of = map[string]*lease{}
		}
		l.of[name] = held
	}
	held.users++
	l.mu.Unlock()
	t.Cleanup(func() { l.release(name, held) })
	held.once.Do(func() { held.environment, held.err = l.idleOrNew() })
	return held.environment, held.err
}

// holder is the parent of a test that has a control plane, or the test itself.
func (l *leases) holder(test string) string {
	for end, c := range test {
		if c == '/' && l.of[test[:end]] != nil {
			return test[:end]
		}
	}
	return test
}

func (l *leases) idleOrNew() (*Environment, error) {
	l.mu.Lock()
	err, last := l.err, len(l.idle)-1
	if err != nil || last >= 0 {
		defer l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		environment := l.idle[last]
		l.idle = l.idle[:last]
		return environment, nil
	}
	l.mu.Unlock()
	environment, err := l.start()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.err = err
		return nil, err
	}
	l.all = append(l.all, environment)
	return environment, nil
}

// release makes the control plane idle when the last of the test's users has ended.
func (l *leases) release(name string, held *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held.users--; held.users > 0 {
		return
	}
	delete(l.of, name)
	if held.environment != nil {
		l.idle = append(l.idle, held.environment)
	}
}

func (l *leases) stop() {
	for _, environment := range l.all {
		environment.Stop()
	}
}
