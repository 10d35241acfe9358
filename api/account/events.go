package account

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"barong/db"
	"barong/internal/delivery/mail"
	"barong/session"
)

// An Event tells other services what happened. Record and Changes are JSON objects; Changes holds the values before an
// update and is nil for every other event. The order of members is that of the original, whose receivers keep it.
type Event struct {
	Name    string // "model.user.updated", "system.session.create"
	Record  json.RawMessage
	Changes json.RawMessage
}

// userRecord is a user in events.
type userRecord struct {
	UID         string  `json:"uid"`
	Email       string  `json:"email"`
	Role        string  `json:"role"`
	Level       int     `json:"level"`
	OTP         bool    `json:"otp"`
	State       string  `json:"state"`
	ReferralUID *string `json:"referral_uid"`
	CreatedAt   string  `json:"created_at"`
	UpdatedAt   string  `json:"updated_at"`
}

type labelRecord struct {
	ID          int64      `json:"id"`
	Key         string     `json:"key"`
	Value       string     `json:"value"`
	Description *string    `json:"description"`
	User        userRecord `json:"user"`
	Scope       string     `json:"scope"` // not in the original
}

type profileRecord struct {
	User      userRecord `json:"user"`
	FirstName *string    `json:"first_name"`
	LastName  *string    `json:"last_name"`
	DOB       *string    `json:"dob"`
	Address   *string    `json:"address"`
	Postcode  *string    `json:"postcode"`
	City      *string    `json:"city"`
	Country   *string    `json:"country"`
	Metadata  *string    `json:"metadata"`
	CreatedAt string     `json:"created_at"`
	UpdatedAt string     `json:"updated_at"`
	State     string     `json:"state"` // not in the original
}

type documentRecord struct {
	User      userRecord `json:"user"`
	Upload    *string    `json:"upload"`
	DocType   *string    `json:"doc_type"`
	DocNumber *string    `json:"doc_number"`
	DocExpire *string    `json:"doc_expire"`
	Metadata  *string    `json:"metadata"`
	CreatedAt string     `json:"created_at"`
	UpdatedAt string     `json:"updated_at"`
}

type dataStorageRecord struct {
	User      userRecord `json:"user"`
	Title     string     `json:"title"`
	Data      string     `json:"data"`
	CreatedAt string     `json:"created_at"`
	UpdatedAt string     `json:"updated_at"`
}

// systemRecord is the record of the system events about a user.
type systemRecord struct {
	User      userRecord `json:"user"`
	Language  string     `json:"language,omitempty"`
	Domain    string     `json:"domain,omitempty"`
	Token     string     `json:"token,omitempty"`
	UserIP    *string    `json:"user_ip,omitempty"`
	UserAgent *string    `json:"user_agent,omitempty"`
}

// stamp is the form of times in events.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// record is the user's form in events.
func (u *Unit) record(ctx context.Context, user *db.User) (userRecord, error) {
	r := userRecord{
		UID: user.UID, Email: user.Email, Role: user.Role, Level: user.Level, OTP: user.OTP, State: user.State,
		CreatedAt: stamp(user.CreatedAt), UpdatedAt: stamp(user.UpdatedAt),
	}
	if user.ReferralID == nil {
		return r, nil
	}
	uid, known := u.referrers[*user.ReferralID]
	if !known {
		found, err := u.ReferrerUIDs(ctx, []int64{*user.ReferralID})
		if err != nil {
			return r, err
		}
		if name, ok := found[*user.ReferralID]; ok {
			uid = &name
		}
		u.referrers[*user.ReferralID] = uid
	}
	r.ReferralUID = uid
	return r, nil
}

// created tells of a new row. Top-level nulls are left out.
func (u *Unit) created(ctx context.Context, model string, after any) error {
	return u.publish(ctx, Event{Name: "model." + model + ".created", Record: object(after, nil)})
}

