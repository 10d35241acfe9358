package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"barong/api/account"
	"barong/db"
	"barong/internal/bus"
	"barong/internal/delivery/mail"
	"barong/internal/fault"
	"barong/internal/limit"
	"barong/session"
	"barong/session/redisstore"
)

// A usersCommand holds what an operator does about accounts when nobody can sign in to do it.
type usersCommand struct {
	Link     usersLink     `cmd:"" help:"Print a link by which the user confirms their address or sets a new password."`
	Ban      usersBan      `cmd:"" help:"Ban a user, and end all their sessions."`
	Role     usersRole     `cmd:"" help:"Give a user another role."`
	Reset2FA usersReset2FA `cmd:"" name:"reset-2fa" help:"Switch a user's second factor off."`
	Sessions usersSessions `cmd:"" help:"List a user's sessions, or end them."`
}

// who is the user that a command is about.
type who struct {
	User string `arg:"" name:"user" help:"The user's uid or e-mail address."`
}

const usersHelp = "Works beside running servers, which feel it at once, and is recorded in the audit trail, with the name of the " +
	"system's user who ran it."

func (usersLink) Help() string     { return usersHelp }
func (usersBan) Help() string      { return usersHelp }
func (usersRole) Help() string     { return usersHelp }
func (usersReset2FA) Help() string { return usersHelp }
func (usersSessions) Help() string { return usersHelp }

type usersLink struct{ who }

// Run prints a link. Whoever has it is the user: it goes to standard output alone.
func (c usersLink) Run(p *program) error {
	return p.withAccount(c.who, "link", func(ctx context.Context, a *accountDesk, u *account.Unit, who *db.User) error {
		kind, letter := account.Reset, mail.ResetToken
		if who.State == account.Pending {
			kind, letter = account.Confirmation, mail.Confirmation
		}
		token, err := u.MailToken(ctx, who, kind)
		if err != nil {
			return err
		}
		m, err := a.letters.Render(letter, "en", mail.Data{Email: who.Email, Token: token})
		if err != nil {
			return err
		}
		link := linkIn.FindString(m.Text)
		if link == "" {
			return errors.New("the template of the mail has no link")
		}
		a.said = link
		return nil
	})
}

var linkIn = regexp.MustCompile(`https?://\S+_token=\S+`)

type usersBan struct{ who }

// Run bans.
func (c usersBan) Run(p *program) error {
	return p.withAccount(c.who, "ban", func(ctx context.Context, a *accountDesk, u *account.Unit, who *db.User) error {
		a.said = who.UID + " is banned"
		return u.SetState(ctx, who, account.Banned)
	})
}

type usersRole struct {
	who
	Role string `arg:"" help:"The role, one of those that permissions name."`
}

// Run gives a role.
func (c usersRole) Run(p *program) error {
	return p.withAccount(c.who, "role "+c.Role, func(ctx context.Context, a *accountDesk, u *account.Unit, who *db.User) error {
		a.said = who.UID + " is " + c.Role
		return u.SetRole(ctx, who, c.Role)
	})
}

type usersReset2FA struct{ who }

// Run switches the second factor off.
func (c usersReset2FA) Run(p *program) error {
	return p.withAccount(c.who, "reset-2fa", func(ctx context.Context, a *accountDesk, u *account.Unit, who *db.User) error {
		if !who.OTP {
			return fault.New("admin.user.otp_no_change")
		}
		a.said = who.UID + " has no second factor"
		return u.SetOTP(ctx, who, false, nil)
	})
}

type usersSessions struct {
	who
	End bool `help:"End them all."`
}

// Run lists or ends.
func (c usersSessions) Run(p *program) error {
	if c.End {
		return p.withAccount(c.who, "sessions --end", func(ctx context.Context, a *accountDesk, u *account.Unit, who *db.User) error {
			a.said = "the sessions of " + who.UID + " are ended"
			return u.EndSessions(ctx, who, nil)
		})
	}
	a, closeDesk, err := p.accountDesk()
	if err != nil {
		return err
	}
	defer closeDesk()
	who, err := a.find(p.ctx, c.User)
	if err != nil {
		return err
	}
	list, err := a.accounts.ListSessions(p.ctx, who)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CREATED\tSEEN\tADDRESS\tUSER AGENT")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.CreatedAt.UTC().Format(time.RFC3339), s.SeenAt.UTC().Format(time.RFC3339), s.IP,
			printable(s.UserAgent))
	}
	return w.Flush()
}

