// Package limit counts attempts, so that passwords and codes cannot be guessed and nobody is flooded with mail. The
// counters are shared: in Redis when there is one, else in the database, so that neither another replica nor a restart
// gives an attacker a fresh start.
//
// A counter lives in a fixed window that begins with its first attempt and ends a fixed time later; then it begins
// anew. So there are at most max attempts in any window and, around the end of one, at most twice as many in a span of
// its length: enough against guessing, exact under parallel calls, one row a counter, and the wait that is told to the
// caller is true. (A sliding window would need a row an attempt, or an estimate.)
//
// Keys reach the stores as keyed hashes only: neither an e-mail nor an address stands in a counter.
package limit

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"barong/db"
	"barong/internal/fault"

	"github.com/redis/go-redis/v9"
)

// A Limiter counts attempts by key. Its methods are safe for concurrent use. A wait above zero means that the limit is
// reached, and for how long. An error is the fault of an outage: the counter cannot be reached. Whoever guards a secret with it must
// refuse then (503), or cutting the store off would lift the limit. Never call it within a db.Update, which on SQLite
// holds the one writer that the counter needs.
//
// To bound guesses, Take before the secret is looked at and Refund or Reset when it was right: then exactly max wrong
// ones pass, also in parallel. Peek before and Take after a failure is for limits that honest users share, as by
// address; guesses that run at the same time can pass it together.
type Limiter interface {
	// Take counts one attempt, unless max of them were counted in the window that began with the first.
	Take(ctx context.Context, key string, max int, window time.Duration) (wait time.Duration, err error)
	// Peek tells what Take would, and counts nothing.
	Peek(ctx context.Context, key string, max int, window time.Duration) (wait time.Duration, err error)
	// Refund takes one attempt back, if any is counted. The window ends when it would have.
	Refund(ctx context.Context, key string) error
	// Reset forgets the attempts.
	Reset(ctx context.Context, key string) error
	// Purge drops at most limit counters whose window is over, and returns how many; it is housekeeping alone.
	Purge(ctx context.Context, limit int) (int64, error)
}

// outage is the error of a counter that cannot be reached, whatever the store said.
func outage(what string, err error) error {
	return fault.New(fault.Unavailable).Because(fmt.Errorf("%s: %w", what, err))
}

// A Rule is a limit with its name, which keeps its counters apart from those of other rules.
type Rule struct {
	Name   string
	Max    int
	Window time.Duration
}

// The default rules. Their keys are an account's uid, a normalised e-mail, or a client's address (which stands for a
// household or an office); a network is what neighbours of that address share, wide enough that nobody has many at will.
// None blocks anybody after three mistakes.
var (
	WrongTOTP            = Rule{"totp", 5, 15 * time.Minute}                 // by uid
	WrongPassword        = Rule{"password.pair", 20, 15 * time.Minute}       // by normalised e-mail and network
	WrongPasswordAccount = Rule{"password.account", 200, 15 * time.Minute}   // by normalised e-mail, for networks new to it
	WrongPasswordAddress = Rule{"password.address", 30, 15 * time.Minute}    // by address
	SignIn               = Rule{"signin.account", 60, 15 * time.Minute}      // by uid: right passwords
	SignUpAddress        = Rule{"signup.address", 100, time.Hour}            // by address
	EmailCode            = Rule{"email_code.account", 5, 15 * time.Minute}   // by normalised e-mail
	EmailCodeAddress     = Rule{"email_code.address", 60, 15 * time.Minute}  // by address
	ResetCode            = Rule{"reset_code.account", 3, time.Hour}          // by normalised e-mail: what is beyond is not sent
	ResetCodeAddress     = Rule{"reset_code.address", 60, 15 * time.Minute}  // by address
	MailTokenAddress     = Rule{"mail_token.address", 100, 15 * time.Minute} // by address: confirm_code calls that failed
	WhitelinkAddress     = Rule{"whitelink.address", 30, 15 * time.Minute}   // by address: wrong links
	CaptchaAddress       = Rule{"captcha.address", 120, 15 * time.Minute}    // by address: challenges, and responses refused
	ProviderAddress      = Rule{"provider.address", 60, 15 * time.Minute}    // by address: returns from providers in vain
	PhoneResend          = Rule{"phone.resend", 4, 2 * time.Minute}          // by uid: then a pause
	PhoneDaily           = Rule{"phone.daily", 20, 24 * time.Hour}           // by uid: messages cost money
	Mail                 = Rule{"mail.recipient", 10, 10 * time.Minute}      // by mailbox: what is beyond is not sent
)

