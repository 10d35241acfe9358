package account

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"barong/db"
	"barong/internal/crypto/passkey"
	"barong/internal/delivery/mail"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/session"

	"golang.org/x/text/unicode/norm"
)

// party is a user as passkeys know them. A passkey that was begun before the user's sessions were ended, as by a new
// password, cannot be added after that.
func party(user *db.User) passkey.User {
	return passkey.User{Handle: user.UID, Name: user.Email, Epoch: user.Epoch()}
}

func credential(p *db.Passkey) passkey.Credential {
	c := passkey.Credential{
		ID: p.CredentialID, PublicKey: p.PublicKey, SignCount: p.SignCount, BackupEligible: p.BackupEligible, BackedUp: p.BackedUp,
	}
	if p.Transports != "" {
		c.Transports = strings.Split(p.Transports, ",")
	}
	return c
}

// BeginPasskey begins to make a passkey for a user who has just proved to be there.
func (s *Service) BeginPasskey(ctx context.Context, user *db.User) (flow string, options any, err error) {
	rows, err := s.DB.Passkeys(ctx, user.ID)
	if err != nil {
		return "", nil, err
	}
	who := party(user)
	for i := range rows {
		who.Have = append(who.Have, credential(&rows[i]))
	}
	return s.Passkeys.BeginCreate(who)
}

// MadePasskey ends what BeginPasskey has begun: the passkey, to be named and added. It is resource.passkey.invalid for a
// flow or a credential that is not what was asked for.
func (s *Service) MadePasskey(ctx context.Context, user *db.User, flow, text string) (*db.Passkey, error) {
	c, err := s.Passkeys.Create(ctx, party(user), flow, text)
	if errors.Is(err, passkey.ErrInvalid) {
		return nil, fault.Invalid("resource.passkey.invalid").Because(err)
	}
	if err != nil {
		return nil, err
	}
	return &db.Passkey{
		UserID: user.ID, CredentialID: c.ID, PublicKey: c.PublicKey, SignCount: c.SignCount, BackupEligible: c.BackupEligible,
		BackedUp: c.BackedUp, Transports: strings.Join(c.Transports, ","),
	}, nil
}

// maxPasskeyName is the longest name of a passkey, in characters.
const maxPasskeyName = 64

// PasskeyName is the name of a passkey as it is kept, and what is wrong with it.
func PasskeyName(text string) (name string, wrong []fault.Code) {
	name = norm.NFC.String(strings.TrimSpace(text))
	if utf8.RuneCountInString(name) > maxPasskeyName {
		wrong = append(wrong, "name.too_long")
	}
	// What does not show, or turns the text around it, but for what joins letters and signs.
	const nonJoiner, joiner = '\u200c', '\u200d'
	if strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) && r != nonJoiner && r != joiner
	}) {
		wrong = append(wrong, "name.invalid")
	}
	return name, wrong
}

// AddPasskey gives a user a passkey, by activity and by mail. It is resource.passkey.taken when somebody has it already, and
// resource.passkey.limit for one too many. The account must be as it was when the passkey was made, else it is
// resource.passkey.invalid.
func (u *Unit) AddPasskey(ctx context.Context, user *db.User, c Client, p *db.Passkey) error {
	proved := user.Epoch()
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	if user.Epoch() != proved || !user.Open() {
		return fault.Invalid("resource.passkey.invalid").Because(errMoved)
	}
	have, err := u.Passkeys(ctx, user.ID)
	if err != nil {
		return err
	}
	_, err = u.PasskeyByCredential(ctx, p.CredentialID)
	switch {
	case err == nil:
		return fault.Invalid("resource.passkey.taken")
	case !errors.Is(err, db.ErrNotFound):
		return err
	case len(have) >= passkey.MaxPerUser:
		return fault.Invalid("resource.passkey.limit")
	}
	if err := u.InsertPasskey(ctx, p); err != nil {
		if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) { // by a parallel call
			return fault.Invalid("resource.passkey.taken").Because(err)
		}
		return err
	}
	return u.passkeyChanged(ctx, user, c, "passkey::create", mail.PasskeyCreated)
}

// RemovePasskey takes a passkey from its user, by activity and by mail.
func (u *Unit) RemovePasskey(ctx context.Context, user *db.User, c Client, p *db.Passkey) error {
	if err := u.DeletePasskey(ctx, p); err != nil {
		return err
	}
	return u.passkeyChanged(ctx, user, c, "passkey::delete", mail.PasskeyDeleted)
}

