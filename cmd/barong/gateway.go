package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"barong/authz"
	"barong/envoy"
	"barong/internal/audit"
	"barong/internal/config"
	"barong/internal/rules"
	"barong/internal/trail"
	"barong/internal/trusted"
	"barong/session/redisstore"
)

func (v *server) openRules() error {
	c := v.config
	geo, err := openPlaces(c)
	if err != nil {
		return err
	}
	v.geo = geo
	o := ruleOptions(c, v.db, geo)
	o.Bus, o.Log = v.bus, v.log
	r, err := rules.New(o)
	if err != nil {
		return err
	}
	v.rules = r
	if err := r.Reload(v.ctx); err != nil {
		return fmt.Errorf("the rules: %w", err)
	}
	// It stores what it has sampled when it stops, so it stops before the database closes.
	running, stop := context.WithCancel(v.base)
	stopped := make(chan struct{})
	v.onClose("rules", func() {
		stop()
		<-stopped
	})
	go func() {
		defer close(stopped)
		r.Run(running)
	}()
	v.ops.Part("policy", false, func(context.Context) error { return r.Stale() })
	v.metrics.Gauge("barong_policy_version", func() float64 { return float64(r.Status().Version) })
	v.metrics.Gauge("barong_policy_stale", func() float64 {
		if r.Stale() != nil {
			return 1
		}
		return 0
	})
	v.metrics.Gauge("barong_policy_age_seconds", func() float64 { return time.Since(r.Status().Loaded).Seconds() })
	v.openTrail()
	v.audit = audit.New(audit.Options{DB: v.db, Country: v.geo.Country, Log: v.log})
	v.metrics.Gauge("barong_queue_items", func() float64 { n, _ := v.audit.Waiting(); return float64(n) }, "queue", "audit")
	v.metrics.Gauge("barong_queue_seconds", func() float64 { _, age := v.audit.Waiting(); return age.Seconds() }, "queue", "audit")
	v.flushing("audit", v.audit.Close)
	return nil
}

// openTrail seals the audit trail, and purges what is too old. It is closed after the audit writer, so that it seals what that
// has stored last.
func (v *server) openTrail() {
	sealer := trail.NewSealer(trail.Options{DB: v.db, Log: v.log})
	v.flushing("audit trail", func(ctx context.Context) error {
		// Not longer: what is not sealed now, another process seals, and a stop amid an outage has waited enough.
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return sealer.Close(ctx)
	})
	sealer.Start()
	v.metrics.Gauge("barong_audit_block", func() float64 { return float64(sealer.Seq()) })
	v.metrics.Gauge("barong_audit_seal_age_seconds", func() float64 { return sealer.Age().Seconds() })
	v.metrics.CounterFunc("barong_audit_breaks_total", func() float64 { return float64(sealer.Breaks()) })
	if keep := v.config.AuditKeep; keep > 0 {
		v.every(time.Hour, func(ctx context.Context) {
			now := time.Now()
			if n, err := trail.Purge(ctx, v.db, now.Add(-keep), now, v.log); err != nil {
				v.log.Warn("old activities were not purged", "error", err)
			} else if n > 0 {
				v.log.Info("old activities were purged", "rows", n)
			}
		})
	}
}

// forwarders is the metric of the calls whose X-Forwarded-For was ignored, since their peer is no trusted proxy.
const forwarders = "barong_untrusted_forwarders_total"

func (v *server) openEngine() error {
	c := v.config
	proxies := func(c *config.Config) *trusted.Proxies {
		if c.Gateway == "akamai" {
			return c.TrustedProxies.WithTrueClientIP()
		}
		return &c.TrustedProxies
	}
	v.proxies = proxies(c).Replaceable()
	v.reloads(func(c *config.Config) (func(), error) { return func() { v.proxies.Replace(proxies(c)) }, nil })
	var err error
	if v.cookies, err = authz.NewCookies(authz.CookieSettings{
		Name: c.SessionName, Secure: c.CookieSecure, SameSite: c.CookieSameSite, Domain: c.CookieDomain,
	}); err != nil {
		return config.Bad("BARONG_COOKIE_SAMESITE", c.CookieSameSite, err.Error())
	}
	var nonces authz.Nonces
	switch c.APIKeyReplay {
	case "local":
		nonces = authz.NewLocalNonces(0, time.Now)
	case "shared":
		if v.redis == nil {
			return config.Bad("BARONG_APIKEY_REPLAY", "shared", "needs BARONG_REDIS_URL")
		}
		nonces = redisstore.NewNonces(v.redis)
	}
	binding, err := authz.ParseBinding(strings.Join(c.SessionBind, ","))
	if err != nil {
		return config.Bad("BARONG_SESSION_BIND", c.SessionBind, err.Error())
	}
	mismatches := map[string]func(){}
	for _, item := range []string{authz.BindUserAgent, authz.BindIP} {
		mismatches[item] = v.metrics.Counter("barong_session_mismatches_total", "item", item).Inc
	}
	v.engine, err = authz.New(authz.Options{
		Policy: v.rules.Snapshot, Cache: v.cache, Signer: func() authz.Signer { return v.keys.Current() },
		Proxies: v.proxies, Cookies: v.cookies,
		Token: authz.TokenSettings{
			Life: c.JWTExpireTime, Reuse: c.JWTReuse, Issuer: c.JWTIssuer, Audience: c.JWTAudience,
			Beginning: !c.Original(),
		},
		CSRF: c.CSRFProtection, Bind: binding,
		NoKeyHeaders: !slices.Contains(c.APIKeySchemes, "v1"), NoSignatures: !slices.Contains(c.APIKeySchemes, "rfc9421"),
		NonceLifetime: c.APIKeyNonceLifetime, Nonces: nonces, Auditor: v.audit, Sampler: v.rules.Sampler(), Compat: c.Original(),
		Signed: v.signatures(), Forwarder: v.metrics.Counter(forwarders).Inc, Mismatch: func(item string) { mismatches[item]() },
		Log: v.log,
	})
	if err != nil {
		return err
	}
	v.onClose("checks", v.engine.Close)
	o := envoy.Options{
		Checker: v.engine, Trusted: v.proxies.Trusted, LoginURL: c.LoginURL, Refusals: v.refusals, Observer: v.metrics,
		AccessLog: c.AccessLog, Log: v.log, Base: v.base,
	}
	if c.OwnLogin() {
		o.LoginOpen = v.loginOpen
	}
	if v.tracer != nil {
		o.Tracer = v.tracer
	}
	v.gateway = envoy.New(o)
	return nil
}
