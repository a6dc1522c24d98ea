package xensim

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// blocking names the calls that wait for something to happen. When what one waited for was caused by the exchange
// recorded after it, the replay must not wait for its answer before it sends that.
var blocking = map[string]struct{}{"event.from": {}, "event.next": {}}

// parked is a call that blocks.
type parked struct {
	exchange *exchange
	answer   chan *reply
	waited   bool // the exchange after it was sent
}

// reply is what came back for a request.
type reply struct {
	status  int
	headers http.Header
	body    string
	err     error
}

// park sends a call that may block and waits a moment. It gives nil when the call goes on blocking.
func (r *replayer) park(e *exchange) *reply {
	p := &parked{exchange: e, answer: make(chan *reply, 1)}
	ids := r.ids.clone()
	go func() { p.answer <- r.send(e, ids) }()
	patience := 300 * time.Millisecond
	if e.Response.Withheld || !answeredEarly(e) {
		patience = 10 * time.Second
	}
	select {
	case answer := <-p.answer:
		return answer
	case <-time.After(patience):
		r.parked = append(r.parked, p)
		return nil
	}
}

// answeredEarly says whether the recorded call had something to tell before its time was up.
func answeredEarly(e *exchange) bool {
	body := ""
	if e.Response.Body != nil {
		body = *e.Response.Body
	}
	return e.method() == "event.next" || strings.Contains(body, "SESSION_INVALID") || strings.Contains(body, "snapshot") ||
		strings.Contains(body, ">del<") || strings.Contains(body, `"del"`)
}

// collect compares the answers of parked calls that have come by now.
func (r *replayer) collect(found map[int][]string, patience time.Duration) {
	r.parked = slices.DeleteFunc(r.parked, func(p *parked) bool {
		if !p.waited {
			p.waited = true
			return false
		}
		select {
		case answer := <-p.answer:
			found[p.exchange.Number] = r.judgeReply(p.exchange, r.ids, answer)
			return true
		case <-time.After(patience):
			return false
		}
	})
}
