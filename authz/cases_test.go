package authz

import (
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"barong/internal/fault"
	"barong/policy"
	"barong/session"
	"barong/session/near"
)

// A caseFile is testdata/checks.yml, which says what the fields mean.
type caseFile struct {
	World struct {
		Pass, Block, Permissions, Restrictions []string
		Users                                  map[string]struct {
			Role, State string
			OTP         *bool
			Epoch       int64
		}
		Sessions map[string]struct {
			User      string
			IP, Agent *string
			Age       int
		}
		Keys map[string]struct {
			User   string
			Active *bool
		}
	}
	Cases []checkCase
}

type checkCase struct {
	Case    string
	Options struct {
		CSRF, Replay   *bool
		Bind           *string
		Compat, Akamai bool
	}
	Method, Target, Peer  string
	Session               string
	CSRF                  *string
	Key, Nonce, Signature string
	Without               string
	Offset                int64
	Once, Twice           bool
	Agent, Forwarded      *string
	Headers, Cookies      []string
	Want                  struct {
		Effect, Code, Client, Session string
		Status                        int
	}
}

func loadCases(t *testing.T) *caseFile {
	t.Helper()
	data, err := os.ReadFile("testdata/checks.yml")
	if err != nil {
		t.Fatal(err)
	}
	var f caseFile
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		t.Fatal(err)
	}
	return &f
}

func (f *caseFile) source(t *testing.T) policy.Source {
	t.Helper()
	src := policy.Source{Lists: policy.Lists{Pass: f.World.Pass, Block: f.World.Block}}
	for i, line := range f.World.Permissions {
		p := strings.Fields(line)
		src.Permissions = append(src.Permissions, policy.Permission{ID: int64(i), Role: p[0], Action: p[1], Verb: p[2], Path: p[3]})
	}
	for i, line := range f.World.Restrictions {
		r := strings.Fields(line)
		code, err := strconv.Atoi(r[3])
		if err != nil {
			t.Fatal(err)
		}
		src.Restrictions = append(src.Restrictions,
			policy.Restriction{ID: int64(i), Category: r[0], Scope: r[1], Value: r[2], Code: code, Enabled: true})
	}
	return src
}

// build makes the file's world with the options of a case.
func (f *caseFile) build(t *testing.T, tc *checkCase) (*world, map[string]session.ID) {
	t.Helper()
	w := newWorld(t, f.source(t), func(w *world, _ *near.Options, o *Options) {
		o.Compat = tc.Options.Compat
		o.CSRF = tc.Options.CSRF == nil || *tc.Options.CSRF
		if tc.Options.Bind != nil {
			var err error
			if o.Bind, err = ParseBinding(*tc.Options.Bind); err != nil {
				t.Fatal(err)
			}
		}
		if tc.Options.Replay == nil || *tc.Options.Replay {
			o.Nonces = NewLocalNonces(0, w.now)
		}
		if tc.Options.Akamai {
			o.Proxies = o.Proxies.WithTrueClientIP()
		}
	})
	for name, u := range f.World.Users {
		p := session.Principal{UserID: 7, UID: name, Email: name + "@example.com", Role: u.Role, State: "active", OTP: true, Epoch: u.Epoch}
		if u.State != "" {
			p.State = u.State
		}
		if u.OTP != nil {
			p.OTP = *u.OTP
		}
		w.principals[name] = p
	}
	ids := map[string]session.ID{}
	for name, s := range f.World.Sessions {
		id := session.NewID()
		ids[name] = id
		kept := session.Session{
			Key: id.Key(), UID: s.User, CSRF: testCSRF, IP: netip.MustParseAddr("203.0.113.7"), UserAgent: testAgent,
			CreatedAt: w.now(), SeenAt: w.now(), ExpiresAt: w.now().Add(30 * time.Minute), EndsAt: w.now().Add(24 * time.Hour),
		}
		kept.AuthTime = w.now().Add(-time.Duration(len(ids)) * time.Hour) // another for each, so that a decision's can be told
		age := time.Duration(s.Age) * time.Second
		kept.CreatedAt, kept.EndsAt = kept.CreatedAt.Add(-age), kept.EndsAt.Add(-age)
		if s.IP != nil {
			kept.IP, _ = netip.ParseAddr(*s.IP)
		}
		if s.Agent != nil {
			kept.UserAgent = *s.Agent
		}
		w.sessions[id.Key()] = kept
	}
	for kid, k := range f.World.Keys {
		w.apiKeys[kid] = session.APIKey{KID: kid, UID: k.User, Secret: []byte(testSecret), Active: k.Active == nil || *k.Active}
	}
	return w, ids
}

var oddBytes = regexp.MustCompile(`<[0-9a-f]{2}>`)

// bytesIn is a text of the file, with the bytes that YAML cannot hold.
func bytesIn(text string) string {
	return oddBytes.ReplaceAllStringFunc(text, func(hexadecimal string) string {
		b, _ := hex.DecodeString(strings.Trim(hexadecimal, "<>"))
		return string(b)
	})
}

