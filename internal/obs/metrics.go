package obs

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barong/authz"
	"barong/internal/fault"

	"github.com/VictoriaMetrics/metrics"
)

// Metrics are the counters and gauges of one process. It is safe for concurrent use. Labels come from closed sets only:
// nothing a stranger sends makes a new series.
type Metrics struct {
	set     *metrics.Set
	checks  checks
	latency [dialectCount][2]histogram // of checks: cold, warm

	mu    sync.Mutex
	asked []function
}

// A function is a series whose value is asked for whenever the metrics are read.
type function struct {
	series string
	value  func() float64
}

// NewMetrics returns metrics that have counted nothing yet.
func NewMetrics() *Metrics {
	metrics.ExposeMetadata(true) // "# TYPE" lines; a switch of the whole library
	m := &Metrics{set: metrics.NewSet()}
	m.checks.init(m.set)
	for d := range m.latency {
		for warm := range m.latency[d] {
			m.latency[d][warm].labels = fmt.Sprintf(`dialect=%q,warm="%t"`, authz.Dialect(d), warm == 1)
		}
	}
	b := Built()
	m.Gauge("barong_build_info", func() float64 { return 1 }, "version", b.Version, "commit", b.Commit, "go", b.Go)
	start := float64(started.UnixMilli()) / 1000
	m.Gauge("barong_start_time_seconds", func() float64 { return start })
	return m
}

// Write writes every metric, and those of the Go runtime and the process, in the text format of Prometheus.
func (m *Metrics) Write(w io.Writer) {
	m.set.WritePrometheus(w)
	m.writeLatency(w)
	m.writeAsked(w)
	metrics.WriteProcessMetrics(w)
}

// CounterFunc asks f for a number that only grows whenever the metrics are read. A counter of the same name and labels is
// replaced.
func (m *Metrics) CounterFunc(name string, f func() float64, labels ...string) {
	series := seriesOf(name, labels)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(slices.DeleteFunc(m.asked, func(have function) bool { return have.series == series }), function{series, f})
	slices.SortStableFunc(m.asked, func(a, b function) int { return strings.Compare(a.series, b.series) })
}

func (m *Metrics) writeAsked(w io.Writer) {
	m.mu.Lock()
	asked := slices.Clone(m.asked)
	m.mu.Unlock()
	last := ""
	for _, f := range asked {
		name, _, _ := strings.Cut(f.series, "{")
		if name != last {
			fmt.Fprintf(w, "# TYPE %s counter\n", name)
			last = name
		}
		fmt.Fprintf(w, "%s %v\n", f.series, f.value())
	}
}

// Gauge asks f for a value whenever the metrics are read. Labels are pairs of name and value. A gauge of the same name
// and labels is replaced.
func (m *Metrics) Gauge(name string, f func() float64, labels ...string) {
	series := seriesOf(name, labels)
	m.set.UnregisterMetric(series)
	m.set.NewGauge(series, f)
}

// Counter returns the counter of that name and labels, which are pairs of name and value from closed sets.
func (m *Metrics) Counter(name string, labels ...string) *metrics.Counter {
	return m.set.GetOrCreateCounter(seriesOf(name, labels))
}

