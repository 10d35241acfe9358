package systemtest

import (
	"bytes"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"barong/internal/test/testkit"
)

// TestBackup rehearses docs/backup.md: a server that is written to is backed up, its machine is taken away, and another one is
// set up from the copies.
func TestBackup(t *testing.T) {
	t.Parallel()
	const page = "docs/backup.md"
	ran := 0
	for _, engine := range []string{"embedded", "postgres"} {
		for _, b := range testkit.Blocks(t, page) {
			if strings.HasPrefix(b.Name, engine+": ") {
				ran++
			}
		}
		t.Run(engine, func(t *testing.T) {
			v := newVault()
			elsewhere, safe := t.TempDir(), t.TempDir()
			secrets := filepath.Join(safe, "secret.key")
			var valkeys []string // of each machine
			machine := func(database string, env ...string) *server {
				t.Helper()
				if engine == "postgres" {
					valkeys = append(valkeys, testkit.Valkey(t))
					env = append(env, "BARONG_DATABASE_URL="+database, "BARONG_REDIS_URL="+valkeys[len(valkeys)-1], "BARONG_SECRET_KEY_FILE="+secrets)
				}
				s := newServer(t, v, env...)
				if err := os.Symlink(elsewhere, filepath.Join(s.dir, "elsewhere")); err != nil {
					t.Fatal(err)
				}
				return s
			}
			follow := func(s *server, what string) {
				t.Helper()
				r := &reader{t: t, dir: s.dir, env: append(slices.Clone(s.env), "PATH="+strings.Join([]string{
					onPath(t), filepath.Dir(testkit.Bin(t, "postgres")), os.Getenv("PATH"),
				}, ":"))}
				var blocks []testkit.Block
				for _, b := range testkit.Blocks(t, page) {
					if b.Name == engine+": "+what {
						b.Name = ""
						blocks = append(blocks, b)
					}
				}
				if len(blocks) != 1 {
					t.Fatalf("%d blocks %s: %s", len(blocks), engine, what)
				}
				r.follow(blocks)
			}

			if engine == "postgres" {
				if err := os.WriteFile(secrets, []byte(secretKey), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := machine(freshDatabase(t, engine))
			if engine == "postgres" {
				s.must("migrate", "up")
				s.must("keys", "generate")
				s.must("seed")
			}
			s.start()
			admin := s.admin()
			c, email, password := s.member()
			factor := c.enable2FA(t)
			k := c.newKey(t, factor)
			token := c.check(account).wants(t, "a session", 200).header.Get("Authorization")
			picture := picture(t)
			c.call("POST", "/resource/profiles", params{
				"first_name": "Ada", "last_name": "Lovelace", "dob": "1990-12-10", "address": "12 St James's Square", "postcode": "SW1Y 4JH",
				"city": "London", "country": "GB", "confirm": true,
			}).wants(t, "profile", 201)
			c.call("POST", "/resource/documents", newForm(t, map[string]string{
				"doc_type": "Passport", "doc_number": "AB 1234567", "doc_expire": time.Now().AddDate(2, 0, 0).Format(time.DateOnly),
			}, "passport.png", picture)).wants(t, "document", 201)
			banned, bannedEmail, bannedPassword := s.member()
			var who struct{ UID string }
			banned.call("GET", "/resource/users/me", nil).wants(t, "who is banned", 200).into(t, &who)
			admin.call("POST", "/admin/users/update", params{"uid": who.UID, "state": "banned"}).wants(t, "a ban", 201)
			admin.call("POST", "/admin/permissions", params{"role": "member", "verb": "get", "path": "reports", "action": "accept"}).wants(t, "a rule", 201)
			leaving, _, _ := s.member()

			// Somebody is writing all the time.
			stop := make(chan struct{})
			var writer sync.WaitGroup
			writer.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						s.client().signIn(email, "Wrong9-guess+x")
					}
				}
			})
			follow(s, "back up")
			close(stop)
			writer.Wait()
			leaving.call("DELETE", "/identity/sessions", nil).wants(t, "a sign-out after the backup", 204)
			_, lateEmail, latePassword := s.member()
			s.stop()

			// Another machine has what was taken away from the first, and nothing else.
			restored := machine(freshDatabase(t, engine))
			backup := filepath.Join(restored.dir, "backup")
			if err := os.Rename(filepath.Join(s.dir, "backup"), backup); err != nil {
				t.Fatal(err)
			}
			if engine == "postgres" {
				if err := os.Remove(secrets); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(secrets, nil, 0o600); err != nil { // the page fills it
					t.Fatal(err)
				}
			}
			if err := os.RemoveAll(s.dir); err != nil {
				t.Fatal(err)
			}
			secret := map[string]string{
				"a session": strings.TrimPrefix(c.cookie, "_barong_session="), "an API key's secret": k.Secret, "a second factor": factor.secret,
				"a password": password, "a name": "Lovelace", "a document's number": "AB 1234567",
			}
			tellsNothing(t, filepath.Join(backup, map[string]string{"embedded": "barong.db", "postgres": "barong.dump"}[engine]), secret)
			if engine == "postgres" {
				redisTellsNothing(t, valkeys[0], secret)
			}
			follow(restored, "restore")
			restored.start()

			signIn := func(email, password, code string) reply {
				return restored.client().call("POST", "/identity/sessions", params{"email": email, "password": password, "otp_code": code})
			}
			signIn(email, password, "").wants(t, "a sign-in without the second factor", 401, "identity.session.missing_otp")
			if engine == "embedded" {
				restored.later(factor)
			}
			again := restored.client()
			again.keepSession(again.call("POST", "/identity/sessions", params{"email": email, "password": password, "otp_code": factor.code(t)})).
				wants(t, "a sign-in with the second factor", 201)
			again.check("/reports/today").wants(t, "a rule of before", 200)
			restored.client().check(account, k.sign()...).wants(t, "a key of before", 200)
			signIn(bannedEmail, bannedPassword, "").wants(t, "a sign-in of somebody banned", 401, "identity.session.banned")
			signIn(lateEmail, latePassword, "").wants(t, "a sign-in of somebody who came after the backup", 401, "identity.session.invalid_params")
			if r := restored.client().send("GET", "/.well-known/jwks.json", nil); !strings.Contains(r.body, `"`+kid(t, token)+`"`) {
				t.Errorf("the key of before is not among %s", r.body)
			}
			var documents []struct{ Upload string }
			again.call("GET", "/resource/documents", nil).wants(t, "documents", 200).into(t, &documents)
			var profile []struct {
				FirstName string `json:"first_name"`
			}
			again.call("GET", "/resource/profiles/me", nil).wants(t, "profile", 200).into(t, &profile)
			if len(profile) != 1 || !strings.HasPrefix(profile[0].FirstName, "A") {
				t.Errorf("the profile is %+v", profile)
			}
			if len(documents) != 1 || restored.client().send("GET", documents[0].Upload, nil).body != string(picture) {
				t.Errorf("the documents are %+v", documents)
			}

			// Sessions stand in the embedded database, those ended since as well; with a Redis they are gone.
			want := map[string]int{"embedded": 200, "postgres": 401}[engine]
			c.at(restored).check(account).wants(t, "a session of before", want)
			leaving.at(restored).check(account).wants(t, "a session that was ended after the backup", want)
			if engine == "embedded" {
				restored.admin().call("POST", "/admin/restrictions", params{"category": "blocklogin", "scope": "all", "value": "all"}).wants(t, "blocklogin", 201)
				leaving.at(restored).check(account).wants(t, "a session that was ended after the backup, and by blocklogin", 401, "authz.invalid_session")
			}
			restored.stop()

			// Without the secret key nothing starts, and nothing is changed.
			other := []byte("Y" + secretKey[1:])
			path := filepath.Join(restored.dir, "data", "secret.key")
			if engine == "postgres" {
				path = secrets
			}
			if err := os.WriteFile(path, other, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, status := restored.barong(nil, "serve"); status != 1 || !strings.Contains(out, "BARONG_SECRET_KEY: it is not, or does not have, the key") {
				t.Errorf("a start with another key: status %d, %s", status, out)
			}
		})
	}
	if ran != 4 {
		t.Errorf("the page has %d blocks for the two engines", ran)
	}
}

