package importer

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // what the original derives its keys with
	"encoding/base32"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Secrets are what the original keeps outside of its database: the secrets of API keys and of second factors.
type Secrets struct {
	keys    map[string]string // by key id
	transit map[string]string // plain texts of sealed secrets
	totp    map[string]string // by uid, or by app and uid: base32, or an otpauth URL
	app     string            // the name under which releases since 2.6 keep second factors
	files   map[string]bool   // names before those in the files, one of which may be meant
	vault   *vault
}

// NewSecrets reads secrets from an export of Vault (a JSON file), from a file of lines "uid,otpauth URL", and from a running
// Vault, each unless it is empty. app is the name under which releases since 2.6 keep theirs; files in which all second factors
// stand under one other name are read under that.
func NewSecrets(exportFile, totpFile, vaultURL, token, app string) (*Secrets, error) {
	s := &Secrets{keys: map[string]string{}, transit: map[string]string{}, totp: map[string]string{}, app: app, files: map[string]bool{}}
	if exportFile != "" {
		if err := s.readExport(exportFile); err != nil {
			return nil, fmt.Errorf("%s: %w", exportFile, err)
		}
	}
	if totpFile != "" {
		if err := s.readTOTP(totpFile); err != nil {
			return nil, fmt.Errorf("%s: %w", totpFile, err)
		}
	}
	if vaultURL != "" {
		if token == "" {
			return nil, errors.New("a token of Vault is needed that may read secret/barong/* and totp/*: give it in BARONG_VAULT_TOKEN")
		}
		var err error
		if s.vault, err = newVault(vaultURL, token, app, 15*time.Second); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func newVault(address, token, app string, timeout time.Duration) (*vault, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the address of Vault is no URL such as http://127.0.0.1:8200")
	case u.User != nil:
		return nil, errors.New("the address of Vault holds a user: its token is given by itself")
	}
	// Some write the address with the version of the API that every path begins with.
	base := strings.TrimSuffix(strings.TrimRight(u.String(), "/"), "/v1")
	return &vault{address: base, token: token, app: app, client: &http.Client{Timeout: timeout}}, nil
}

// A Bridge asks the original's Vault whether codes of second factors are right whose secret it does not tell. It is safe for
// concurrent use.
type Bridge struct{ vault *vault }

// NewBridge makes a bridge, and asks nothing yet. app is the name under which releases since 2.6 keep second factors.
func NewBridge(address, token, app string) (*Bridge, error) {
	v, err := newVault(address, token, app, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Bridge{v}, nil
}

// Right reports whether a code is one of the user's second factor now, and was not used before: Vault remembers that. An
// error says that Vault could not be asked.
func (b *Bridge) Right(ctx context.Context, uid, code string) (bool, error) {
	for _, name := range []string{uid, b.vault.app + "_" + uid} {
		path := "totp/code/" + url.PathEscape(name)
		data, status, err := b.vault.call(ctx, http.MethodPost, path, map[string]string{"code": code})
		switch {
		case err != nil:
			return false, err
		case status == http.StatusBadRequest, status == http.StatusNotFound: // a key that it does not know, or a code that was used
			continue
		case status == http.StatusForbidden, status == http.StatusUnauthorized:
			return false, errors.New("vault: the token in BARONG_TOTP_VAULT_TOKEN may not write totp/code/*")
		case status != http.StatusOK:
			return false, refused(status, path)
		}
		var answer struct{ Valid bool }
		if err := json.Unmarshal(data, &answer); err != nil {
			return false, fmt.Errorf("vault: %w", err)
		}
		return answer.Valid, nil
	}
	return false, nil
}

// check looks whether a Vault that is to be asked is there and open, before hours of work.
func (s *Secrets) check(ctx context.Context) error {
	if s.vault == nil {
		return nil
	}
	_, status, err := s.vault.call(ctx, http.MethodGet, "sys/health", nil) // needs no token
	if err == nil && status == http.StatusServiceUnavailable {
		err = refused(status, "sys/health")
	}
	return err
}

// maxExport bounds a file of secrets.
const maxExport = 256 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxExport+1))
	if err == nil && len(text) > maxExport {
		err = fmt.Errorf("more than %d MiB", maxExport>>20)
	}
	return text, err
}

