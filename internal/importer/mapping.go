package importer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"barong/db"
	"barong/internal/audit"
	"barong/internal/blob"

	"go.yaml.in/yaml/v3"
)

// A mapper makes rows of this program from the original's. API keys and second factors whose secret was not found have none: what
// becomes of them depends on what an earlier import found.
type mapper struct {
	*survey
	ctx  context.Context
	emit func(db.Importable) error

	zone      *time.Location   // in which timestamps were written as if it were UTC; nil for UTC
	comparing bool             // the rows are compared, not written
	highest   map[string]int64 // ids, by table

	// Of activities.
	before  time.Time // of the row before
	pending []*db.Activity
}

// table maps one table of the source.
func (m *mapper) table(table string) error {
	count := m.report.table(table)
	each := map[string]func(*row, int64) error{
		levels: m.level, permissions: m.permission, restrictions: m.restriction, users: m.user, profiles: m.profile, phones: m.phone,
		documents: m.document, labels: m.label, dataStorages: m.storage, apiKeys: m.apiKey, activities: m.activity,
	}[table]
	err := m.src.rows(m.ctx, table, func(r *row) error {
		id, err := r.id()
		if err != nil {
			return err
		}
		count.InDump++
		if id > m.highest[table] {
			m.highest[table], count.MaxID = id, id
		}
		if m.drop[table][id] {
			return nil
		}
		return each(r, id)
	})
	if err == nil && table == activities {
		err = m.flush(time.Unix(0, 0).UTC())
	}
	return ofTable(table, err)
}

// ofTable says of which table an error is, unless it does.
func ofTable(table string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), "table "+table+": ") {
		return err
	}
	return fmt.Errorf("table %s: %w", table, err)
}

// parseTime reads "2006-01-02 15:04:05", with a fraction of the second or without, as UTC. A date of zeros is none.
func parseTime(v value) (time.Time, bool) {
	if len(v) < 19 || v[4] != '-' || v[7] != '-' || v[10] != ' ' && v[10] != 'T' || v[13] != ':' || v[16] != ':' {
		return time.Time{}, false
	}
	n := func(from, to int) int {
		out := 0
		for _, c := range v[from:to] {
			if c < '0' || c > '9' {
				return -1 << 20
			}
			out = out*10 + int(c-'0')
		}
		return out
	}
	year, month, day, hour, minute, second := n(0, 4), n(5, 7), n(8, 10), n(11, 13), n(14, 16), n(17, 19)
	if year < 1 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	return t, t.Day() == day
}

// parseDate reads a date as YYYY-MM-DD, or nil.
func parseDate(v value) *string {
	if len(v) < 10 {
		return nil
	}
	s := string(v[:10])
	if _, err := time.Parse(time.DateOnly, s); err != nil {
		return nil
	}
	return &s
}

// times are a row's times. One that is none is replaced by the other.
func (m *mapper) times(table string, r *row, id int64) (created, updated time.Time) {
	created, ok1 := parseTime(r.raw("created_at"))
	updated, ok2 := parseTime(r.raw("updated_at"))
	if !ok1 || !ok2 {
		m.report.add("time_invalid", item{"table": table, "id": id})
		switch {
		case ok1:
			updated = created
		case ok2:
			created = updated
		default:
			created, updated = time.Unix(0, 0).UTC(), time.Unix(0, 0).UTC()
		}
	}
	return created, updated
}

// owned finds the user of a row, or notes that there is none.
func (m *mapper) owned(table string, r *row, id int64) (int64, bool) {
	user, ok := m.owner(r)
	if ok {
		return user, true
	}
	what := item{"table": table, "id": id, "user_id": nil}
	column := "user_id"
	if !r.has(column) {
		column = "key_holder_account_id"
	}
	if n, is := r.number(column); is {
		what["user_id"] = n
	}
	m.report.skip(table, "orphan", what)
	return 0, false
}

func (m *mapper) level(r *row, id int64) error {
	l := &db.Level{ID: id, Key: r.text("key"), Value: r.optional("value"), Description: r.optional("description")}
	l.CreatedAt, l.UpdatedAt = m.times(levels, r, id)
	return m.emit(l)
}

func (m *mapper) permission(r *row, id int64) error {
	p := &db.Permission{
		ID: id, Role: r.text("role"), Verb: strings.ToUpper(r.text("verb")), Path: r.text("path"), Action: strings.ToUpper(r.text("action")),
		Topic: r.optional("topic"),
	}
	p.CreatedAt, p.UpdatedAt = m.times(permissions, r, id)
	return m.emit(p)
}

