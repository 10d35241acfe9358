package systemtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// A ledger is what the writers of a test were promised: every entry had its answer before the server was killed.
type ledger struct {
	mu       sync.Mutex
	people   map[string]*client // by address: with the session that the sign-up opened
	password map[string]string  // by address
	labels   []string
	rules    []string // paths
	renamed  []string // passwords that the changer may have now: the last that was answered, and one without an answer
	answered atomic.Int64
	joined   atomic.Int64 // of these, sign-ups
}

// Whatever is answered survives a kill, on the embedded database: accounts, labels, passwords, rules, audit rows, mails.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	v := newVault()
	s := startServer(t, v)
	l := &ledger{people: map[string]*client{}, password: map[string]string{}}
	labeller, _, _ := s.member()
	changer, changerEmail, first := s.member()
	l.renamed = []string{first}
	admin := s.admin()
	for round := range 4 {
		stop := make(chan struct{})
		var writers sync.WaitGroup
		loop := func(write func(n int)) {
			writers.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
						write(n)
					}
				}
			})
		}
		for w := range 2 {
			loop(func(n int) { l.signUp(s, fmt.Sprintf("kill%d-%d-%d@example.com", round, w, n)) })
		}
		loop(func(n int) { l.label(labeller, fmt.Sprintf("key%d-%d", round, n)) })
		loop(func(n int) { l.rename(t, changer, fmt.Sprintf("Nq7-xWr3+%d-%dzKp", round, n)) })
		loop(func(n int) { l.rule(admin, fmt.Sprintf("api/v2/kill/%d/%d", round, n)) })
		answered, joined := l.answered.Load(), l.joined.Load()
		testkit.Eventually(t, patience, func() bool { return l.answered.Load() > answered+40 && l.joined.Load() > joined+3 })
		time.Sleep(time.Duration(round) * 7 * time.Millisecond) // another moment in each round
		s.process.Kill()
		close(stop)
		writers.Wait()
		if t.Failed() {
			return
		}
		s.start()
		l.verify(t, s, admin, labeller, round)
		l.renamed = l.verifyPassword(t, s, changerEmail, l.renamed)
		changer = s.client()
		changer.signIn(changerEmail, l.renamed[0]).wants(t, "sign-in after a restart", 201)
	}
	t.Logf("%d answers: %d sign-ups, %d labels, %d rules", l.answered.Load(), len(l.people), len(l.labels), len(l.rules))

	// What was committed is mailed, though what was being sent at a kill waits until its lease has run out.
	var missing []string
	deadline := time.Now().Add(3 * time.Minute)
	for {
		counts, ids := map[string]int{}, map[string]string{}
		for _, m := range s.letters() {
			if m.subject == "Registration Confirmation" {
				counts[m.to]++
				if old := ids[m.to]; old != "" && old != m.id {
					t.Fatalf("two mails to %s that are not the same: %s, %s", m.to, old, m.id)
				}
				ids[m.to] = m.id
			}
		}
		missing = missing[:0]
		again := 0
		for email := range l.people {
			if counts[email] == 0 {
				missing = append(missing, email)
			}
			if counts[email] > 1 {
				again++
			}
		}
		if len(missing) == 0 {
			t.Logf("%d mails came twice", again)
			// Four may be under way at each kill.
			if again > 16 {
				t.Errorf("%d mails came more than once", again)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no mail to %v", missing)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *ledger) signUp(s *server, email string) {
	c := s.client()
	password := "Hf5-tLz8+" + email[:9]
	if c.signUp(email, password).status != 201 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.people[email], l.password[email] = c, password
	l.joined.Add(1)
	l.answered.Add(1)
}

func (l *ledger) label(c *client, key string) {
	if c.call("POST", "/resource/labels", params{"key": key, "value": "kept"}).status == 201 {
		l.labels = append(l.labels, key)
		l.answered.Add(1)
	}
}

func (l *ledger) rename(t *testing.T, c *client, next string) {
	if len(l.renamed) > 1 { // the server is gone
		time.Sleep(10 * time.Millisecond)
		return
	}
	was := l.renamed[0]
	r := c.call("PUT", "/resource/users/password", params{
		"old_password": was, "new_password": c.vault.keep("password", next), "confirm_password": next,
	})
	switch {
	case r.err != nil: // either may hold now
		l.renamed = []string{was, next}
	case r.status != 201:
		t.Errorf("password change: got %s", r)
	default:
		l.renamed = []string{next}
		l.answered.Add(1)
	}
}

func (l *ledger) rule(c *client, path string) {
	r := c.call("POST", "/admin/permissions", params{"role": "member", "verb": "get", "path": path, "action": "accept"})
	if r.status == 201 {
		l.rules = append(l.rules, path)
		l.answered.Add(1)
	}
}

func (l *ledger) verify(t *testing.T, s *server, admin, labeller *client, round int) {
	t.Helper()
	for email, c := range l.people {
		// Sessions survive; the account is there.
		// A slow machine may need more than a check's patience for what is in no memory yet.
		testkit.Eventually(t, patience, func() bool { return c.check(account).status != 503 })
		c.check(account).wants(t, "the session of "+email, 200)
		if strings.HasPrefix(email, fmt.Sprintf("kill%d-0", round)) {
			s.client().signIn(email, l.password[email]).wants(t, "sign-in of "+email, 201)
		}
	}
	var labels []struct{ Key string }
	labeller.call("GET", "/resource/labels", nil).wants(t, "labels", 200).into(t, &labels)
	have := map[string]bool{}
	for _, label := range labels {
		have[label.Key] = true
	}
	for _, key := range l.labels {
		if !have[key] {
			t.Errorf("label %s is gone", key)
		}
	}
	paths := map[string]bool{}
	for _, p := range pages[struct{ Path string }](t, admin, "/admin/permissions") {
		paths[p.Path] = true
	}
	audited := map[string]bool{}
	for _, a := range pages[struct{ Topic, Data string }](t, admin, "/admin/activities/admin?topic=permissions") {
		var data struct{ Path string }
		if err := json.Unmarshal([]byte(a.Data), &data); err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		audited[data.Path] = true
		for _, path := range l.rules {
			if strings.Contains(a.Data, `"`+path+`"`) {
				audited[path] = true
			}
		}
	}
	for _, path := range l.rules {
		if !paths[path] {
			t.Errorf("the rule for %s is gone", path)
		}
		if !audited[path] {
			t.Errorf("the audit row of the rule for %s is gone", path)
		}
	}
	if n := len(l.rules); n > 0 {
		labeller.check("/"+l.rules[n-1]).wants(t, "a path that the last rule grants", 200)
	}
}

// verifyPassword finds out which of the passwords holds: the one that was answered last, or the one that had no answer.
func (l *ledger) verifyPassword(t *testing.T, s *server, email string, may []string) []string {
	t.Helper()
	i := slices.IndexFunc(may, func(password string) bool { return s.client().signIn(email, password).status == 201 })
	if i < 0 {
		t.Fatalf("none of %d passwords signs in", len(may))
	}
	return may[i : i+1]
}

// pages reads all pages of a list.
func pages[T any](t *testing.T, c *client, path string) []T {
	t.Helper()
	var all []T
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	for page := 1; ; page++ {
		var rows []T
		c.call("GET", fmt.Sprintf("%s%spage=%d&limit=100", path, sep, page), nil).wants(t, path, 200).into(t, &rows)
		all = append(all, rows...)
		if len(rows) < 100 {
			return all
		}
	}
}
