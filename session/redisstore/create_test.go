package redisstore

import (
	"testing"

	"barong/internal/testkit"
)

// A command whose answer was lost is sent again; that the first had been done is no error.
func TestCreateAgainAfterALostAnswer(t *testing.T) {
	t.Parallel()
	client, err := Connect(testkit.Valkey(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	key, hash := sessionPrefix+"again", []any{1000, "r", "word", "u", "ID0000000001"}
	for what, want := range map[string][]any{"the same call": hash, "another call": {1000, "r", "other", "u", "ID0000000001"}} {
		if err := client.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
		first, err1 := client.Eval(t.Context(), createScript, []string{key}, hash...).Int()
		second, err2 := client.Eval(t.Context(), createScript, []string{key}, want...).Int()
		if made := what == "the same call"; err1 != nil || err2 != nil || first != 1 || (second == 1) != made {
			t.Errorf("%s: %d %v, %d %v", what, first, err1, second, err2)
		}
	}
}
