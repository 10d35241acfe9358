package importer_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"barong/db"
	"barong/internal/importer"
)

const keyBase = "64"

// sealed26 seals as 2.6 does.
func sealed26(t testing.TB, plain string) string {
	t.Helper()
	key, err := pbkdf2.Key(sha1.New, keyBase, []byte("202114"), 65536, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, 12)
	rand.Read(iv)
	text := aead.Seal(nil, iv, []byte(plain), nil)
	b64 := base64.StdEncoding.EncodeToString
	return "202114." + b64(text[:len(text)-16]) + "--" + b64(iv) + "--" + b64(text[len(text)-16:])
}

// rubyText is a text in Ruby's format.
func rubyText(s string) string {
	n := string([]byte{byte(len(s) + 5)})
	if len(s) > 122 {
		n = string([]byte{1, byte(len(s))})
	}
	return "\x04\x08I\"" + n + s + "\x06:\x06ET"
}

// The Julian day 2447939 is 1990-02-16.
const rubyDate = "\x04\x08U:\x09Date[\x0bi\x00i\x03\x43\x5a\x25i\x00i\x00i\x00f\x0c2299161"

// of26 is a database of 2.6.
func of26(t testing.TB) []table {
	return []table{
		{"activities", "id user_id target_uid category user_ip user_ip_country user_agent topic action result data created_at", [][]any{
			{1, 1, nil, "user", "::1", "UA", "agent", "session", "login", "succeed", nil, day1},
		}},
		{"apikeys", "id key_holder_account_id key_holder_account_type kid algorithm scope secret_encrypted state created_at updated_at", [][]any{
			{1, 1, "User", "kid1", "HS256", nil, "vault:v1:aaaa", "active", day1, day1},
			{2, 1, "ServiceAccount", "kid2", "HS256", nil, "vault:v1:bbbb", "active", day1, day1},
			{3, 1, "User", "kid3", "HS256", nil, "vault:v1:cccc", "active", day1, day1},
		}},
		{"comments", "id user_id title data", [][]any{{1, 1, "x", "y"}}},
		{"documents", "id user_id upload doc_type doc_expire doc_number_encrypted doc_number_index doc_issue doc_category identificator metadata created_at updated_at", [][]any{
			{1, 1, "a.jpg", "Passport", nil, sealed26(t, rubyText("NUMBER-1")), 123, nil, "front_side", nil, nil, day1, day1},
		}},
		{"labels", "id user_id key value scope description created_at updated_at", [][]any{{1, 1, "email", "verified", "private", nil, day1, day1}}},
		{"permissions", "id action role verb path topic created_at updated_at", [][]any{{1, "ACCEPT", "member", "ALL", "api", nil, day1, day1}}},
		{"phones", "id user_id country code number_encrypted number_index validated_at created_at updated_at", [][]any{
			{1, 1, "UA", nil, sealed26(t, rubyText("+380670000001")), 5, day1, day1, day1},
			{2, 1, "UA", nil, sealed26(t, rubyText("380670000001")), 5, nil, day1, day1},
			{3, 1, "UA", nil, "202114.broken", 5, nil, day1, day1},
		}},
		{"profiles", "id user_id author applicant_id first_name_encrypted last_name_encrypted dob_encrypted address_encrypted postcode city country state metadata created_at updated_at", [][]any{
			{2, 77, nil, nil, "202114.broken", nil, nil, nil, nil, nil, nil, 0, nil, day1, day1},
			{1, 1, nil, nil, sealed26(t, rubyText("Zoë")), sealed26(t, "\x04\x080"), sealed26(t, rubyDate), sealed26(t, rubyText(strings.Repeat("long ", 30))), "01001", "Kyiv", "UA", 3, nil, day1, day1},
		}},
		{"restrictions", "id category scope value code state created_at updated_at", [][]any{
			{1, "denylist", "ip", "1.2.3.4", nil, "enabled", day1, day1}, {2, "allowlist", "ip", "1.2.3.5", nil, "enabled", day1, day1},
		}},
		{"schema_migrations", "version", [][]any{{"20210407094208"}}},
		{"service_accounts", "id uid", [][]any{{1, "SI1"}}},
		{"users", "id uid username email password_digest role data level otp state referral_id created_at updated_at", [][]any{
			{1, "IDA", "anna", "anna@example.com", digest, "member", nil, 0, 1, "active", nil, day1, day1},
		}},
	}
}

