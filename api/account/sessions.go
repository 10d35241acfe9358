package account

import (
	"context"
	"errors"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/fault"
	"barong/session"
)

// errMoved says that the account changed under a sign-in; what was proved holds no longer.
var errMoved = errors.New("the account changed during the sign-in")

// OpenSession opens a session for the user with that uid and epoch, and runs work, which records why, in one unit. It
// returns the cookie's secret and the session. The session is stored first, so that a recorded sign-in has one, and
// deleted again when the unit fails. The id is always new; the session that the browser's old cookie names is ended.
func (s *Service) OpenSession(
	ctx context.Context, c Client, oldCookie []byte, uid string, epoch int64, work func(context.Context, *Unit) error,
) (session.ID, *session.Session, error) {
	id, now := session.NewID(), s.Now().UTC().Truncate(time.Millisecond)
	agent := c.UserAgent
	if len(agent) > session.MaxUserAgent {
		agent = agent[:session.MaxUserAgent]
	}
	opened := &session.Session{
		Key: id.Key(), UID: uid, Epoch: epoch, CSRF: randomHex(10), IP: c.IP, UserAgent: agent, Country: c.Country,
		CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(s.SessionTTL), EndsAt: now.Add(s.SessionMaxAge),
	}
	if opened.ExpiresAt.After(opened.EndsAt) {
		opened.ExpiresAt = opened.EndsAt
	}
	if err := s.Sessions.Create(ctx, opened); err != nil {
		return session.ID{}, nil, outage(err)
	}
	committed := false
	defer func() {
		if !committed {
			s.drop(ctx, opened.Key)
		}
	}()
	if err := s.Update(ctx, work); err != nil {
		return session.ID{}, nil, err
	}
	committed = true
	if old, ok := session.ParseID(oldCookie); ok {
		s.drop(ctx, old.Key())
	}
	return id, opened, nil
}

// SignIn opens a session for a user whose password, and second factor if they have one, were proved, and records it:
// activity login or login::2fa, event and mail of the new session. The account is looked at again under its lock: one
// that was closed or whose sessions were ended meanwhile is refused with identity.session.not_active.
func (s *Service) SignIn(
	ctx context.Context, c Client, oldCookie []byte, user *db.User,
) (session.ID, *session.Session, error) {
	proved, action := user.SessionEpoch, "login"
	if user.OTP {
		action = "login::2fa"
	}
	return s.OpenSession(ctx, c, oldCookie, user.UID, proved, func(ctx context.Context, u *Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if user.SessionEpoch != proved || !user.Open() {
			return fault.New("identity.session.not_active").Because(errMoved)
		}
		if err := u.Record(ctx, user, c, "session", action, Succeed, ""); err != nil {
			return err
		}
		return u.SessionCreated(ctx, user, c)
	})
}

// Current finds the live session that a cookie's value names, and its user. session.ErrNotFound stands for every way of
// not having one: no cookie, a malformed or unknown one, a session that expired or was ended, a user who is gone.
func (s *Service) Current(ctx context.Context, cookie []byte) (*session.Session, *db.User, error) {
	id, ok := session.ParseID(cookie)
	if !ok {
		return nil, nil, session.ErrNotFound
	}
	found, err := s.Sessions.Get(ctx, id.Key(), s.Now())
	if errors.Is(err, session.ErrNotFound) {
		return nil, nil, session.ErrNotFound
	}
	if err != nil {
		return nil, nil, outage(err)
	}
	user, err := s.DB.UserByUID(ctx, found.UID)
	if errors.Is(err, db.ErrNotFound) || err == nil && user.SessionEpoch != found.Epoch {
		return nil, nil, session.ErrNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	return found, user, nil
}

// SignOut ends a session of a user and records the logout.
func (s *Service) SignOut(ctx context.Context, c Client, user *db.User, key session.Key) error {
	if err := s.End(ctx, key); err != nil {
		return err
	}
	return s.Update(ctx, func(ctx context.Context, u *Unit) error {
		return u.Record(ctx, user, c, "session", "logout", Succeed, "")
	})
}

// End ends one session on every replica; session.ErrNotFound when there is none.
func (s *Service) End(ctx context.Context, key session.Key) error {
	err := s.Sessions.Delete(ctx, key)
	s.gone(ctx, key) // also when it is not known whether it was there: no cache is to keep what may have ended
	if errors.Is(err, session.ErrNotFound) {
		return session.ErrNotFound
	}
	if err != nil {
		return outage(err)
	}
	return nil
}

// EndEverybody ends every session of everybody, on every replica.
func (s *Service) EndEverybody(ctx context.Context) error {
	if _, err := s.Sessions.DeleteAll(ctx); err != nil {
		return outage(err)
	}
	if err := s.Notices(ctx, bus.Notice{Kind: bus.SessionsGone}); err != nil {
		s.Log.WarnContext(ctx, "announce that all sessions have ended", "error", err)
	}
	return nil
}

// ListSessions are the user's live sessions, newest first.
func (s *Service) ListSessions(ctx context.Context, user *db.User) ([]*session.Session, error) {
	all, err := s.Sessions.List(ctx, user.UID, s.Now())
	if err != nil {
		return nil, outage(err)
	}
	live := make([]*session.Session, 0, len(all))
	for _, one := range all {
		if one.Epoch == user.SessionEpoch {
			live = append(live, one)
		}
	}
	return live, nil
}

// EndOwn ends one session if it is the user's; session.ErrNotFound otherwise.
func (s *Service) EndOwn(ctx context.Context, user *db.User, key session.Key) error {
	found, err := s.Sessions.Get(ctx, key, s.Now())
	if errors.Is(err, session.ErrNotFound) || err == nil && (found.UID != user.UID || found.Epoch != user.SessionEpoch) {
		return session.ErrNotFound
	}
	if err != nil {
		return outage(err)
	}
	return s.End(ctx, key)
}

// drop ends a session that must not stay, even when the caller has gone. There is nobody to tell a failure but the log.
func (s *Service) drop(ctx context.Context, key session.Key) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.End(ctx, key); err != nil && !errors.Is(err, session.ErrNotFound) {
		s.Log.ErrorContext(ctx, "delete session", "error", err)
	}
}

// gone tells all caches that a session has ended. Those that do not hear it find out within the session cache's lifetime.
func (s *Service) gone(ctx context.Context, key session.Key) {
	if err := s.Notices(ctx, bus.Notice{Kind: bus.SessionGone, Subject: key.String()}); err != nil {
		s.Log.WarnContext(ctx, "announce ended session", "error", err)
	}
}