func (u *Unit) passkeyChanged(ctx context.Context, user *db.User, c Client, action, kind string) error {
	if err := u.Record(ctx, user, c, "session", action, Succeed, ""); err != nil {
		return err
	}
	return u.mail(ctx, user, kind, mail.Data{})
}

// A Proof is a passkey that was used to sign in.
type Proof struct {
	User    *db.User
	passkey *db.Passkey
	use     *passkey.Use
}

// ErrPasskey says that a sign-in by passkey is refused. Each module has its own code for it.
var ErrPasskey = errors.New("account: no such passkey")

// VerifyPasskey verifies the end of a sign-in that BeginGet of Passkeys has begun. The error is ErrPasskey for whatever is
// wrong; the proof then names the user, if the credential belongs to one. Wrong attempts count as wrong passwords do, but
// for the client's address alone: whoever has seen the id of somebody's passkey must not be able to use up the attempts of
// that account.
func (s *Service) VerifyPasskey(ctx context.Context, c Client, flow, text string) (*Proof, error) {
	try := &Tries{s: s, address: network(c.IP, 32, 64)}
	if err := s.limited(limit.WrongPasswordAddress.Take(ctx, s.Limits, try.address)); err != nil {
		return new(Proof), err
	}
	p, err := s.verifyPasskey(ctx, c, flow, text)
	if !errors.Is(err, ErrPasskey) {
		try.giveBack(ctx, limit.WrongPasswordAddress, try.address)
	}
	return p, err
}

func (s *Service) verifyPasskey(ctx context.Context, c Client, flow, text string) (*Proof, error) {
	p := new(Proof)
	var err error
	p.use, err = s.Passkeys.Get(ctx, flow, text, func(ctx context.Context, id string) (string, *passkey.Credential, error) {
		row, err := s.DB.PasskeyByCredential(ctx, id)
		if errors.Is(err, db.ErrNotFound) {
			return "", nil, passkey.ErrInvalid
		}
		if err != nil {
			return "", nil, err
		}
		user, err := s.DB.UserByID(ctx, row.UserID)
		if errors.Is(err, db.ErrNotFound) { // removed a moment ago, and the passkey with them
			return "", nil, passkey.ErrInvalid
		}
		if err != nil {
			return "", nil, err
		}
		p.User, p.passkey = user, row
		found := credential(row)
		return user.UID, &found, nil
	})
	switch {
	case errors.Is(err, passkey.ErrCounter):
		return p, s.copied(ctx, c, p)
	case errors.Is(err, passkey.ErrInvalid):
		return p, errors.Join(ErrPasskey, err)
	}
	return p, err
}

// copied tells, in the log and by mail, of a passkey whose count of signatures has not risen: somebody may have a copy of
// it. The error is ErrPasskey, or an outage.
func (s *Service) copied(ctx context.Context, c Client, p *Proof) error {
	s.Log.WarnContext(ctx, "a passkey was refused: its count of signatures has not risen, so that it may have been copied",
		"uid", p.User.UID, "passkey", p.passkey.ID, "count", p.passkey.SignCount, "ip", c.address())
	err := s.Update(ctx, func(ctx context.Context, u *Unit) error {
		return u.mail(ctx, p.User, mail.PasskeyCopied, mail.Data{IP: c.address(), UserAgent: storable(c.UserAgent, session.MaxUserAgent)})
	})
	if err != nil {
		return err
	}
	return errors.Join(ErrPasskey, passkey.ErrCounter)
}

// SignInByPasskey is SignIn for a user who has used a passkey, which is both factors. The error is ErrPasskey when the
// passkey was removed, or used elsewhere, meanwhile.
func (s *Service) SignInByPasskey(ctx context.Context, c Client, old []session.ID, p *Proof) (session.ID, *session.Session, error) {
	errCopied := errors.New("the count was used meanwhile")
	proved := session.HardwareKey
	if p.passkey.BackupEligible { // it may leave its device
		proved = session.SoftwareKey
	}
	id, opened, err := s.signIn(ctx, c, old, p.User, "login", proved, func(ctx context.Context, u *Unit) error {
		fresh, err := u.UsePasskey(ctx, p.passkey, p.use.SignCount, p.use.BackedUp)
		switch {
		case errors.Is(err, db.ErrNotFound):
			return errors.Join(ErrPasskey, err)
		case err == nil && !fresh:
			return errCopied
		}
		return err
	})
	if errors.Is(err, errCopied) {
		err = s.copied(ctx, c, p)
	}
	return id, opened, err
}
