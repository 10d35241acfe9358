package db

import (
	"time"

	"barong/session"

	"github.com/uptrace/bun"
)

// A User is a row of users. State may be any text; "active" and "pending" are the open ones.
type User struct {
	bun.BaseModel `bun:"table:users,alias:u"`

	ID             int64  `bun:",pk,autoincrement"`
	UID            string `bun:"uid"`
	Email          string
	PasswordDigest string
	Role           string
	Data           *string // JSON text from the client
	Level          int
	OTP            bool `bun:"otp"`
	State          string
	// StateManual marks a state that an admin has set: labels and activation do not move it any more.
	StateManual  bool
	ReferralID   *int64
	SessionEpoch int64 // of this user alone; see Epoch
	CreatedAt    time.Time
	UpdatedAt    time.Time

	// What other tables say about the user's sessions. Who is read as one of a list comes without it.
	SessionEra int64   `bun:"session_era,scanonly"`
	Ended      *string `bun:"ended,scanonly"` // see session.Principal
}

// Open reports whether the account may be used.
func (u *User) Open() bool { return session.OpenState(u.State) }

// A TOTPKey is a user's second factor. LastStep is the last accepted time step: a code works once.
type TOTPKey struct {
	bun.BaseModel `bun:"table:totp_keys"`

	UserID    int64  `bun:",pk"`
	Sealed    string `bun:"secret"`
	Secret    string `bun:"-"` // base32
	LastStep  int64
	CreatedAt time.Time
}

// Profile states, as the original numbers them.
const (
	ProfileDrafted   = 0
	ProfileSubmitted = 1
	ProfileVerified  = 3
	ProfileRejected  = 4
)

// profileStates are the words of the profile states.
var profileStates = map[int]string{0: "drafted", 1: "submitted", 3: "verified", 4: "rejected"}

// A Profile is a person's data. The fields a person typed are sealed in the row; see sealedProfile.
type Profile struct {
	ID        int64
	UserID    int64
	FirstName *string
	LastName  *string
	DOB       *string // YYYY-MM-DD
	Address   *string
	Postcode  *string
	City      *string
	Country   *string
	State     int
	Metadata  *string // JSON text
	CreatedAt time.Time
	UpdatedAt time.Time
}

// A NewText is what an edit says about a column that may be null: nothing (the zero value), a text, or null.
type NewText struct {
	Given bool
	Text  *string // nil for null
}

// Or is the text of the column after the edit, of the one before.
func (n NewText) Or(before *string) *string {
	if n.Given {
		return n.Text
	}
	return before
}

// Sent is what was given: nil for nothing, and an empty text for null.
func (n NewText) Sent() *string {
	if n.Given && n.Text == nil {
		return new(string)
	}
	return n.Text
}

// A ProfileEdit is what an edit says about a person.
type ProfileEdit struct {
	FirstName, LastName, DOB, Address, Postcode, City, Country, Metadata NewText
}

// Apply makes the edit in the row.
func (e *ProfileEdit) Apply(p *Profile) {
	p.FirstName, p.LastName, p.DOB = e.FirstName.Or(p.FirstName), e.LastName.Or(p.LastName), e.DOB.Or(p.DOB)
	p.Address, p.Postcode, p.City = e.Address.Or(p.Address), e.Postcode.Or(p.Postcode), e.City.Or(p.City)
	p.Country, p.Metadata = e.Country.Or(p.Country), e.Metadata.Or(p.Metadata)
}

// StateName is the word for the profile's state.
func (p *Profile) StateName() string { return profileStates[p.State] }

// ProfileState finds the number of a state's word.
func ProfileState(word string) (int, bool) {
	for n, w := range profileStates {
		if w == word {
			return n, true
		}
	}
	return 0, false
}

