package session

import (
	"bytes"
	"time"
)

// A Choice tells which session counts of those that one request names. Browsers send every cookie of that name, the
// host's and those of its parent domains, and say of none where it is from. Of several sessions of one user the newest
// counts. Of sessions of different users none does: whoever can plant a cookie must not make somebody act as another.
type Choice struct {
	any      bool
	disputed bool
	uid      string
	created  time.Time
	key      Key
}

// Add considers one more live session: whose it is, when it began, and its key. It reports whether it is the newest one so
// far.
func (c *Choice) Add(uid string, created time.Time, key Key) bool {
	if c.any {
		if c.uid != uid {
			c.disputed = true
		}
		if byAge := c.created.Compare(created); byAge > 0 || byAge == 0 && bytes.Compare(c.key[:], key[:]) > 0 {
			return false
		}
	}
	c.any, c.uid, c.created, c.key = true, uid, created, key
	return true
}

// Disputed reports that the sessions are of different users, so that none counts.
func (c *Choice) Disputed() bool { return c.disputed }
