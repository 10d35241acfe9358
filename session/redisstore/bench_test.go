//go:build unix

package redisstore_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/redisstore"
)

// processorTime is what this process has used so far, user and system: the server's work does not count.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs a call from one goroutine of each processor, and from as many as a busy gateway has, and reports what one
// takes of a processor.
func measure(b *testing.B, call func(ctx context.Context, i int) error) {
	for name, parallel := range map[string]int{"few": 1, "many": 64} {
		b.Run(name, func(b *testing.B) { measureWith(b, parallel, call) })
	}
}

func measureWith(b *testing.B, parallel int, call func(ctx context.Context, i int) error) {
	b.ReportAllocs()
	b.SetParallelism(parallel)
	before := processorTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if err := call(b.Context(), i); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkGet reads sessions.
func BenchmarkGet(b *testing.B) {
	client, err := redisstore.Connect(testkit.Valkey(b) + patient)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	store := redisstore.New(client)
	now := time.Now()
	keys := make([]session.Key, 256)
	for i := range keys {
		v := newSession("ID0000000001", now)
		v.CSRF, v.UserAgent, v.Country = "0123456789abcdef0123", strings.Repeat("Mozilla ", 14), "NL"
		keys[i] = v.Key
		if err := store.Create(b.Context(), v); err != nil {
			b.Fatal(err)
		}
	}
	measure(b, func(ctx context.Context, i int) error {
		_, err := store.Get(ctx, keys[i%len(keys)], now)
		return err
	})
}

// BenchmarkBareGet reads texts as long as a session with the client alone: what BenchmarkGet is compared with.
func BenchmarkBareGet(b *testing.B) {
	client, err := redisstore.Connect(testkit.Valkey(b) + patient)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if err := client.Set(b.Context(), "bare", strings.Repeat("x", 300), 0).Err(); err != nil {
		b.Fatal(err)
	}
	measure(b, func(ctx context.Context, _ int) error { return client.Get(ctx, "bare").Err() })
}

// BenchmarkFirstUse marks nonces.
func BenchmarkFirstUse(b *testing.B) {
	client, err := redisstore.Connect(testkit.Valkey(b) + patient)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	nonces := redisstore.NewNonces(client)
	var next atomic.Int64
	measure(b, func(ctx context.Context, _ int) error {
		first, err := nonces.FirstUse(ctx, "61d025b8573501c2", strconv.FormatInt(next.Add(1), 10), time.Now().Add(10*time.Second))
		if err == nil && !first {
			err = errors.New("used before")
		}
		return err
	})
}
