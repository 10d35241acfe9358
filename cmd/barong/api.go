package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barong/api"
	"barong/api/account"
	"barong/api/admin"
	"barong/api/identity"
	"barong/api/management"
	"barong/api/resource"
	"barong/api/rest"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/captcha"
	"barong/internal/config"
	"barong/internal/crypto/jws"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/passkey"
	"barong/internal/crypto/password"
	"barong/internal/delivery/events"
	"barong/internal/delivery/mail"
	"barong/internal/delivery/mailer"
	"barong/internal/delivery/outbox"
	"barong/internal/delivery/sms"
	"barong/internal/delivery/webhooks"
	"barong/internal/device"
	"barong/internal/importer"
	"barong/internal/limit"
	"barong/internal/obs"
	"barong/internal/openid"
)

// outboxFolder is where mails and messages go when nothing else is configured.
var outboxFolder = filepath.Join(config.DataFolder, "outbox")

// openMail makes the letters, and how the outbox sends them.
func (v *server) openMail(limits limit.Limiter) (*mail.Renderer, outbox.Kind, error) {
	letters, err := newLetters(v.config)
	if err != nil {
		return nil, outbox.Kind{}, err
	}
	first, err := newSender(v.config, v.log)
	if err != nil {
		return nil, outbox.Kind{}, err
	}
	letters, sender := letters.Replaceable(), mail.NewSwitch(first)
	v.reloads(func(c *config.Config) (func(), error) {
		l, err := newLetters(c)
		if err != nil {
			return nil, err
		}
		s, err := newSender(c, v.log)
		return func() {
			letters.Replace(l)
			if err := sender.Replace(s); err != nil {
				v.log.Warn("the mail server was not taken leave of", "error", err)
			}
		}, err
	})
	v.closing("mail", sender.Close)
	for _, kind := range mail.Kinds() {
		v.metrics.Counter("barong_mails_dropped_total", "kind", kind, "reason", "limit")
	}
	return letters, outbox.Kind{Handler: mail.Handler(sender, limits, v.mailDropped("limit"))}, nil
}

// newSender makes how mails are sent.
func newSender(c *config.Config, log *slog.Logger) (mail.Sender, error) {
	port, err := strconv.Atoi(c.SMTPPort)
	if err != nil {
		return nil, config.Bad("BARONG_SMTP_PORT", c.SMTPPort, "a port")
	}
	return mail.NewSender(mail.SenderOptions{
		FromName: c.SenderName, FromEmail: c.SenderEmail, Host: c.SMTPHost, Port: port, User: c.SMTPUser,
		Password: c.SMTPPassword.Reveal(), Security: mail.Security(c.SMTPTLS), Folder: outboxFolder, Log: log,
	})
}

// mailDropped counts a mail that is not sent, for a reason.
func (v *server) mailDropped(reason string) func(kind string) {
	return func(kind string) {
		v.metrics.Counter("barong_mails_dropped_total", "kind", kind, "reason", reason).Inc()
	}
}

// openEvents makes how the outbox publishes events.
func (v *server) openEvents() (outbox.Kind, error) {
	c := v.config
	o := events.Options{
		URL: c.BrokerURL(), Durable: c.EventDurable, Signer: func() jws.Signer { return v.keys.Current() }, Log: v.log,
	}
	if c.Original() {
		o.Expiry = events.Expiry
	}
	publisher, err := events.New(o)
	if err != nil {
		return outbox.Kind{}, config.Bad("BARONG_EVENT_API_RABBITMQ_URL", c.BrokerURL(), err.Error())
	}
	v.closing("events", publisher.Close)
	v.reloads(v.brokerLogin(publisher.Replace))
	return events.Kind(publisher.Handle), nil
}

// natsOptions are how events leave over NATS.
func natsOptions(c *config.Config) events.NATSOptions {
	o := events.NATSOptions{URL: c.NATSURL, Credentials: c.NATSCredentials, Subject: c.NATSSubject, Stream: c.NATSStream}
	if c.Original() {
		o.Expiry = events.Expiry
	}
	return o
}

// openNATS makes how the outbox publishes events over NATS.
func (v *server) openNATS() (outbox.Kind, error) {
	o := natsOptions(v.config)
	o.Signer, o.Log = func() jws.Signer { return v.keys.Current() }, v.log
	publisher, err := events.NewNATS(o)
	if err != nil {
		return outbox.Kind{}, config.Bad("BARONG_EVENT_API_NATS_URL", v.config.NATSURL, err.Error())
	}
	v.closing("events over NATS", publisher.Close)
	return events.Kind(publisher.Handle), nil
}

