package account

import (
	"context"
	"errors"
	"time"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/crypto/secret"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/session"
)

// errMoved says that the account changed under a sign-in; what was proved holds no longer.
var errMoved = errors.New("the account changed during the sign-in")

// OpenSession opens a session for the user with that uid and epoch, and runs work, which records why, in one unit. It
// returns the cookie's secret and the session. The session is stored first, so that a recorded sign-in has one, and
// deleted again when the unit fails. The id is always new; the sessions that the browser's old cookies name are ended.
// proved says how the user has just proved who they are.
func (s *Service) OpenSession(
	ctx context.Context, c Client, old []session.ID, uid string, epoch int64, proved session.Methods,
	work func(context.Context, *Unit) error,
) (session.ID, *session.Session, error) {
	id, now := session.NewID(), s.Now().UTC().Truncate(time.Millisecond)
	agent := c.UserAgent
	if len(agent) > session.MaxUserAgent {
		agent = agent[:session.MaxUserAgent]
	}
	opened := &session.Session{
		Key: id.Key(), UID: uid, Epoch: epoch, CSRF: secret.RandomHex(10), IP: c.IP, UserAgent: agent, Country: c.Country,
		Methods: proved, AuthTime: now, CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(s.SessionTTL), EndsAt: now.Add(s.SessionMaxAge),
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
	replaced, err := s.named(ctx, old)
	if err != nil {
		return session.ID{}, nil, err
	}
	err = s.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := work(ctx, u); err != nil {
			return err
		}
		for _, one := range replaced {
			if err := u.EndSession(ctx, one); err != nil && !errors.Is(err, db.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return session.ID{}, nil, err
	}
	committed = true
	for _, one := range replaced {
		s.drop(ctx, one.Key)
		s.fold(ctx, one.UID, opened)
	}
	s.trim(ctx, opened)
	return id, opened, nil
}

// maxSessions is how many live sessions a user may have.
const maxSessions = 50

// trim ends the oldest sessions of a user who has opened one too many. A failure is only logged: the next one ends them.
func (s *Service) trim(ctx context.Context, opened *session.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	ended, err := s.Sessions.Trim(ctx, opened.UID, opened.Epoch, maxSessions, opened.CreatedAt)
	if len(ended) > 0 {
		recorded := s.Update(ctx, func(ctx context.Context, u *Unit) error {
			for _, key := range ended { // none of them can live longer than the one that was opened last
				one := &session.Session{UID: opened.UID, Key: key, EndsAt: opened.EndsAt}
				if err := u.EndSession(ctx, one); err != nil && !errors.Is(err, db.ErrNotFound) {
					return err
				}
			}
			return nil
		})
		if recorded != nil {
			for _, key := range ended {
				s.gone(ctx, key)
			}
		}
		err = errors.Join(err, recorded)
		s.fold(ctx, opened.UID, opened)
	}
	if err != nil {
		s.Log.ErrorContext(ctx, "end the oldest sessions", "uid", opened.UID, "error", err)
	}
}

// SignIn opens a session for a user whose password, and second factor if they have one, were proved, and records it:
// activity login or login::2fa, event and mail of the new session. The account is looked at again under its lock: one
// that was closed or whose sessions were ended meanwhile is refused with identity.session.not_active. Who signs in too
// often is refused with request.rate_limited: sessions, mails and rows cost as much when the password is right.
func (s *Service) SignIn(
	ctx context.Context, c Client, old []session.ID, user *db.User,
) (session.ID, *session.Session, error) {
	action, proved := "login", session.Password
	if user.OTP {
		action, proved = "login::2fa", session.Password|session.Code
	}
	return s.signIn(ctx, c, old, user, action, proved, func(context.Context, *Unit) error { return nil })
}

// signIn is SignIn by whatever proof, which the unit uses up first.
func (s *Service) signIn(
	ctx context.Context, c Client, old []session.ID, user *db.User, action string, proved session.Methods,
	use func(context.Context, *Unit) error,
) (session.ID, *session.Session, error) {
	if err := s.limited(limit.SignIn.Take(ctx, s.Limits, user.UID)); err != nil {
		return session.ID{}, nil, err
	}
	epoch := user.Epoch()
	return s.OpenSession(ctx, c, old, user.UID, epoch, proved, func(ctx context.Context, u *Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if user.Epoch() != epoch || !user.Open() {
			return fault.New("identity.session.not_active").Because(errMoved)
		}
		if err := use(ctx, u); err != nil {
			return err
		}
		if err := u.Record(ctx, user, c, "session", action, Succeed, ""); err != nil {
			return err
		}
		if err := u.Welcome(ctx, user, c); err != nil {
			return err
		}
		return u.SessionCreated(ctx, user, c)
	})
}

// named are the sessions that a browser's cookies name in the store. Whether they still pass is not looked at.
func (s *Service) named(ctx context.Context, ids []session.ID) ([]*session.Session, error) {
	var all []*session.Session
	for _, id := range ids {
		found, err := s.Sessions.Get(ctx, id.Key(), s.Now())
		switch {
		case err == nil:
			all = append(all, found)
		case !errors.Is(err, session.ErrNotFound):
			return nil, outage(err)
		}
	}
	return all, nil
}

// Current finds the live session that a browser's cookies name, and its user; of several live ones that which a
// session.Choice takes. session.ErrNotFound stands for every way of not having one: no cookie, an unknown one, a session
// that expired or was ended, a user who is gone, sessions of different users.
func (s *Service) Current(ctx context.Context, ids ...session.ID) (*session.Session, *db.User, error) {
	all, err := s.named(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	var (
		choice  session.Choice
		current *session.Session
		owner   *db.User
	)
	for _, one := range all {
		user, err := s.DB.UserByUID(ctx, one.UID)
		if errors.Is(err, db.ErrNotFound) || err == nil && !passes(one, user) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if choice.Add(one.UID, one.CreatedAt, one.Key) {
			current, owner = one, user
		}
	}
	if current == nil || choice.Disputed() {
		return nil, nil, session.ErrNotFound
	}
	return current, owner, nil
}

// passes reports whether a session that the store has is alive for its user.
func passes(found *session.Session, user *db.User) bool {
	p := user.Principal()
	return found.UID == p.UID && found.Epoch == p.Epoch && !p.HasEnded(found.Key)
}

// SignOut ends a session of a user and records the logout; session.ErrNotFound when it has ended already. What else of
// the user's sessions the browser's cookies name ends with it: the browser must not go on with an older one.
func (s *Service) SignOut(ctx context.Context, c Client, user *db.User, current *session.Session, ids ...session.ID) error {
	all, err := s.named(ctx, ids)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.Key == current.Key || !passes(one, user) {
			continue
		}
		if err := s.end(ctx, one, func(context.Context, *Unit) error { return nil }); err != nil && !errors.Is(err, session.ErrNotFound) {
			return err
		}
	}
	return s.end(ctx, current, func(ctx context.Context, u *Unit) error {
		return u.Record(ctx, user, c, "session", "logout", Succeed, "")
	})
}

// end ends one session on every replica, in one unit with work. When the unit fails, the session store still can end it:
// nobody is kept from leaving by a database that takes no writes; only the log tells of it then. When the session store
// fails, the unit has ended the session.
func (s *Service) end(ctx context.Context, found *session.Session, work func(context.Context, *Unit) error) error {
	recorded := s.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := u.EndSession(ctx, found); err != nil {
			return err
		}
		return work(ctx, u)
	})
	if errors.Is(recorded, db.ErrNotFound) {
		return session.ErrNotFound
	}
	if recorded == nil {
		s.drop(ctx, found.Key)
		s.fold(ctx, found.UID, nil)
		return nil
	}
	if err := s.remove(ctx, found.Key); err != nil {
		if errors.Is(err, session.ErrNotFound) {
			return session.ErrNotFound
		}
		return recorded
	}
	s.Log.ErrorContext(ctx, "the end of a session stands in the session store alone", "uid", found.UID, "error", recorded)
	return nil
}