// WrongSMSCodes is how many wrong codes one message's code outlives. It is counted in the phone's row.
const WrongSMSCodes = 5

// Rules are the default rules.
func Rules() []Rule {
	return []Rule{
		WrongTOTP, WrongPassword, WrongPasswordAccount, WrongPasswordAddress, SignIn, SignUpAddress, EmailCode, EmailCodeAddress,
		ResetCode, ResetCodeAddress, MailTokenAddress, WhitelinkAddress, CaptchaAddress, ProviderAddress, PhoneResend, PhoneDaily, Mail,
	}
}

// Take is Limiter.Take under the rule.
func (r Rule) Take(ctx context.Context, l Limiter, key string) (wait time.Duration, err error) {
	return l.Take(ctx, r.key(key), r.Max, r.Window)
}

// Peek is Limiter.Peek under the rule.
func (r Rule) Peek(ctx context.Context, l Limiter, key string) (wait time.Duration, err error) {
	return l.Peek(ctx, r.key(key), r.Max, r.Window)
}

// Refund is Limiter.Refund under the rule.
func (r Rule) Refund(ctx context.Context, l Limiter, key string) error {
	return l.Refund(ctx, r.key(key))
}

// Reset is Limiter.Reset under the rule.
func (r Rule) Reset(ctx context.Context, l Limiter, key string) error {
	return l.Reset(ctx, r.key(key))
}

func (r Rule) key(key string) string { return r.Name + ":" + key }

// Options are what a Limiter needs besides its store.
type Options struct {
	// Hash is a keyed hash: Lasting of a secret.Box does. The same key and purpose give the same text on every
	// replica.
	Hash func(value, purpose string) string
	Now  func() time.Time // nil: time.Now
}

// purpose separates these hashes from the blind indexes of columns.
const purpose = "rate_counters.key"

func (o Options) hash(key string) string { return o.Hash(key, purpose) }

func (o Options) now() int64 {
	if o.Now == nil {
		return time.Now().UnixMilli()
	}
	return o.Now().UnixMilli()
}

// until is the wait from now until the end of a window, both in Unix milliseconds; never zero, which would be no limit.
func until(now, end int64) time.Duration {
	return max(time.Duration(end-now)*time.Millisecond, time.Millisecond)
}

// Off lifts every limit: BARONG_RATE_LIMITS=off.
var Off Limiter = off{}

type off struct{}

func (off) Take(context.Context, string, int, time.Duration) (time.Duration, error) { return 0, nil }

func (off) Peek(context.Context, string, int, time.Duration) (time.Duration, error) { return 0, nil }
func (off) Refund(context.Context, string) error                                    { return nil }
func (off) Reset(context.Context, string) error                                     { return nil }
func (off) Purge(context.Context, int) (int64, error)                               { return 0, nil }

// SQL returns the limiter that counts in the table rate_counters. Purge it now and then.
func SQL(d *db.DB, o Options) Limiter { return &inSQL{db: d, Options: o} }

type inSQL struct {
	db *db.DB
	Options
}

func (l *inSQL) Take(ctx context.Context, key string, max int, window time.Duration) (time.Duration, error) {
	if max <= 0 {
		return window, nil
	}
	now := l.now()
	counted, err := l.db.CountAttempt(ctx, l.hash(key), max, now, now+window.Milliseconds())
	if err != nil {
		return 0, outage("count an attempt", err)
	}
	if counted {
		return 0, nil
	}
	wait, err := l.Peek(ctx, key, max, window)
	if wait == 0 && err == nil {
		wait = time.Millisecond // the window has just ended: this attempt was refused all the same
	}
	return wait, err
}

func (l *inSQL) Peek(ctx context.Context, key string, max int, window time.Duration) (time.Duration, error) {
	if max <= 0 {
		return window, nil
	}
	now := l.now()
	end, err := l.db.WindowEnd(ctx, l.hash(key), max, now)
	if err != nil {
		return 0, outage("look at a counter", err)
	}
	if end == 0 {
		return 0, nil
	}
	return until(now, end), nil
}

