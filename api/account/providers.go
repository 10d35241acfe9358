package account

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"barong/db"
	"barong/internal/crypto/passkey"
	"barong/internal/crypto/password"
	"barong/internal/delivery/mail"
	"barong/internal/email"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/internal/openid"
	"barong/session"
)

// errFlow refuses a return from a provider that does not belong to what this browser, or this account, has begun.
var errFlow = fault.New("identity.provider.invalid_flow")

// providerFault is what callers are told of an error of package openid about a provider; any other stays as it is.
func providerFault(id string, err error) error {
	for _, known := range []struct {
		err  error
		code fault.Code
	}{
		{openid.ErrUnknown, fault.NotFound},
		{openid.ErrUnavailable, "identity.provider.unavailable"},
		{openid.ErrFlow, "identity.provider.invalid_flow"},
		{openid.ErrDenied, "identity.provider.denied"},
		{openid.ErrToken, "identity.provider.invalid_token"},
	} {
		if errors.Is(err, known.err) {
			return fault.New(known.code).Because(fmt.Errorf("%s: %w", id, err))
		}
	}
	return err
}

// plainHost is a host with or without a port, and nothing that ends it for some reader.
var plainHost = regexp.MustCompile(`^[A-Za-z0-9._:\[\]-]{1,255}$`)

// BeginProvider sends a browser, which asked host for it, to a provider: location is where, and sealed what it has to bring
// back. callback is the path of the answer.
func (s *Service) BeginProvider(
	ctx context.Context, id string, https bool, host string, f openid.Flow,
) (location, sealed string, err error) {
	// The browser comes back to where its cookie is. Of the front end's own host the scheme is known, whatever a gateway says.
	name, origin := passkey.Of(s.Domain)
	if asked := strings.ToLower(host); plainHost.MatchString(host) && asked != name && "https://"+asked != origin && "http://"+asked != origin {
		if origin = "http://" + host; https {
			origin = "https://" + host
		}
	}
	f.Callback = origin + "/" + s.APIPrefix + "/identity/providers/" + id + "/callback"
	location, sealed, err = s.Providers.Begin(ctx, id, f)
	return location, sealed, providerFault(id, err)
}

// EndProvider judges what a browser brings back from a provider: who it is there, and the flow that it had begun, which comes
// with most errors too. Who comes back in vain too often is not listened to for a while: each time a provider is asked.
func (s *Service) EndProvider(
	ctx context.Context, c Client, id, sealed string, a openid.Answer,
) (*openid.Identity, *openid.Flow, error) {
	key := network(c.IP, 32, 64)
	if err := s.limited(limit.ProviderAddress.Take(ctx, s.Limits, key)); err != nil {
		return nil, nil, err
	}
	who, flow, err := s.Providers.Finish(ctx, id, sealed, a)
	if err == nil || errors.Is(err, openid.ErrUnavailable) {
		if err := limit.ProviderAddress.Refund(context.WithoutCancel(ctx), s.Limits, key); err != nil {
			s.Log.WarnContext(ctx, "take back a return from a provider", "error", err)
		}
	}
	if errors.Is(err, openid.ErrToken) {
		s.Log.WarnContext(ctx, "the word of a provider was refused", "provider", id, "ip", c.address(), "error", err)
	}
	return who, flow, providerFault(id, err)
}

// A Visitor is somebody who comes from a provider.
type Visitor struct {
	// User is whose account it is, which they may use yet to prove: nil for who has none.
	User *db.User
	Who  openid.Identity

	provider openid.Config
	linked   bool // the provider is linked to the account
	fresh    bool // the account's address was never confirmed: whoever has made it need not be its owner
}