// printable is a text that strangers chose, for a terminal.
func printable(s string) string {
	return cmp.Or(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?")), "-")
}

// An accountDesk is the use cases of accounts, as a server has them, for one command.
type accountDesk struct {
	db       *db.DB
	accounts *account.Service
	letters  *mail.Renderer
	said     string // what is printed when the change is committed
}

func (p *program) accountDesk() (*accountDesk, func(), error) {
	c, err := p.config()
	if err != nil {
		return nil, nil, err
	}
	d, _, err := p.openCurrent(c)
	if err != nil {
		return nil, nil, err
	}
	closers := []func() error{d.Close}
	closeAll := func() {
		for i := len(closers) - 1; i >= 0; i-- {
			_ = closers[i]() // the work is done, or its error is told
		}
	}
	fail := func(err error) (*accountDesk, func(), error) {
		closeAll()
		return nil, nil, err
	}
	ring, _, err := openKeys(c)
	if err != nil {
		return fail(err)
	}
	letters, err := newLetters(c)
	if err != nil {
		return fail(err)
	}
	var sessions session.Store = d.Sessions()
	if c.RedisURL != "" {
		client, err := redisstore.ConnectWithin(c.RedisURL.Reveal(), c.RedisTimeout)
		if err != nil {
			return fail(err)
		}
		closers = append(closers, client.Close)
		sessions = redisstore.New(client)
	}
	b, closeBus, err := openBus(p.ctx, c, d, bus.Options{})
	if err != nil {
		return fail(err)
	}
	closers = append(closers, closeBus, b.Close)
	d.PublishTo(b.Publish)
	publish, err := publisher(c)
	if err != nil {
		return fail(err)
	}
	return &accountDesk{db: d, letters: letters, accounts: account.New(account.Options{
		Settings: account.Settings{
			UIDPrefix: c.UIDPrefix, Domain: c.Domain, APIPrefix: c.APIPrefix, AppName: c.AppName, DefaultLanguage: c.DefaultLanguage,
			SessionTTL: c.SessionExpireTime, SessionMaxAge: c.SessionMaxAge, MailTokenTTL: c.MailTokenExpireTime,
			Issuer: c.JWTIssuer, Audience: c.JWTAudience,
			ActivationRequirements: c.ActivationRequirements, StateTriggers: triggers(c),
		},
		DB: d, Sessions: sessions, Keys: ring, Limits: limit.Off, Letters: letters, Publish: publish, Notices: b.Publish,
		OthersMail: func(kind string) bool { return c.Mailer == "off" && mail.Told(kind) },
		Now:        time.Now, Log: slog.New(slog.NewTextHandler(p.stderr, nil)),
	})}, closeAll, nil
}

// find finds a user by uid or address.
func (a *accountDesk) find(ctx context.Context, name string) (*db.User, error) {
	found, err := a.db.UserByUID(ctx, name)
	if errors.Is(err, db.ErrNotFound) {
		found, err = a.db.UserByEmail(ctx, name)
	}
	if errors.Is(err, db.ErrNotFound) {
		return nil, errors.New("there is no user with this uid or address")
	}
	return found, err
}

// withAccount runs f in one unit of work, which also records what was done and by whom.
func (p *program) withAccount(
	w who, what string, f func(ctx context.Context, a *accountDesk, u *account.Unit, who *db.User) error,
) error {
	a, closeDesk, err := p.accountDesk()
	if err != nil {
		return err
	}
	defer closeDesk()
	who, err := a.find(p.ctx, w.User)
	if err != nil {
		return err
	}
	operator := "unknown"
	if u, err := user.Current(); err == nil {
		operator = u.Username
	}
	data, err := json.Marshal(map[string]string{"note": "barong users " + what, "operator": operator})
	if err != nil {
		return err
	}
	text := string(data)
	if err := a.accounts.Update(p.ctx, func(ctx context.Context, u *account.Unit) error {
		if err := u.Lock(ctx, who); err != nil {
			return err
		}
		if err := f(ctx, a, u, who); err != nil {
			return err
		}
		return u.InsertActivities(ctx, db.Activity{
			UserID: who.ID, TargetUID: &who.UID, Category: db.CategoryAdmin, UserAgent: "barong", Topic: "users", Action: "update",
			Result: db.ResultSucceed, Data: &text,
		})
	}); err != nil {
		return err
	}
	time.Sleep(hearTime) // running servers hear of it meanwhile
	fmt.Fprintln(p.stdout, a.said)
	return nil
}
