// Package view owns the JSON objects that the REST API answers with: their members, the order of these, and the formats
// of times, dates and nulls. A Builder makes them from rows, reading what belongs to them for a whole page at once. The
// package decides nothing about who may see what.
package view

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"barong/db"
)

// Formats of times and dates: "sec" in most objects, "ms" in the few that release 2.4 printed with milliseconds.
const (
	secFormat = "2006-01-02T15:04:05Z"
	msFormat  = "2006-01-02T15:04:05.000Z"
)

// Sec formats a time as most objects show it: UTC, whole seconds.
func Sec(t time.Time) string { return t.UTC().Format(secFormat) }

// Milli formats a time with three digits of milliseconds, UTC.
func Milli(t time.Time) string { return t.UTC().Format(msFormat) }

// A UserWithFullInfo is what users see of themselves.
type UserWithFullInfo struct {
	Email        string        `json:"email"`
	UID          string        `json:"uid"`
	Role         string        `json:"role"`
	Level        int           `json:"level"`
	OTP          bool          `json:"otp"`
	State        string        `json:"state"`
	ReferralUID  *string       `json:"referral_uid"`
	CSRFToken    string        `json:"csrf_token,omitempty"` // only in the answers that open a session
	Data         *string       `json:"data"`
	CreatedAt    string        `json:"created_at"`
	UpdatedAt    string        `json:"updated_at"`
	Labels       []Label       `json:"labels"`
	Phones       []Phone       `json:"phones"`
	Profiles     []Profile     `json:"profiles"`
	DataStorages []DataStorage `json:"data_storages"`
}

// A User is an item of the lists for staff.
type User struct {
	Email       string  `json:"email"`
	UID         string  `json:"uid"`
	Role        string  `json:"role"`
	Level       int     `json:"level"`
	OTP         bool    `json:"otp"`
	State       string  `json:"state"`
	ReferralUID *string `json:"referral_uid"`
	Data        *string `json:"data"`
}

// A UserWithProfile is an item of the extended lists for staff.
type UserWithProfile struct {
	Email       string    `json:"email"`
	UID         string    `json:"uid"`
	Role        string    `json:"role"`
	Level       int       `json:"level"`
	OTP         bool      `json:"otp"`
	State       string    `json:"state"`
	Data        *string   `json:"data"`
	Profiles    []Profile `json:"profiles"`
	ReferralUID *string   `json:"referral_uid"`
	CreatedAt   string    `json:"created_at"`
	UpdatedAt   string    `json:"updated_at"`
}

// A UserWithKYC is all that staff sees of one user.
type UserWithKYC struct {
	Email        string           `json:"email"`
	UID          string           `json:"uid"`
	Role         string           `json:"role"`
	Level        int              `json:"level"`
	OTP          bool             `json:"otp"`
	State        string           `json:"state"`
	Data         *string          `json:"data"`
	Profiles     []Profile        `json:"profiles"`
	Labels       []AdminLabelView `json:"labels"`
	Phones       []Phone          `json:"phones"`
	Documents    []Document       `json:"documents"`
	DataStorages []DataStorage    `json:"data_storages"`
	ReferralUID  *string          `json:"referral_uid"`
	CreatedAt    string           `json:"created_at"`
	UpdatedAt    string           `json:"updated_at"`
}

