// Package passkey makes and judges the ceremonies of passkeys (WebAuthn level 3): discoverable credentials whose
// authenticator has verified its user. It keeps nothing: a ceremony under way, a flow, is a sealed text that the client
// brings back, and that it has done so is remembered by a counter that all replicas share. So what strangers begin takes no
// room, and any replica can end what another has begun.
//
// It depends on go-webauthn, and knows neither accounts nor the database.
package passkey

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"golang.org/x/net/idna"
)

// FlowLife is how long a flow may be brought back.
const FlowLife = 5 * time.Minute

// MaxPerUser is how many passkeys a user may have.
const MaxPerUser = 20

// maxPublicKey is the longest public key, in bytes: one of RSA with 4096 bits is half as long. To verify with a much longer
// one would take a stranger's choice of time.
const maxPublicKey = 1100

// maxFlow is the longest text that is looked at as a flow, in bytes.
const maxFlow = 4096

// Errors of ceremonies. Any other is an outage.
var (
	// ErrInvalid says that flow and credential are not what was asked for; the chain tells the log why.
	ErrInvalid = errors.New("passkey: refused")
	// ErrCounter says that all is right but for the count of signatures, which has not risen: the credential may have been
	// copied.
	ErrCounter = errors.New("passkey: the count of signatures has not risen")
)

// Options are what New needs.
type Options struct {
	ID      string   // the domain that passkeys belong to: that of the origins, or a parent of it
	Origins []string // the pages that may ask for them: https://example.com, or android:apk-key-hash:…
	Name    string   // of the service, for people
	Sealer  Sealer
	Memory  Memory
	Now     func() time.Time
}

// Of is the domain and the origin of a front end, named as BARONG_DOMAIN is: a host with or without scheme, port and path.
func Of(domain string) (id, origin string) {
	if !strings.Contains(domain, "://") {
		domain = "https://" + domain
	}
	u, err := url.Parse(domain)
	if err != nil {
		return "", ""
	}
	id = strings.TrimSuffix(u.Hostname(), ".")
	if ascii, err := idna.Lookup.ToASCII(id); err == nil { // browsers know international domains by these letters alone
		id = ascii
	}
	id = strings.ToLower(id)
	host := id
	if port := u.Port(); port != "" {
		host = net.JoinHostPort(id, port)
	}
	return id, u.Scheme + "://" + host
}

// A Sealer seals flows. secret.Box is one.
type Sealer interface {
	Seal(plain []byte, context string) string
	Open(sealed, context string) ([]byte, error)
}

// A Memory counts, for all replicas. A limit.Limiter is one; it must not be limit.Off.
type Memory interface {
	Take(ctx context.Context, key string, max int, window time.Duration) (wait time.Duration, err error)
}

// A Party is the relying party: the service that passkeys sign in to. It is safe for concurrent use.
type Party struct {
	o   Options
	web *webauthn.WebAuthn
}

// New returns a relying party. The error says why its id or origins cannot be used.
func New(o Options) (*Party, error) {
	required := true
	ceremony := webauthn.TimeoutConfig{Timeout: FlowLife, TimeoutUVD: FlowLife}
	c := &webauthn.Config{
		RPID: o.ID, RPDisplayName: o.Name,
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			RequireResidentKey: &required, ResidentKey: protocol.ResidentKeyRequirementRequired,
			UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: ceremony, Registration: ceremony},
		// Password managers add outputs that nobody asked for, and nobody reads.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	}
	for _, origin := range o.Origins {
		if protocol.IsOpaqueOrigin(origin) {
			c.RPOpaqueOrigins = append(c.RPOpaqueOrigins, origin)
		} else {
			c.RPOrigins = append(c.RPOrigins, origin)
		}
	}
	if err := protocol.ValidateRPID(o.ID); err != nil {
		return nil, err
	}
	web, err := webauthn.New(c)
	if err != nil {
		return nil, err
	}
	return &Party{o: o, web: web}, nil
}

// Foreign are the pages among the origins that no browser lets ask for passkeys of this domain, unless the domain lists
// them as related origins.
func (p *Party) Foreign() []string {
	var out []string
	for _, origin := range p.web.Config.RPOrigins {
		u, err := url.Parse(origin)
		if host := ""; err == nil {
			host = strings.ToLower(u.Hostname())
			if host == p.o.ID || strings.HasSuffix(host, "."+p.o.ID) {
				continue
			}
		}
		out = append(out, origin)
	}
	return out
}