// brokersOf are the kinds of events that leave over brokers.
func brokersOf(c *config.Config) (kinds []string) {
	if c.BrokerURL() != "" {
		kinds = append(kinds, events.OutboxKind)
	}
	if c.NATSURL != "" {
		kinds = append(kinds, events.NATSKind)
	}
	return kinds
}

// publisher is how events get into the outbox for those whom the settings name: nil, when there is nobody.
func publisher(c *config.Config) (func(context.Context, *db.Tx, account.Event) error, error) {
	hooks, err := openWebhooks(c)
	if err != nil {
		return nil, err
	}
	brokers := brokersOf(c)
	if len(brokers) == 0 && len(hooks.Receivers) == 0 {
		return nil, nil
	}
	return func(ctx context.Context, tx *db.Tx, e account.Event) error {
		if len(brokers) > 0 {
			if err := events.Enqueue(ctx, tx, events.Event(e), brokers...); err != nil {
				return err
			}
		}
		return hooks.Enqueue(ctx, tx, webhooks.Event(e))
	}, nil
}

// openOutbox starts to deliver what is queued. It returns how events get there, for the brokers and for whoever is to be told by
// webhooks at the moment.
func (v *server) openOutbox(limits limit.Limiter) (
	letters *mail.Renderer, publishEvent func(context.Context, *db.Tx, account.Event) error, err error,
) {
	kinds := map[string]outbox.Kind{}
	if letters, kinds[mail.OutboxKind], err = v.openMail(limits); err != nil {
		return nil, nil, err
	}
	brokers := brokersOf(v.config)
	if v.config.BrokerURL() != "" {
		if kinds[events.OutboxKind], err = v.openEvents(); err != nil {
			return nil, nil, err
		}
	}
	if v.config.NATSURL != "" {
		if kinds[events.NATSKind], err = v.openNATS(); err != nil {
			return nil, nil, err
		}
	}
	hooks, err := openWebhooks(v.config)
	if err != nil {
		return nil, nil, err
	}
	sender := webhooks.New(webhooks.Options{Config: hooks, Log: v.log})
	v.closing("webhooks", sender.Close)
	maps.Copy(kinds, sender.Kinds())
	publishEvent = func(ctx context.Context, tx *db.Tx, e account.Event) error {
		if len(brokers) > 0 {
			if err := events.Enqueue(ctx, tx, events.Event(e), brokers...); err != nil {
				return err
			}
		}
		return sender.Enqueue(ctx, tx, webhooks.Event(e))
	}
	queue, err := outbox.New(outbox.Options{
		Store: v.db, Kinds: kinds, Log: v.log,
		Observe: func(kind, outcome string) {
			v.metrics.Counter("barong_outbox_attempts_total", "kind", kind, "outcome", outcome).Inc()
		},
	})
	if err != nil {
		return nil, nil, err
	}
	v.flushing("outbox", queue.Close)
	v.watchOutbox(queue, kinds)
	v.refers(hooks.Files)
	v.reloads(func(c *config.Config) (func(), error) {
		next, err := openWebhooks(c)
		if err != nil {
			return nil, err
		}
		return func() {
			changed, without := sender.Replace(next)
			queue.Change(changed, without)
			v.watchOutbox(queue, changed)
			v.refers(next.Files)
			if len(changed)+len(without) > 0 {
				v.log.Info("who is told by webhooks has changed", "told", slices.Sorted(maps.Keys(changed)), "not_told", without)
			}
		}, nil
	})
	return letters, publishEvent, nil
}

// watchOutbox has the metrics tell of kinds.
func (v *server) watchOutbox(queue *outbox.Outbox, kinds map[string]outbox.Kind) {
	for kind := range kinds {
		for _, outcome := range []string{"delivered", "failed", "dead"} { // alerts want to see them begin at 0
			v.metrics.Counter("barong_outbox_attempts_total", "kind", kind, "outcome", outcome)
		}
		v.metrics.Gauge("barong_outbox_waiting", func() float64 { n, _ := queue.Depth(kind); return float64(n) }, "kind", kind)
		v.metrics.Gauge("barong_outbox_oldest_seconds", func() float64 { return queue.Age(kind).Seconds() }, "kind", kind)
		v.metrics.Gauge("barong_outbox_dead", func() float64 { _, n := queue.Depth(kind); return float64(n) }, "kind", kind)
	}
}

