// Package apitest serves routes of the REST API over HTTP to the black-box tests of the packages that declare them. An
// Env is one set of stores, empty but for the permissions of a superadmin, with a clock that the test moves; a Server
// is rest.Server on a port of its own; an Answer is what a call got. The package also remembers which routes a test
// binary called and what they answered: see Main.
//
// Only tests import it. Servers and files end with their test.
package apitest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/valyala/fasthttp"

	"barong/api/account"
	"barong/api/rest"
	"barong/authz"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/passkey"
	"barong/internal/crypto/passkey/passkeytest"
	"barong/internal/crypto/password"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/mail"
	"barong/internal/limit"
	"barong/internal/listener"
	"barong/internal/openid"
	"barong/internal/test/dbtest"
	"barong/internal/test/testkit"
	"barong/policy"
	"barong/session"
	"barong/session/redisstore"
)

// Prefix is the path under which the servers publish the API to the permission rules.
const Prefix = policy.DefaultPrefix

// Password is the password of every user made by NewUser; it passes the default policy.
const Password = "Tecohvi0-Xuq"

// A Clock is a time that only the test moves. It is safe for concurrent use.
type Clock struct{ offset atomic.Int64 }

// Now is the system's time plus what Advance has added.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) { c.offset.Add(int64(d)) }

// An Env is the stores of one test. It implements authz.Auditor and keeps what it is told.
type Env struct {
	Engine string // "sqlite" or "postgres"
	DB     *db.DB
	Box    *secret.Box
	Keys   *keys.Ring // EdDSA, since RSA keys take seconds to make
	Clock  *Clock
	Folder string // an empty folder for files

	Sessions  session.Store // in the database, or in Valkey beside Postgres
	Passwords *password.Hasher
	Strength  *password.Policy
	Limits    *Limits          // in Valkey beside Postgres
	Accounts  *account.Service // of all the above

	snapshot atomic.Pointer[policy.Snapshot]

	mu       sync.Mutex
	notices  []bus.Notice
	handlers []bus.Handler
	audited  []authz.AuditEntry
	events   []account.Event
}

// Each runs f as a subtest on SQLite and on Postgres, each with empty stores.
func Each(t *testing.T, f func(t *testing.T, e *Env)) {
	t.Helper()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) { f(t, New(t, engine)) })
	}
}

// Settings are the defaults of the operating contract. A change in New's options alters them.
func Settings() account.Settings {
	return account.Settings{
		UIDPrefix: "ID", Domain: "barong.test", APIPrefix: Prefix, AppName: "Barong", DefaultLanguage: "en",
		SessionTTL: 30 * time.Minute, SessionMaxAge: 24 * time.Hour, MailTokenTTL: time.Hour,
		Issuer: Issuer, Audience: Audience,
		ActivationRequirements: map[string]string{"email": "verified"},
		StateTriggers: []account.Trigger{
			{State: "banned", Keys: []string{"ban", "fraud"}},
			{State: "deleted", Keys: []string{"delete"}},
			{State: "locked", Keys: []string{"suspicious", "lock"}},
		},
	}
}

