package patience_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"barong/internal/patience"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := patience.Limit(t.Context(), 5*time.Second)
		defer cancel()
		time.Sleep(4 * time.Second)
		inner, stop := context.WithCancel(ctx)
		defer stop()
		first, second := patience.Outside(inner), patience.Outside(ctx)
		time.Sleep(time.Minute)
		first()
		first()
		time.Sleep(time.Minute)
		if ctx.Err() != nil {
			t.Fatal("what happens outside counts")
		}
		second()
		<-inner.Done()
		if took := time.Since(begin); took != 2*time.Minute+5*time.Second || !errors.Is(context.Cause(ctx), patience.ErrOver) {
			t.Errorf("ended after %s: %v", took, context.Cause(ctx))
		}
	})
}

func TestOutsideOfNoLimit(t *testing.T) {
	patience.Outside(t.Context())()
	ctx, cancel := patience.Limit(t.Context(), time.Hour)
	cancel()
	if ctx.Err() == nil {
		t.Error("the context lives")
	}
	patience.Outside(ctx)()
}
