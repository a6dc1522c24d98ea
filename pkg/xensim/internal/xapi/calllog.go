package xapi

import (
	"sync"
	"time"
)

// CallRecord is one call that a client made.
type CallRecord struct {
	Method    string    `json:"method"`
	Error     string    `json:"error,omitempty"`  // error code, or "dropped"
	Object    string    `json:"object,omitempty"` // name_label of the object that the call is about
	Ref       string    `json:"ref,omitempty"`    // reference of that object, which tells it from others of its name
	UserAgent string    `json:"userAgent,omitempty"`
	Time      time.Time `json:"time"` // of the wall clock
}

// callLogMost bounds the calls that are kept one by one; the counts go on.
const callLogMost = 100_000

// callLog counts calls, so that tests can assert how many were made.
type callLog struct {
	mu     sync.Mutex
	list   []CallRecord
	counts map[string]int
	errors map[string]int
}

func (l *callLog) add(r Request, object string, err error) {
	entry := CallRecord{Method: r.Method, Object: object, UserAgent: r.UserAgent, Time: time.Now()}
	if len(r.Params) > 1 && object != "" {
		entry.Ref, _ = r.Params[1].(string)
	}
	if err != nil {
		entry.Error = errorOf(err).Code
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts, l.errors = map[string]int{}, map[string]int{}
	}
	l.counts[r.Method]++
	if entry.Error != "" {
		l.errors[entry.Error]++
	}
	if len(l.list) < callLogMost {
		l.list = append(l.list, entry)
	}
}

// CallCounts is what /xensim/calls answers.
type CallCounts struct {
	Total  int            `json:"total"`
	Calls  map[string]int `json:"calls"`  // by method
	Errors map[string]int `json:"errors"` // by error code
}

// Calls gives the calls made since the last reset, in order.
func (p *Pool) Calls() []CallRecord {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	return append([]CallRecord{}, p.calls.list...)
}

// CallCounts gives the numbers of calls made since the last reset.
func (p *Pool) CallCounts() CallCounts {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	out := CallCounts{Calls: map[string]int{}, Errors: map[string]int{}}
	for method, n := range p.calls.counts {
		out.Calls[method] = n
		out.Total += n
	}
	for code, n := range p.calls.errors {
		out.Errors[code] = n
	}
	return out
}

// ResetCalls forgets the calls made so far.
func (p *Pool) ResetCalls() {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	p.calls.list, p.calls.counts, p.calls.errors = nil, nil, nil
}
