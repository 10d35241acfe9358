package password

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/internal/fault"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

func TestHashAndVerify(t *testing.T) {
	h := NewHasher(HasherOptions{})
	one, err := h.Hash(t.Context(), "Tecohvi0")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(one, "$argon2id$v=19$m=32768,t=3,p=1$") {
		t.Errorf("digest %s", one)
	}
	two, err := h.Hash(t.Context(), "Tecohvi0")
	if err != nil || one == two {
		t.Errorf("the same digest twice, %v", err)
	}
	for password, want := range map[string]bool{"Tecohvi0": true, "tecohvi0": false, "": false, "Tecohvi0 ": false} {
		ok, rehash, err := h.Verify(t.Context(), one, password)
		if ok != want || rehash || err != nil {
			t.Errorf("%q: %v %v %v", password, ok, rehash, err)
		}
	}
	if err := h.VerifyNothing(t.Context(), "Tecohvi0"); err != nil {
		t.Error(err)
	}
}

func TestVerifyOlderDigests(t *testing.T) {
	h := NewHasher(HasherOptions{Workers: 2})
	made := func(password string, cost int) string {
		t.Helper()
		d, err := bcrypt.GenerateFromPassword([]byte(password), cost)
		if err != nil {
			t.Fatal(err)
		}
		return string(d)
	}
	base := made("Tecohvi0", 4)
	long := strings.Repeat("x", 72)
	light := encode(digest{64, 1, 1, []byte("saltsalt"), argon2.IDKey([]byte("Tecohvi0"), []byte("saltsalt"), 1, 64, 1, 16)})
	for _, c := range []struct {
		name, digest, password string
		ok, rehash             bool
	}{
		{"2a", base, "Tecohvi0", true, true},
		{"2a, wrong", base, "Tecohvi1", false, false},
		{"2b", strings.Replace(base, "$2a$", "$2b$", 1), "Tecohvi0", true, true},
		{"2y", strings.Replace(base, "$2a$", "$2y$", 1), "Tecohvi0", true, true},
		{"2y, wrong", strings.Replace(base, "$2a$", "$2y$", 1), "", false, false},
		{"cost 7", made("Tecohvi0", 7), "Tecohvi0", true, true},
		// https://www.openwall.com/crypt/: bcrypt's own vectors.
		{"vector", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true, true},
		{"72 bytes count", made(long, 4), long + "more", true, true},
		{"lighter argon2id", light, "Tecohvi0", true, true},
		{"lighter argon2id, wrong", light, "tecohvi0", false, false},
	} {
		ok, rehash, err := h.Verify(t.Context(), c.digest, c.password)
		if ok != c.ok || rehash != c.rehash || err != nil {
			t.Errorf("%s: %v %v %v", c.name, ok, rehash, err)
		}
	}
}

func TestVerifyRefusesUnreadableDigests(t *testing.T) {
	h := NewHasher(HasherOptions{Workers: 2})
	salt, key := phcBase64.EncodeToString(make([]byte, 16)), phcBase64.EncodeToString(make([]byte, 32))
	argon := func(version, costs, salt, key string) string {
		return "$argon2id$" + version + "$" + costs + "$" + salt + "$" + key
	}
	for _, d := range []string{
		"", "plain", "$1$abc", "$2x$10$" + strings.Repeat("a", 53), "$2a$10$short", "$2a$18$" + strings.Repeat("a", 53),
		"$2a$31$" + strings.Repeat("a", 53), "$2a$03$" + strings.Repeat("a", 53), "$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + key,
		argon("v=16", "m=64,t=1,p=1", salt, key),
		argon("v=19", "m=4294967295,t=1,p=1", salt, key), argon("v=19", "m=64,t=4000000,p=1", salt, key),
		argon("v=19", "m=64,t=1,p=255", salt, key), argon("v=19", "m=0,t=0,p=0", salt, key),
		argon("v=19", "m=64,t=1", salt, key), argon("v=19", "t=1,m=64,p=1", salt, key),
		argon("v=19", "m=64,t=1,p=1", "", key), argon("v=19", "m=64,t=1,p=1", salt, ""),
		argon("v=19", "m=64,t=1,p=16", salt, key), argon("v=19", "m=64,t=1,p=1", salt+"=", key),
		argon("v=19", "m=64,t=1,p=1", salt, key+"$x"), argon("v=19", "m=64,t=1,p=1", salt, strings.Repeat("A", 4000)),
	} {
		ok, rehash, err := h.Verify(t.Context(), d, "Tecohvi0")
		if ok || rehash || !errors.Is(err, ErrDigest) {
			t.Errorf("%.60q: %v %v %v", d, ok, rehash, err)
		}
	}
}

func TestHasherBoundsWhatRunsAndWaits(t *testing.T) {
	h := NewHasher(HasherOptions{Workers: 2, Waiting: 3})
	var running, most atomic.Int64
	release := make(chan struct{})
	job := func() error {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		running.Add(-1)
		return nil
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := h.work(context.Background(), job); err != nil {
				t.Error(err)
			}
		})
	}
	for h.waiting.Load() < 5 {
		time.Sleep(time.Millisecond)
	}
	var f *fault.Error
	if err := h.VerifyNothing(t.Context(), "x"); !errors.As(err, &f) || f.Status != 429 || f.RetryAfter <= 0 {
		t.Errorf("one too many: %v", err)
	}
	close(release)
	wg.Wait()
	if most.Load() != 2 {
		t.Errorf("%d ran at once", most.Load())
	}
	if n := h.waiting.Load(); n != 0 {
		t.Errorf("%d still counted", n)
	}
}

func TestHasherGivesUpWithTheContext(t *testing.T) {
	h := NewHasher(HasherOptions{Workers: 1})
	h.workers <- struct{}{} // taken
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) || fault.As(err).Status != 503 {
		t.Errorf("got %v", err)
	}
	<-h.workers
	if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a free worker: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(digest{defaultMemoryKiB, defaultPasses, lanes, make([]byte, saltSize), make([]byte, keySize)}))
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$")
	f.Add("$argon2id$$$$")
	f.Fuzz(func(t *testing.T, phc string) {
		d, err := parse(phc)
		if err != nil {
			return
		}
		if again, err := parse(encode(d)); err != nil || fmt.Sprint(again) != fmt.Sprint(d) {
			t.Errorf("%q reads back as %v, %v", phc, again, err)
		}
		if d.memoryKiB > maxMemoryKiB || d.passes > maxPasses || d.lanes > maxLanes {
			t.Errorf("%q: costs %d %d %d", phc, d.memoryKiB, d.passes, d.lanes)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	h := NewHasher(HasherOptions{})
	for b.Loop() {
		if _, err := h.Hash(b.Context(), "Tecohvi0"); err != nil {
			b.Fatal(err)
		}
	}
}
