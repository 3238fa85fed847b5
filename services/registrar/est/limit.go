package est

import (
	"net/netip"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/f2mesh/f2mesh/pkg/topic"
)

// remembered bounds the sources and devices whose rate is known. Whoever pushes one
// out of memory with others has spent longer on it than its bucket takes to fill.
const remembered = 10000

// limits are token buckets by source and by device.
type limits struct {
	sources, devices *buckets
}

func newLimits(l Limits) (*limits, error) {
	sources, err := newBuckets(l.SourceRate, l.SourceBurst)
	if err != nil {
		return nil, err
	}
	devices, err := newBuckets(l.DeviceRate, l.DeviceBurst)
	return &limits{sources, devices}, err
}

// source is for an address with or without port.
func (l *limits) source(address string) bool { return l.sources.allow(network(address)) }

// network is who is counted as one source: an address, or for IPv6 the /64 that a
// client has as a whole; "" for what is no address.
func network(address string) string {
	ip, err := netip.ParseAddr(host(address))
	if err != nil {
		return ""
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		prefix, _ := ip.Prefix(64) // 64 bits are in any IPv6 address
		return prefix.String()
	}
	return ip.String()
}

// device is for a MAC; all that are none share a bucket.
func (l *limits) device(mac topic.MAC) bool { return l.devices.allow(string(mac)) }

type buckets struct {
	rate  rate.Limit
	burst int
	mu    sync.Mutex // makes looking and adding one step
	byKey *lru.Cache[string, *rate.Limiter]
}

func newBuckets(perSecond float64, burst int) (*buckets, error) {
	byKey, err := lru.New[string, *rate.Limiter](remembered)
	return &buckets{rate: rate.Limit(perSecond), burst: burst, byKey: byKey}, err
}

func (b *buckets) allow(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket, ok := b.byKey.Get(key)
	if !ok {
		bucket = rate.NewLimiter(b.rate, b.burst)
		b.byKey.Add(key, bucket)
	}
	return bucket.Allow()
}

// host is the address without its port.
func host(address string) string {
	if endpoint, err := netip.ParseAddrPort(address); err == nil {
		return endpoint.Addr().Unmap().String()
	}
	return address
}