func (m *mapper) restriction(r *row, id int64) error {
	out, err := mapRestriction(r)
	if err != nil {
		return err
	}
	out.CreatedAt, out.UpdatedAt = m.times(restrictions, r, id)
	return m.emit(&out)
}

// bcryptDigest is what a password can be compared with.
var bcryptDigest = regexp.MustCompile(`^\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}$`)

func (m *mapper) user(r *row, id int64) error {
	i, ok := m.people.find(id)
	if !ok {
		return errChanged
	}
	u := &db.User{
		ID: id, UID: r.text("uid"), Email: db.NormalEmail(r.text("email")), PasswordDigest: r.text("password_digest"),
		Role: r.text("role"), Data: r.optional("data"), State: r.text("state"),
	}
	level, _ := r.number("level")
	u.Level = int(level)
	u.OTP = r.flag("otp")
	u.CreatedAt, u.UpdatedAt = m.times(users, r, id)
	if !bcryptDigest.MatchString(u.PasswordDigest) {
		m.report.add("digest_unusable", u.UID)
	}
	if !m.roles[u.Role] {
		m.report.add("role_without_permissions", item{"user": u.UID, "role": clip(u.Role, 255)})
	}
	steps, state := m.judge(i)
	if state != u.State {
		u.StateManual = true
		m.report.add("state_differs_from_labels", item{"user": u.UID, "state": clip(u.State, 255), "labels_say": state})
	}
	if steps != u.Level {
		m.report.add("level_differs_from_labels", item{"user": u.UID, "level": u.Level, "labels_say": steps})
	}
	if r.raw("referral_id") != nil {
		referrer, _ := r.number("referral_id")
		switch _, there := m.people.find(referrer); {
		case !there:
			m.report.add("referrer_gone", item{"user": u.UID, "referral_id": referrer})
		default:
			if referrer == id {
				m.report.add("refers_to_itself", u.UID)
			}
			u.ReferralID = &referrer
		}
	}
	if err := m.emit(u); err != nil || !u.OTP {
		return err
	}
	return m.secondFactor(u)
}

// secondFactor adds the second factor of a user who has one, if its secret is known.
func (m *mapper) secondFactor(u *db.User) error {
	secret, err := m.o.Secrets.secondFactor(m.ctx, u.UID)
	switch {
	case errors.Is(err, errKind):
		m.report.add("totp_unusable", u.UID)
	case err != nil:
		return err
	}
	switch {
	case secret != "":
		m.report.table(totpKeys).InDump++
	case m.comparing:
		return nil
	}
	return m.emit(&db.TOTPKey{UserID: u.ID, Secret: secret, CreatedAt: u.UpdatedAt})
}

// factorless notes the user of a second factor whose secret nobody knows.
func factorless(report *Report, uid string) { report.add("otp_without_secret", uid) }

// opened is a column in clear; what does not open is noted, and nil.
func (m *mapper) opened(table, column string, r *row, id int64) (*string, error) {
	v, ok, err := m.unsealed(r, column)
	if err == nil && !ok {
		m.report.add("sealed_unreadable", item{"table": table, "id": id, "column": column})
	}
	return v, err
}

func (m *mapper) profile(r *row, id int64) error {
	user, ok := m.owned(profiles, r, id)
	if !ok {
		return nil
	}
	p := &db.Profile{ID: id, UserID: user, Postcode: r.optional("postcode"), City: r.optional("city"), Country: r.optional("country"), Metadata: r.optional("metadata")}
	var dob *string
	for _, f := range []struct {
		to     **string
		column string
	}{
		{&p.FirstName, "first_name"},
		{&p.LastName, "last_name"},
		{&p.Address, "address"},
		{&dob, "dob"},
	} {
		v, err := m.opened(profiles, f.column, r, id)
		if err != nil {
			return err
		}
		*f.to = v
	}
	if dob != nil {
		if p.DOB = parseDate(value(*dob)); p.DOB == nil {
			m.report.add("time_invalid", item{"table": profiles, "id": id})
		}
	}
	state, kind := profileState(r)
	switch kind {
	case "profile_state_null":
		m.report.add(kind, item{"id": id, "becomes": "drafted"})
	case "profile_state_unknown":
		n, _ := r.number("state")
		m.report.add(kind, item{"id": id, "state": n, "becomes": "drafted"})
	}
	if m.open[id] {
		state = db.ProfileRejected
	}
	p.State = state
	p.CreatedAt, p.UpdatedAt = m.times(profiles, r, id)
	return m.emit(p)
}

