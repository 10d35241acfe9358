package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"barong/db"
	"barong/internal/crypto/password"
	"barong/internal/crypto/secret"
)

// A storm of sign-ins: so many people sign in without a pause, while so many warm checks a second come.
const (
	signers     = 8
	besideRate  = 2_000
	signWord    = "Tecohvi0-Wv8mXq2"
	signPath    = "/api/v2/barong/identity/sessions"
	busyCommand = "while :; do :; done"
)

// signIns measures how long warm checks take while people sign in, beside how long they take while a program that has
// nothing to do with the gateway keeps a processor busy.
func (b *bench) signIns() error {
	dir, err := b.folder("signins")
	if err != nil {
		return err
	}
	if err := fill(b.ctx, dir, "", people, people); err != nil {
		return err
	}
	if err := b.letSignIn(dir); err != nil {
		return err
	}
	gateway, err := b.startGateway(dir, "BARONG_RATE_LIMITS=off", "BARONG_TRUSTED_PROXIES=127.0.0.1/32")
	if err != nil {
		return err
	}
	callers, err := b.callers(gateway.addr, 200, requests(people, cookieCheck))
	if err != nil {
		return err
	}
	defer closeAll(callers)
	if err := b.each(gateway, requests(people, cookieCheck), 200); err != nil {
		return err
	}
	turn := max(3*b.turn, time.Second)
	warm := func() (sample, error) {
		p50, p99, err := pace(callers, besideRate, turn)
		return sample{P50: micros(p50), P99: micros(p99)}, err
	}
	r := row{Name: "warm checks while 8 people sign in", Base: "one busy process", Target: "<= 2"}
	b.say("%s", r.Name)
	var alone, rates []float64
	for range b.rounds {
		quiet, err := warm()
		if err != nil {
			return err
		}
		busy := exec.Command("sh", "-c", busyCommand)
		if err := b.start(busy); err != nil {
			return err
		}
		beside, err := warm()
		_ = busy.Process.Kill() // it runs until then
		_ = busy.Wait()
		if err != nil {
			return err
		}
		stop, rate := b.signInAll(gateway)
		time.Sleep(time.Second / 2)
		loud, err := warm()
		stop()
		if err != nil {
			return err
		}
		perSecond, err := rate()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, gateway.log.String())
		}
		b.say("p50/p99: alone %.0f/%.0f, busy %.0f/%.0f, storm %.0f/%.0f µs, %.1f sign-ins a second", quiet.P50, quiet.P99, beside.P50, beside.P99, loud.P50, loud.P99, perSecond)
		r.BaseRounds, r.Rounds = append(r.BaseRounds, beside), append(r.Rounds, loud)
		alone, rates = append(alone, quiet.P99), append(rates, perSecond)
	}
	b.add(&r)
	b.report.Facts = append(b.report.Facts,
		fact{"99th percentile of warm checks alone, " + fmt.Sprint(besideRate) + " a second", median(alone), "µs", ""},
		fact{"sign-ins a second beside them", median(rates), "", ""},
	)
	return nil
}

func signerOf(i int) string { return fmt.Sprintf("signer%d@example.com", i) }

// letSignIn adds people who have a password and no second factor.
func (b *bench) letSignIn(dir string) error {
	data := filepath.Join(dir, "data")
	list, _, err := secret.LoadOrCreate(filepath.Join(data, "secret.key"))
	if err != nil {
		return err
	}
	box, err := secret.New(list)
	if err != nil {
		return err
	}
	d, err := db.Open(b.ctx, db.Options{URL: "sqlite://" + databaseOf(dir), Sealer: box})
	if err != nil {
		return err
	}
	defer d.Close()
	digest, err := password.NewHasher(password.HasherOptions{}).Hash(b.ctx, signWord)
	if err != nil {
		return err
	}
	return d.Update(b.ctx, func(ctx context.Context, tx *db.Tx) error {
		for i := range signers {
			u := &db.User{UID: fmt.Sprintf("IDF%09X", i), Email: signerOf(i), Role: "member", Level: 3, State: "active", PasswordDigest: digest}
			if err := tx.InsertUser(ctx, u); err != nil {
				return err
			}
		}
		return nil
	})
}

// signInAll has everybody sign in again and again until stop is called. rate then is how many did a second.
func (b *bench) signInAll(gateway *server) (stop func(), rate func() (float64, error)) {
	ctx, cancel := context.WithCancel(b.ctx)
	var done atomic.Int64
	var failed error
	var once sync.Once
	var group sync.WaitGroup
	begin := time.Now()
	for i := range signers {
		group.Go(func() {
			body, _ := json.Marshal(map[string]string{"email": signerOf(i), "password": signWord}) // texts are JSON
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, "POST", "http://"+gateway.addr+signPath, bytes.NewReader(body))
				if err == nil {
					request.Header.Set("Content-Type", "application/json")
					request.Header.Set("User-Agent", userAgent)
					request.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i+1))
					var answer *http.Response
					if answer, err = http.DefaultClient.Do(request); err == nil {
						answer.Body.Close()
						if answer.StatusCode != http.StatusCreated {
							err = fmt.Errorf("a sign-in: got %s", answer.Status)
						}
					}
				}
				if err == nil {
					done.Add(1)
				} else if ctx.Err() == nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	var took time.Duration
	return func() {
			took = time.Since(begin)
			cancel()
			group.Wait()
		}, func() (float64, error) {
			if failed == nil && done.Load() == 0 {
				return 0, errors.New("nobody signed in")
			}
			return float64(done.Load()) / took.Seconds(), failed
		}
}