// A User is who a passkey is made for.
type User struct {
	Handle string // what the authenticator gives back at a sign-in; it names the account to us and tells others nothing
	Name   string // which of their accounts it is, for the user
	Epoch  int64  // a flow does not outlive it
	Have   []Credential
}

// A Credential is what is kept of a passkey.
type Credential struct {
	ID             string // base64url without padding
	PublicKey      string // COSE_Key in base64url without padding
	SignCount      int64
	BackupEligible bool
	BackedUp       bool
	Transports     []string
}

// person is a user as the library asks for one.
type person struct {
	handle []byte
	name   string
	have   []webauthn.Credential
}

func (p *person) WebAuthnID() []byte                         { return p.handle }
func (p *person) WebAuthnName() string                       { return p.name }
func (p *person) WebAuthnDisplayName() string                { return p.name }
func (p *person) WebAuthnCredentials() []webauthn.Credential { return p.have }

func (c *Credential) stored() (webauthn.Credential, error) {
	id, err := base64.RawURLEncoding.DecodeString(c.ID)
	if err != nil {
		return webauthn.Credential{}, fmt.Errorf("stored passkey: id: %w", err)
	}
	key, err := base64.RawURLEncoding.DecodeString(c.PublicKey)
	if err != nil {
		return webauthn.Credential{}, fmt.Errorf("stored passkey: public key: %w", err)
	}
	out := webauthn.Credential{
		ID: id, PublicKey: key,
		Flags:         webauthn.CredentialFlags{BackupEligible: c.BackupEligible, BackupState: c.BackedUp},
		Authenticator: webauthn.Authenticator{SignCount: uint32(c.SignCount)},
	}
	for _, t := range c.Transports {
		out.Transport = append(out.Transport, protocol.AuthenticatorTransport(t))
	}
	return out, nil
}

// The two ceremonies.
const (
	create = "create"
	get    = "get"
)

// A flow is a ceremony under way.
type flow struct {
	Expires int64 `json:"expires"` // Unix milliseconds
	Epoch   int64 `json:"epoch"`
	webauthn.SessionData
}

func (p *Party) seal(ceremony string, epoch int64, s *webauthn.SessionData) (string, error) {
	plain, err := json.Marshal(flow{Expires: p.o.Now().Add(FlowLife).UnixMilli(), Epoch: epoch, SessionData: *s})
	if err != nil {
		return "", fmt.Errorf("flow: %w", err)
	}
	return p.o.Sealer.Seal(plain, "passkey."+ceremony), nil
}

// open reads a flow of a ceremony that has not expired, and uses it up, once for all replicas. fits may refuse it before.
func (p *Party) open(ctx context.Context, ceremony, sealed string, fits func(*flow) bool) (*flow, error) {
	if len(sealed) > maxFlow {
		return nil, refused("the flow is none of ours")
	}
	plain, err := p.o.Sealer.Open(sealed, "passkey."+ceremony)
	if err != nil {
		return nil, refused("the flow is none of ours: %w", err)
	}
	f := new(flow)
	if err := json.Unmarshal(plain, f); err != nil {
		return nil, refused("the flow cannot be read: %w", err)
	}
	if p.o.Now().UnixMilli() >= f.Expires {
		return nil, refused("the flow has expired")
	}
	if !fits(f) {
		return nil, refused("the flow is another's")
	}
	// Remembered for longer than it lives: clocks of replicas differ.
	wait, err := p.o.Memory.Take(ctx, "passkey.flow:"+f.Challenge, 1, 2*FlowLife)
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		return nil, refused("the flow was used before")
	}
	return f, nil
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// because is a refusal with all that the library says about it.
func because(err error) error {
	if said := (*protocol.Error)(nil); errors.As(err, &said) {
		return refused("%s: %s", said.Details, said.DevInfo)
	}
	return refused("%w", err)
}