// New opens empty stores on an engine, "sqlite" or "postgres". The three default levels are there.
func New(t testing.TB, engine string, options ...func(*account.Options)) *Env {
	t.Helper()
	e := &Env{Engine: engine, Clock: new(Clock), Folder: t.TempDir()}
	var err error
	if e.Box, err = secret.New(secret.NewKey()); err != nil {
		t.Fatal(err)
	}
	set, err := keys.New(keys.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	e.Keys = keys.Fixed(set, e.Clock.Now)
	e.DB = dbtest.Open(t, engine, db.Options{Sealer: e.Box, Now: e.Clock.Now})
	e.DB.PublishTo(e.publish)
	e.Sessions = e.DB.Sessions()
	limits := limit.Options{Hash: e.Box.Lasting, Now: e.Clock.Now}
	e.Limits = &Limits{Limiter: limit.SQL(e.DB, limits)}
	if engine == "postgres" {
		client, err := redisstore.Connect(testkit.Valkey(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		e.Sessions, e.Limits = redisstore.New(client), &Limits{Limiter: limit.Redis(client, limits)}
	}
	e.Passwords = password.NewHasher(cheap)
	if e.Strength, err = strength(); err != nil {
		t.Fatal(err)
	}
	letters, err := letters()
	if err != nil {
		t.Fatal(err)
	}
	passkeys, err := passkey.New(passkey.Options{
		ID: "barong.test", Origins: []string{passkeytest.Origin}, Name: "Barong", Sealer: e.Box, Memory: e.Limits, Now: e.Clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	o := account.Options{
		Settings: Settings(), DB: e.DB, Sessions: e.Sessions, Keys: e.Keys, Passwords: e.Passwords, Policy: e.Strength,
		Limits: e.Limits, Letters: letters, Passkeys: passkeys, FileURL: func(key string) string { return "http://files.test/" + key },
		Publish: func(_ context.Context, tx *db.Tx, event account.Event) error {
			tx.AfterCommit(func(context.Context) {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.events = append(e.events, event)
			})
			return nil
		},
		Notices: e.publish, Now: e.Clock.Now, Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	for _, change := range options {
		change(&o)
	}
	e.Accounts = account.New(o)
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		verified, now := "verified", tx.Now()
		for _, key := range []string{"email", "phone", "document"} {
			l := &db.Level{Key: key, Value: &verified, Description: &key, CreatedAt: now, UpdatedAt: now}
			if _, err := tx.NewInsert().Model(l).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	e.Permit(t, "superadmin", "ALL", "api/v2")
	e.Permit(t, "member", "ALL", Prefix+"/resource")
	return e
}

// strength is the default password policy; its dictionary takes a moment to read.
var strength = sync.OnceValues(func() (*password.Policy, error) {
	return password.New(password.Options{Regexp: PasswordPattern, MinEntropy: 14, UseDictionary: true})
})

// letters are the built-in mails.
var letters = sync.OnceValues(func() (*mail.Renderer, error) {
	return mail.NewRenderer(mail.RendererOptions{Brand: "Barong", Domain: "barong.test", DefaultLanguage: "en"})
})

// cheap makes digests that cost next to nothing: with the race detector real ones take most of a test's time.
var cheap = password.HasherOptions{MemoryKiB: 64, Passes: 1, Workers: 4, Waiting: 1024}

// PasswordPattern is the default BARONG_PASSWORD_REGEXP.
const PasswordPattern = `^(?=.*[[:lower:]])(?=.*[[:upper:]])(?=.*[[:digit:]])(?=.*[[:graph:]]).{8,80}$`

// digest is a digest of Password.
var digest = sync.OnceValues(func() (string, error) {
	return password.NewHasher(cheap).Hash(context.Background(), Password)
})

// Events returns the events of committed units so far and forgets them.
func (e *Env) Events() []account.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.events
	e.events = nil
	return out
}

// EventNames are the names of Events.
func (e *Env) EventNames() []string {
	events := e.Events()
	names := make([]string, len(events))
	for i, event := range events {
		names[i] = event.Name
	}
	return names
}

// MailToken is the token in the latest of these events that has one, as its mail carries it.
func MailToken(t testing.TB, events []account.Event) string {
	t.Helper()
	for i := len(events) - 1; i >= 0; i-- {
		var record struct {
			Token string `json:"token"`
		}
		if err := json.Unmarshal(events[i].Record, &record); err != nil {
			t.Fatal(err)
		}
		if record.Token != "" {
			return record.Token
		}
	}
	t.Fatal("no event carries a token")
	return ""
}

// publish is the bus of a single process.
func (e *Env) publish(_ context.Context, notices ...bus.Notice) error {
	e.mu.Lock()
	e.notices = append(e.notices, notices...)
	handlers := e.handlers
	e.mu.Unlock()
	for _, n := range notices {
		for _, h := range handlers {
			h(n)
		}
	}
	return nil
}

// Subscribe adds a handler for the notices of committed changes.
func (e *Env) Subscribe(h bus.Handler) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handlers = append(e.handlers, h)
}

// Notices returns the notices published so far and forgets them.
func (e *Env) Notices() []bus.Notice {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.notices
	e.notices = nil
	return out
}

// Audit keeps a copy of the entry for Audited.
func (e *Env) Audit(_ context.Context, entry *authz.AuditEntry) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.audited = append(e.audited, *entry.Clone())
	return nil
}

// Audited returns the entries audited so far and forgets them.
func (e *Env) Audited() []authz.AuditEntry {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.audited
	e.audited = nil
	return out
}

// Policy is the compiled rules of the database as of the last Reload.
func (e *Env) Policy() *policy.Snapshot { return e.snapshot.Load() }

// Reload compiles the rules of the database. It fits the reload hooks of the API modules.
func (e *Env) Reload(ctx context.Context) error {
	permissions, err := e.DB.AllPermissions(ctx)
	if err != nil {
		return err
	}
	restrictions, err := e.DB.AllRestrictions(ctx)
	if err != nil {
		return err
	}
	src := policy.Source{Prefix: Prefix}
	for _, p := range permissions {
		r := policy.Permission{ID: p.ID, Role: p.Role, Verb: p.Verb, Path: p.Path, Action: p.Action}
		if p.Topic != nil {
			r.Topic = *p.Topic
		}
		src.Permissions = append(src.Permissions, r)
	}
	for _, r := range restrictions {
		out := policy.Restriction{ID: r.ID, Category: r.Category, Scope: r.Scope, Value: r.Value, Enabled: r.State == "enabled"}
		if r.Code != nil {
			out.Code = *r.Code
		}
		src.Restrictions = append(src.Restrictions, out)
	}
	snapshot, err := policy.Compile(src)
	if err != nil {
		return err
	}
	e.snapshot.Store(snapshot)
	return nil
}

// Permit adds an ACCEPT rule and reloads.
func (e *Env) Permit(t testing.TB, role, verb, path string) {
	t.Helper()
	e.rule(t, db.Permission{Role: role, Verb: verb, Path: path, Action: "ACCEPT"})
}

// Drop adds a DROP rule and reloads.
func (e *Env) Drop(t testing.TB, role, verb, path string) {
	t.Helper()
	e.rule(t, db.Permission{Role: role, Verb: verb, Path: path, Action: "DROP"})
}

func (e *Env) rule(t testing.TB, p db.Permission) {
	t.Helper()
	e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.InsertPermission(ctx, db.Who{}, &p) })
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Update runs f in a transaction that must commit.
func (e *Env) Update(t testing.TB, f func(ctx context.Context, tx *db.Tx) error) {
	t.Helper()
	if err := e.DB.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// serial makes addresses unique within the test binary.
var serial atomic.Int64

// NewUser stores an active member whose password is Password; change, which may be nil, alters the row first. The state
// is as set, whatever the labels say.
func (e *Env) NewUser(t testing.TB, change func(u *db.User)) *db.User {
	t.Helper()
	hash, err := digest()
	if err != nil {
		t.Fatal(err)
	}
	u := &db.User{
		Email: fmt.Sprintf("user%d@barong.test", serial.Add(1)), PasswordDigest: hash, Role: "member", State: "active",
	}
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		if u.UID == "" {
			uid, err := tx.NewUID(ctx, "ID", func(b []byte) { rand.Read(b) })
			if err != nil {
				return err
			}
			u.UID = uid
		}
		if change != nil {
			change(u)
		}
		return tx.InsertUser(ctx, u)
	})
	return u
}

// Enable2FA gives u a second factor and returns its secret; codes come from Code.
func (e *Env) Enable2FA(t testing.TB, u *db.User) (secret string) {
	t.Helper()
	secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	e.Update(t, func(ctx context.Context, tx *db.Tx) error {
		if err := tx.PutTOTPKey(ctx, u.ID, secret); err != nil {
			return err
		}
		u.OTP = true
		return tx.UpdateUser(ctx, u, "otp")
	})
	return secret
}

// NewPasskey gives u a passkey of an algorithm of passkeytest.
func (e *Env) NewPasskey(t testing.TB, u *db.User, algorithm int) *passkeytest.Key {
	t.Helper()
	k := passkeytest.New(t, algorithm)
	flow, options, err := e.Accounts.BeginPasskey(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	row, err := e.Accounts.MadePasskey(t.Context(), u, flow, k.Make(t, asked, nil))
	if err != nil {
		t.Fatal(err)
	}
	row.Name = "Phone"
	e.Update(t, func(ctx context.Context, tx *db.Tx) error { return tx.InsertPasskey(ctx, row) })
	return k
}

// Providers has people sign in with these providers.
func (e *Env) Providers(list ...openid.Config) {
	e.Accounts.Providers = openid.New(openid.Options{Providers: list, Sealer: e.Box, Memory: e.Limits, Now: e.Clock.Now})
}

// Code is the code of a second factor now, or steps of 30 seconds later.
func (e *Env) Code(t testing.TB, secret string, steps int) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, e.Clock.Now().Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// WrongCode is a code of six digits that is none of a second factor's around now.
func (e *Env) WrongCode(t testing.TB, secret string) string {
	t.Helper()
	near := map[string]bool{}
	for step := -3; step <= 3; step++ {
		near[e.Code(t, secret, step)] = true
	}
	for n := 0; ; n++ {
		if code := fmt.Sprintf("%06d", n); !near[code] {
			return code
		}
	}
}

// NewStaff stores an active user of a role.
func (e *Env) NewStaff(t testing.TB, role string) *db.User {
	t.Helper()
	return e.NewUser(t, func(u *db.User) { u.Role = role })
}

// Fresh reads a user's row again.
func (e *Env) Fresh(t testing.TB, u *db.User) *db.User {
	t.Helper()
	out, err := e.DB.UserByID(t.Context(), u.ID)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Activities are all rows of the audit trail by id.
func (e *Env) Activities(t testing.TB) []db.Activity {
	t.Helper()
	var rows []db.Activity
	if err := e.DB.Bun().NewSelect().Model(&rows).Order("id").Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	return rows
}

// Mails returns the mails queued so far, oldest first, and takes them out of the outbox.
func (e *Env) Mails(t testing.TB) []mail.Message {
	t.Helper()
	items, err := e.DB.LeaseOutbox(t.Context(), mail.OutboxKind, 1000, time.Minute, false)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(items, func(a, b db.OutboxItem) int { return cmp.Compare(a.ID, b.ID) })
	out := make([]mail.Message, len(items))
	for i, item := range items {
		if item.Unreadable != nil {
			t.Fatal(item.Unreadable)
		}
		if err := json.Unmarshal(item.Payload, &out[i]); err != nil {
			t.Fatal(err)
		}
		if err := e.DB.DeleteOutbox(t.Context(), item); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// MailKinds are the kinds of Mails.
func (e *Env) MailKinds(t testing.TB) []string {
	t.Helper()
	mails := e.Mails(t)
	kinds := make([]string, len(mails))
	for i, m := range mails {
		kinds[i] = m.Kind
	}
	return kinds
}

// Audience and Issuer are those of the tokens of an Env.
var (
	Audience = []string{"peatio", "barong"}
	Issuer   = "barong"
)

// Expect is what the servers demand of a bearer token.
func Expect() keys.Expect {
	return keys.Expect{Subject: keys.SubjectSession, Issuer: Issuer, Audience: Audience}
}

// Claims are those of a good gateway token for u, to be spoiled or signed.
func (e *Env) Claims(u *db.User) map[string]any {
	now := e.Clock.Now().Unix()
	var referral any
	if u.ReferralID != nil {
		referral = *u.ReferralID
	}
	jti := fmt.Sprintf("%020x", serial.Add(1))
	return map[string]any{
		"iat": now, "exp": now + 300, "sub": keys.SubjectSession, "iss": Issuer, "aud": Audience, "jti": jti,
		"uid": u.UID, "email": u.Email, "role": u.Role, "level": u.Level, "state": u.State, "referral_id": referral,
	}
}

// Sign signs claims.
func (e *Env) Sign(t testing.TB, claims any) string {
	t.Helper()
	token, err := e.Keys.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Token is a gateway token for u.
func (e *Env) Token(t testing.TB, u *db.User) string {
	t.Helper()
	return e.Sign(t, e.Claims(u))
}

// A Server is a started rest.Server.
type Server struct {
	Env *Env
	URL string // http://127.0.0.1:port

	routes   []rest.Route
	contract *contract
	token    func(t testing.TB, u *db.User) string
}

// Serve starts a server for the routes until the end of the test. Options may change what the server is made of; the
// client's address is the header X-Real-Ip, or 127.0.0.1, and a request with X-Https: on came over https.
func (e *Env) Serve(t testing.TB, routes []rest.Route, options ...func(*rest.Options)) *Server {
	t.Helper()
	base, stop := context.WithCancel(context.Background())
	o := rest.Options{
		Routes: routes, Users: e.DB, Tokens: e.Keys, Expect: Expect(), Policy: e.Policy, Prefix: Prefix, Audit: e,
		Gate:   func(*fasthttp.RequestCtx, func()) bool { return true },
		Client: client,
		Base:   base,
		Log:    slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, change := range options {
		change(&o)
	}
	api := rest.New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := listener.New(api.Handle, listener.Options{ReadTimeout: time.Minute})
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx) // idle connections of the test's client may be left
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &Server{Env: e, URL: "http://" + l.Addr().String(), routes: o.Routes, contract: newContract(t, &o), token: e.Token}
}

// Legacy makes a server answer as BARONG_COMPAT=2.4.17.
func Legacy(o *rest.Options) { o.Legacy = true }

func client(rc *fasthttp.RequestCtx) rest.Caller {
	from := rest.Caller{
		Addr: netip.MustParseAddr("127.0.0.1"), HTTPS: string(rc.Request.Header.Peek("X-Https")) == "on", Host: string(rc.Host()),
	}
	if ip := rc.Request.Header.Peek("X-Real-Ip"); len(ip) > 0 {
		from.Addr, _ = netip.ParseAddr(string(ip)) // one that is none cannot be told
	}
	return from
}

// testLog writes a server's log into the test's.
type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// Hex reports whether s is n lower-case hexadecimal digits.
func Hex(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == n && s == strings.ToLower(s)
}
