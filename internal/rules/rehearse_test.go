package rules

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"barong/db"
	"barong/policy"
)

func ref(s string) *string { return &s }

func TestSampler(t *testing.T) {
	s := NewSampler()
	path := []byte("a/b")
	view := string(path)
	for range 3 {
		s.Sample("m", "GET", view, true)
	}
	s.Sample("m", "GET", "a/c", false)
	s.Sample("m", "GET", "a/c", true) // the rules changed meanwhile
	s.Sample("m", "POST", "a/b", false)
	s.Sample("m", "GET", strings.Repeat("x", samplerText), true)
	show := func() []string {
		var out []string
		for _, d := range s.take(time.UnixMilli(7)) {
			out = append(out, fmt.Sprintf("%s %s %s %v %d %d", d.Role, d.Verb, d.Path, d.Allowed, d.Count, d.SeenAt))
		}
		slices.Sort(out)
		return out
	}
	if got, want := show(), []string{"m GET a/b true 3 7", "m GET a/c true 1 7", "m POST a/b false 1 7"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := show(); got != nil {
		t.Errorf("got %q after it was emptied", got)
	}
	s.Sample("m", "GET", "a/b", true)
	if got, want := show(), []string{"m GET a/b true 1 7"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSamplerCountsManyByChance(t *testing.T) {
	s := NewSampler()
	const n = 100_000
	for range n {
		s.Sample("m", "GET", "a", true)
	}
	// The deviation of the count is about 1,200.
	if got := s.take(time.Now()); len(got) != 1 || got[0].Count < n-20_000 || got[0].Count > n+20_000 {
		t.Errorf("got %+v, want about %d", got, n)
	}
}

func TestSamplerIsBounded(t *testing.T) {
	s := NewSampler()
	for i := range 3 * samplerKept {
		s.Sample("m", "GET", fmt.Sprint(i), false)
	}
	s.Sample("m", "GET", "good", true)
	got := s.take(time.Now())
	if len(got) != samplerKept+1 {
		t.Errorf("kept %d", len(got))
	}
	if !slices.ContainsFunc(got, func(d db.DecisionSample) bool { return d.Allowed }) {
		t.Error("refusals pushed out what was allowed")
	}
}

func TestSamplerInParallel(t *testing.T) {
	s := NewSampler()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 5000 {
				s.Sample("m", "GET", "abcdefgh"[:i%8], i%3 == 0)
			}
		})
	}
	for range 10 {
		for _, d := range s.take(time.Now()) {
			if d.Count < 1 || d.Role != "m" {
				t.Errorf("got %+v", d)
			}
		}
	}
	wg.Wait()
}

func BenchmarkSample(b *testing.B) {
	s := NewSampler()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Sample("member", "GET", "api/v2/peatio/market/orders", true)
		}
	})
}

