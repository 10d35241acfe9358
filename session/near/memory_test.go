package near

import (
	"testing"
	"unsafe"

	"barong/session"
)

// What a warm check looks at fills few lines of memory.
func TestHotMemory(t *testing.T) {
	var (
		entry known[sessionState]
		user  known[session.Principal]
		token Token
	)
	for name, end := range map[string][2]uintptr{
		"node":    {unsafe.Sizeof(node[session.Key, sessionState]{}), 64},
		"session": {unsafe.Offsetof(entry.value) + unsafe.Offsetof(entry.value.session) + unsafe.Offsetof(entry.value.session.csrfLen), 96},
		"user":    {unsafe.Offsetof(user.value) + unsafe.Offsetof(user.value.UserID), 80},
		"token":   {unsafe.Sizeof(token), 64},
	} {
		if end[0] > end[1] {
			t.Errorf("%s: %d bytes, want %d", name, end[0], end[1])
		}
	}
	// What a check does not look at, such as how the session began, stands behind what it does.
	if size := unsafe.Sizeof(entry); size > 144 {
		t.Errorf("a session takes %d bytes, want 144", size)
	}
	if size := unsafe.Sizeof(user); size > 144 {
		t.Errorf("a user takes %d bytes, want 144", size)
	}
}

// To expect a key changes nothing, whatever is known of it; and memory may be asked for that is nobody's.
func TestExpect(t *testing.T) {
	b := newBackend()
	c := b.cache(t, nil)
	key, missing := b.open(1), session.NewID().Key()
	for range 2 {
		c.Expect(key)
		c.Expect(missing)
		c.ExpectSoon(key)
		c.ExpectSoon(missing)
		b.want(t, c, key, nil)
		b.want(t, c, missing, session.ErrNotFound)
	}
	c.ForgetAll()
	c.Expect(key)
	c.ExpectSoon(key)
	last := new([line]byte)
	for _, n := range []uintptr{1, line, 1 << 20} {
		prefetch(unsafe.Pointer(last), n)
		prefetch(nil, n)
	}
	b.want(t, c, key, nil)
}

// A user found beside a session is that session's, whatever became of the node meanwhile.
func TestAnotherUserIsNotBelieved(t *testing.T) {
	b := newBackend()
	c := b.cache(t, nil)
	mine, other := b.open(1), b.open(2)
	b.want(t, c, mine, nil)
	b.want(t, c, other, nil)
	n := c.sessions.get(mine)
	n.user.Store(c.sessions.get(other).user.Load())
	for range 2 {
		f, err := c.Session(t.Context(), mine, b.now())
		if err != nil || f.Principal.UID != f.Session.UID {
			t.Fatalf("user %s of the session of %s, error %v", f.Principal.UID, f.Session.UID, err)
		}
	}
	if n.user.Load().value.UID != n.state.Load().value.session.UID {
		t.Error("the user of another session is kept")
	}
}