// openMailer hears what other services tell, and writes the mails that it is worth.
func (v *server) openMailer(letters *mail.Renderer, accounts *account.Service) error {
	c := v.config
	file, err := openMailerFile(c, letters)
	if err != nil {
		return err
	}
	for _, warning := range file.Warnings {
		v.log.Warn("which events are worth a mail", "file", c.MailerFile, "warning", warning)
	}
	if len(file.Bindings()) == 0 {
		return nil
	}
	m := mailer.New(mailer.Options{
		Config: file, Notify: accounts.Notify, Strict: c.Original(), Log: v.log, Now: time.Now,
		Observe: func(outcome string) { v.metrics.Counter("barong_mailer_messages_total", "outcome", outcome).Inc() },
	})
	var hears atomic.Bool
	consumer, err := events.NewConsumer(events.ConsumerOptions{
		URL: c.BrokerURL(), Queue: mailer.Queue, Bindings: file.Bindings(), Handle: m.Handle, Dead: m.Dead, Answers: v.db.TryWrite,
		Connected: hears.Store, Log: v.log,
	})
	if err != nil {
		return config.Bad("BARONG_EVENT_API_RABBITMQ_URL", c.BrokerURL(), err.Error())
	}
	v.reloads(v.brokerLogin(consumer.Replace))
	v.metrics.Gauge("barong_mailer_connected", func() float64 {
		if hears.Load() {
			return 1
		}
		return 0
	})
	ctx, stop := context.WithCancel(v.base)
	done := make(chan struct{})
	go func() {
		defer close(done)
		consumer.Run(ctx)
	}()
	v.onClose("mails of other services", func() {
		stop()
		<-done
	})
	v.every(time.Minute, func(ctx context.Context) {
		if err := v.db.PurgeHeard(ctx, time.Now(), 10_000); err != nil {
			v.log.Warn("old messages of other services were not forgotten", "error", err)
		}
	})
	return nil
}

// oldFactor asks the original's Vault about codes of second factors that an import could not bring along; nil where it is not
// to be asked.
func (v *server) oldFactor() (func(ctx context.Context, uid, code string) (bool, error), error) {
	c := v.config
	if c.TOTPVaultURL == "" {
		return nil, nil
	}
	bridge, err := importer.NewBridge(c.TOTPVaultURL, c.TOTPVaultToken.Reveal(), c.TOTPVaultApp)
	if err != nil {
		return nil, config.Bad("BARONG_TOTP_VAULT_URL", c.TOTPVaultURL, err.Error())
	}
	return bridge.Right, nil
}

// counters count attempts, for all replicas.
func (v *server) counters() limit.Limiter {
	o := limit.Options{Hash: v.box.Lasting}
	if v.redis != nil {
		return limit.Redis(v.redis, o)
	}
	l := limit.SQL(v.db, o)
	v.every(time.Minute, func(ctx context.Context) {
		if _, err := l.Purge(ctx, 10_000); err != nil {
			v.log.Warn("old counters were not purged", "error", err)
		}
	})
	return l
}

// hasher hashes and verifies passwords. It is told what the dearest digests in the database cost, again and again: an
// import may bring others.
func (v *server) hasher() *password.Hasher {
	processes := password.NewProcesses(hashCommand, v.log)
	v.onClose("passwords", processes.Close)
	h := password.NewHasher(password.HasherOptions{Processes: processes})
	look := func(ctx context.Context) {
		cost, err := v.db.DearestBcrypt(ctx, password.MaxBcryptCost)
		if err != nil {
			v.log.Warn("it was not looked up what password digests cost", "error", err)
			return
		}
		h.SetSlowest(cost)
	}
	look(v.ctx)
	v.every(time.Minute, look)
	v.metrics.Gauge("barong_queue_items", func() float64 { n, _ := h.Waiting(); return float64(n) }, "queue", "passwords")
	v.metrics.Gauge("barong_queue_seconds", func() float64 { _, age := h.Waiting(); return age.Seconds() }, "queue", "passwords")
	return h
}