// A Label is a label as its owner sees it.
type Label struct {
	Key       string `json:"key"`
	Value     string `json:"value"`
	Scope     string `json:"scope"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

// NewLabel shows a label to its owner.
func NewLabel(l *db.Label) Label {
	return Label{Key: l.Key, Value: l.Value, Scope: l.Scope, CreatedAt: Sec(l.CreatedAt), UpdatedAt: Sec(l.UpdatedAt)}
}

// An AdminLabelView is a label as staff sees it.
type AdminLabelView struct {
	Key         string  `json:"key"`
	Value       string  `json:"value"`
	Scope       string  `json:"scope"`
	Description *string `json:"description"`
	CreatedAt   string  `json:"created_at"`
	UpdatedAt   string  `json:"updated_at"`
}

// NewAdminLabel shows a label to staff.
func NewAdminLabel(l *db.Label) AdminLabelView {
	return AdminLabelView{
		Key: l.Key, Value: l.Value, Scope: l.Scope, Description: l.Description,
		CreatedAt: Sec(l.CreatedAt), UpdatedAt: Sec(l.UpdatedAt),
	}
}

// A Phone is a phone number, unmasked.
type Phone struct {
	Country     string  `json:"country"`      // ISO 3166-1 alpha-2
	Number      string  `json:"number"`       // international digits
	ValidatedAt *string `json:"validated_at"` // ms; null while unverified
}

// NewPhone shows a phone.
func NewPhone(p *db.Phone) Phone {
	v := Phone{Country: p.Country, Number: p.Number}
	if p.ValidatedAt != nil {
		t := Milli(*p.ValidatedAt)
		v.ValidatedAt = &t
	}
	return v
}

// A Profile is a person's data. Metadata is JSON text in release 2.4.17 and the JSON value itself otherwise.
type Profile struct {
	FirstName *string         `json:"first_name"`
	LastName  *string         `json:"last_name"`
	DOB       *string         `json:"dob"`
	Address   *string         `json:"address"`
	Postcode  *string         `json:"postcode"`
	City      *string         `json:"city"`
	Country   *string         `json:"country"`
	State     string          `json:"state"`
	Metadata  json.RawMessage `json:"metadata"`
	CreatedAt string          `json:"created_at"`
	UpdatedAt string          `json:"updated_at"`
	UID       string          `json:"uid,omitempty"` // whose it is; only in the list of everybody's
}

// NewProfile shows a profile.
func (b *Builder) NewProfile(p *db.Profile) Profile {
	return Profile{
		FirstName: p.FirstName, LastName: p.LastName, DOB: p.DOB, Address: p.Address, Postcode: p.Postcode,
		City: p.City, Country: p.Country, State: p.StateName(), Metadata: b.metadata(p.Metadata),
		CreatedAt: Sec(p.CreatedAt), UpdatedAt: Sec(p.UpdatedAt),
	}
}

// metadata is null, the text as a JSON string, or the JSON value that the text spells. Text that is no JSON, which only
// an import can bring, stays a string.
func (b *Builder) metadata(text *string) json.RawMessage {
	if text == nil {
		return json.RawMessage("null")
	}
	if !b.Legacy && json.Valid([]byte(*text)) {
		return json.RawMessage(*text)
	}
	return quote(*text)
}

// quote is s as a JSON string.
func quote(s string) json.RawMessage {
	q, err := json.Marshal(s)
	if err != nil { // a string: cannot fail
		panic("view: encode string: " + err.Error())
	}
	return q
}

// A Document is an uploaded document with an address from which its file can be fetched for a while. Upload is a string,
// or {"url":…} as in release 2.4.17; it is null when the file is gone.
type Document struct {
	Upload    json.RawMessage `json:"upload"`
	DocType   *string         `json:"doc_type"`
	DocNumber *string         `json:"doc_number"`
	DocExpire *string         `json:"doc_expire"`
	Metadata  *string         `json:"metadata"` // JSON text
	CreatedAt string          `json:"created_at"`
	UpdatedAt string          `json:"updated_at"`
}

// NewDocument shows a document.
func (b *Builder) NewDocument(d *db.Document) Document {
	return Document{
		Upload: b.upload(d), DocType: d.DocType, DocNumber: d.DocNumber, DocExpire: d.DocExpire, Metadata: d.Metadata,
		CreatedAt: Sec(d.CreatedAt), UpdatedAt: Sec(d.UpdatedAt),
	}
}

func (b *Builder) upload(d *db.Document) json.RawMessage {
	url := json.RawMessage("null")
	if d.Upload != nil {
		url = quote(b.FileURL(*d.Upload))
	}
	if b.Legacy {
		return json.RawMessage(`{"url":` + string(url) + `}`)
	}
	return url
}

// A LegacyDocument is what release 2.4.17 told owners of a document.
type LegacyDocument struct {
	Upload    json.RawMessage `json:"upload"`
	DocType   *string         `json:"doc_type"`
	DocNumber *string         `json:"doc_number"`
	DocExpire *string         `json:"doc_expire"`
}

// OwnDocuments is the list that owners get of their documents: []Document, or []LegacyDocument in legacy mode.
func (b *Builder) OwnDocuments(rows []db.Document) any {
	if b.Legacy {
		return each(rows, func(d *db.Document) LegacyDocument {
			return LegacyDocument{Upload: b.upload(d), DocType: d.DocType, DocNumber: d.DocNumber, DocExpire: d.DocExpire}
		})
	}
	return each(rows, b.NewDocument)
}

// A DataStorage is a named JSON text.
type DataStorage struct {
	Title     string `json:"title"`
	Data      string `json:"data"` // JSON text
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

// NewDataStorage shows a data storage.
func NewDataStorage(d *db.DataStorage) DataStorage {
	return DataStorage{Title: d.Title, Data: d.Data, CreatedAt: Sec(d.CreatedAt), UpdatedAt: Sec(d.UpdatedAt)}
}

// An APIKey is an API key. Secret is there only in the answer that creates it, PublicKey (base64 of 32 bytes) only for
// Ed25519, which has no secret.
type APIKey struct {
	KID       string          `json:"kid"`
	Algorithm string          `json:"algorithm"`
	PublicKey string          `json:"public_key,omitempty"`
	Scope     []string        `json:"scope"`
	State     string          `json:"state"`
	Secret    json.RawMessage `json:"secret,omitempty"`
	CreatedAt string          `json:"created_at"`
	UpdatedAt string          `json:"updated_at"`
}

// NewAPIKey shows a key without its secret.
func NewAPIKey(k *db.APIKey) APIKey {
	v := APIKey{
		KID: k.KID, Algorithm: k.Algorithm, Scope: k.Scope, State: k.State,
		CreatedAt: Sec(k.CreatedAt), UpdatedAt: Sec(k.UpdatedAt),
	}
	if k.PublicKey != nil {
		v.PublicKey = base64.StdEncoding.EncodeToString(k.PublicKey)
	}
	if v.Scope == nil {
		v.Scope = []string{}
	}
	return v
}

// NewAPIKeyWithSecret shows a key that was made just now, with its secret if it has one: that is a string, or in legacy mode the envelope of the
// secret store that release 2.4.17 passed on.
func (b *Builder) NewAPIKeyWithSecret(k *db.APIKey) APIKey {
	v := NewAPIKey(k)
	if k.PublicKey != nil {
		return v
	}
	v.Secret = quote(k.Secret)
	if b.Legacy {
		v.Secret = json.RawMessage(`{"auth":null,"data":{"value":` + string(v.Secret) + `},"lease_duration":2764800,` +
			`"lease_id":"","metadata":null,"renewable":false,"warnings":null,"wrap_info":null}`)
	}
	return v
}

// A Level is a step of verification.
type Level struct {
	ID    int64   `json:"id"`
	Key   string  `json:"key"`
	Value *string `json:"value"`
}

// Levels shows levels.
func Levels(rows []db.Level) []Level {
	return each(rows, func(l *db.Level) Level { return Level{ID: l.ID, Key: l.Key, Value: l.Value} })
}

// A Permission is a permission rule.
type Permission struct {
	ID        int64   `json:"id"`
	Action    string  `json:"action"`
	Role      string  `json:"role"`
	Verb      string  `json:"verb"`
	Path      string  `json:"path"`
	Topic     *string `json:"topic"`
	CreatedAt string  `json:"created_at"` // ms
	UpdatedAt string  `json:"updated_at"` // ms
}

// Permissions shows permission rules.
func Permissions(rows []db.Permission) []Permission {
	return each(rows, func(p *db.Permission) Permission {
		return Permission{
			ID: p.ID, Action: p.Action, Role: p.Role, Verb: p.Verb, Path: p.Path, Topic: p.Topic,
			CreatedAt: Milli(p.CreatedAt), UpdatedAt: Milli(p.UpdatedAt),
		}
	})
}

// A Restriction is a restriction by address or place.
type Restriction struct {
	ID        int64  `json:"id"`
	Category  string `json:"category"`
	Scope     string `json:"scope"`
	Value     string `json:"value"`
	Code      *int   `json:"code"`
	State     string `json:"state"`
	CreatedAt string `json:"created_at"` // ms
	UpdatedAt string `json:"updated_at"` // ms
}

// Restrictions shows restrictions.
func Restrictions(rows []db.Restriction) []Restriction {
	return each(rows, func(r *db.Restriction) Restriction {
		return Restriction{
			ID: r.ID, Category: r.Category, Scope: r.Scope, Value: r.Value, Code: r.Code, State: r.State,
			CreatedAt: Milli(r.CreatedAt), UpdatedAt: Milli(r.UpdatedAt),
		}
	})
}

// AdminLabels shows labels to staff.
func AdminLabels(rows []db.Label) []AdminLabelView { return each(rows, NewAdminLabel) }

// Labels shows labels to their owner.
func Labels(rows []db.Label) []Label { return each(rows, NewLabel) }

// Phones shows phones.
func Phones(rows []db.Phone) []Phone { return each(rows, NewPhone) }

// Profiles shows profiles.
func (b *Builder) Profiles(rows []db.Profile) []Profile { return each(rows, b.NewProfile) }

// APIKeys shows keys without their secrets.
func APIKeys(rows []db.APIKey) []APIKey { return each(rows, NewAPIKey) }

// A Passkey is a passkey as its owner sees it. Its id is ours.
type Passkey struct {
	ID         int64    `json:"id"`
	Name       string   `json:"name"`
	CreatedAt  string   `json:"created_at"`
	LastUsedAt *string  `json:"last_used_at"` // null while nobody has signed in with it
	BackedUp   bool     `json:"backed_up"`    // it is kept elsewhere as well, and outlives its device
	Transports []string `json:"transports"`
}

// NewPasskey shows a passkey.
func NewPasskey(p *db.Passkey) Passkey {
	v := Passkey{ID: p.ID, Name: p.Name, CreatedAt: Sec(p.CreatedAt), BackedUp: p.BackedUp, Transports: []string{}}
	if p.LastUsedAt != nil {
		t := Sec(*p.LastUsedAt)
		v.LastUsedAt = &t
	}
	if p.Transports != "" {
		v.Transports = strings.Split(p.Transports, ",")
	}
	return v
}

// Passkeys shows passkeys.
func Passkeys(rows []db.Passkey) []Passkey { return each(rows, NewPasskey) }

// each shows every row. No rows make an empty list, not null.
func each[Row, View any](rows []Row, show func(*Row) View) []View {
	out := make([]View, len(rows))
	for i := range rows {
		out[i] = show(&rows[i])
	}
	return out
}

// A Provider is a linked provider of OpenID Connect as its owner sees it. Its id is the one of the configuration.
type Provider struct {
	ID         string  `json:"id"`
	Name       string  `json:"name"`
	Email      string  `json:"email"` // the address there, as the provider told it last; empty when it told none
	CreatedAt  string  `json:"created_at"`
	LastUsedAt *string `json:"last_used_at"`
}

// NewProvider shows a linked provider, which is called by an id and a name.
func NewProvider(row *db.Identity, id, name string) Provider {
	v := Provider{ID: id, Name: name, Email: row.Email, CreatedAt: Sec(row.CreatedAt)}
	if row.LastUsedAt != nil {
		used := Sec(*row.LastUsedAt)
		v.LastUsedAt = &used
	}
	return v
}
