package account

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"barong/db"
	"barong/internal/bus"
	"barong/internal/delivery/mail"
	"barong/internal/fault"
	"barong/policy"
	"barong/session"
)

// States that exist in every configuration; triggers may add others. Any but active and pending closes the account.
const (
	Active  = session.Active
	Pending = session.Pending
	Banned  = "banned"
	Deleted = "deleted"
	Locked  = "locked"
)

// LevelOf is the level that private labels give: the number of the last level reached when walking them by number up to
// the first whose label is missing.
func LevelOf(levels []db.Level, labels []db.Label) int {
	level := 0
	for i := range levels {
		l := &levels[i]
		if l.Value == nil || !hasPrivate(labels, l.Key, *l.Value) {
			break
		}
		level = int(l.ID)
	}
	return level
}

// StateOf is the state that private labels give: active when every requirement is met, else pending, unless triggers
// fit: then that of the last one. A trigger fits a label whose key is one of its keys, or begins with one followed by "-"
// or "_"; it never looks inside a word, nor at public labels, which users write themselves.
func (s *Settings) StateOf(labels []db.Label) string {
	state := Active
	for key, value := range s.ActivationRequirements {
		if !hasPrivate(labels, key, value) {
			state = Pending
			break
		}
	}
	for _, t := range s.StateTriggers {
		if slices.ContainsFunc(labels, func(l db.Label) bool {
			return l.Scope == Private && slices.ContainsFunc(t.Keys, func(key string) bool { return fits(l.Key, key) })
		}) {
			state = t.State
		}
	}
	return state
}

// Labels are written in lower case. Those of old releases of the original, which an import leaves as they are, need not be.
func fits(label, trigger string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(label), strings.ToLower(trigger))
	return ok && trigger != "" && (rest == "" || rest[0] == '-' || rest[0] == '_')
}

func hasPrivate(labels []db.Label, key, value string) bool {
	return slices.ContainsFunc(labels, func(l db.Label) bool {
		return l.Scope == Private && strings.EqualFold(l.Key, key) && strings.EqualFold(l.Value, value)
	})
}

// fromLabels computes level and state of a locked user. A state that an admin set stays.
func (u *Unit) fromLabels(ctx context.Context, user *db.User) (level int, state string, err error) {
	labels, err := u.Labels(ctx, user.ID)
	if err != nil {
		return 0, "", err
	}
	levels, err := u.Levels(ctx)
	if err != nil {
		return 0, "", err
	}
	state = user.State
	if !user.StateManual {
		state = u.s.StateOf(labels)
	}
	return LevelOf(levels, labels), state, nil
}

// Recompute brings level and state in line with the user's labels, as after a change of the levels.
func (u *Unit) Recompute(ctx context.Context, user *db.User) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	level, state, err := u.fromLabels(ctx, user)
	if err != nil {
		return err
	}
	before := *user
	user.Level = level
	return u.moveState(ctx, &before, user, state, nil, "level")
}

// States are the states that an admin may set.
func (s *Settings) States() []string {
	states := []string{Pending, Active, Banned, Deleted, Locked}
	for _, t := range s.StateTriggers {
		if !slices.Contains(states, t.State) {
			states = append(states, t.State)
		}
	}
	return states
}

// SetState is an admin's decision: the state stays, whatever the labels say, until an admin sets another. A state that
// does not exist is state.inclusion; closing the account of the last superadmin is admin.permission.last_superadmin.
func (u *Unit) SetState(ctx context.Context, user *db.User, state string) error {
	if !slices.Contains(u.s.States(), state) {
		return fault.Invalid("state.inclusion")
	}
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	before := *user
	user.StateManual = true
	return u.moveState(ctx, &before, user, state, nil, "state_manual")
}

// moveState stores a state and the named other columns, if any of them changed, with all that a state brings along:
// leaving active makes the API keys inactive, closing the account ends its sessions.
func (u *Unit) moveState(
	ctx context.Context, before, user *db.User, state string, keep *session.Session, columns ...string,
) error {
	user.State = state
	if before.State == state && before.Level == user.Level && before.StateManual == user.StateManual {
		return nil
	}
	if before.State != state {
		columns = append(columns, "state")
		if before.Open() && !user.Open() {
			if err := u.keepASuperadmin(ctx, user); err != nil {
				return err
			}
			columns = append(columns, u.endSessions(user, keep))
		}
		if state != Active {
			if err := u.DeactivateAPIKeys(ctx, user.ID); err != nil {
				return err
			}
		}
	}
	return u.saveUser(ctx, before, user, columns...)
}

// keepASuperadmin refuses to take away the last open account of a superadmin. It locks all of them, so that two of them
// cannot remove each other at the same time.
func (u *Unit) keepASuperadmin(ctx context.Context, user *db.User) error {
	if user.Role != policy.Superadmin {
		return nil
	}
	if err := u.LockUsers(ctx, policy.Superadmin, user.ID); err != nil {
		return err
	}
	others, err := u.OthersOpen(ctx, policy.Superadmin, user.ID)
	if err != nil {
		return err
	}
	if others == 0 {
		return fault.New("admin.permission.last_superadmin")
	}
	return nil
}

// SetRole gives a user another role and ends their sessions. A role that no permission names is role.doesnt_exist;
// degrading the last superadmin is admin.permission.last_superadmin.
func (u *Unit) SetRole(ctx context.Context, user *db.User, role string) error {
	known, err := u.RoleExists(ctx, role)
	if err != nil {
		return err
	}
	if !known {
		return fault.Invalid("role.doesnt_exist")
	}
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if user.Role == role {
		return nil
	}
	if err := u.keepASuperadmin(ctx, user); err != nil {
		return err
	}
	before := *user
	user.Role = role
	return u.saveUser(ctx, &before, user, "role", u.endSessions(user, nil))
}