func (v *server) openAPI() error {
	c := v.config
	limits := v.attempts
	if c.RateLimits == "off" {
		limits = limit.Off
	}
	letters, publishEvent, err := v.openOutbox(limits)
	if err != nil {
		return err
	}
	strength, err := password.New(password.Options{
		Regexp: c.PasswordRegexp, MinEntropy: float64(c.PasswordMinEntropy), UseDictionary: c.PasswordUseDictionary,
	})
	if err != nil {
		return config.Bad("BARONG_PASSWORD_REGEXP", c.PasswordRegexp, err.Error())
	}
	files, err := v.openFiles()
	if err != nil {
		return err
	}
	puzzle, err := v.captcha()
	if err != nil {
		return err
	}
	providers, err := v.openProviders()
	if err != nil {
		return err
	}
	oldFactor, err := v.oldFactor()
	if err != nil {
		return err
	}
	accounts := account.New(account.Options{
		Settings: account.Settings{
			UIDPrefix: c.UIDPrefix, Domain: c.Domain, APIPrefix: c.APIPrefix, AppName: c.AppName, DefaultLanguage: c.DefaultLanguage,
			SessionTTL: c.SessionExpireTime, SessionMaxAge: c.SessionMaxAge, MailTokenTTL: c.MailTokenExpireTime,
			Issuer: c.JWTIssuer, Audience: c.JWTAudience,
			ActivationRequirements: c.ActivationRequirements, StateTriggers: triggers(c),
		},
		DB: v.db, Sessions: v.sessions, Keys: v.keys, Passwords: v.hasher(),
		Policy: strength, Limits: limits, Letters: letters, Passkeys: v.passkeys,
		Providers:   providers,
		OldFactor:   oldFactor,
		MailDropped: v.mailDropped("unconfirmed"), OthersMail: func(kind string) bool { return c.Mailer == "off" && mail.Told(kind) },
		FileURL: files.URL, Publish: publishEvent, Notices: v.bus.Publish,
		Country: v.geo.Country, UnknownBrowser: device.UnknownBrowser, Now: time.Now, Log: v.log,
	})
	if err := v.openMailer(letters, accounts); err != nil {
		return err
	}
	documents := account.Documents{
		Accounts: accounts, Files: files, Types: c.DocumentTypes, Limit: c.DocNumLimit, ExpireRequired: c.RequiredDocsExpire,
		MaxUpload: int64(c.UploadSizeMax) << 20, Extensions: c.UploadExtensions,
	}
	phones, err := v.openPhones(accounts)
	if err != nil {
		return err
	}
	var guarded atomic.Pointer[[]string]
	guarded.Store(&c.CaptchaProtectedEndpoints)
	v.reloads(func(c *config.Config) (func(), error) {
		return func() { guarded.Store(&c.CaptchaProtectedEndpoints) }, nil
	})
	cors, err := newCORS(c)
	if err != nil {
		return err
	}
	cors = cors.Replaceable()
	v.reloads(func(c *config.Config) (func(), error) {
		others, err := newCORS(c)
		return func() { cors.Replace(others) }, err
	})
	expect := keys.Expect{
		Subject: keys.SubjectSession, Issuer: c.JWTIssuer, Audience: c.JWTAudience,
		ExpirationLeeway: c.JWTExpirationLeeway, NotBeforeLeeway: c.JWTNotBeforeLeeway, IssuedAtLeeway: c.JWTIssuedAtLeeway,
	}
	mailToken := expect
	mailToken.Subject = "" // set where one is verified
	build := obs.Built()
	built, err := time.Parse(time.RFC3339, build.Date)
	if err != nil {
		return fmt.Errorf("date of the build: %w", err)
	}
	metrics := map[*rest.Route]*obs.Route{}
	var lock sync.Mutex
	v.api, err = api.New(api.Options{
		Rest: rest.Options{
			Users: v.db, Tokens: v.keys, Expect: expect, Policy: v.rules.Snapshot, Prefix: c.APIPrefix,
			Gate: v.gateway.Gate, Client: rest.CallerBehind(v.proxies, v.engine), Audit: v.audit, CORS: cors, Legacy: c.Original(), Base: v.base, Log: v.log,
			Trace: v.traceCalls(),
			Observe: func(r *rest.Route, status int, took time.Duration) {
				lock.Lock()
				m := metrics[r]
				if m == nil {
					m = v.metrics.Route(r.Method, r.Path)
					metrics[r] = m
				}
				lock.Unlock()
				m.Observe(status, took)
			},
		},
		Identity: identity.Options{
			Accounts: accounts, DB: v.db, Cookies: v.cookies, FileURL: files.URL, Tokens: v.keys, MailToken: mailToken,
			JWKS: v.keys.JWKS, Captcha: puzzle, Guarded: func() []string { return *guarded.Load() }, Reload: v.rules.Reload, CORS: cors,
			Domain: c.Domain, Entropy: strength.Entropy, Now: time.Now, NoPasskeys: v.passkeys == nil,
			LoginURL: c.LoginURL, Redirects: v.redirects(),
			SignedIn: v.signIns(),
			Configs: identity.Configs{
				SessionTTL: c.SessionExpireTime, PhoneVerification: c.PhoneVerification, MinEntropy: c.PasswordMinEntropy,
				PasswordRegexp: c.PasswordRegexp,
			},
			Build: identity.Build{Tag: build.Version, Commit: build.Commit, Date: built},
		},
		Resource: resource.Options{
			Accounts: accounts, DB: v.db, Cookies: v.cookies, Documents: documents, Phones: phones,
			StorageTitles: c.UserStorageTitles, Legacy: c.Original(), RateLimits: c.RateLimits != "off", NoPhones: phones.SMS == nil, NoPasskeys: v.passkeys == nil,
		},
		Admin: admin.Options{
			Accounts: accounts, DB: v.db, Rules: v.rules, Cookies: v.cookies, FileURL: files.URL, Legacy: c.Original(),
			System: v.system,
		},
		Management: management.Options{
			Config: v.services, Accounts: accounts, DB: v.db, Documents: documents, Memory: v.attempts,
			Signer: func() jws.Signer { return v.keys.Current() }, Issuer: c.JWTIssuer, Legacy: c.Original(), Now: time.Now, Log: v.log,
		},
		Files: files, Version: build.Version,
	})
	return err
}

