package near

import (
	"bytes"
	"testing"
)

func TestNewToken(t *testing.T) {
	for _, n := range []int{0, 1, 441, 442, 953, 954, 5000} {
		compact := bytes.Repeat([]byte("x"), n)
		token := NewToken("Bearer ", compact)
		want := "Bearer " + string(compact)
		clear(compact)
		if token.Authorization != want {
			t.Errorf("%d bytes: %q, want %q", n, token.Authorization, want)
		}
	}
}