// latencies are the upper bounds of the buckets of request times, in seconds.
var latencies = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Histogram returns the histogram of durations, in seconds, of that name and labels.
func (m *Metrics) Histogram(name string, labels ...string) *metrics.PrometheusHistogram {
	return m.set.GetOrCreatePrometheusHistogramExt(seriesOf(name, labels), latencies)
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func seriesOf(name string, labels []string) string {
	if len(labels) == 0 {
		return name
	}
	var b strings.Builder
	b.WriteString(name)
	open := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteByte(open)
		open = ','
		b.WriteString(labels[i])
		b.WriteString(`="`)
		b.WriteString(escaper.Replace(labels[i+1]))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// Sizes of the table of check counters. A test holds them against authz.
const (
	dialectCount    = int(authz.SelfGate) + 1
	effectCount     = int(authz.Pass) + 1
	credentialCount = int(authz.APIKey) + 1
	maxCodes        = 64
)

// effects are the values of the label "decision".
var effects = [effectCount]string{authz.Deny: "deny", authz.Allow: "allow", authz.Pass: "pass"}

// otherCode labels a denial whose code is not in the catalogue.
const otherCode = "other"

// checks counts decisions in a table of counters, so that counting allocates nothing and takes no lock. A counter comes
// to be with the first decision of its kind; those of the decisions that every deployment sees stand there from the
// beginning, at 0.
type checks struct {
	set      *metrics.Set
	codes    []string         // "" first, otherCode second
	index    map[string]uint8 // of a code in codes; read only
	counters [dialectCount][effectCount][credentialCount][maxCodes]atomic.Pointer[metrics.Counter]
}

func (c *checks) init(set *metrics.Set) {
	c.set, c.codes = set, []string{"", otherCode}
	for _, e := range fault.Catalogue() {
		if code := string(e.Code); (strings.HasPrefix(code, "authz.") || code == string(fault.InternalError)) && len(c.codes) < maxCodes {
			c.codes = append(c.codes, code)
		}
	}
	c.index = make(map[string]uint8, len(c.codes))
	for i, code := range c.codes {
		c.index[code] = uint8(i)
	}
	for d := range dialectCount {
		for _, k := range []authz.Credential{authz.Cookie, authz.APIKey} {
			c.counter(authz.Dialect(d), authz.Allow, k, 0)
		}
		c.counter(authz.Dialect(d), authz.Pass, authz.NoCredential, 0)
	}
}

func (c *checks) counter(d authz.Dialect, e authz.Effect, k authz.Credential, code uint8) *metrics.Counter {
	at := &c.counters[d][e][k][code]
	if n := at.Load(); n != nil {
		return n
	}
	n := c.set.GetOrCreateCounter(seriesOf("barong_checks_total", []string{
		"decision", effects[e], "code", c.codes[code], "credential", k.String(), "dialect", d.String(),
	}))
	at.Store(n)
	return n
}

// Observe counts one check in barong_checks_total. A code outside the catalogue counts as "other".
func (m *Metrics) Observe(dialect authz.Dialect, effect authz.Effect, code string, credential authz.Credential) {
	if int(dialect) >= dialectCount || int(effect) >= effectCount || int(credential) >= credentialCount {
		return // a value that no check can have
	}
	var i uint8
	if code != "" {
		var ok bool
		if i, ok = m.checks.index[code]; !ok {
			i = 1
		}
	}
	m.checks.counter(dialect, effect, credential, i).Inc()
}

// checkBounds are the upper bounds of the buckets of checks, in nanoseconds. Most checks fall below the first few.
var checkBounds = [...]int64{
	5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
	1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000,
	1_000_000_000, 2_500_000_000,
}

// A histogram counts durations without a lock: every check that is timed writes to it.
type histogram struct {
	labels  string
	buckets [len(checkBounds) + 1]atomic.Uint64 // not cumulative
	sum     atomic.Uint64                       // nanoseconds
}

func (h *histogram) add(took time.Duration, weight uint64) {
	n := max(int64(took), 0)
	i := 0
	for i < len(checkBounds) && n > checkBounds[i] {
		i++
	}
	h.buckets[i].Add(weight)
	h.sum.Add(uint64(n) * weight)
}

// Took adds a check, which stands for so many like it, to barong_check_duration_seconds. It allocates nothing.
func (m *Metrics) Took(dialect authz.Dialect, warm bool, took time.Duration, checks uint64) {
	if int(dialect) >= dialectCount {
		return // a value that no check can have
	}
	kind := 0
	if warm {
		kind = 1
	}
	m.latency[dialect][kind].add(took, checks)
}

func (m *Metrics) writeLatency(w io.Writer) {
	const name = "barong_check_duration_seconds"
	fmt.Fprintf(w, "# TYPE %s histogram\n", name)
	for d := range m.latency {
		for k := range m.latency[d] {
			h := &m.latency[d][k]
			var sum uint64
			for i := range checkBounds {
				sum += h.buckets[i].Load()
				fmt.Fprintf(w, "%s_bucket{%s,le=\"%v\"} %d\n", name, h.labels, float64(checkBounds[i])/1e9, sum)
			}
			sum += h.buckets[len(checkBounds)].Load()
			fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n", name, h.labels, sum)
			fmt.Fprintf(w, "%s_sum{%s} %v\n%s_count{%s} %d\n", name, h.labels, float64(h.sum.Load())/1e9, name, h.labels, sum)
		}
	}
}

// A Route counts the requests of one route of the REST API.
type Route struct {
	m            *Metrics
	method, path string
	took         *metrics.PrometheusHistogram
	statuses     [600]atomic.Pointer[metrics.Counter]
}

// Route returns the counters of one route; path is its pattern, such as "/admin/users/{uid}", never a request's path.
func (m *Metrics) Route(method, path string) *Route {
	return &Route{
		m: m, method: method, path: path,
		took: m.Histogram("barong_http_request_duration_seconds", "method", method, "route", path),
	}
}

// Observe counts one answer with its status and how long it took. It allocates nothing but for the first of a status.
func (r *Route) Observe(status int, took time.Duration) {
	r.took.Update(took.Seconds())
	if status < 0 || status >= len(r.statuses) {
		status = 0
	}
	n := r.statuses[status].Load()
	if n == nil {
		n = r.m.Counter("barong_http_requests_total", "method", r.method, "route", r.path, "status", fmt.Sprint(status))
		r.statuses[status].Store(n)
	}
	n.Inc()
}