// openProviders makes those whom people may sign in with.
func (v *server) openProviders() (*openid.Providers, error) {
	tell := func(c *config.Config, warnings []string) {
		for _, warning := range warnings {
			v.log.Warn("whom people may sign in with", "file", c.ProvidersFile, "warning", warning)
		}
	}
	list, files, warnings, err := openProviders(v.config)
	if err != nil {
		return nil, err
	}
	tell(v.config, warnings)
	v.refers(files)
	all := openid.New(openid.Options{Providers: list, Sealer: v.box, Memory: v.attempts, Now: time.Now})
	v.reloads(func(c *config.Config) (func(), error) {
		list, files, warnings, err := openProviders(c)
		return func() {
			v.refers(files)
			if all.Replace(list) {
				tell(c, warnings)
				names := make([]string, len(list))
				for i := range list {
					names[i] = list[i].ID
				}
				v.log.Info("whom people may sign in with has changed", "providers", names)
			}
		}, err
	})
	return all, nil
}

// openPasskeys makes what passkeys belong to: nothing, where the front end is reached by an address and nobody says which
// domain is meant. The counters remember what was used.
func (v *server) openPasskeys() error {
	c := v.config
	v.attempts = v.counters()
	id, origin := passkey.Of(c.Domain)
	o := passkey.Options{ID: id, Origins: []string{origin}, Name: c.AppName, Sealer: v.box, Memory: v.attempts, Now: time.Now}
	if c.WebauthnRPID != "" {
		o.ID = strings.ToLower(c.WebauthnRPID)
	}
	if len(c.WebauthnOrigins) > 0 {
		o.Origins = c.WebauthnOrigins
	}
	party, err := passkey.New(o)
	switch {
	case err == nil:
		if foreign := party.Foreign(); len(foreign) > 0 {
			v.log.Warn("browsers let no page of these origins use passkeys of BARONG_WEBAUTHN_RP_ID, unless that domain lists them "+
				"at /.well-known/webauthn", "rp_id", o.ID, "origins", foreign)
		}
		v.passkeys = party
		return nil
	case c.WebauthnRPID != "":
		return config.Bad("BARONG_WEBAUTHN_RP_ID", c.WebauthnRPID, "a domain: "+err.Error())
	case len(c.WebauthnOrigins) > 0:
		return config.Bad("BARONG_WEBAUTHN_ORIGINS", strings.Join(c.WebauthnOrigins, ","), err.Error())
	}
	v.log.Warn("there are no passkeys: BARONG_DOMAIN names no domain; BARONG_WEBAUTHN_RP_ID may", "error", err)
	return nil
}

