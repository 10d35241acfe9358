package password

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	for waits(h) < 3 {
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
	if n := waits(h); n != 0 || h.queue.free != 2 || len(h.queue.flows) != 0 {
		t.Errorf("%d wait, %d places are free, %d networks are known", n, h.queue.free, len(h.queue.flows))
	}
}

func TestHasherGivesUpWithTheContext(t *testing.T) {
	h := NewHasher(HasherOptions{Workers: 1})
	leave, err := h.queue.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) || fault.As(err).Status != 503 {
		t.Errorf("got %v", err)
	}
	waiting, stop := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := h.Hash(waiting, "x"); failed <- err }()
	for waits(h) < 1 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-failed; !errors.Is(err, context.Canceled) || fault.As(err).Status != 503 {
		t.Errorf("while it waits: %v", err)
	}
	leave()
	if waits(h) != 0 || h.queue.free != 1 || len(h.queue.flows) != 0 {
		t.Errorf("%d wait, %d places are free, %d networks are known", waits(h), h.queue.free, len(h.queue.flows))
	}
	if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a free worker: %v", err)
	}
}

func waits(h *Hasher) int {
	h.queue.mu.Lock()
	defer h.queue.mu.Unlock()
	return len(h.queue.waiting)
}

// line fills the one place of a hasher, has askers wait in the order given, and returns who got in, in that order, and
// who was sent away.
func line(t *testing.T, waiting int, askers ...asker) (in, away []asker) {
	t.Helper()
	h := NewHasher(HasherOptions{Workers: 1, Waiting: waiting})
	leave, err := h.queue.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, a := range askers {
		wg.Go(func() {
			err := h.work(For(context.Background(), a.network, a.account), func() error {
				mu.Lock()
				defer mu.Unlock()
				in = append(in, a)
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				if f := fault.As(err); f == nil || f.Status != 429 {
					t.Errorf("%v: %v", a, err)
				}
				away = append(away, a)
			}
		})
		for { // until it waits, or the one that had to go for it has gone
			mu.Lock()
			gone := len(away)
			mu.Unlock()
			if waits(h)+gone == i+1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	leave()
	wg.Wait()
	return in, away
}

func many(n int, a asker) []asker {
	out := make([]asker, n)
	for i := range out {
		out[i] = a
	}
	return out
}

func place(list []asker, a asker) int { return slices.Index(list, a) + 1 }

// TestQueueGivesTurns holds that who asks often makes others wait for one turn, not for all of theirs.
func TestQueueGivesTurns(t *testing.T) {
	flood, other, neighbour := asker{"a", "mallory"}, asker{"b", "alice"}, asker{"a", "bob"}
	in, away := line(t, 400, append(many(30, flood), other, neighbour)...)
	if len(in) != 32 || len(away) != 0 {
		t.Fatalf("%d got in, %d were sent away", len(in), len(away))
	}
	if n := place(in, other); n > 2 {
		t.Errorf("another network was number %d", n)
	}
	if n := place(in, neighbour); n > 4 {
		t.Errorf("another account of the same network was number %d", n)
	}
	// Networks that ask alike take turns.
	in, _ = line(t, 64, append(append(many(5, flood), many(5, other)...), many(5, asker{"c", ""})...)...)
	for i := 0; i < len(in); i += 3 {
		if a, b, c := in[i], in[i+1], in[i+2]; a.network == b.network || b.network == c.network || a.network == c.network {
			t.Errorf("turn %d: %v", i/3, in[i:i+3])
		}
	}
	// Accounts do not buy their network more turns.
	in, _ = line(t, 64, asker{"a", "1"}, asker{"a", "2"}, asker{"a", "3"}, asker{"a", "4"}, other, other)
	if n := place(in, other); n > 2 || place(in[n:], other) > 2 {
		t.Errorf("order %v", in)
	}
}

// TestQueueSendsTheGreedyAway holds that a network which fills the queue keeps nobody else out of it.
func TestQueueSendsTheGreedyAway(t *testing.T) {
	var askers []asker
	for i := range 12 {
		askers = append(askers, asker{"a", fmt.Sprint(i)})
	}
	other, second := asker{"b", "alice"}, asker{"b", "bob"}
	in, away := line(t, 8, append(askers, other, second, asker{"a", "12"})...)
	if slices.Contains(away, other) || slices.Contains(away, second) {
		t.Errorf("got in %v, were sent away %v", in, away)
	}
	if len(in) != 8 || len(away) != 7 {
		t.Errorf("%d got in and %d were sent away", len(in), len(away))
	}
	// One account does not fill the places of its network.
	flood := asker{"a", "mallory"}
	in, away = line(t, 16, append(many(5, flood), asker{"a", "bob"})...)
	if len(in) != 3 || !slices.Equal(away, many(3, flood)) {
		t.Errorf("got in %v, were sent away %v", in, away)
	}
	// Where all have one, the newcomer goes.
	in, away = line(t, 2, asker{"a", ""}, asker{"b", ""}, asker{"c", ""})
	if len(in) != 2 || !slices.Equal(away, []asker{{"c", ""}}) {
		t.Errorf("got in %v, were sent away %v", in, away)
	}
}

// TestWrongPasswordsTakeTheSameWork counts the work of passwords that do not fit: against digests of every kind, those
// that cannot be read, and none.
func TestWrongPasswordsTakeTheSameWork(t *testing.T) {
	var spent []effort
	h := NewHasher(HasherOptions{MemoryKiB: 64, Passes: 2, Workers: 1})
	h.done = func(e effort) { spent = append(spent, e) }
	made := func(cost int) string {
		d, err := bcrypt.GenerateFromPassword([]byte("Tecohvi0"), cost)
		if err != nil {
			t.Fatal(err)
		}
		return string(d)
	}
	current, err := h.Hash(t.Context(), "Tecohvi0")
	if err != nil {
		t.Fatal(err)
	}
	light := encode(digest{16, 1, 1, make([]byte, 16), make([]byte, 32)})
	digests := []string{current, light, made(4), made(5), strings.Replace(made(6), "$2a$", "$2y$", 1), "x", "$2a$31$" + strings.Repeat("a", 53), ""}
	same := func(want effort) {
		t.Helper()
		spent = nil
		for _, d := range digests {
			if ok, _, _ := h.Verify(t.Context(), d, "wrong"); ok {
				t.Fatalf("%q fits", d)
			}
		}
		if err := h.VerifyNothing(t.Context(), "wrong"); err != nil {
			t.Fatal(err)
		}
		for i, e := range spent {
			if e != want {
				t.Errorf("number %d took %+v, want %+v", i, e, want)
			}
		}
		if len(spent) != len(digests)+1 {
			t.Errorf("%d pieces of work", len(spent))
		}
	}
	h.SetSlowest(7)
	same(effort{argon2: 128, bcrypt: 1 << 7})
	h.SetSlowest(6)
	same(effort{argon2: 128, bcrypt: 1 << 6})

	// One that is dearer than was known counts from then on; so do those of argon2id.
	h.SetSlowest(0)
	digests = []string{made(6), made(4), current}
	same(effort{argon2: 128, bcrypt: 1 << 6})
	digests = []string{encode(digest{128, 3, 1, make([]byte, 16), make([]byte, 32)}), current, made(4), "x"}
	same(effort{argon2: 384, bcrypt: 1 << 6})

	// A right password takes what its own digest takes.
	spent = nil
	if ok, _, err := h.Verify(t.Context(), current, "Tecohvi0"); !ok || err != nil || spent[0] != (effort{argon2: 128}) {
		t.Errorf("the right password: %v, %v, %+v", ok, err, spent)
	}
	// What stands in for a digest of bcrypt is one, or it would cost nothing.
	if err := bcrypt.CompareHashAndPassword(standIn(4), []byte("x")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("the stand-in: %v", err)
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