// fakeVault answers as the vendor's image of Vault does.
func fakeVault(t testing.TB) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := func(data any) { _ = json.NewEncoder(w).Encode(map[string]any{"data": data}) } // to a test
		var body struct{ Ciphertext, Code string }
		_ = json.NewDecoder(r.Body).Decode(&body) // often none
		switch {
		case r.Header.Get("X-Vault-Token") != "root":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/v1/transit/decrypt/opendax_apikeys_secret" && body.Ciphertext == "vault:v1:aaaa":
			answer(map[string]string{"plaintext": base64.StdEncoding.EncodeToString([]byte("secret-of-kid1"))})
		case r.URL.Path == "/v1/transit/decrypt/opendax_apikeys_secret":
			w.WriteHeader(http.StatusBadRequest)
		case r.URL.Path == "/v1/totp/export/opendax_IDA":
			answer(map[string]string{"url": "otpauth://totp/X:a?secret=" + factorA})
		case r.URL.Path == "/v1/secret/barong/api_key/kid1":
			answer(map[string]string{"value": "kv-of-kid1"})
		case r.Method == http.MethodPost && (r.URL.Path == "/v1/totp/code/idb-of-an-older-prefix" || r.URL.Path == "/v1/totp/code/barong_IDNEW"):
			answer(map[string]bool{"valid": body.Code == "123456"})
		case strings.HasPrefix(r.URL.Path, "/v1/totp/code/"):
			w.WriteHeader(http.StatusBadRequest) // an unknown key, or a code that was used
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func vaultSecrets(t testing.TB, address, token string) *importer.Secrets {
	t.Helper()
	s, err := importer.NewSecrets("", "", address, token, "opendax")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What 2.6 seals is opened, its API keys and second factors come from Vault, and what has no home here is told.
func TestNewerReleases(t *testing.T) {
	t.Parallel()
	address := fakeVault(t)
	for name, s := range map[string]style{"sqlite": {}, "postgres": {bare: true}} {
		d := empty(t, name)
		report := bring(t, d, options(t, file(t, sql(of26(t), s)), func(o *importer.Options) {
			o.SecretKeyBase, o.Secrets = keyBase, vaultSecrets(t, address, "root")
		}))
		ctx := t.Context()
		profiles, err := d.Profiles(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		check(t, name, profiles, []db.Profile{{ID: 1, UserID: 1, FirstName: p("Zoë"), DOB: p("1990-02-16"), Address: p(strings.Repeat("long ", 30)), Postcode: p("01001"), City: p("Kyiv"), Country: p("UA"), State: 3, CreatedAt: at(day1), UpdatedAt: at(day1)}})
		if phone, err := d.Phone(ctx, 1, "380670000001"); err != nil || phone.ID != 1 || phone.ValidatedAt == nil {
			t.Errorf("%s: phone %+v, %v", name, phone, err)
		}
		if documents, err := d.Documents(ctx, 1); err != nil || *documents[0].DocNumber != "NUMBER-1" {
			t.Errorf("%s: documents %+v, %v", name, documents, err)
		}
		if k, err := d.APIKey(ctx, "kid1"); err != nil || string(k.Secret) != "secret-of-kid1" || !k.Active {
			t.Errorf("%s: key %+v, %v", name, k, err)
		}
		if k, err := d.TOTPKey(ctx, 1); err != nil || k.Secret != factorA {
			t.Errorf("%s: second factor: %v", name, err)
		}
		var restrictions []string
		rr, _ := d.AllRestrictions(ctx)
		for _, r := range rr {
			restrictions = append(restrictions, r.Category)
		}
		check(t, name, restrictions, []string{"blacklist", "whitelist"})
		check(t, name, report.UnknownTables, []string{"comments", "service_accounts"})
		check(t, name, report.UnknownColumns["users"], []string{"username"})
		check(t, name, report.Counts, map[string]int64{
			"apikey_holder": 1, "apikey_without_secret": 1, "orphan": 1, "phone_invalid": 1, "phone_twice": 1, "sealed_unreadable": 1,
		})
	}
	source := file(t, sql(of26(t), style{}))
	targets := []*db.DB{empty(t, "sqlite"), empty(t, "postgres")}
	for name, c := range map[string]struct {
		base, token, want string
	}{
		"no key base":    {"", "root", "--secret-key-base"},
		"another's base": {"65", "root", "opens no sealed value"},
		"another token":  {keyBase, "other", "BARONG_VAULT_TOKEN may not read"},
	} {
		for _, d := range targets {
			s, err := importer.Open(t.Context(), options(t, source, func(o *importer.Options) {
				o.SecretKeyBase, o.Secrets = c.base, vaultSecrets(t, address, c.token)
			}))
			if err == nil {
				_, err = s.Import(t.Context(), d)
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			if rows := content(t, d); len(rows) != 0 {
				t.Errorf("%s: something was written: %v", name, rows)
			}
		}
	}
}

// of25 is a database of 2.5: personal data is in clear still, API keys may have their secret in Vault's either place.
func of25() []table {
	return []table{
		{"activities", "id user_id target_uid category user_ip user_agent topic action result data created_at", [][]any{
			{1, 1, nil, "user", "::1", "agent", "session", "login", "succeed", nil, day1},
		}},
		{"apikeys", "id user_id kid algorithm scope secret_encrypted state created_at updated_at", [][]any{
			{1, 1, "kid1", "HS256", nil, nil, "active", day1, day1},
			{2, 1, "kid2", "HS256", nil, "vault:v1:aaaa", "active", day1, day1},
			{3, 1, "kid3", "HS256", nil, nil, "active", day1, day1},
		}},
		{"comments", "id author_uid title data user_id created_at updated_at", [][]any{{1, "IDA", "x", "y", 1, day1, day1}}},
		{"documents", "id user_id upload doc_type doc_number doc_expire identificator metadata created_at updated_at doc_issue doc_category", [][]any{
			{1, 1, "a.jpg", "Passport", "NUMBER-1", "2031-12-01", "batch", nil, day1, day1, "2019-01-01", "front_side"},
		}},
		{"labels", "id user_id key value scope description created_at updated_at", [][]any{{1, 1, "email", "verified", "private", nil, day1, day1}}},
		{"permissions", "id action role verb path topic created_at updated_at", [][]any{{1, "ACCEPT", "member", "ALL", "api", nil, day1, day1}}},
		{"phones", "id user_id country number code validated_at created_at updated_at", [][]any{{1, 1, "UA", "380670000001", "12345", day1, day1, day1}}},
		{"profiles", "id user_id author applicant_id first_name last_name dob address postcode city country state metadata created_at updated_at", [][]any{
			{1, 1, "IDA", "applicant", "Zoë", "Łuk", "1990-02-16", "Street 1", "01001", "Kyiv", "UA", 3, `{"a":1}`, day1, day1},
		}},
		{"restrictions", "id category scope value code state created_at updated_at", [][]any{
			{1, "denylist", "ip", "1.2.3.4", 423, "enabled", day1, day1},
			{2, "allowlist", "ip", "1.2.3.5", nil, "enabled", day1, day1},
			{3, "blocklogin", "all", "all", nil, "enabled", day1, day1},
		}},
		{"schema_migrations", "version", [][]any{{"20200629110014"}, {"20200701115721"}}},
		{"users", "id uid email password_digest role data level otp state referral_id created_at updated_at", [][]any{
			{1, "IDA", "anna@example.com", digest, "member", `{"language":"ru"}`, 0, 1, "active", nil, day1, day1},
		}},
	}
}

// A database of 2.5 comes in whole; what it added has no home here, and is told.
func TestRelease25(t *testing.T) {
	t.Parallel()
	address := fakeVault(t)
	for name, s := range map[string]style{"sqlite": {bare: true}, "postgres": {}} {
		d := empty(t, name)
		report := bring(t, d, options(t, file(t, sql(of25(), s)), func(o *importer.Options) { o.Secrets = vaultSecrets(t, address, "root") }))
		ctx := t.Context()
		profiles, err := d.Profiles(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		check(t, name, profiles, []db.Profile{{
			ID: 1, UserID: 1, FirstName: p("Zoë"), LastName: p("Łuk"), DOB: p("1990-02-16"), Address: p("Street 1"), Postcode: p("01001"), City: p("Kyiv"),
			Country: p("UA"), State: 3, Metadata: p(`{"a":1}`), CreatedAt: at(day1), UpdatedAt: at(day1),
		}})
		if phone, err := d.Phone(ctx, 1, "380670000001"); err != nil || phone.ValidatedAt == nil {
			t.Errorf("%s: phone %+v, %v", name, phone, err)
		}
		if documents, err := d.Documents(ctx, 1); err != nil || *documents[0].DocNumber != "NUMBER-1" || *documents[0].Upload != "uploads/document/upload/1/a.jpg" {
			t.Errorf("%s: documents %+v, %v", name, documents, err)
		}
		for kid, secret := range map[string]string{"kid1": "kv-of-kid1", "kid2": "secret-of-kid1"} {
			if k, err := d.APIKey(ctx, kid); err != nil || string(k.Secret) != secret || !k.Active {
				t.Errorf("%s: key %s %+v, %v", name, kid, k, err)
			}
		}
		if k, err := d.TOTPKey(ctx, 1); err != nil || k.Secret != factorA {
			t.Errorf("%s: second factor: %v", name, err)
		}
		check(t, name, report.SchemaVersion, "20200701115721")
		check(t, name, report.UnknownTables, []string{"comments"})
		check(t, name, report.UnknownColumns, map[string][]string{
			"profiles": {"author", "applicant_id"}, "documents": {"identificator", "doc_issue", "doc_category"},
		})
		check(t, name, report.Counts, map[string]int64{"apikey_without_secret": 1})
		var restrictions []string
		rr, err := d.AllRestrictions(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rr {
			restrictions = append(restrictions, r.Category)
		}
		check(t, name, restrictions, []string{"blacklist", "whitelist", "blocklogin"})
	}
}

// rawVault answers as a stock Vault of 1.3 does that was started with raw_storage_endpoint: it has no export of second
// factors, and tells a root token what its storage holds, by the id of the mount.
func rawVault(t testing.TB, stored map[string]string, asked *[]string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := func(data any) { _ = json.NewEncoder(w).Encode(map[string]any{"request_id": "x", "data": data}) } // to a test
		fail := func(status int, text string) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}}) // to a test
		}
		*asked = append(*asked, r.Method+" "+r.URL.Path)
		key, raw := strings.CutPrefix(r.URL.Path, "/v1/sys/raw/logical/1f5c3d2e-uuid/key/")
		switch {
		case r.Header.Get("X-Vault-Token") != "root":
			fail(http.StatusForbidden, "permission denied")
		case strings.HasPrefix(r.URL.Path, "/v1/totp/export/"):
			fail(http.StatusMethodNotAllowed, "unsupported operation")
		case r.URL.Path == "/v1/sys/mounts":
			answer(map[string]any{
				"secret/": map[string]any{"type": "kv", "uuid": "other"}, "totp/": map[string]any{"type": "totp", "uuid": "1f5c3d2e-uuid"},
			})
		case raw && stored[key] != "":
			answer(map[string]any{"value": stored[key]})
		default:
			fail(http.StatusNotFound, "")
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Second factors of a stock Vault come from its raw storage; those of another kind are told, and not taken for usual ones.
func TestRawVault(t *testing.T) {
	t.Parallel()
	users := with(of25(), "users", func(t *table) {
		for i, uid := range []string{"IDB", "IDC", "IDD"} {
			t.rows = append(t.rows, []any{i + 2, uid, strings.ToLower(uid) + "@example.com", digest, "member", nil, 1, 1, "active", nil, day1, day1})
		}
	})
	entry := func(algorithm, digits, period int) string {
		return fmt.Sprintf(`{"key":%q,"issuer":"Barong","account_name":"a@b.c","period":%d,"algorithm":%d,"digits":%d,"skew":1,"qr_size":300}`, factorA, period, algorithm, digits)
	}
	var asked []string
	address := rawVault(t, map[string]string{"IDA": entry(0, 6, 30), "opendax_IDB": entry(0, 6, 30), "IDC": entry(1, 8, 30)}, &asked)
	d := empty(t, "sqlite")
	report := bring(t, d, options(t, file(t, sql(users, style{})), func(o *importer.Options) { o.Secrets = vaultSecrets(t, address, "root") }))
	for id, want := range map[int64]bool{1: true, 2: true, 3: false, 4: false} {
		k, err := d.TOTPKey(t.Context(), id)
		if there := err == nil && k.Secret == factorA; there != want {
			t.Errorf("user %d: %v, %v", id, there, err)
		}
	}
	if report.Counts["totp_unusable"] != 1 || report.Counts["otp_without_secret"] < 1 {
		t.Errorf("report %v", report.Counts)
	}
	exports, mounts := 0, 0
	for _, a := range asked {
		if strings.Contains(a, "/totp/export/") {
			exports++
		}
		if strings.HasSuffix(a, "/sys/mounts") {
			mounts++
		}
	}
	if exports != 1 || mounts != 1 {
		t.Errorf("asked for exports %d times and for mounts %d times", exports, mounts)
	}
}

// A Vault that tells no secrets still says whether a code is right, under either name that the original gave the key.
func TestBridge(t *testing.T) {
	t.Parallel()
	address := fakeVault(t)
	bridge := func(address, token string) *importer.Bridge {
		b, err := importer.NewBridge(address, token, "barong")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		uid, code string
		want      bool
	}{
		{"idb-of-an-older-prefix", "123456", true}, {"idb-of-an-older-prefix", "654321", false}, {"IDNEW", "123456", true}, {"IDX", "123456", false}, {"../IDNEW", "123456", false},
	} {
		if got, err := bridge(address, "root").Right(t.Context(), c.uid, c.code); err != nil || got != c.want {
			t.Errorf("%s, %s: %v, %v", c.uid, c.code, got, err)
		}
	}
	if _, err := bridge(address, "other").Right(t.Context(), "IDNEW", "123456"); err == nil || !strings.Contains(err.Error(), "BARONG_TOTP_VAULT_TOKEN") {
		t.Errorf("another token: %v", err)
	}
	if _, err := bridge("http://127.0.0.1:1", "root").Right(t.Context(), "IDNEW", "123456"); err == nil {
		t.Error("no Vault at all")
	}
	for _, address := range []string{"vault:8200", "http://user:hunter2@vault", "ftp://vault", "http://%zz"} {
		if _, err := importer.NewBridge(address, "root", "barong"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Older releases lack tables and columns, which get what their migrations give.
func TestOlderReleases(t *testing.T) {
	t.Parallel()
	old := func(version string, bare bool) string {
		var out []table
		for _, tb := range invented() {
			drop := map[string]string{}
			switch {
			case tb.name == "schema_migrations":
				tb.rows = [][]any{{version}}
			case tb.name == "restrictions":
				drop = map[string]string{"category": "", "code": ""}
				tb.rows = tb.rows[1:2]
			}
			if version == "20190108115333" {
				switch tb.name {
				case "restrictions", "permissions", "data_storages":
					continue
				case "users":
					drop = map[string]string{"data": ""}
				case "profiles":
					drop = map[string]string{"state": ""}
					tb.rows = tb.rows[:2]
				case "labels":
					drop = map[string]string{"description": ""}
				case "activities":
					drop = map[string]string{"target_uid": "", "category": ""}
				}
			}
			columns := strings.Fields(tb.columns)
			var kept []string
			rows := make([][]any, len(tb.rows))
			for i, c := range columns {
				if _, gone := drop[c]; gone {
					continue
				}
				kept = append(kept, c)
				for j := range tb.rows {
					rows[j] = append(rows[j], tb.rows[j][i])
				}
			}
			out = append(out, table{tb.name, strings.Join(kept, " "), rows})
		}
		return sql(out, style{bare: bare})
	}
	for _, version := range []string{"20190108115333", "20200318152130"} {
		for _, bare := range []bool{false, true} {
			d := empty(t, map[bool]string{false: "sqlite", true: "postgres"}[bare])
			report := bring(t, d, options(t, file(t, old(version, bare))))
			if report.SchemaVersion != version || report.Rows["users"].Imported != 4 {
				t.Errorf("%s: %+v", version, report.Rows["users"])
			}
			rr, err := d.AllRestrictions(t.Context())
			if version == "20200318152130" && (err != nil || len(rr) != 1 || rr[0].Category != "blacklist" || *rr[0].Code != 401) {
				t.Errorf("%s: restrictions %+v, %v", version, rr, err)
			}
			if version == "20190108115333" && report.Counts["profile_state_null"] != 0 {
				t.Errorf("a column that is not there is no odd state: %v", report.Counts)
			}
		}
	}
}

// Where MySQL's sessions were not in UTC, the original's timestamps are what mysqldump tells, put back into that zone.
func TestTimeZone(t *testing.T) {
	t.Parallel()
	kyiv, err := time.LoadLocation("Europe/Kyiv")
	if err != nil {
		t.Fatal(err)
	}
	tables := with(invented(), "activities", func(t *table) {
		t.set(1, "created_at", "2020-07-01 09:00:00")
		t.set(2, "created_at", "2020-01-01 09:00:00")
	})
	text, compact := sql(tables, style{}), sql(tables, style{compact: true})
	for name, c := range map[string]struct {
		text         string
		summer, note string
	}{
		"told in UTC": {text, "2020-07-01 12:00:00", ""},
		"compact":     {compact, "2020-07-01 12:00:00", ""}, // mysqldump tells times in UTC and does not say so
		"as written":  {strings.ReplaceAll(text, "SET TIME_ZONE", "SET @x"), "2020-07-01 09:00:00", "was not used"},
	} {
		d := empty(t, "sqlite")
		report := bring(t, d, options(t, file(t, c.text), func(o *importer.Options) { o.MySQLZone = kyiv }))
		var got []string
		err := d.EachImportable(t.Context(), "activities", func(r db.Importable) error {
			got = append(got, r.(*db.Activity).CreatedAt.Format(time.DateTime))
			return nil
		})
		if err != nil || got[0] != c.summer || !strings.Contains(strings.Join(report.Notes, ""), c.note) {
			t.Errorf("%s: %v, %v, %v", name, got, report.Notes, err)
		}
		if c.note == "" && got[1] != "2020-01-01 11:00:00" {
			t.Errorf("winter: %v", got)
		}
	}
}