var sessionNames = regexp.MustCompile(`\{[a-z]+\}`)

// fill makes the request of a case.
func (tc *checkCase) fill(t *testing.T, r *Request, w *world, ids map[string]session.ID) {
	t.Helper()
	r.Method, r.Target, r.Peer = "GET", bytesIn(tc.Target), netip.MustParseAddr("10.0.0.2")
	if tc.Method != "" {
		r.Method = tc.Method
	}
	if tc.Peer != "" {
		r.Peer = netip.MustParseAddr(tc.Peer)
	}
	add := func(name, value string) { r.AddHeader([]byte(name), []byte(bytesIn(value))) }
	agent, forwarded := testAgent, "203.0.113.7"
	if tc.Agent != nil {
		agent = *tc.Agent
	}
	if tc.Forwarded != nil {
		forwarded = *tc.Forwarded
	}
	if agent != "" {
		add("User-Agent", agent)
	}
	if forwarded != "" {
		add("X-Forwarded-For", forwarded)
	}
	if tc.Session != "" {
		id, ok := ids[tc.Session]
		if !ok {
			t.Fatalf("no session %q", tc.Session)
		}
		add("Cookie", "a=b; _barong_session="+id.String())
	}
	for _, line := range tc.Cookies {
		add("Cookie", sessionNames.ReplaceAllStringFunc(line, func(name string) string {
			id, ok := ids[strings.Trim(name, "{}")]
			if !ok {
				id = testID(len(name)) // unknown
			}
			return "_barong_session=" + id.String()
		}))
	}
	if tc.CSRF != nil {
		token := *tc.CSRF
		if token == "true" {
			token = testCSRF
		}
		add("X-CSRF-Token", token)
	}
	if tc.Key != "" {
		nonce := strconv.FormatInt(w.now().UnixMilli()+tc.Offset, 10)
		if tc.Nonce != "" {
			nonce = tc.Nonce
		}
		signature := sign(nonce, tc.Key, testSecret)
		if tc.Signature != "" {
			signature = tc.Signature
		}
		for _, h := range [][2]string{{"apikey", tc.Key}, {"nonce", nonce}, {"signature", signature}} {
			if h[0] != tc.Without {
				add("X-Auth-"+h[0], h[1])
			}
		}
	}
	for _, line := range tc.Headers {
		name, value, _ := strings.Cut(line, ":")
		add(name, strings.TrimSpace(value))
	}
}

func TestCases(t *testing.T) {
	f := loadCases(t)
	for i := range f.Cases {
		tc := &f.Cases[i]
		t.Run(tc.Case, func(t *testing.T) {
			w, ids := f.build(t, tc)
			var r Request
			var d Decision
			tc.fill(t, &r, w, ids)
			for round := range 3 { // cold, then warm
				if round > 0 && (tc.Once || tc.Key != "" && !tc.Twice) { // a nonce is for one use
					break
				}
				w.engine.Check(context.Background(), &r, &d)
				if tc.Twice && round == 0 {
					continue
				}
				tc.check(t, w, ids, &d)
			}
		})
	}
}

func (tc *checkCase) check(t *testing.T, w *world, ids map[string]session.ID, d *Decision) {
	t.Helper()
	want, status := Deny, tc.Want.Status
	switch tc.Want.Effect {
	case "allow":
		want, status = Allow, 200
	case "pass":
		want, status = Pass, 200
	case "":
	default:
		t.Fatalf("unknown effect %q", tc.Want.Effect)
	}
	if d.Effect != want || d.Status != status || d.Code != tc.Want.Code {
		t.Errorf("effect %d, status %d, code %q; want %d, %d, %q", d.Effect, d.Status, d.Code, want, status, tc.Want.Code)
	}
	if (d.Effect == Allow) != (len(d.Authorization) > 0) {
		t.Errorf("effect %d with authorization %q", d.Effect, d.Authorization)
	}
	if tc.Want.Client != "" && d.Client.String() != tc.Want.Client {
		t.Errorf("client %v, want %s", d.Client, tc.Want.Client)
	}
	if d.Effect == Deny {
		if _, ok := fault.Lookup(fault.Code(d.Code)); !ok {
			t.Errorf("code %q is not in the catalogue", d.Code)
		}
	}
	if tc.Want.Session != "" && (d.Session == nil || !d.Session.AuthTime().Equal(w.sessions[ids[tc.Want.Session].Key()].AuthTime)) {
		t.Errorf("session %+v, want %s", d.Session, tc.Want.Session)
	}
	if d.Effect == Allow && (d.Principal == nil || (d.Session == nil) != (tc.Key != "") || d.KID != tc.Key) {
		t.Errorf("principal %v, session %v, key %q", d.Principal, d.Session, d.KID)
	}
}