// openPhones makes what proves phone numbers: nothing, where there are no phones.
func (v *server) openPhones(accounts *account.Service) (account.Phones, error) {
	c := v.config
	if c.PhoneVerification == "none" {
		return account.Phones{}, nil
	}
	first, err := v.newSMS(c)
	if err != nil {
		return account.Phones{}, err
	}
	texts := &liveSMS{}
	texts.now.Store(&first)
	v.reloads(func(c *config.Config) (func(), error) {
		if c.PhoneVerification != v.config.PhoneVerification { // which needs a restart
			return func() {}, nil
		}
		other, err := v.newSMS(c)
		return func() { texts.now.Store(&other) }, err
	})
	return account.Phones{Accounts: accounts, SMS: texts, Codes: v.box, Unlimited: c.RateLimits == "off"}, nil
}

func (v *server) newSMS(c *config.Config) (sms.Provider, error) {
	p, err := sms.New(v.base, sms.Options{
		Kind: c.PhoneVerification, Template: c.SMSContentTemplate, Log: v.log, Folder: outboxFolder,
		AccountSID: c.TwilioAccountSID, AuthToken: c.TwilioAuthToken.Reveal(), From: c.TwilioPhoneNumber,
		ServiceSID: c.TwilioServiceSID, AppName: c.AppName, APIURL: c.TwilioAPIURL,
	})
	if err != nil {
		return nil, fmt.Errorf("BARONG_PHONE_VERIFICATION=%s: %w", c.PhoneVerification, err)
	}
	return p, nil
}

// liveSMS is a provider whose settings may change.
type liveSMS struct{ now atomic.Pointer[sms.Provider] }

func (l *liveSMS) OwnCodes() bool { return (*l.now.Load()).OwnCodes() }

func (l *liveSMS) Send(ctx context.Context, number, channel, code string) error {
	return (*l.now.Load()).Send(ctx, number, channel, code)
}

func (l *liveSMS) Verify(ctx context.Context, number, code string) (bool, error) {
	return (*l.now.Load()).Verify(ctx, number, code)
}

func (v *server) openFiles() (*blob.Store, error) {
	files, err := openStore(v.config, v.box, v.log)
	if err != nil {
		return nil, err
	}
	v.closing("files", files.Close)
	v.reloads(func(*config.Config) (func(), error) { // the box has taken up its keys before
		return func() { files.SignWith(v.box.Derive("files")) }, nil
	})
	return files, nil
}

// newCORS says which pages of other origins may call.
func newCORS(c *config.Config) (rest.CORS, error) {
	all, origins, err := rest.ParseOrigins(strings.Join(c.CORSOrigins, ","))
	if err != nil {
		return rest.CORS{}, config.Bad("BARONG_API_CORS_ORIGINS", strings.Join(c.CORSOrigins, ","), err.Error())
	}
	return rest.CORS{
		Any: all, Origins: origins, MaxAge: int(c.CORSMaxAge / time.Second), Credentials: c.CORSAllowCredentials,
	}, nil
}

// captcha makes the puzzle, which is replaced when its settings change.
func (v *server) captcha() (*captcha.Captcha, error) {
	first, err := newCaptcha(v.config)
	if err != nil {
		return nil, err
	}
	puzzle := first.Replaceable()
	v.reloads(func(c *config.Config) (func(), error) {
		other, err := newCaptcha(c)
		return func() { puzzle.Replace(other) }, err
	})
	return puzzle, nil
}

func newCaptcha(c *config.Config) (*captcha.Captcha, error) {
	o := captcha.Options{
		Kind: c.Captcha, VerifyURL: c.CaptchaVerifyURL, GeeTestID: c.GeetestID, GeeTestKey: c.GeetestKey.Reveal(),
	}
	switch c.Captcha {
	case captcha.ReCaptcha:
		o.SiteKey, o.SecretKey = c.RecaptchaSiteKey, c.RecaptchaSecretKey.Reveal()
	case captcha.HCaptcha:
		o.SiteKey, o.SecretKey = c.HCaptchaSiteKey, c.HCaptchaSecretKey.Reveal()
	case captcha.Turnstile:
		o.SiteKey, o.SecretKey = c.TurnstileSiteKey, c.TurnstileSecretKey.Reveal()
	}
	puzzle, err := captcha.New(o)
	if err != nil {
		return nil, config.Bad("BARONG_CAPTCHA", c.Captcha, err.Error())
	}
	return puzzle, nil
}
