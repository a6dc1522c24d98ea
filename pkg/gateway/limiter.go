package gateway

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// badTokens finds who tries tokens: beyond an allowance they are told so, lose their connection with each try, and are in the log no more.
// It never stands before a good token: users behind one address (an ingress, a company's
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

// networkOf is what an address is counted by: itself, or the /64 of an IPv6 address, which one customer owns.
func networkOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}

// clientOf is the address of whoever sent a request, without a port. Behind proxies that are trusted it is the last one in
// X-Forwarded-For which is none of theirs: what stands before it, anybody may have written.
func clientOf(r *http.Request, proxies []netip.Prefix) string {
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && trusted(address, proxies); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		address = hop.Unmap().String()
	}
	return address
}

func trusted(address string, proxies []netip.Prefix) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}
