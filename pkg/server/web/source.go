package web

import (
	"net/netip"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// HostOf is the address without its port.
func HostOf(address string) string {
	if endpoint, err := netip.ParseAddrPort(address); err == nil {
		return endpoint.Addr().Unmap().String()
	}
	return address
}

// Network is who is counted as one source: an address, with or without port, or for
// IPv6 the /64 that a client has as a whole; "" for what is no address.
func Network(address string) string {
	ip, err := netip.ParseAddr(HostOf(address))
	if err != nil {
		return ""
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		prefix, _ := ip.Prefix(64) // 64 bits are in any IPv6 address
		return prefix.String()
	}
	return ip.String()
}

// remembered bounds the keys whose rate is known. Whoever pushes one out of memory
// with others has spent longer on it than its bucket takes to fill.
const remembered = 10000

// Buckets are token buckets by key, such as a source. They are safe for concurrent
// use.
type Buckets struct {
	rate  rate.Limit
	burst int
	mu    sync.Mutex // makes looking and adding one step
	byKey *lru.Cache[string, *rate.Limiter]
}

// NewBuckets returns buckets that are full.
func NewBuckets(perSecond float64, burst int) *Buckets {
	byKey, err := lru.New[string, *rate.Limiter](remembered)
	if err != nil {
		panic(err) // of a size that is not positive
	}
	return &Buckets{rate: rate.Limit(perSecond), burst: burst, byKey: byKey}
}

// Allow takes a token out of the key's bucket; it answers false if there is none.
func (b *Buckets) Allow(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket, ok := b.byKey.Get(key)
	if !ok {
		bucket = rate.NewLimiter(b.rate, b.burst)
		b.byKey.Add(key, bucket)
	}
	return bucket.Allow()
}

// Spent tells whether the key's bucket is empty, and takes nothing out of it.
func (b *Buckets) Spent(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket, ok := b.byKey.Get(key)
	return ok && bucket.Tokens() < 1
}