// tellsNothing fails the test where a dump or a copy of a database holds a secret.
func tellsNothing(t *testing.T, file string, secrets map[string]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(file, ".dump") { // it is compressed
		text, err = exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(testkit.Bin(t, "postgres")), "pg_restore"), "--file=-", file).Output()
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Contains(text, []byte(adminEmail)) {
		t.Errorf("%s has no address", filepath.Base(file))
	}
	for what, secret := range secrets {
		if secret == "" || bytes.Contains(text, []byte(secret)) {
			t.Errorf("%s holds %s", filepath.Base(file), what)
		}
	}
}

// redisTellsNothing fails the test where a Redis holds a secret.
func redisTellsNothing(t *testing.T, url string, secrets map[string]string) {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	r := redis.NewClient(o)
	defer r.Close()
	keys, err := r.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, key := range keys {
		record, err := r.Dump(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range secrets {
			if strings.Contains(key+record, secret) {
				t.Errorf("%s holds %s", key, what)
			}
		}
	}
}

// freshDatabase is the URL of an empty database of a server, or nothing.
func freshDatabase(t *testing.T, engine string) string {
	t.Helper()
	if engine == "postgres" {
		return testkit.Postgres(t)
	}
	return ""
}

// picture is a small PNG.
func picture(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 40, 40))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