func (l *inSQL) Refund(ctx context.Context, key string) error {
	if err := l.db.RefundAttempt(ctx, l.hash(key)); err != nil {
		return outage("refund an attempt", err)
	}
	return nil
}

func (l *inSQL) Reset(ctx context.Context, key string) error {
	if err := l.db.ResetAttempts(ctx, l.hash(key)); err != nil {
		return outage("reset a counter", err)
	}
	return nil
}

func (l *inSQL) Purge(ctx context.Context, limit int) (int64, error) {
	if limit <= 0 {
		return 0, nil
	}
	n, err := l.db.PurgeAttempts(ctx, l.now(), limit)
	if err != nil {
		return 0, outage("purge counters", err)
	}
	return n, nil
}

// inRedis keeps a counter as a hash of n, the attempts, e, the end of the window in Unix milliseconds, and of the random
// words of the calls that counted (t) and refunded (r) last: the client sends a command again when its answer was lost,
// and by its word a script knows that it has run. A call of another in between hides the word; then the attempt counts
// twice, or the refund.
type inRedis struct {
	client redis.UniversalClient
	Options
}

// Redis returns the limiter that counts in Redis or Valkey. The caller closes the client.
func Redis(client redis.UniversalClient, o Options) Limiter {
	return &inRedis{client: client, Options: o}
}

const redisPrefix = "barong:limit:" // + hash of the key

// takeScript counts an attempt and answers 0, or answers the end of the window. Arguments: now, window, max, and the
// call's word, empty to count nothing. Redis drops the counter a minute after the window at the earliest: what is over
// is decided on the caller's clock.
var takeScript = redis.NewScript(`
local now, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local v = redis.call('HMGET', KEYS[1], 'n', 'e', 't')
if ARGV[4] ~= '' and v[3] == ARGV[4] then return '0' end
local n, e = tonumber(v[1] or 0), tonumber(v[2] or 0)
if e <= now then n, e = 0, now + window end
if n >= tonumber(ARGV[3]) then return string.format('%.0f', e) end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'n', n + 1, 'e', string.format('%.0f', e), 't', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', e - now + 60000))
end
return '0'`)

// refundScript takes an attempt back. Argument: the call's word.
var refundScript = redis.NewScript(`
local v = redis.call('HMGET', KEYS[1], 'n', 'r')
local n = tonumber(v[1] or 0)
if n > 0 and v[2] ~= ARGV[1] then redis.call('HSET', KEYS[1], 'n', n - 1, 'r', ARGV[1]) end
return 0`)

func (l *inRedis) ask(ctx context.Context, key string, max int, window time.Duration, call string) (time.Duration, error) {
	if max <= 0 {
		return window, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	now := l.now()
	end, err := takeScript.Run(ctx, l.client, []string{redisPrefix + l.hash(key)}, now, window.Milliseconds(), max, call).Int64()
	if err != nil || end == 0 {
		return 0, err
	}
	return until(now, end), nil
}

// Take implements Limiter.
func (l *inRedis) Take(ctx context.Context, key string, max int, window time.Duration) (time.Duration, error) {
	wait, err := l.ask(ctx, key, max, window, rand.Text())
	if err != nil {
		return 0, outage("count an attempt", err)
	}
	return wait, nil
}

func (l *inRedis) Peek(ctx context.Context, key string, max int, window time.Duration) (time.Duration, error) {
	wait, err := l.ask(ctx, key, max, window, "")
	if err != nil {
		return 0, outage("look at a counter", err)
	}
	return wait, nil
}

func (l *inRedis) Refund(ctx context.Context, key string) error {
	if err := refundScript.Run(ctx, l.client, []string{redisPrefix + l.hash(key)}, rand.Text()).Err(); err != nil {
		return outage("refund an attempt", err)
	}
	return nil
}

func (l *inRedis) Reset(ctx context.Context, key string) error {
	if err := l.client.Del(ctx, redisPrefix+l.hash(key)).Err(); err != nil {
		return outage("reset a counter", err)
	}
	return nil
}

// Purge implements Limiter: Redis expires by itself.
func (l *inRedis) Purge(context.Context, int) (int64, error) { return 0, nil }
