package health

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// service is its name in subjects, alarms and metrics.
const service = "health"

// metrics are the last look at the mesh. The labels are bounded: stages, streams,
// kinds of alarms and the mesh's own certificates.
type metrics struct {
	alarms, ready, lag, bytes, limit, used, ends *prometheus.GaugeVec
	looked                                       prometheus.Gauge
	failedLogins                                 prometheus.Counter
	certificates                                 []string // that ends has
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "f2mesh", Subsystem: service, Name: name, Help: help}, []string{label})
	}
	return &metrics{
		alarms: gauge("alarms", "Alarms that are raised now.", "alarm"),
		ready:  gauge("stage_ready", "1 while the stage reports that it is ready.", "stage"),
		lag:    gauge("stage_lag_messages", "Messages that wait for the stage or are being processed.", "stage"),
		bytes:  gauge("stream_size_bytes", "Size of the stream's messages.", "stream"),
		limit:  gauge("stream_limit_bytes", "Size limit of the stream.", "stream"),
		used:   gauge("stream_used_ratio", "Share of the stream's limit in use, without history, which is trimmed.", "stream"),
		ends:   gauge("certificate_not_after_timestamp_seconds", "When a certificate of the mesh itself expires.", "certificate"),
		looked: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: service, Name: "last_look_timestamp_seconds", Help: "When the mesh was last checked.",
		}),
		failedLogins: f.NewCounter(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: service, Name: "failed_logins_total", Help: "Requests with a wrong password.",
		}),
	}
}

func (m *metrics) show(s *MeshStatus) {
	for i := range s.Stages {
		stage := &s.Stages[i]
		ready := 0.0
		if stage.Ready {
			ready = 1
		}
		m.ready.WithLabelValues(stage.Stage).Set(ready)
		m.lag.WithLabelValues(stage.Stage).Set(float64(stage.Lag))
	}
	for i := range s.Streams {
		m.bytes.WithLabelValues(s.Streams[i].Stream).Set(float64(s.Streams[i].Bytes))
		m.limit.WithLabelValues(s.Streams[i].Stream).Set(float64(s.Streams[i].MaxBytes))
		m.used.WithLabelValues(s.Streams[i].Stream).Set(s.Streams[i].fill())
	}
	gone := m.certificates
	m.certificates = nil
	for _, c := range s.Certificates {
		m.ends.WithLabelValues(c.Name).Set(float64(c.NotAfter.Unix()))
		m.certificates = append(m.certificates, c.Name)
	}
	for _, name := range gone { // no sooner: an alert must not miss one that stays
		if !slices.Contains(m.certificates, name) {
			m.ends.DeleteLabelValues(name)
		}
	}
	m.looked.Set(float64(s.Time.Unix()))
}
