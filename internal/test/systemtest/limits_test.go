package systemtest

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

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

// Nobody can tell by the time of a refusal whether an address has an account, in which state that is, nor how its password is
// stored: in every form in which digests come, by a sign-up or an import.
func TestSignInTellsNothingByTime(t *testing.T) {
	t.Parallel()
	s := startServer(t, newVault())
	kinds := []string{
		"argon2id", "argon2id of less work", "bcrypt as $2a$", "bcrypt as $2b$", "bcrypt as $2y$", "a digest that cannot be read", "no account", "banned",
	}
	address := map[string]string{}
	for _, kind := range kinds {
		_, address[kind], _ = s.member()
	}
	address["no account"] = "nobody@example.com"
	s.stop()
	old, err := bcrypt.GenerateFromPassword([]byte("Hd4-pYt9+sLc"), bcrypt.DefaultCost) // as an import brings it
	if err != nil {
		t.Fatal(err)
	}
	d, err := sql.Open("sqlite", "file:"+filepath.Join(s.dir, "data", "barong.db"))
	if err != nil {
		t.Fatal(err)
	}
	const change = "UPDATE users SET password_digest = ? WHERE email = ?"
	for kind, digest := range map[string]string{
		kinds[1]: "$argon2id$v=19$m=8192,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b/dWRWJTmaaJObG", kinds[2]: string(old),
		kinds[3]: strings.Replace(string(old), "$2a$", "$2b$", 1), kinds[4]: strings.Replace(string(old), "$2a$", "$2y$", 1), kinds[5]: "$5$unknown$scheme",
	} {
		if _, err := d.ExecContext(t.Context(), change, digest, address[kind]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.ExecContext(t.Context(), "UPDATE users SET state = 'banned' WHERE email = ?", address["banned"]); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	s.start()

	wrong := s.vault.keep("wrong password", "Wrong9-guess+x")
	took := map[string][]time.Duration{}
	c := s.client()
	for n := range 12 {
		// In turns, and in another order each time, so that whatever else the machine does meets all alike.
		for i := range kinds {
			kind := kinds[(i+n)%len(kinds)]
			r := c.signIn(address[kind], wrong).wants(t, "a wrong password", 401, "identity.session.invalid_params")
			took[kind] = append(took[kind], r.took)
		}
	}
	at := func(kind string, percent int) time.Duration { return took[kind][len(took[kind])*percent/100] }
	spread := 10 * time.Millisecond
	for _, kind := range kinds {
		slices.Sort(took[kind])
		t.Logf("%s: 10%% %s, 25%% %s, 50%% %s, 75%% %s, 90%% %s", kind, at(kind, 10), at(kind, 25), at(kind, 50), at(kind, 75), at(kind, 90))
		spread = max(spread, at(kind, 75)-at(kind, 25))
	}
	// The medians lie within the spread of each: a difference that drowns in the noise of one's own answers.
	for _, kind := range kinds[1:] {
		if diff := (at(kind, 50) - at(kinds[0], 50)).Abs(); diff > spread {
			t.Errorf("%s takes %s more or less than %s; answers alike differ by %s", kind, diff, kinds[0], spread)
		}
	}
}
