package obs

import (
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// A Store counts the calls of one store.
type Store struct {
	took   map[string]*metrics.PrometheusHistogram
	failed map[string]*metrics.Counter
}

// Store returns the counters of a store, whose operations are a closed set.
func (m *Metrics) Store(name string, operations []string) *Store {
	s := &Store{took: map[string]*metrics.PrometheusHistogram{}, failed: map[string]*metrics.Counter{}}
	for _, operation := range operations {
		s.took[operation] = m.Histogram("barong_store_call_duration_seconds", "store", name, "operation", operation)
		s.failed[operation] = m.Counter("barong_store_errors_total", "store", name, "operation", operation)
	}
	return s
}

// Observe counts one call, which failed if err is not nil.
func (s *Store) Observe(operation string, took time.Duration, err error) {
	h, ok := s.took[operation]
	if !ok {
		return // not of the set
	}
	h.Update(took.Seconds())
	if err != nil {
		s.failed[operation].Inc()
	}
}