// readExport reads {"kv": {"secret/barong/api_key/<kid>": {"value": "…"}}, "totp": {"<uid>": "otpauth://…"}}. A field
// "transit" maps sealed secrets, vault:v1:…, to their plain texts, or to what transit/decrypt answers.
func (s *Secrets) readExport(path string) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	var export struct {
		KV      map[string]json.RawMessage `json:"kv"`
		TOTP    map[string]json.RawMessage `json:"totp"`
		Transit map[string]json.RawMessage `json:"transit"`
	}
	if err := json.Unmarshal(text, &export); err != nil {
		return errors.New(`not a JSON object {"kv": {"secret/barong/api_key/<key id>": {"value": "…"}}, "totp": {"<uid>": "otpauth://…"}}`)
	}
	for path, raw := range export.KV {
		_, kid, ok := cutLast(path, "api_key/")
		if v := secretIn(raw); ok && v != "" {
			s.keys[kid] = v
		}
	}
	for uid, raw := range export.TOTP {
		if v := secretIn(raw); v != "" {
			s.factor(uid[strings.LastIndexByte(uid, '/')+1:], v)
		}
	}
	for sealed, raw := range export.Transit {
		v := secretIn(raw)
		var answer struct{ Plaintext []byte }
		if v == "" && json.Unmarshal(raw, &answer) == nil {
			v = string(answer.Plaintext)
		}
		if v != "" {
			s.transit[sealed] = v
		}
	}
	return nil
}

// factor notes a second factor of a file.
func (s *Secrets) factor(name, secret string) {
	s.totp[name] = secret
	app, _, _ := cutLast(name, "_")
	if app == name {
		app = ""
	}
	if len(s.files) < 100 {
		s.files[app] = true
	}
}

// fileApp is the name under which the files keep all second factors; empty when there is none, or several.
func (s *Secrets) fileApp() string {
	if len(s.files) == 1 {
		for app := range s.files {
			return app
		}
	}
	return ""
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// secretIn finds the secret in what Vault keeps: a text, or an object that holds one under a usual name.
func secretIn(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.TrimSpace(text)
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return ""
	}
	for _, name := range []string{"url", "value", "key", "secret", "data"} {
		if inner, ok := object[name]; ok {
			if v := secretIn(inner); v != "" {
				return v
			}
		}
	}
	return ""
}

// readTOTP reads lines "uid,otpauth URL".
func (s *Secrets) readTOTP(path string) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))))
	r.FieldsPerRecord, r.LazyQuotes, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true, true
	for {
		record, err := r.Read()
		if err == io.EOF {
			return nil
		}
		if line, _ := r.FieldPos(0); err != nil || len(record) < 2 {
			return fmt.Errorf("line %d is not \"uid,otpauth URL\"", line)
		}
		uid, address := strings.TrimSpace(record[0]), strings.TrimSpace(strings.Join(record[1:], ","))
		if uid == "" || strings.EqualFold(uid, "uid") {
			continue
		}
		s.factor(uid, address)
	}
}

// apiKey finds the secret of an API key by its id, or by what 2.6 keeps of it; empty when there is none.
func (s *Secrets) apiKey(ctx context.Context, kid, sealed string) (string, error) {
	if v := s.keys[kid]; v != "" {
		return v, nil
	}
	if sealed != "" {
		if v := s.transit[sealed]; v != "" {
			return v, nil
		}
	}
	if _, asked := s.keys[kid]; asked || s.vault == nil {
		return "", nil
	}
	var v string
	var err error
	if sealed != "" {
		v, err = s.vault.decrypt(ctx, sealed)
	} else {
		v, err = s.vault.value(ctx, "secret/barong/api_key/"+url.PathEscape(kid))
	}
	s.keys[kid] = v // a table may be read twice
	return v, err
}