// Recognize finds out whose account it is that an identity signs in to, without changing anything. An account that is not
// linked is theirs when it has the address that a trusted provider has verified; otherwise its owner has to link it, which is
// identity.provider.link_required. The other refusals of that name say why there is no account to be had.
func (s *Service) Recognize(ctx context.Context, who *openid.Identity) (*Visitor, error) {
	v := &Visitor{Who: *who}
	v.Who.Email = db.NormalEmail(who.Email)
	var known bool
	if v.provider, known = s.Providers.Of(who.Issuer); !known {
		return nil, errFlow.Because(errors.New("the provider was taken away meanwhile"))
	}
	if err := admits(&v.provider, &v.Who); err != nil {
		return nil, err
	}
	row, err := s.DB.IdentityOf(ctx, who.Issuer, who.Subject)
	if err == nil {
		v.linked = true
		v.User, err = s.DB.UserByID(ctx, row.UserID)
		return v, err
	}
	if !errors.Is(err, db.ErrNotFound) {
		return nil, err
	}
	if !ValidEmail(v.Who.Email) {
		return nil, fault.New("identity.provider.email_required")
	}
	user, err := s.DB.UserByEmail(ctx, v.Who.Email)
	switch {
	case errors.Is(err, db.ErrNotFound) && !v.provider.SignUp:
		return nil, fault.New("identity.provider.no_account")
	case errors.Is(err, db.ErrNotFound):
		return v, nil
	case err != nil:
		return nil, err
	case !v.provider.TrustEmail || !v.Who.Verified:
		return nil, fault.New("identity.provider.link_required")
	}
	v.User = user
	return v, s.Update(ctx, func(ctx context.Context, u *Unit) error {
		confirmed, err := u.confirmed(ctx, user)
		v.fresh = !confirmed
		return err
	})
}

// admits refuses people whose address is of no domain that the provider is for, or need not be theirs.
func admits(c *openid.Config, who *openid.Identity) error {
	if len(c.Domains) == 0 {
		return nil
	}
	ascii, ok := email.ASCIIDomain(who.Email)
	if !ok || !who.Verified || !slices.Contains(c.Domains, ascii[strings.LastIndexByte(ascii, '@')+1:]) {
		return fault.New("identity.provider.domain_not_allowed")
	}
	return nil
}

// NeedsCode reports whether the account wants a code of its second factor.
func (v *Visitor) NeedsCode() bool { return v.User.OTP && (v.linked || !v.fresh) }

// Adopt links the provider of a visitor to the account that has their address, if it is not linked. What was set up for an
// account whose address was never confirmed ends: whoever did so need not be the owner of the address, and must not stay.
func (s *Service) Adopt(ctx context.Context, c Client, v *Visitor) error {
	if v.linked {
		return nil
	}
	address := v.User.Email
	err := s.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := u.Lock(ctx, v.User); err != nil {
			return err
		}
		if !v.User.Open() || v.User.Email != address {
			return errFlow.Because(errMoved)
		}
		confirmed, err := u.confirmed(ctx, v.User)
		if err != nil {
			return err
		}
		if !confirmed {
			if err := u.evict(ctx, v.User); err != nil {
				return err
			}
			if err := u.PutLabel(ctx, v.User, "email", "verified"); err != nil {
				return err
			}
			if err := u.EmailConfirmed(ctx, v.User, ""); err != nil {
				return err
			}
		}
		return u.link(ctx, v.User, c, &v.Who)
	})
	if f := fault.As(err); f != nil && f.Has("resource.provider.taken") { // by a parallel call
		err = errFlow.Because(err)
	}
	v.linked = err == nil
	return err
}

// evict takes away every way in to an account, and what they have opened.
func (u *Unit) evict(ctx context.Context, user *db.User) error {
	if err := u.SetPassword(ctx, user, password.None, nil); err != nil {
		return err
	}
	if err := u.DeactivateAPIKeys(ctx, user.ID); err != nil {
		return err
	}
	if err := u.SetOTP(ctx, user, false, nil); err != nil {
		return err
	}
	return u.forgetDevices(ctx, user)
}