// A Phone is a number a user claims, or has verified when ValidatedAt is set.
type Phone struct {
	bun.BaseModel `bun:"table:phones,alias:ph"`

	ID            int64 `bun:",pk,autoincrement"`
	UserID        int64
	Country       string  // ISO 3166-1 alpha-2
	Sealed        string  `bun:"number"`
	Number        string  `bun:"-"` // international digits
	NumberIndex   string  // blind index of Number
	CodeDigest    *string // of the code last sent, when this process makes the codes
	CodeExpiresAt *time.Time
	CodeAttempts  int
	ValidatedAt   *time.Time
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// A Document is one uploaded file and what it claims to be.
type Document struct {
	bun.BaseModel `bun:"table:documents,alias:d"`

	ID             int64 `bun:",pk,autoincrement"`
	UserID         int64
	Upload         *string // key in the file store
	UploadName     *string // the client's file name, for display only
	ContentType    *string
	DocType        *string
	SealedNumber   *string `bun:"doc_number"`
	DocNumber      *string `bun:"-"`
	DocNumberIndex *string
	DocExpire      *string // YYYY-MM-DD
	Metadata       *string // JSON text
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// A Label is a fact about a user. Private labels are written by staff and by this program, public ones by the user.
type Label struct {
	bun.BaseModel `bun:"table:labels,alias:l"`

	ID          int64 `bun:",pk,autoincrement"`
	UserID      int64
	Key         string
	Value       string
	Scope       string // "public" or "private"
	Description *string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// A Level is a step of verification. Its ID is the level's number.
type Level struct {
	bun.BaseModel `bun:"table:levels"`

	ID          int64 `bun:",pk,autoincrement"`
	Key         string
	Value       *string
	Description *string
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// An APIKey is a program's credential. Scope is a JSON list, shown and not enforced.
type APIKey struct {
	bun.BaseModel `bun:"table:apikeys,alias:k"`

	ID         int64 `bun:",pk,autoincrement"`
	UserID     int64
	KID        string `bun:"kid"`
	Algorithm  string
	ScopeJSON  *string  `bun:"scope"`
	Scope      []string `bun:"-"`
	State      string
	Sealed     string  `bun:"secret"`
	Secret     string  `bun:"-"` // empty where there is a public key
	PublicKey  []byte  `bun:"-"` // of Ed25519, 32 bytes; nil for the others
	PublicText *string `bun:"public_key"`
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// An Activity is a row of the audit trail. It is written once and never changed, but for Count, which folds repeated
// refusals into the first of them.
type Activity struct {
	bun.BaseModel `bun:"table:activities,alias:a"`

	ID            int64 `bun:",pk,autoincrement"`
	UserID        int64
	TargetUID     *string `bun:"target_uid"`
	Category      string  // "user" or "admin"
	UserIP        string  `bun:"user_ip"`
	UserIPCountry *string `bun:"user_ip_country"`
	UserAgent     string
	Topic         string
	Action        string
	Result        string // "succeed", "failed", "denied"
	Data          *string
	Count         int
	CreatedAt     time.Time
	RequestID     *string // of the request that caused the row, where it is known
}

// A Permission is a row of the rules; package policy gives it meaning.
type Permission struct {
	bun.BaseModel `bun:"table:permissions,alias:p" json:"-"`

	ID        int64     `bun:",pk,autoincrement" json:"id"`
	Role      string    `json:"role"`
	Verb      string    `json:"verb"`
	Path      string    `json:"path"`
	Action    string    `json:"action"`
	Topic     *string   `json:"topic"`
	CreatedAt time.Time `json:"-"`
	UpdatedAt time.Time `json:"-"`
}

// A Restriction is a row of the address and place rules; package policy gives it meaning.
type Restriction struct {
	bun.BaseModel `bun:"table:restrictions,alias:r" json:"-"`

	ID        int64     `bun:",pk,autoincrement" json:"id"`
	Category  string    `json:"category"`
	Scope     string    `json:"scope"`
	Value     string    `json:"value"`
	Code      *int      `json:"code"`
	State     string    `json:"state"`
	CreatedAt time.Time `json:"-"`
	UpdatedAt time.Time `json:"-"`
}

// A PolicyChange says who changed which rule, and how it stood before and after (JSON).
type PolicyChange struct {
	bun.BaseModel `bun:"table:policy_changes"`

	ID        int64 `bun:",pk,autoincrement"`
	UserID    *int64
	UID       *string `bun:"uid"`
	Subject   string  // "permission" or "restriction"
	SubjectID int64
	Action    string // "create", "update", "delete"
	Before    *string
	After     *string
	CreatedAt time.Time
}

// A DataStorage is a named JSON text of a user.
type DataStorage struct {
	bun.BaseModel `bun:"table:data_storages,alias:ds"`

	ID        int64 `bun:",pk,autoincrement"`
	UserID    int64
	Title     string
	Data      string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// sealedProfile is the row behind a Profile.
type sealedProfile struct {
	bun.BaseModel `bun:"table:profiles,alias:pr"`

	ID             int64 `bun:",pk,autoincrement"`
	UserID         int64
	FirstName      *string
	FirstNameIndex *string
	LastName       *string
	LastNameIndex  *string
	DOB            *string `bun:"dob"`
	Address        *string
	Postcode       *string
	City           *string
	Country        *string
	State          int
	Metadata       *string
	CreatedAt      time.Time
	UpdatedAt      time.Time
}