// errKind says that a second factor is of a kind that is not known here.
var errKind = errors.New("another kind of second factor")

// secondFactor finds the secret of a second factor in base32; empty when there is none, errKind when it is of another
// kind than six digits of SHA-1 each 30 seconds.
func (s *Secrets) secondFactor(ctx context.Context, uid string) (string, error) {
	v, asked := s.totp[uid]
	if !asked {
		v, asked = s.totp[s.app+"_"+uid]
	}
	if app := s.fileApp(); !asked && app != "" {
		v, asked = s.totp[app+"_"+uid]
	}
	if !asked && s.vault != nil {
		var err error
		if v, err = s.vault.secondFactor(ctx, uid); err != nil {
			return "", err
		}
		s.totp[uid] = v
	}
	if v == "" {
		return "", nil
	}
	return totpSecret(v)
}

// totpSecret reads an otpauth URL, or a secret as it is.
func totpSecret(text string) (string, error) {
	secret := text
	if strings.HasPrefix(text, "otpauth://") {
		u, err := url.Parse(text)
		if err != nil || u.Host != "totp" {
			return "", errKind
		}
		q := u.Query()
		for name, usual := range map[string]string{"algorithm": "SHA1", "digits": "6", "period": "30"} {
			if v := q.Get(name); v != "" && !strings.EqualFold(v, usual) {
				return "", errKind
			}
		}
		secret = q.Get("secret")
	}
	secret = strings.ToUpper(strings.TrimRight(strings.NewReplacer(" ", "", "-", "").Replace(secret), "="))
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil || len(raw) == 0 {
		return "", errKind
	}
	return secret, nil
}

// A vault is a running Vault.
type vault struct {
	address, token, app string
	client              *http.Client

	noExport bool   // this Vault has no way to export second factors
	mount    string // of the second factors, for the raw way
}

// call asks Vault. It returns the field data of the answer, or nil for 404.
func (v *vault) call(ctx context.Context, method, path string, body any) (json.RawMessage, int, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, 0, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path, content)
	if err != nil {
		return nil, 0, fmt.Errorf("vault: %w", err)
	}
	req.Header.Set("X-Vault-Token", v.token)
	res, err := v.client.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("vault does not answer, see that its address is right and that it runs: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, 0, fmt.Errorf("vault: %w", err)
	}
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &answer); err != nil {
			return nil, 0, errors.New("vault: the answer is no JSON: is this the address of Vault?")
		}
	}
	return answer.Data, res.StatusCode, nil
}

// pauses are between attempts to ask for one of many secrets: what ends hours of work must last longer than a restart.
var pauses = []time.Duration{200 * time.Millisecond, 2 * time.Second, 10 * time.Second}

// ask is call, tried again where another answer may come.
func (v *vault) ask(ctx context.Context, method, path string, body any) (data json.RawMessage, status int, err error) {
	for i := 0; ; i++ {
		data, status, err = v.call(ctx, method, path, body)
		if err == nil && !failing(status) || i == len(pauses) {
			return data, status, err
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(pauses[i]):
		}
	}
}

