package systemtest

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"barong/internal/test/testkit"
)

// Guesses at passwords are limited by account and by address, over restarts and replicas, and nobody who only mistypes
// is locked out.
func TestGuessing(t *testing.T) {
	t.Parallel()
	for _, stores := range []string{"SQLite", "Postgres", "Postgres and Valkey"} {
		t.Run(stores, func(t *testing.T) {
			t.Parallel()
			v := newVault()
			env := []string{"BARONG_RATE_LIMITS=on"}
			if stores != "SQLite" {
				env = append(env, "BARONG_DATABASE_URL="+testkit.Postgres(t), "BARONG_SECRET_KEY="+secretKey)
			}
			if stores == "Postgres and Valkey" {
				env = append(env, "BARONG_REDIS_URL="+testkit.ValkeyServer(t).URL)
			}
			a := newServer(t, v, env...)
			b := a // the same process, where the database is one process's own
			if stores != "SQLite" {
				a.must("migrate", "up")
				a.must("seed")
				b = newServer(t, v, env...)
				b.start()
			}
			a.start()
			_, email, password := a.member()
			_, other, otherPassword := a.member()
			wrong := v.keep("wrong password", "Wrong9-guess+x")
			limited := func(what string, r reply) {
				t.Helper()
				r.wants(t, what, 429, "request.rate_limited")
				if n, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || n < 1 || n > 15*60 {
					t.Errorf("%s: Retry-After is %q", what, r.header.Get("Retry-After"))
				}
			}
			const unwanted = "identity.session.invalid_params"
			guesses := 0
			neighbour := func(s *server) *client { // another address of one network
				c := s.client()
				guesses++
				c.ip = fmt.Sprintf("198.51.100.%d", guesses)
				return c
			}

			// Three mistakes block nobody, and a success forgets them.
			for range 3 {
				a.client().signIn(email, wrong).wants(t, "a mistake", 401, unwanted)
			}
			a.client().signIn(email, password).wants(t, "the right password after three mistakes", 201)

			// Twenty wrong passwords of one account, from one network, at either replica, before and after a restart.
			for n := range 20 {
				s := a
				if n%2 == 1 {
					s = b
				}
				if n == 10 {
					a.stop()
					a.start()
				}
				neighbour(s).signIn(email, wrong).wants(t, fmt.Sprintf("wrong password %d", n+1), 401, unwanted)
			}
			limited("wrong password 21", neighbour(a).signIn(email, wrong))
			limited("the right password then", neighbour(b).signIn(email, password))
			a.client().signIn(other, otherPassword).wants(t, "somebody else", 201)
			if stores == "SQLite" {
				a.stop()
				a.start()
				limited("the right password after a restart", neighbour(a).signIn(email, password))
			}

			// An address that nobody has is limited alike.
			const nobody = "nobody@example.com"
			for n := range 20 {
				neighbour(a).signIn(nobody, wrong).wants(t, fmt.Sprintf("nobody's password %d", n+1), 401, unwanted)
			}
			limited("nobody's password 21", neighbour(a).signIn(nobody, wrong))

			// Thirty from one address, whatever the account.
			guesser := a.client()
			for n := range 30 {
				guesser.signIn(fmt.Sprintf("guess%d@example.com", n), wrong).wants(t, fmt.Sprintf("guess %d", n+1), 401, unwanted)
			}
			limited("guess 31", guesser.signIn("guess31@example.com", wrong))
			limited("guess 32, at another replica", guesser.at(b).signIn("guess32@example.com", wrong))
			a.client().signIn(other, otherPassword).wants(t, "somebody elsewhere", 201)
		})
	}
}

// Nobody can tell by the time of a refusal whether an address has an account.
func TestSignInTellsNothingByTime(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	_, email, _ := s.member()
	wrong := s.vault.keep("wrong password", "Wrong9-guess+x")
	var known, unknown []time.Duration
	c := s.client()
	for n := range 60 {
		// In turns, and in both orders, so that whatever else the machine does meets both alike.
		addresses := []string{email, fmt.Sprintf("nobody%d@example.com", n)}
		if n%2 == 1 {
			slices.Reverse(addresses)
		}
		for _, address := range addresses {
			r := c.signIn(address, wrong).wants(t, "a wrong password", 401, "identity.session.invalid_params")
			if address == email {
				known = append(known, r.took)
			} else {
				unknown = append(unknown, r.took)
			}
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	at := func(d []time.Duration, percent int) time.Duration { return d[len(d)*percent/100] }
	for _, percent := range []int{10, 25, 50, 75, 90} {
		t.Logf("%d%%: known %s, unknown %s", percent, at(known, percent), at(unknown, percent))
	}
	// The medians lie within the spread of each: a difference that drowns in the noise of one's own answers.
	spread := max(at(known, 75)-at(known, 25), at(unknown, 75)-at(unknown, 25), 10*time.Millisecond)
	if d := (at(known, 50) - at(unknown, 50)).Abs(); d > spread {
		t.Errorf("an unknown address takes %s more or less than a known one; answers alike differ by %s", d, spread)
	}
}