// maxEnded is how many ended sessions a user may have on record. The record is read with the user.
const maxEnded = 1000

// fold ends all sessions of a user who has too many ended ones on record, but keep, which may be nil: the epoch of the
// user then says what the record said.
func (s *Service) fold(ctx context.Context, uid string, keep *session.Session) {
	ctx = context.WithoutCancel(ctx)
	user, err := s.DB.UserByUID(ctx, uid)
	if err == nil && len(user.Principal().Ended) > maxEnded*session.TagLen {
		err = s.Update(ctx, func(ctx context.Context, u *Unit) error {
			if err := u.EndSessions(ctx, user, keep); err != nil {
				return err
			}
			return u.DropEndedSessions(ctx, user.UID)
		})
	}
	if err != nil && !errors.Is(err, db.ErrNotFound) {
		s.Log.WarnContext(ctx, "fold the record of ended sessions", "uid", uid, "error", err)
	}
}

// remove deletes one session from the store and tells all caches; session.ErrNotFound when there is none.
func (s *Service) remove(ctx context.Context, key session.Key) error {
	err := s.Sessions.Delete(ctx, key)
	s.gone(ctx, key) // also when it is not known whether it was there: no cache is to keep what may have ended
	return err
}

// EndEverybody ends every session of everybody, on every replica.
func (s *Service) EndEverybody(ctx context.Context) error {
	return s.Update(ctx, func(ctx context.Context, u *Unit) error {
		u.AfterCommit(func(ctx context.Context) {
			if _, err := s.Sessions.DeleteAll(ctx); err != nil { // they have ended all the same
				s.Log.WarnContext(ctx, "delete all sessions", "error", err)
			}
		})
		return u.EndEverybody(ctx)
	})
}

// ListSessions are the user's live sessions, newest first.
func (s *Service) ListSessions(ctx context.Context, user *db.User) ([]*session.Session, error) {
	all, err := s.Sessions.List(ctx, user.UID, s.Now())
	if err != nil {
		return nil, outage(err)
	}
	live := make([]*session.Session, 0, len(all))
	for _, one := range all {
		if passes(one, user) {
			live = append(live, one)
		}
	}
	return live, nil
}

// EndOwn ends one session if it is the user's; session.ErrNotFound otherwise.
func (s *Service) EndOwn(ctx context.Context, user *db.User, key session.Key) error {
	found, err := s.Sessions.Get(ctx, key, s.Now())
	if errors.Is(err, session.ErrNotFound) || err == nil && !passes(found, user) {
		return session.ErrNotFound
	}
	if err != nil {
		return outage(err)
	}
	return s.end(ctx, found, func(context.Context, *Unit) error { return nil })
}

// drop deletes a session that must not stay, even when the caller has gone. There is nobody to tell a failure but the log.
func (s *Service) drop(ctx context.Context, key session.Key) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.remove(ctx, key); err != nil && !errors.Is(err, session.ErrNotFound) {
		s.Log.ErrorContext(ctx, "delete session", "error", err)
	}
}

// gone tells all caches that a session has ended. Those that do not hear it find out within the session cache's lifetime.
func (s *Service) gone(ctx context.Context, key session.Key) {
	if err := s.Notices(ctx, bus.Notice{Kind: bus.SessionGone, Subject: key.String()}); err != nil {
		s.Log.WarnContext(ctx, "announce ended session", "error", err)
	}
}
