package admin_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"barong/db"
)

type ctx = context.Context

// watched tells when a caller was read.
type watched struct {
	*db.DB
	seen chan<- struct{}
}

func (w watched) UserByUID(ctx context.Context, uid string) (*db.User, error) {
	u, err := w.DB.UserByUID(ctx, uid)
	w.seen <- struct{}{}
	return u, err
}

// slow is a form whose second half is sent after something has happened.
type slow struct {
	text    string
	halfway func()
	at      int
}

// Read hands out one half, then does what is to happen, then the other.
func (s *slow) Read(p []byte) (int, error) {
	half := len(s.text) / 2
	switch s.at {
	case 0:
		s.at = 1
		return copy(p, s.text[:half]), nil
	case 1:
		s.halfway()
		s.at = 2
		return copy(p, s.text[half:]), nil
	}
	return 0, io.EOF
}

func (s *slow) put(t *testing.T, url, token string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, s)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