// updated tells of a changed row: the new one without its nulls, and the old values of what differs, null among them, but
// for the time of the update, which always differs.
func (u *Unit) updated(ctx context.Context, model string, before, after any) error {
	changes := object(before, func(i int, name string) bool {
		return name != "updated_at" && name != "user" &&
			!reflect.DeepEqual(reflect.ValueOf(before).Field(i).Interface(), reflect.ValueOf(after).Field(i).Interface())
	})
	return u.publish(ctx, Event{Name: "model." + model + ".updated", Record: object(after, nil), Changes: changes})
}

func (u *Unit) system(ctx context.Context, name string, record any) error {
	return u.publish(ctx, Event{Name: "system." + name, Record: encode(record)})
}

func (u *Unit) publish(ctx context.Context, e Event) error {
	if err := u.s.Publish(ctx, u.Tx, e); err != nil {
		return fmt.Errorf("publish %s: %w", e.Name, err)
	}
	return nil
}

// object is a record as JSON: of its members those that keep chooses, or without keep those that are not null.
func object(record any, keep func(field int, name string) bool) json.RawMessage {
	v := reflect.ValueOf(record)
	var b strings.Builder
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		field := v.Field(i)
		if keep == nil && field.Kind() == reflect.Pointer && field.IsNil() || keep != nil && !keep(i, name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + name + `":`)
		b.Write(encode(field.Interface()))
	}
	return json.RawMessage("{" + b.String() + "}")
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil { // records hold strings, numbers and booleans: cannot fail
		panic("account: encode event: " + err.Error())
	}
	return b
}

func (u *Unit) userCreated(ctx context.Context, user *db.User) error {
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	return u.created(ctx, "user", r)
}

func (u *Unit) userUpdated(ctx context.Context, before, after *db.User) error {
	old, err := u.record(ctx, before)
	if err != nil {
		return err
	}
	now, err := u.record(ctx, after)
	if err != nil {
		return err
	}
	return u.updated(ctx, "user", old, now)
}

func (u *Unit) labelRecord(ctx context.Context, user *db.User, l *db.Label) (labelRecord, error) {
	r, err := u.record(ctx, user)
	return labelRecord{ID: l.ID, Key: l.Key, Value: l.Value, Description: l.Description, User: r, Scope: l.Scope}, err
}

func (u *Unit) labelCreated(ctx context.Context, user *db.User, l *db.Label) error {
	r, err := u.labelRecord(ctx, user, l)
	if err != nil {
		return err
	}
	if err := u.created(ctx, "label", r); err != nil {
		return err
	}
	return u.mailLabel(ctx, user, l, true)
}

func (u *Unit) labelUpdated(ctx context.Context, user *db.User, before, after *db.Label) error {
	old, err := u.labelRecord(ctx, user, before)
	if err != nil {
		return err
	}
	now, err := u.labelRecord(ctx, user, after)
	if err != nil {
		return err
	}
	if err := u.updated(ctx, "label", old, now); err != nil {
		return err
	}
	if before.Value == after.Value {
		return nil
	}
	return u.mailLabel(ctx, user, after, false)
}

// documentDecided tells that staff has verified or rejected a user's documents. The caller has seen the value change.
func (u *Unit) documentDecided(ctx context.Context, user *db.User, l *db.Label) error {
	if l.Value != "verified" && l.Value != "rejected" {
		return nil
	}
	r, err := u.labelRecord(ctx, user, l)
	if err != nil {
		return err
	}
	return u.system(ctx, "document."+l.Value, r)
}

func (u *Unit) profileRecord(ctx context.Context, user *db.User, p *db.Profile) (profileRecord, error) {
	r, err := u.record(ctx, user)
	return profileRecord{
		User: r, FirstName: p.FirstName, LastName: p.LastName, DOB: p.DOB, Address: p.Address, Postcode: p.Postcode,
		City: p.City, Country: p.Country, Metadata: p.Metadata, CreatedAt: stamp(p.CreatedAt), UpdatedAt: stamp(p.UpdatedAt),
		State: p.StateName(),
	}, err
}