// failing reports a status that says something about Vault, and nothing about the secret.
func failing(status int) bool {
	return status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// refused is what a status says that no single secret can be the reason of.
func refused(status int, path string) error {
	dir, _, _ := cutLast(path, "/")
	switch status {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("vault: the token in BARONG_VAULT_TOKEN may not read %s/*: give the one of the original's environment, or root's", dir)
	case http.StatusServiceUnavailable:
		return errors.New("vault: it is sealed, or not ready: unseal it, and try again")
	}
	return fmt.Errorf("vault: status %d for %s/*, which its log explains", status, dir)
}

func (v *vault) value(ctx context.Context, path string) (string, error) {
	data, status, err := v.ask(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return "", err
	case status == http.StatusOK:
		return secretIn(data), nil
	case status == http.StatusNotFound:
		return "", nil
	}
	return "", refused(status, path)
}

// decrypt opens what the transit engine sealed.
func (v *vault) decrypt(ctx context.Context, sealed string) (string, error) {
	path := "transit/decrypt/" + v.app + "_apikeys_secret"
	data, status, err := v.ask(ctx, http.MethodPost, path, map[string]string{"ciphertext": sealed})
	switch {
	case err != nil:
		return "", err
	case status == http.StatusBadRequest, status == http.StatusNotFound: // of another key
		return "", nil
	case status != http.StatusOK:
		return "", refused(status, path)
	}
	var answer struct {
		Plaintext string `json:"plaintext"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", fmt.Errorf("vault: %w", err)
	}
	plain, err := base64.StdEncoding.DecodeString(answer.Plaintext)
	return string(plain), err
}

// secondFactor asks for a second factor: by totp/export, which the vendor's image of Vault has, else by the raw storage,
// where it is switched on and the token is root's.
func (v *vault) secondFactor(ctx context.Context, uid string) (string, error) {
	for _, name := range []string{uid, v.app + "_" + uid} {
		for _, get := range []func(context.Context, string) (string, error){v.exported, v.rawKey} {
			if secret, err := get(ctx, url.PathEscape(name)); secret != "" || err != nil {
				return secret, err
			}
		}
	}
	return "", nil
}

func (v *vault) exported(ctx context.Context, name string) (string, error) {
	if v.noExport {
		return "", nil
	}
	data, status, err := v.ask(ctx, http.MethodGet, "totp/export/"+name, nil)
	switch {
	case err != nil:
		return "", err
	case status == http.StatusOK:
		return secretIn(data), nil
	case status == http.StatusForbidden, failing(status):
		return "", refused(status, "totp/export/"+name)
	case status == http.StatusMethodNotAllowed:
		v.noExport = true
	}
	return "", nil
}

func (v *vault) rawKey(ctx context.Context, name string) (string, error) {
	if v.mount == "" {
		v.mount = "-"
		data, status, err := v.ask(ctx, http.MethodGet, "sys/mounts", nil)
		if err != nil {
			return "", err
		}
		var mounts map[string]struct {
			UUID string `json:"uuid"`
		}
		if status == http.StatusOK && json.Unmarshal(data, &mounts) == nil && mounts["totp/"].UUID != "" {
			v.mount = mounts["totp/"].UUID
		}
	}
	if v.mount == "-" {
		return "", nil
	}
	path := "sys/raw/logical/" + v.mount + "/key/" + name
	data, status, err := v.ask(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return "", err
	case failing(status):
		return "", refused(status, path)
	case status != http.StatusOK:
		return "", nil
	}
	var answer struct {
		Value string `json:"value"`
	}
	if json.Unmarshal(data, &answer) != nil {
		return "", nil
	}
	return rawFactor(answer.Value), nil
}

// rawFactor reads a second factor as Vault's TOTP engine stores it, and writes it as the URL that its export would be: so
// one of another kind is told of, and not taken for what it is not.
func rawFactor(stored string) string {
	var entry struct {
		Key                       string
		Period, Algorithm, Digits json.Number // seconds; 0 for SHA-1
	}
	if json.Unmarshal([]byte(stored), &entry) != nil || entry.Key == "" {
		return ""
	}
	q := url.Values{"secret": {entry.Key}}
	if v := entry.Period.String(); v != "" {
		q.Set("period", v)
	}
	if v := entry.Digits.String(); v != "" {
		q.Set("digits", v)
	}
	if v := entry.Algorithm.String(); v != "" && v != "0" {
		q.Set("algorithm", "number "+v)
	}
	return "otpauth://totp/?" + q.Encode()
}

// An opener opens the columns that 2.6 seals: "<year and week>.<ciphertext>--<iv>--<tag>", each part in base64, AES-256-GCM
// under a key that PBKDF2-HMAC-SHA1 makes of the secret key base and the week.
type opener struct {
	base string
	keys map[string]cipher.AEAD // by week
}

// errBase says that the secret key base is missing, or another's.
var errBase = errors.New("the columns of names, numbers and addresses are sealed, as since 2.6: give the original's SECRET_KEY_BASE by --secret-key-base")

// open opens a value, which may be nil within. It reports false for one that does not open.
func (o *opener) open(sealed string) (plain *string, ok bool) {
	week, message, ok := strings.Cut(sealed, ".")
	parts := strings.Split(message, "--")
	if !ok || len(week) != 6 || strings.Trim(week, "0123456789") != "" || len(parts) != 3 {
		return nil, false
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.StdEncoding.DecodeString(p); err != nil {
			return nil, false
		}
	}
	aead := o.keys[week]
	if aead == nil {
		key, err := pbkdf2.Key(sha1.New, o.base, []byte(week), 65536, 32)
		if err != nil {
			return nil, false
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, false
		}
		if aead, err = cipher.NewGCM(block); err != nil {
			return nil, false
		}
		if o.keys == nil {
			o.keys = map[string]cipher.AEAD{}
		}
		if len(o.keys) < 10_000 {
			o.keys[week] = aead
		}
	}
	if len(raw[1]) != aead.NonceSize() || len(raw[2]) != aead.Overhead() {
		return nil, false
	}
	text, err := aead.Open(nil, raw[1], append(raw[0], raw[2]...), nil)
	if err != nil {
		return nil, false
	}
	return unmarshal(text)
}

// unmarshal reads a text, a date or nil in Ruby's format 4.8.
func unmarshal(b []byte) (*string, bool) {
	m := marshal{b}
	if v, ok := m.take(2); !ok || v[0] != 4 || v[1] > 8 {
		return nil, false
	}
	switch kind, _ := m.byte(); kind {
	case '0':
		return nil, true
	case 'I':
		if kind, _ := m.byte(); kind != '"' {
			return nil, false
		}
		fallthrough
	case '"':
		n, ok := m.fixnum()
		if !ok || n < 0 {
			return nil, false
		}
		text, ok := m.take(int(n))
		s := strings.ReplaceAll(strings.ToValidUTF8(string(text), replacement), "\x00", replacement)
		return &s, ok
	case 'U': // :Date [nth, jd, df, sf, of, sg]
		if head, ok := m.take(6); !ok || string(head) != ":\tDate" {
			return nil, false
		}
		if kind, _ := m.byte(); kind != '[' {
			return nil, false
		}
		if n, ok := m.fixnum(); !ok || n < 2 {
			return nil, false
		}
		nth, ok1 := m.integer()
		day, ok2 := m.integer()
		if !ok1 || !ok2 || nth != 0 {
			return nil, false
		}
		const unixEpoch = 2440588 // Julian day of 1970-01-01
		s := time.Unix((day-unixEpoch)*24*60*60, 0).UTC().Format(time.DateOnly)
		return &s, true
	}
	return nil, false
}

// A marshal reads Ruby's format.
type marshal struct{ b []byte }

func (m *marshal) take(n int) ([]byte, bool) {
	if n < 0 || n > len(m.b) {
		return nil, false
	}
	out := m.b[:n]
	m.b = m.b[n:]
	return out, true
}

func (m *marshal) byte() (byte, bool) {
	b, ok := m.take(1)
	if !ok {
		return 0, false
	}
	return b[0], true
}

func (m *marshal) integer() (int64, bool) {
	if kind, _ := m.byte(); kind != 'i' {
		return 0, false
	}
	return m.fixnum()
}

func (m *marshal) fixnum() (int64, bool) {
	b, ok := m.byte()
	c := int8(b)
	switch {
	case !ok:
		return 0, false
	case c == 0:
		return 0, true
	case c > 4:
		return int64(c) - 5, true
	case c < -4:
		return int64(c) + 5, true
	}
	n, negative := int(c), c < 0
	if negative {
		n = -n
	}
	digits, ok := m.take(n)
	var v int64
	for i, d := range digits {
		v |= int64(d) << (8 * i)
	}
	if negative {
		v -= 1 << (8 * n)
	}
	return v, ok
}
