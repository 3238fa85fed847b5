package registrar

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// longestSerialNumber is that of the attribute in a name (X.520 ub-serial-number).
const longestSerialNumber = 64

// MACs that no device has. Lists have them in place of one.
const (
	nobody    topic.MAC = "000000000000"
	everybody topic.MAC = "ffffffffffff"
)

// Register gives each device a certificate and lets it in. The answers are in the
// order of the requests; one that is refused does not stop the others, and each
// happens whole or not at all. A device that is registered already stays as it is.
// The error is one that stopped the batch. A batch costs the broker one reading of
// its lists, whatever its size, and what is asked for while one is under way becomes
// the next batch together. Whoever gives up waiting (ctx) before a batch has its turn is
// left out of it; later that stops nothing.
func (r *Registrar) Register(ctx context.Context, origin Origin, requests ...Request) ([]RequestResult, error) {
	w := &call{ctx: ctx, origin: origin, requests: requests, results: make([]RequestResult, len(requests)), done: make(chan struct{})}
	r.queue.join(w, func() { r.registerQueue(context.WithoutCancel(ctx)) })
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("registering: %w", ctx.Err())
	case <-w.done:
	}
	if w.err != nil {
		return nil, fmt.Errorf("registering: %w", w.err)
	}
	return w.results, nil
}

// registerQueue works until nobody waits.
func (r *Registrar) registerQueue(ctx context.Context) {
	for batch := r.queue.take(); len(batch) > 0; batch = r.queue.take() {
		bounded, cancel := context.WithTimeout(ctx, followTimeout)
		err := r.change(bounded, Origin{}, func(ctx context.Context, c *change) error { return c.register(ctx, batch) })
		cancel()
		for _, w := range batch {
			w.err = err
			close(w.done)
		}
	}
}

func (c *change) register(ctx context.Context, batch []*call) error {
	orders, replaced, err := c.decide(ctx, c.tx, batch)
	if err != nil {
		return err
	}
	done, err := c.issue(ctx, orders)
	if err != nil {
		return err
	}
	var replacing []topic.MAC
	for _, o := range done {
		c.origin = o.origin
		c.record(Issue, o.mac, o.result.Device.Certificate, issueDetail(o))
		if replaced[o.mac] {
			replacing = append(replacing, o.mac)
		}
	}
	// Before the new ones are entered: those are not to be revoked.
	if err := c.revokeCertificates(ctx, Superseded, replacing); err != nil {
		return err
	}
	return c.enter(ctx, done)
}

func issueDetail(o *order) string {
	detail := "serial number " + o.serialNumber
	if o.csr != nil {
		detail += ", key of the device"
	}
	return detail
}

// Foresee answers what Register would, and does nothing: a result is Issued where a
// certificate would be. What goes wrong only in the doing it cannot know.
func (r *Registrar) Foresee(ctx context.Context, requests ...Request) ([]RequestResult, error) {
	w := &call{ctx: ctx, requests: requests, results: make([]RequestResult, len(requests))}
	orders, _, err := r.decide(ctx, r.cfg.Pool, []*call{w})
	if err != nil {
		return nil, fmt.Errorf("reading the registry: %w", err)
	}
	for _, o := range orders {
		o.result.Issued = true
	}
	return w.results, nil
}

// decide sorts the requests: into orders, devices whose certificates are replaced,
// and results for the others.
func (r *Registrar) decide(ctx context.Context, q asker, batch []*call) (orders []*order, replaced map[topic.MAC]bool, err error) {
	// A device that got its certificate when it had stopped waiting for it would be
	// registered, and have none.
	batch = slices.DeleteFunc(slices.Clone(batch), func(w *call) bool { return w.ctx.Err() != nil })
	var named []topic.MAC
	for _, w := range batch {
		for i := range w.requests {
			named = append(named, w.requests[i].MAC)
		}
	}
	registered, err := known(ctx, q, named)
	if err != nil {
		return nil, nil, err
	}
	seen := make(map[topic.MAC]bool, len(named))
	replaced = map[topic.MAC]bool{}
	for _, w := range batch {
		for i := range w.requests {
			q, result := &w.requests[i], &w.results[i]
			device, exists := registered[q.MAC]
			switch {
			case seen[q.MAC]:
				result.Err = fmt.Errorf("%w: named twice in one batch", ErrRefused)
				continue
			case exists && !q.Force:
				result.Device, result.Err = device, r.unchanged(&device, q)
				continue
			}
			if result.Err = check(q); result.Err != nil {
				continue
			}
			seen[q.MAC], replaced[q.MAC] = true, exists
			orders = append(orders, &order{origin: w.origin, mac: q.MAC, serialNumber: q.SerialNumber, csr: q.CSR, result: result})
		}
	}
	return orders, replaced, nil
}

