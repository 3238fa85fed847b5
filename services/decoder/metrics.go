package decoder

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the decoder. The labels are bounded: reasons are a fixed set.
type metrics struct {
	received, decoded, duplicates, hits, misses, parked, tooMany prometheus.Counter
	wrongCRC, unknownMembers                                     prometheus.Counter
	deadLetters                                                  *prometheus.CounterVec
	waiting                                                      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: stage, Name: name, Help: help})
	}
	return &metrics{
		received:       counter("messages_received_total", "RAW messages received, redeliveries included."),
		decoded:        counter("messages_decoded_total", "Messages stored on DECODED."),
		duplicates:     counter("messages_duplicate_total", "Redelivered messages whose outcome was stored already."),
		hits:           counter("metadata_cache_hits_total", "Controllers found in the metadata cache."),
		misses:         counter("metadata_cache_misses_total", "Controllers read from PostgreSQL."),
		parked:         counter("messages_parked_total", "Messages stored on PARKED because the metadata of their controller could not be read."),
		wrongCRC:       counter("wrong_crc_total", "Modbus responses with a wrong CRC."),
		unknownMembers: counter("unknown_members_total", "Members of sensors' payloads that match no data point."),
		tooMany:        counter("latest_refused_total", "States not stored in LATEST because their controller has too many components there."),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "controllers_waiting", Help: "Controllers whose messages are parked until their metadata can be read.",
		}),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "dead_letters_total", Help: "Messages and parts of messages stored on DEAD_LETTER.",
		}, []string{"reason"}),
	}
}
