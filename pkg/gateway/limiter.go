package gateway

import (
	"container/list"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// badTokens slows down whoever tries tokens. It never stands before a good token: users behind one address (an ingress, a company's
// gateway) are not locked out by one of them. It remembers a bounded number of addresses, the least recent is forgotten.
type badTokens struct {
	mu      sync.Mutex
	every   time.Duration
	burst   int
	size    int
	entries map[string]*list.Element
	recent  *list.List
}

type badTokenEntry struct {
	address string
	limit   *rate.Limiter
}

func newBadTokens(every time.Duration, burst, size int) *badTokens {
	return &badTokens{every: every, burst: burst, size: size, entries: map[string]*list.Element{}, recent: list.New()}
}

// seen counts a bad token from an address at now and reports whether it is still within its allowance.
func (b *badTokens) seen(address string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	element, ok := b.entries[address]
	if !ok {
		if b.recent.Len() >= b.size {
			oldest := b.recent.Back()
			delete(b.entries, oldest.Value.(*badTokenEntry).address)
			b.recent.Remove(oldest)
		}
		element = b.recent.PushFront(&badTokenEntry{address: address, limit: rate.NewLimiter(rate.Every(b.every), b.burst)})
		b.entries[address] = element
	}
	b.recent.MoveToFront(element)
	return element.Value.(*badTokenEntry).limit.AllowN(now, 1)
}

// addressOf is the peer's address without its port; an IPv6 peer is counted by its /64, which one customer owns.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.To4() != nil {
		return host
	}
	return ip.Mask(net.CIDRMask(64, 128)).String() + "/64"
}