// DocumentCreated tells of a stored document. The address of its file is signed and escaped as one query component.
func (u *Unit) DocumentCreated(ctx context.Context, user *db.User, d *db.Document) error {
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	record := documentRecord{
		User: r, DocType: d.DocType, DocNumber: d.DocNumber, DocExpire: d.DocExpire, Metadata: d.Metadata,
		CreatedAt: stamp(d.CreatedAt), UpdatedAt: stamp(d.UpdatedAt),
	}
	if d.Upload != nil {
		address := url.QueryEscape(u.s.FileURL(*d.Upload))
		record.Upload = &address
	}
	return u.created(ctx, "document", record)
}

// DataStorageCreated tells of a stored data storage.
func (u *Unit) DataStorageCreated(ctx context.Context, user *db.User, d *db.DataStorage) error {
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	return u.created(ctx, "data_storage", dataStorageRecord{
		User: r, Title: d.Title, Data: d.Data, CreatedAt: stamp(d.CreatedAt), UpdatedAt: stamp(d.UpdatedAt),
	})
}

// mailTokenIssued sends a token off, by event and by mail.
func (u *Unit) mailTokenIssued(ctx context.Context, user *db.User, kind TokenKind, lang, token string) error {
	name := mail.Confirmation
	if kind == Reset {
		name = mail.ResetToken
	}
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	record := systemRecord{User: r, Language: Language(lang), Domain: u.s.Domain, Token: token}
	if err := u.system(ctx, name, record); err != nil {
		return err
	}
	return u.mail(ctx, user, name, mail.Data{Token: token})
}

// EmailConfirmed tells that the user has confirmed their address. It makes no mail: they have just done it.
func (u *Unit) EmailConfirmed(ctx context.Context, user *db.User, lang string) error {
	return u.domainEvent(ctx, "user.email.confirmed", user, lang)
}

// PasswordReset tells, by event and by mail, that the user has set a new password with a token from a mail.
func (u *Unit) PasswordReset(ctx context.Context, user *db.User, lang string) error {
	if err := u.domainEvent(ctx, mail.PasswordReset, user, lang); err != nil {
		return err
	}
	return u.mail(ctx, user, mail.PasswordReset, mail.Data{})
}

// PasswordChanged tells, by event and by mail, that the user has replaced their password, knowing the old one.
func (u *Unit) PasswordChanged(ctx context.Context, user *db.User, lang string) error {
	if err := u.domainEvent(ctx, mail.PasswordChanged, user, lang); err != nil {
		return err
	}
	return u.mail(ctx, user, mail.PasswordChanged, mail.Data{})
}

func (u *Unit) domainEvent(ctx context.Context, name string, user *db.User, lang string) error {
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	return u.system(ctx, name, systemRecord{User: r, Language: Language(lang), Domain: u.s.Domain})
}

func (u *Unit) accountDeleted(ctx context.Context, user *db.User) error {
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	if err := u.system(ctx, mail.AccountDeleted, systemRecord{User: r}); err != nil {
		return err
	}
	return u.mail(ctx, user, mail.AccountDeleted, mail.Data{})
}

// SessionCreated tells of a sign-in, by event and by mail. Sign-up and e-mail confirmation open sessions without it.
func (u *Unit) SessionCreated(ctx context.Context, user *db.User, c Client) error {
	r, err := u.record(ctx, user)
	if err != nil {
		return err
	}
	ip, agent := c.address(), storable(c.UserAgent, session.MaxUserAgent)
	if err := u.system(ctx, mail.SessionCreated, systemRecord{User: r, UserIP: &ip, UserAgent: &agent}); err != nil {
		return err
	}
	return u.mail(ctx, user, mail.SessionCreated, mail.Data{IP: ip, UserAgent: agent})
}
