package watch

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
)

// service is the registrar's name in subjects and alarms.
const service = "registrar"

// Kinds of alarms, the last token of their subject.
const (
	Expiry       = "certificate_expiry"
	CRL          = "crl_expiry"
	Clone        = "clone"
	Silent       = "silent"
	FailedLogins = "failed_logins"
	Guessing     = "claim_guessing"
	ForeignTopic = "foreign_topic"
	Unheard      = "connected_but_unheard"
	ClockWrong   = "clock_wrong"
)

func newAlarms(publish func(alarm.Alarm) error, gauge *prometheus.GaugeVec, log *slog.Logger) *alarm.Board {
	return alarm.NewBoard(service, []string{Expiry, CRL, Clone, Silent, FailedLogins, Guessing, ForeignTopic, Unheard, ClockWrong}, publish, gauge, log)
}