func (m *mapper) phone(r *row, id int64) error {
	user, ok := m.owned(phones, r, id)
	if !ok {
		return nil
	}
	if _, err := m.opened(phones, "number", r, id); err != nil { // notes what does not open
		return err
	}
	number, err := m.phoneNumber(r)
	if err != nil {
		return err
	}
	if number == "" {
		m.report.skip(phones, "phone_invalid", item{"id": id, "user": m.people.uidOf(user)})
		return nil
	}
	p := &db.Phone{ID: id, UserID: user, Country: r.text("country"), Number: number}
	switch at, ok := parseTime(r.raw("validated_at")); {
	case ok && !m.lost[id]:
		p.ValidatedAt = &at
	case !ok && r.raw("validated_at") != nil:
		m.report.add("time_invalid", item{"table": phones, "id": id})
	}
	p.CreatedAt, p.UpdatedAt = m.times(phones, r, id)
	return m.emit(p)
}

func (m *mapper) document(r *row, id int64) error {
	user, ok := m.owned(documents, r, id)
	if !ok {
		return nil
	}
	d := &db.Document{ID: id, UserID: user, DocType: r.optional("doc_type"), Metadata: r.optional("metadata")}
	if name := r.text("upload"); name != "" {
		key := blob.ImportedKey(id, name)
		if key == "" {
			m.report.add("document_file_name", item{"id": id, "user": m.people.uidOf(user)})
		} else {
			kind := blob.TypeOfName(name)
			d.Upload, d.UploadName, d.ContentType = &key, &name, &kind
			if err := m.lookFor(key, id); err != nil {
				return err
			}
		}
	}
	var err error
	if d.DocNumber, err = m.opened(documents, "doc_number", r, id); err != nil {
		return err
	}
	if v := r.raw("doc_expire"); v != nil {
		if d.DocExpire = parseDate(v); d.DocExpire == nil {
			m.report.add("time_invalid", item{"table": documents, "id": id})
		}
	}
	d.CreatedAt, d.UpdatedAt = m.times(documents, r, id)
	return m.emit(d)
}

// lookFor notes that a file is not in the store, if files are looked for.
func (m *mapper) lookFor(key string, id int64) error {
	if m.o.FileExists == nil {
		return nil
	}
	there, err := m.o.FileExists(m.ctx, key)
	if err != nil {
		return fmt.Errorf("look for the file of document %d: %w", id, err)
	}
	if !there {
		m.report.add("document_file_missing", item{"id": id})
	}
	return nil
}

func (m *mapper) label(r *row, id int64) error {
	user, ok := m.owned(labels, r, id)
	if !ok {
		return nil
	}
	l := &db.Label{ID: id, UserID: user, Key: r.text("key"), Value: r.text("value"), Scope: r.text("scope"), Description: r.optional("description")}
	if l.Scope != "public" && l.Scope != "private" {
		m.report.skip(labels, "label_scope", item{"id": id, "user": m.people.uidOf(user), "scope": clip(l.Scope, 40)})
		return nil
	}
	l.CreatedAt, l.UpdatedAt = m.times(labels, r, id)
	return m.emit(l)
}

func (m *mapper) storage(r *row, id int64) error {
	user, ok := m.owned(dataStorages, r, id)
	if !ok {
		return nil
	}
	d := &db.DataStorage{ID: id, UserID: user, Title: r.text("title"), Data: r.text("data")}
	d.CreatedAt, d.UpdatedAt = m.times(dataStorages, r, id)
	return m.emit(d)
}

func (m *mapper) apiKey(r *row, id int64) error {
	kid := r.text("kid")
	if service(r) {
		m.report.skip(apiKeys, "apikey_holder", item{"id": id, "kid": kid, "holder": clip(r.text("key_holder_account_type"), 80)})
		return nil
	}
	user, ok := m.owned(apiKeys, r, id)
	if !ok {
		return nil
	}
	k := &db.APIKey{ID: id, UserID: user, KID: kid, Algorithm: r.text("algorithm"), State: r.text("state")}
	k.CreatedAt, k.UpdatedAt = m.times(apiKeys, r, id)
	scope, ok := readScope(r.text("scope"))
	if !ok {
		m.report.add("apikey_scope_unreadable", item{"id": id, "kid": kid})
	}
	if len(scope) > 0 {
		text, err := json.Marshal(scope)
		if err != nil {
			return err
		}
		s := string(text)
		k.ScopeJSON = &s
	}
	var err error
	if k.Secret, err = m.o.Secrets.apiKey(m.ctx, kid, r.text("secret_encrypted")); err != nil {
		return err
	}
	return m.emit(k)
}

