package est

import (
	"net/http"
	"strconv"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// refusal is why a request is not granted.
type refusal struct {
	status int
	text   string // for the client
	reason string // for metrics and the audit trail, one of a fixed set
	mac    topic.MAC
	err    error // for the log, nil if nothing of ours failed
	// silent refusals are not on the audit trail: nobody tried anything.
	silent bool
}

// Texts for the client. What is behind a refused code is the same whatever it is.
const (
	textCredentials = "MAC or claiming code is not accepted: a code is good for one enrolment, an operator gives out the next" //nolint:gosec // a text, not a secret
	textRegistered  = "the device is registered already: it re-enrols with its certificate"
	textCertificate = "the client certificate is not accepted: enrol anew, or ask an operator to register the device"
)

func unauthorised(mac topic.MAC, reason string) *refusal {
	return &refusal{status: http.StatusUnauthorized, text: textCredentials, reason: reason, mac: mac}
}

func forbidden(mac topic.MAC, reason, text string) *refusal {
	return &refusal{status: http.StatusForbidden, text: text, reason: reason, mac: mac}
}

func malformed(mac topic.MAC, text string) *refusal {
	return &refusal{status: http.StatusBadRequest, text: text, reason: "bad_request", mac: mac}
}

// tooMany is not on the audit trail, which whoever floods us would fill.
func tooMany(mac topic.MAC) *refusal {
	return &refusal{status: http.StatusTooManyRequests, text: "too many requests", reason: "rate_limit", mac: mac, silent: true}
}

func unavailable(mac topic.MAC, err error) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, text: "try again later", reason: "unavailable", mac: mac, err: err, silent: true}
}

// retryAfter is when a client may try again, in seconds.
const retryAfter = 30

// refuse tells the client, the log, the metrics and the audit trail.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, f *refusal) {
	s.metrics.refused.WithLabelValues(f.reason).Inc()
	if f.err != nil {
		s.cfg.Log.Error("enrolment not possible", "mac", f.mac, "address", web.HostOf(r.RemoteAddr), "error", f.err)
	}
	if !f.silent {
		s.trail.refused(r.Context(), f, web.HostOf(r.RemoteAddr))
	}
	switch f.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="f2mesh: MAC and claiming code", charset="UTF-8"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	http.Error(w, f.text, f.status)
}