// BeginCreate begins to make a passkey: options are those of navigator.credentials.create in their JSON form, to be
// encoded, and exclude the authenticators that hold one of the user's passkeys.
func (p *Party) BeginCreate(u User) (flow string, options any, err error) {
	who := &person{handle: []byte(u.Handle), name: u.Name}
	exclude := make([]protocol.CredentialDescriptor, 0, len(u.Have))
	for i := range u.Have {
		c, err := u.Have[i].stored()
		if err != nil {
			return "", nil, err
		}
		exclude = append(exclude, c.Descriptor())
	}
	creation, session, err := p.web.BeginRegistration(who, webauthn.WithExclusions(exclude),
		webauthn.WithCredentialParameters(webauthn.CredentialParametersRecommendedL3()))
	if err != nil {
		return "", nil, fmt.Errorf("begin to make a passkey: %w", err)
	}
	flow, err = p.seal(create, u.Epoch, session)
	return flow, creation.Response, err
}

// Create ends what BeginCreate has begun for the same user in the same epoch. credential is the JSON form of what
// navigator.credentials.create returned. The error is ErrInvalid, or an outage.
func (p *Party) Create(ctx context.Context, u User, sealed, credential string) (*Credential, error) {
	f, err := p.open(ctx, create, sealed, func(f *flow) bool {
		return bytes.Equal(f.UserID, []byte(u.Handle)) && f.Epoch == u.Epoch
	})
	if err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(credential))
	if err != nil {
		return nil, because(err)
	}
	if n := len(parsed.Response.AttestationObject.AuthData.AttData.CredentialPublicKey); n > maxPublicKey {
		return nil, refused("a public key of %d bytes", n)
	}
	made, err := p.web.CreateCredential(&person{handle: []byte(u.Handle)}, f.SessionData, parsed)
	if err != nil {
		return nil, because(err)
	}
	c := &Credential{
		ID: base64.RawURLEncoding.EncodeToString(made.ID), PublicKey: base64.RawURLEncoding.EncodeToString(made.PublicKey),
		SignCount: int64(made.Authenticator.SignCount), BackupEligible: made.Flags.BackupEligible, BackedUp: made.Flags.BackupState,
		Transports: transports(made.Transport),
	}
	return c, nil
}

// transports are those that the specification names, each once: the others are only a client's words.
func transports(told []protocol.AuthenticatorTransport) []string {
	out := []string{}
	for _, known := range []protocol.AuthenticatorTransport{
		protocol.Internal, protocol.Hybrid, protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard,
	} {
		for _, t := range told {
			if strings.EqualFold(string(t), string(known)) {
				out = append(out, string(known))
				break
			}
		}
	}
	return out
}

// BeginGet begins a sign-in by nobody in particular: options are those of navigator.credentials.get in their JSON form, to
// be encoded.
func (p *Party) BeginGet() (flow string, options any, err error) {
	assertion, session, err := p.web.BeginDiscoverableLogin()
	if err != nil {
		return "", nil, fmt.Errorf("begin a sign-in: %w", err)
	}
	flow, err = p.seal(get, 0, session)
	return flow, assertion.Response, err
}

// A Use is a passkey that was used.
type Use struct {
	SignCount int64
	BackedUp  bool
}

// Get ends what BeginGet has begun. credential is the JSON form of what navigator.credentials.get returned. find finds the
// credential of that id, and the handle of its user; it returns ErrInvalid when there is none. The error is ErrInvalid,
// ErrCounter, what find returned, or an outage.
func (p *Party) Get(
	ctx context.Context, sealed, credential string, find func(ctx context.Context, id string) (handle string, c *Credential, err error),
) (*Use, error) {
	f, err := p.open(ctx, get, sealed, func(f *flow) bool { return len(f.UserID) == 0 })
	if err != nil {
		return nil, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(credential))
	if err != nil {
		return nil, because(err)
	}
	handle, c, err := find(ctx, base64.RawURLEncoding.EncodeToString(parsed.RawID))
	if err != nil {
		return nil, err
	}
	have, err := c.stored()
	if err != nil {
		return nil, err
	}
	who := &person{handle: []byte(handle), have: []webauthn.Credential{have}}
	_, used, err := p.web.ValidatePasskeyLogin(func(_, _ []byte) (webauthn.User, error) { return who, nil }, f.SessionData, parsed)
	if err != nil {
		return nil, because(err)
	}
	if used.Authenticator.CloneWarning {
		return nil, ErrCounter
	}
	return &Use{SignCount: int64(used.Authenticator.SignCount), BackedUp: used.Flags.BackupState}, nil
}