// forgetDevices removes what signs in without the password: passkeys, and links to providers.
func (u *Unit) forgetDevices(ctx context.Context, user *db.User) error {
	keys, err := u.Passkeys(ctx, user.ID)
	if err != nil {
		return err
	}
	for i := range keys {
		if err := u.DeletePasskey(ctx, &keys[i]); err != nil {
			return err
		}
	}
	rows, err := u.Identities(ctx, user.ID)
	if err != nil {
		return err
	}
	for i := range rows {
		if err := u.DeleteIdentity(ctx, &rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// link gives a locked user an identity, by activity and by mail. It is resource.provider.taken when it is somebody else's, and
// resource.provider.exists when the user has another one of that provider.
func (u *Unit) link(ctx context.Context, user *db.User, c Client, who *openid.Identity) error {
	if err := u.addIdentity(ctx, user, who); err != nil {
		return err
	}
	return u.providerChanged(ctx, user, c, "provider::create", mail.ProviderLinked, u.s.ProviderName(who.Issuer, who.Provider))
}

func (u *Unit) addIdentity(ctx context.Context, user *db.User, who *openid.Identity) error {
	err := u.InsertIdentity(ctx, &db.Identity{
		UserID: user.ID, Provider: who.Provider, Issuer: who.Issuer, Subject: who.Subject, Email: db.NormalEmail(who.Email),
	})
	if taken := (*db.ErrTaken)(nil); errors.As(err, &taken) {
		if taken.Index == "identities_user_id" {
			return fault.Invalid("resource.provider.exists").Because(err)
		}
		return fault.Invalid("resource.provider.taken").Because(err)
	}
	return err
}

func (u *Unit) providerChanged(ctx context.Context, user *db.User, c Client, action, kind, name string) error {
	if err := u.Record(ctx, user, c, "session", action, Succeed, ""); err != nil {
		return err
	}
	return u.mail(ctx, user, kind, mail.Data{Provider: name})
}

// SignInByProvider is SignIn for a visitor who has an account that is linked. code says that they have proved a second factor
// as well.
func (s *Service) SignInByProvider(
	ctx context.Context, c Client, old []session.ID, v *Visitor, code bool,
) (session.ID, *session.Session, error) {
	action, proved := "login", session.Federated
	if code {
		action, proved = "login::2fa", session.Federated|session.Code
	}
	return s.signIn(ctx, c, old, v.User, action, proved, func(ctx context.Context, u *Unit) error {
		row, err := u.IdentityOf(ctx, v.Who.Issuer, v.Who.Subject)
		switch {
		case errors.Is(err, db.ErrNotFound) || err == nil && row.UserID != v.User.ID:
			return errFlow.Because(errors.New("the provider was unlinked meanwhile"))
		case err != nil:
			return err
		case v.User.OTP && !code:
			return errFlow.Because(errMoved)
		}
		return u.UseIdentity(ctx, row, v.Who.Email)
	})
}

// SignUpByProvider is SignUp for a visitor who has no account. There is no password: its owner sets one with a reset by mail,
// if they want one. The address is confirmed when the provider has verified it, else a mail asks for it.
func (s *Service) SignUpByProvider(
	ctx context.Context, c Client, old []session.ID, v *Visitor,
) (*db.User, session.ID, *session.Session, error) {
	if err := s.AllowAddress(ctx, limit.SignUpAddress, c.IP); err != nil {
		return nil, session.ID{}, nil, err
	}
	user := &db.User{Email: v.Who.Email, PasswordDigest: password.None}
	if err := s.complete(ctx, user); err != nil {
		return nil, session.ID{}, nil, err
	}
	id, opened, err := s.OpenSession(ctx, c, old, user.UID, user.Epoch(), session.Federated, func(ctx context.Context, u *Unit) error {
		if err := u.CreateUser(ctx, user); err != nil {
			return err
		}
		if err := u.Record(ctx, user, c, "account", "signup", Succeed, ""); err != nil {
			return err
		}
		if err := u.Welcome(ctx, user, c); err != nil {
			return err
		}
		if err := u.addIdentity(ctx, user, &v.Who); err != nil {
			return err
		}
		if !v.Who.Verified {
			return u.IssueMailToken(ctx, user, Confirmation, "")
		}
		if err := u.PutLabel(ctx, user, "email", "verified"); err != nil {
			return err
		}
		return u.EmailConfirmed(ctx, user, "")
	})
	if f := fault.As(err); f != nil && f.Has("email.taken") { // by a parallel call
		err = fault.New("identity.provider.link_required").Because(err)
	}
	if err != nil {
		return nil, session.ID{}, nil, err
	}
	return user, id, opened, nil
}

// LinkProvider links an identity to the account that began the flow. The session that it was begun in must still be there.
func (s *Service) LinkProvider(ctx context.Context, c Client, f *openid.Flow, who *openid.Identity) error {
	user, err := s.DB.UserByUID(ctx, f.UID)
	if errors.Is(err, db.ErrNotFound) {
		err = errFlow.Because(err)
	}
	if err != nil {
		return err
	}
	if f.Session != "" {
		key, ok := session.ParseKey(f.Session)
		found, err := s.Sessions.Get(ctx, key, s.Now())
		switch {
		case !ok || errors.Is(err, session.ErrNotFound) || err == nil && !passes(found, user):
			return errFlow.Because(errors.New("the session has ended meanwhile"))
		case err != nil:
			return outage(err)
		}
	}
	config, known := s.Providers.Of(who.Issuer)
	if !known {
		return errFlow.Because(errors.New("the provider was taken away meanwhile"))
	}
	if err := admits(&config, who); err != nil {
		return err
	}
	return s.Update(ctx, func(ctx context.Context, u *Unit) error {
		if err := u.Lock(ctx, user); err != nil {
			return err
		}
		if user.Epoch() != f.Epoch || !user.Open() {
			return errFlow.Because(errMoved)
		}
		row, err := u.IdentityOf(ctx, who.Issuer, who.Subject)
		switch {
		case errors.Is(err, db.ErrNotFound):
			return u.link(ctx, user, c, who)
		case err == nil && row.UserID != user.ID:
			return fault.Invalid("resource.provider.taken")
		}
		return err
	})
}

// ProviderID and ProviderName are what a provider is called by programs and by people: as it is configured, or as it was when
// it is no longer.
func (s *Service) ProviderID(issuer, before string) string {
	if c, ok := s.Providers.Of(issuer); ok {
		return c.ID
	}
	return before
}

// ProviderName is what a provider is called by people.
func (s *Service) ProviderName(issuer, before string) string {
	if c, ok := s.Providers.Of(issuer); ok {
		return c.Name
	}
	return before
}

// Unlink takes a provider from its user, by activity and by mail. It is db.ErrNotFound when it is not linked, and
// resource.provider.last_way_in when nothing else would be left to sign in with.
func (u *Unit) Unlink(ctx context.Context, user *db.User, c Client, id string) error {
	if err := u.Lock(ctx, user); err != nil {
		return err
	}
	rows, err := u.Identities(ctx, user.ID)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(rows, func(row db.Identity) bool { return u.s.ProviderID(row.Issuer, row.Provider) == id })
	if at < 0 {
		return db.ErrNotFound
	}
	other, err := u.otherWayIn(ctx, user, rows, at)
	if err != nil {
		return err
	}
	if !other {
		return fault.Invalid("resource.provider.last_way_in")
	}
	if err := u.DeleteIdentity(ctx, &rows[at]); err != nil {
		return err
	}
	name := u.s.ProviderName(rows[at].Issuer, rows[at].Provider)
	return u.providerChanged(ctx, user, c, "provider::delete", mail.ProviderUnlinked, name)
}

// otherWayIn reports whether a user can sign in without one of their identities: with a password, a passkey, or another one.
func (u *Unit) otherWayIn(ctx context.Context, user *db.User, rows []db.Identity, without int) (bool, error) {
	if user.PasswordDigest != password.None {
		return true, nil
	}
	for i := range rows {
		if _, configured := u.s.Providers.Of(rows[i].Issuer); configured && i != without {
			return true, nil
		}
	}
	if u.s.Passkeys == nil {
		return false, nil
	}
	keys, err := u.Passkeys(ctx, user.ID)
	return len(keys) > 0, err
}