func TestSampleAllocatesNothing(t *testing.T) {
	s := NewSampler()
	s.Sample("member", "GET", "api/v2/peatio/market/orders", true)
	if n := testing.AllocsPerRun(100, func() { s.Sample("member", "GET", "api/v2/peatio/market/orders", true) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
}

func TestApply(t *testing.T) {
	have := []policy.Permission{{ID: 1, Role: "m", Verb: "GET", Path: "a", Action: "ACCEPT"}, {ID: 5, Role: "m", Verb: "GET", Path: "b", Action: "DROP", Topic: "t"}}
	got, err := Apply(have, []Change{
		{Op: "create", Role: ref("n"), Verb: ref("all"), Path: ref("c"), Action: ref("accept")},
		{Op: "update", ID: 5, Path: ref("bb")},
		{Op: "delete", ID: 1},
	})
	want := []policy.Permission{{ID: 5, Role: "m", Verb: "GET", Path: "bb", Action: "DROP", Topic: "t"}, {ID: 6, Role: "n", Verb: "ALL", Path: "c", Action: "ACCEPT"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if have[1].Path != "b" || len(have) != 2 {
		t.Error("the given permissions changed")
	}
	for _, tc := range []struct {
		changes []Change
		index   int
		want    string
	}{
		{[]Change{{Op: "delete", ID: 1}, {Op: "delete", ID: 1}}, 1, "change 2: db: not found"},
		{[]Change{{Op: "update", ID: 9}}, 0, "change 1: db: not found"},
		{[]Change{{Op: "replace", ID: 1}}, 0, `change 1: op "replace" is none of create, update, delete`},
		{[]Change{{Op: "create", Role: ref("m")}}, 0, "change 1: path is blank"},
		{[]Change{{Op: "update", ID: 1, Verb: ref("sing")}}, 0, `change 1: verb "SING" is unknown`},
	} {
		_, err := Apply(have, tc.changes)
		var wrong *ChangeError
		if !errors.As(err, &wrong) || wrong.Index != tc.index || err.Error() != tc.want {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

func TestPreview(t *testing.T) {
	bothEngines(t, func(t *testing.T, url string) {
		w := start(t, url, nil)
		accept := w.permit(t, "m GET a ACCEPT")
		w.permit(t, "m GET a/secret DROP")
		w.reload(t)
		ask := func(n int, role, verb, path string) {
			for range n {
				w.Sampler().Sample(role, verb, path, w.allowed(role, verb, path))
			}
		}
		ask(1, "m", "GET", "a/x")
		ask(5, "m", "GET", "a/secret/1")
		ask(3, "m", "POST", "a/y")
		ask(2, "n", "GET", "a/x")
		preview := func(changes ...Change) string {
			t.Helper()
			turns, err := w.Preview(t.Context(), changes)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, turn := range turns {
				out = append(out, fmt.Sprintf("%s %s %s %v->%v %dx", turn.Role, turn.Verb, turn.Path, turn.Before, turn.After, turn.Count))
			}
			return strings.Join(out, "; ")
		}
		for _, tc := range []struct {
			name    string
			changes []Change
			want    string
		}{
			{"nothing", nil, ""},
			{"delete", []Change{{Op: "delete", ID: accept.ID}}, "m GET a/x true->false 1x"},
			{"wider", []Change{{Op: "update", ID: accept.ID, Verb: ref("ALL")}}, "m POST a/y false->true 3x"},
			{"create and delete", []Change{
				{Op: "create", Role: ref("n"), Verb: ref("GET"), Path: ref("a"), Action: ref("ACCEPT")}, {Op: "delete", ID: 2},
			}, "m GET a/secret/1 false->true 5x; n GET a/x false->true 2x"},
			{"drop", []Change{{Op: "create", Role: ref("m"), Verb: ref("ALL"), Path: ref("a"), Action: ref("DROP")}}, "m GET a/x true->false 1x"},
		} {
			if got := preview(tc.changes...); got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
			}
		}
		turns, err := w.Preview(t.Context(), []Change{{Op: "delete", ID: accept.ID}})
		if err != nil || len(turns) != 1 || turns[0].RuleBefore != "permission 1 (m ACCEPT GET a)" || turns[0].RuleAfter != "" || turns[0].Seen.IsZero() {
			t.Errorf("got %+v, %v", turns, err)
		}
		if _, err := w.Preview(t.Context(), []Change{{Op: "delete", ID: 99}}); !errors.Is(err, db.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		if !w.allowed("m", "GET", "a/x") {
			t.Error("a rehearsal changed the policy")
		}
		// What other replicas sampled, and what was asked again, adds up.
		ask(4, "m", "GET", "a/x")
		if got := preview(Change{Op: "delete", ID: accept.ID}); got != "m GET a/x true->false 5x" {
			t.Errorf("got %q", got)
		}
	})
}

func TestSamplesAreBounded(t *testing.T) {
	bothEngines(t, func(t *testing.T, url string) {
		w := start(t, url, nil)
		const keep = 10
		add := func(seen int64, allowed bool, n int) {
			t.Helper()
			var rows []db.DecisionSample
			for i := range n {
				rows = append(rows, db.DecisionSample{Role: "m", Verb: "GET", Path: fmt.Sprintf("%v/%d/%d", allowed, seen, i), Allowed: allowed, Count: 1, SeenAt: seen + int64(i)})
			}
			if err := w.db.AddSamples(t.Context(), rows, keep); err != nil {
				t.Fatal(err)
			}
		}
		add(100, true, 7)
		add(1000, false, 30)
		add(2000, false, 600)
		rows, err := w.db.Samples(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		allowed, refused := 0, 0
		for _, r := range rows {
			if r.Allowed {
				allowed++
			} else {
				refused++
				if r.SeenAt < 2590 {
					t.Errorf("kept an old one: %+v", r)
				}
			}
		}
		if allowed != 7 || refused != keep {
			t.Errorf("kept %d and %d", allowed, refused)
		}
	})
}

func TestStopStoresTheSamples(t *testing.T) {
	w := start(t, sqlite(t), nil)
	w.reload(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	w.Sampler().Sample("m", "GET", "a", false)
	cancel()
	<-done
	rows, err := w.db.Samples(t.Context())
	if err != nil || len(rows) != 1 {
		t.Errorf("got %+v, %v", rows, err)
	}
}

func TestExplain(t *testing.T) {
	w := start(t, sqlite(t), nil)
	w.permit(t, "m GET api/v2 ACCEPT")
	w.permit(t, "m GET api/v2/admin AUDIT")
	w.permit(t, "m ALL api/v2/admin/users DROP")
	w.reload(t)
	for _, tc := range []struct {
		verb, path       string
		allowed, permits bool
		does, list       string
	}{
		{"get", "/api/v2/x/", true, true, "1 grants*", ""},
		{"GET", "api/v2/admin/x?q=1", true, true, "1 grants*, 2 records*", ""},
		{"GET", "api/v2/admin/usersX", false, false, "1 overruled, 2 records*, 3 refuses*", ""},
		{"GET", "api/v2/barong/management", false, true, "1 grants*", "block api/v2/barong/management"},
		{"POST", "api/v2/barong/identity/sessions", true, false, "", "pass api/v2/barong/identity"},
		{"POST", "a", false, false, "", ""},
	} {
		c, err := w.Explain("m", tc.verb, tc.path)
		if err != nil {
			t.Fatal(err)
		}
		var does []string
		for _, m := range c.Matches {
			line := fmt.Sprintf("%d %s", m.ID, m.Does)
			if m.Decides {
				line += "*"
			}
			does = append(does, line)
		}
		list := ""
		if c.Block != "" {
			list = "block " + c.Block
		} else if c.Pass != "" {
			list = "pass " + c.Pass
		}
		if c.Allowed != tc.allowed || c.Permit != tc.permits || strings.Join(does, ", ") != tc.does || list != tc.list || c.Version != 3 {
			t.Errorf("%s %s: got %+v", tc.verb, tc.path, c)
		}
	}
	for _, path := range []string{"a//b", "a/../b", "a%2fb", "a;b"} {
		if _, err := w.Explain("m", "GET", path); !errors.Is(err, ErrPath) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := w.ExplainUser(t.Context(), "ID0000000000", "GET", "a"); !errors.Is(err, db.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if c, err := Explain(nil, "m", "GET", "a"); err != nil || c.Allowed {
		t.Errorf("without a policy: %+v, %v", c, err)
	}
}
