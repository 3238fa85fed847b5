package secret

import "github.com/prometheus/client_golang/prometheus"

var (
	downgradedDesc = prometheus.NewDesc("f2mesh_secret_downgraded",
		"1 while a secret's last good value is in use because its source does not answer, or a higher one cannot be asked.",
		[]string{"secret"}, nil)
	infoDesc = prometheus.NewDesc("f2mesh_secret_info",
		"Where a secret's current value is from; always 1.",
		[]string{"secret", "source", "version"}, nil)
)

// Describe makes a Store a prometheus.Collector, to be registered as it is.
func (s *Store) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- downgradedDesc
	descriptions <- infoDesc
}

// Collect gives one series of each metric for every secret that was found.
func (s *Store) Collect(metrics chan<- prometheus.Metric) {
	for _, status := range s.Status() {
		if status.Source == "" {
			continue
		}
		downgraded := 0.0
		if status.Downgraded {
			downgraded = 1
		}
		metrics <- prometheus.MustNewConstMetric(downgradedDesc, prometheus.GaugeValue, downgraded, status.Name)
		metrics <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1, status.Name, status.Source, status.Version)
	}
}