// SetOTP switches the second factor on or off and ends the user's sessions but keep, which may be nil. On needs a code
// of the pending secret to have been accepted (see VerifyTOTP), else it is ErrWrongCode, and puts the label otp:enabled.
// Off deactivates the API keys, and forgets secret, recovery codes and label.
func (u *Unit) SetOTP(ctx context.Context, user *db.User, on bool, keep *session.Session) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if user.OTP == on {
		return nil
	}
	before := *user
	user.OTP = on
	if on {
		if err := u.provenTOTP(ctx, user); err != nil {
			return err
		}
		if err := u.saveUser(ctx, &before, user, "otp", u.endSessions(user, keep)); err != nil {
			return err
		}
		if err := u.PutLabel(ctx, user, "otp", "enabled"); err != nil {
			return err
		}
		return u.mail(ctx, user, mail.OTPEnabled, mail.Data{})
	}
	if err := u.DeactivateAPIKeys(ctx, user.ID); err != nil {
		return err
	}
	if err := u.DeleteTOTPKey(ctx, user.ID); err != nil {
		return err
	}
	if err := u.saveUser(ctx, &before, user, "otp", u.endSessions(user, keep)); err != nil {
		return err
	}
	// A level may ask for the label, so its removal counts like any other's.
	if err := u.DeleteLabel(ctx, user, "otp", Private); err != nil && !errors.Is(err, db.ErrNotFound) {
		return err
	}
	return u.mail(ctx, user, mail.OTPDisabled, mail.Data{})
}

// SetPassword stores a digest (see HashPassword) and ends the user's sessions but keep, which may be nil.
func (u *Unit) SetPassword(ctx context.Context, user *db.User, digest string, keep *session.Session) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	before := *user
	user.PasswordDigest = digest
	return u.saveUser(ctx, &before, user, "password_digest", u.endSessions(user, keep))
}

// SetData replaces the client's JSON text. The error is a 422 of data.too_long, data.invalid_format or both.
func (u *Unit) SetData(ctx context.Context, user *db.User, data string) error {
	if codes := validateData(&data); len(codes) > 0 {
		return fault.Invalid(codes...)
	}
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if equal(user.Data, &data) {
		return nil
	}
	before := *user
	user.Data = &data
	return u.saveUser(ctx, &before, user, "data")
}

// maxData is the longest users.data, in characters.
const maxData = 1024

func validateData(data *string) []fault.Code {
	if data == nil {
		return nil
	}
	var codes []fault.Code
	if utf8.RuneCountInString(*data) > maxData {
		codes = append(codes, "data.too_long")
	}
	if !json.Valid([]byte(*data)) {
		codes = append(codes, "data.invalid_format")
	}
	return codes
}

// DeleteAccount is the user's own decision to leave: the label delete:by_user, the state deleted, no session, no active
// API key. The row and its address stay. It wins over a state that an admin set. The last superadmin cannot leave.
func (u *Unit) DeleteAccount(ctx context.Context, user *db.User) error {
	if err := u.PutLabel(ctx, user, "delete", "by_user"); err != nil {
		return err
	}
	if user.Open() { // no trigger closed it: none is configured, or an admin's decision stood against it
		before := *user
		if err := u.moveState(ctx, &before, user, Deleted, nil); err != nil {
			return err
		}
	}
	return u.accountDeleted(ctx, user)
}

// saveUser stores the named columns and tells what changed.
func (u *Unit) saveUser(ctx context.Context, before, user *db.User, columns ...string) error {
	if err := u.UpdateUser(ctx, user, columns...); err != nil {
		return err
	}
	return u.userUpdated(ctx, before, user)
}

// EndSessions ends the user's sessions but keep, which may be nil, on every replica.
func (u *Unit) EndSessions(ctx context.Context, user *db.User, keep *session.Session) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	return u.UpdateUser(ctx, user, u.endSessions(user, keep))
}

// endSessions raises the epoch of a locked user, which ends every session of the old one, and returns the column to store.
// keep, if it is a live session of this user, gets the new epoch after the commit; the others are deleted from the store
// then. A failure there is only logged: the epoch has ended them already, and at worst the kept one as well.
func (u *Unit) endSessions(user *db.User, keep *session.Session) (column string) {
	var kept *session.Key
	if keep != nil && keep.UID == user.UID {
		epoch := keep.Epoch
		if e, again := u.rebased[keep.Key]; again {
			epoch = e
		}
		if epoch == user.Epoch() { // a session that was dead before must not come back to life
			key := keep.Key
			kept = &key
			u.rebased[key] = user.Epoch() + 1
			u.Notify(bus.SessionGone, key.String()) // caches must read its new epoch
		}
	}
	user.SessionEpoch++
	s, uid, epoch := u.s, user.UID, user.Epoch()
	u.AfterCommit(func(ctx context.Context) {
		if kept != nil {
			if err := s.Sessions.Rebase(ctx, *kept, epoch); err != nil && !errors.Is(err, session.ErrNotFound) {
				s.Log.ErrorContext(ctx, "keep session", "uid", uid, "error", err)
			}
		}
		if _, err := s.Sessions.DeleteUser(ctx, uid, kept); err != nil {
			s.Log.ErrorContext(ctx, "delete ended sessions", "uid", uid, "error", err)
		}
	})
	return "session_epoch"
}