// keyless turns off an API key whose secret nobody knows, and notes that.
func keyless(report *Report, k *db.APIKey) {
	report.add("apikey_without_secret", k.KID)
	k.State = "inactive"
	if k.Secret == "" {
		var random [16]byte
		rand.Read(random[:])
		k.Secret = hex.EncodeToString(random[:])
	}
}

// noSecret stands, in comparisons, for a secret that nobody knows.
const noSecret = "none"

// readScope reads the YAML list of an API key's scopes. Symbols are texts; no tag means anything.
func readScope(text string) ([]string, bool) {
	if strings.TrimSpace(text) == "" {
		return nil, true
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, false
	}
	if doc.Kind == 0 || len(doc.Content) == 0 {
		return nil, true
	}
	list := doc.Content[0]
	nodes := list.Content
	switch {
	case list.Kind == yaml.ScalarNode && list.Tag == "!!null":
		return nil, true
	case list.Kind == yaml.ScalarNode:
		nodes = []*yaml.Node{list}
	case list.Kind != yaml.SequenceNode:
		return nil, false
	}
	out := []string{}
	for _, n := range nodes {
		if n.Kind != yaml.ScalarNode {
			return nil, false
		}
		v := n.Value
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && len(v) > 1 {
			v = strings.TrimPrefix(v, ":")
		}
		out = append(out, v)
	}
	return out, true
}

func (m *mapper) activity(r *row, id int64) error {
	a := &db.Activity{
		ID: id, TargetUID: r.optional("target_uid"), UserIP: r.text("user_ip"), UserIPCountry: r.optional("user_ip_country"),
		UserAgent: r.text("user_agent"), Topic: r.text("topic"), Action: r.text("action"), Result: r.text("result"), Count: 1,
	}
	a.UserID, _ = r.number("user_id")
	if _, ok := m.people.find(a.UserID); !ok {
		m.report.add("orphan", item{"table": activities, "id": id, "user_id": a.UserID, "kept": true})
	}
	if a.TargetUID != nil && *a.TargetUID == "" {
		a.TargetUID = nil
	}
	switch a.Category = r.text("category"); a.Category {
	case db.CategoryUser, db.CategoryAdmin:
	case "": // before there were categories
		a.Category = db.CategoryUser
	default:
		m.report.add("activity_category", item{"id": id, "category": clip(a.Category, 80), "becomes": db.CategoryUser})
		a.Category = db.CategoryUser
	}
	switch a.Result {
	case db.ResultSucceed, db.ResultFailed, db.ResultDenied:
	default:
		m.report.add("activity_result", item{"id": id, "result": clip(a.Result, 80), "becomes": db.ResultFailed})
		a.Result = db.ResultFailed
	}
	if data := r.optional("data"); data != nil {
		text, redacted, unreadable := audit.RedactText(*data)
		switch {
		case redacted:
			m.report.add("activity_data_redacted", item{"id": id})
		case unreadable:
			m.report.add("activity_data_unreadable", item{"id": id})
		}
		a.Data = &text
	}
	at, ok := parseTime(r.raw("created_at"))
	if !ok {
		m.report.add("activity_time", item{"id": id})
		if m.before.IsZero() && len(m.pending) < 10_000 { // the first rows: they get the time of the next
			m.pending = append(m.pending, a)
			return nil
		}
		a.CreatedAt = m.before
		if m.before.IsZero() {
			a.CreatedAt = time.Unix(0, 0).UTC()
		}
		return m.emit(a)
	}
	if m.zone != nil { // the original wrote UTC as if it were the server's time
		local := at.In(m.zone)
		at = time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), local.Second(), 0, time.UTC)
	}
	if err := m.flush(at); err != nil {
		return err
	}
	m.before, a.CreatedAt = at, at
	return m.emit(a)
}

// flush emits the activities that have waited for a time.
func (m *mapper) flush(at time.Time) error {
	for _, a := range m.pending {
		a.CreatedAt = at
		if err := m.emit(a); err != nil {
			return err
		}
	}
	m.pending = nil
	return nil
}
