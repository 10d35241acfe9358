package view

import (
	"github.com/mileusna/useragent"

	"barong/session"
)

// A Session is a signed-in browser as its user and staff see it. Its id is no secret: it opens nothing.
type Session struct {
	ID        string   `json:"id"`
	UserIP    string   `json:"user_ip"`
	Country   string   `json:"country"` // ISO 3166-1 alpha-2, empty when unknown
	UserAgent string   `json:"user_agent"`
	Device    string   `json:"device"`     // browser and system, as far as the user agent tells
	AMR       []string `json:"amr"`        // how its user has proved who they are (RFC 8176); empty when that was not kept
	AuthTime  string   `json:"auth_time"`  // when
	CreatedAt string   `json:"created_at"` // first seen
	SeenAt    string   `json:"seen_at"`    // last seen, to within a twentieth of the session's life
	ExpiresAt string   `json:"expires_at"`
	Current   bool     `json:"current"` // the one that asks
}

// Sessions shows sessions; current, which may be nil, is the one that asks.
func (b *Builder) Sessions(list []*session.Session, current *session.Session) []Session {
	out := make([]Session, 0, len(list))
	for _, s := range list {
		v := Session{
			ID: s.Key.String(), Country: s.Country, UserAgent: s.UserAgent, Device: device(s.UserAgent),
			AMR: append([]string{}, s.Methods.Names()...), AuthTime: Sec(s.AuthTime),
			CreatedAt: Sec(s.CreatedAt), SeenAt: Sec(s.SeenAt), ExpiresAt: Sec(s.ExpiresAt),
			Current: current != nil && current.Key == s.Key,
		}
		if s.IP.IsValid() {
			v.UserIP = s.IP.String()
		}
		out = append(out, v)
	}
	return out
}

// device names browser and system for people: "Firefox on Linux". It is empty when neither can be told.
func device(userAgent string) string {
	ua := useragent.Parse(userAgent)
	switch {
	case ua.Name == "":
		return ua.OS
	case ua.OS == "":
		return ua.Name
	}
	return ua.Name + " on " + ua.OS
}