// unchanged is what a device that is registered answers to who registers it again.
func (r *Registrar) unchanged(d *Device, q *Request) error {
	switch {
	case d.Status == Revoked:
		return ErrRevoked
	case d.SerialNumber != q.SerialNumber:
		return fmt.Errorf("%w: %s", ErrConflict, d.SerialNumber)
	case q.CSR != nil && !r.certified(d.MAC, q.CSR):
		return ErrOtherKey
	}
	return nil
}

func check(q *Request) error {
	if mac, err := topic.ParseMAC(string(q.MAC)); err != nil || mac != q.MAC {
		return fmt.Errorf("%w: %q is not a MAC", ErrRefused, string(q.MAC))
	}
	if q.MAC == nobody || q.MAC == everybody {
		return fmt.Errorf("%w: %s is no device's MAC", ErrRefused, q.MAC.Dashed())
	}
	if err := checkSerialNumber(q.SerialNumber); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if q.CSR == nil {
		return nil
	}
	if err := identity.CheckRequest(q.CSR); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

func checkSerialNumber(s string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	switch {
	case strings.TrimSpace(s) == "":
		return errors.New("the serial number is missing")
	case strings.TrimSpace(s) != s:
		return errors.New("the serial number begins or ends with a space")
	case len(s) > longestSerialNumber:
		return fmt.Errorf("the serial number has more than %d bytes", longestSerialNumber)
	case strings.ContainsFunc(s, odd):
		return errors.New("the serial number has a character that does not print")
	}
	return nil
}

// Renew gives an active device another certificate. The old one stays valid until
// it expires: the device goes on with it until it has the new one. A nil csr is
// refused for a device that made its own key. A device that asks for itself gets no
// more than maxValid. shown is the certificate by which a
// device asks for itself, nil for anybody else: it must still count (Check) at the
// moment of the renewal, which may have waited for the operation that revoked it.
func (r *Registrar) Renew(ctx context.Context, origin Origin, mac topic.MAC, csr *x509.CertificateRequest, shown *x509.Certificate) (RequestResult, error) {
	var result RequestResult
	err := r.change(ctx, origin, func(ctx context.Context, c *change) error {
		registered, err := known(ctx, c.tx, []topic.MAC{mac})
		if err != nil {
			return err
		}
		device, ok := registered[mac]
		if err := renewable(&device, ok, csr); err != nil {
			return err
		}
		if shown != nil {
			if err := counts(ctx, c.tx, mac, shown); err != nil {
				return err
			}
			if err := c.roomFor(ctx, mac); err != nil {
				return err
			}
		}
		done, err := c.issue(ctx, []*order{{mac: mac, serialNumber: device.SerialNumber, csr: csr, result: &result}})
		if err != nil {
			return err
		}
		if result.Err != nil {
			return result.Err
		}
		result.Device.RegisteredAt, result.Device.RenewedAt = device.RegisteredAt, &c.now
		c.record(RenewAction, mac, result.Device.Certificate, "until then "+device.Certificate)
		return c.enter(ctx, done)
	})
	if err != nil {
		return RequestResult{Err: err}, fmt.Errorf("renewing %s: %w", mac.Dashed(), err)
	}
	return result, nil
}

// maxValid is how many certificates a device has at once that are neither expired nor
// revoked, by asking for them itself: the one that it uses, and some that it never
// received. An operator may give it more.
const maxValid = 4

// roomFor answers ErrTooMany for a device that has enough of them.
func (c *change) roomFor(ctx context.Context, mac topic.MAC) error {
	var valid int
	err := c.tx.QueryRow(ctx, "SELECT count(*) FROM certificate WHERE mac = $1 AND revoked_at IS NULL AND not_after > $2", mac, c.now).Scan(&valid)
	if err != nil {
		return fmt.Errorf("reading the registry: %w", err)
	}
	if valid >= maxValid {
		return fmt.Errorf("%w: %d; `f2mesh device register --force` revokes them and gives another", ErrTooMany, valid)
	}
	return nil
}

func renewable(d *Device, registered bool, csr *x509.CertificateRequest) error {
	switch {
	case !registered:
		return ErrUnknown
	case d.Status == Revoked:
		return ErrRevoked
	case csr == nil && d.OwnKey:
		return fmt.Errorf("%w: the device made its own key, and only a certificate request of its own can renew it", ErrRefused)
	case csr != nil:
		if err := identity.CheckRequest(csr); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	return nil
}

// Due reports whether the device's certificate should be renewed: two thirds of its
// life are over (design 9).
func (d *Device) Due(now time.Time) bool {
	return identity.Due(&x509.Certificate{NotBefore: d.NotBefore, NotAfter: d.NotAfter}, now)
}
