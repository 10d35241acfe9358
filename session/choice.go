package session

import "bytes"

// A Choice tells which session counts of those that one request names. Browsers send every cookie of that name, the
// host's and those of its parent domains, and say of none where it is from. Of several sessions of one user the newest
// counts. Of sessions of different users none does: whoever can plant a cookie must not make somebody act as another.
type Choice struct {
	newest   *Session
	disputed bool
}

// Add considers one more live session, and reports whether it is the newest one so far.
func (c *Choice) Add(s *Session) bool {
	if c.newest != nil {
		if c.newest.UID != s.UID {
			c.disputed = true
		}
		if byAge := c.newest.CreatedAt.Compare(s.CreatedAt); byAge > 0 || byAge == 0 && bytes.Compare(c.newest.Key[:], s.Key[:]) > 0 {
			return false
		}
	}
	c.newest = s
	return true
}

// Disputed reports that the sessions are of different users, so that none counts.
func (c *Choice) Disputed() bool { return c.disputed }
