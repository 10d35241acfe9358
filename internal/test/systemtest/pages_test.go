package systemtest

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

var (
	update   = flag.Bool("update", false, "write the pictures of docs/images anew")
	pictures = flag.String("pictures", "", "write a picture of every page at every width into this folder, for who wants to look at them")
)

// A place is a page of the portal or the console. Its picture, if it is named, stands in the documentation.
type place struct {
	path, picture string
	shows         string // a key of the catalogue whose words stand on it, or what stands on it in every language
}

// places are the pages of who is not signed in, of a member, and of staff.
var places = struct{ open, member, staff []place }{
	open: []place{
		{"/accounts/signin", "signin", "signin.new"},
		{"/accounts/signin?error=identity.provider.no_account", "", "code.identity.provider.no_account"},
		{"/accounts/signup", "signup", "signup.have"},
		{"/accounts/forgot", "", "forgot.text"},
		{"/accounts/confirmation", "", "confirmation.again"},
		{"/accounts/confirmation?confirmation_token=x", "", "confirmation.again"},
		{"/accounts/password_reset", "", "reset.missing"},
		{"/accounts/password_reset?reset_token=x", "", "field.new_password"},
		{"/accounts/nothing", "", "missing.text"},
	},
	member: []place{
		{"/accounts/", "account", "overview.safe"},
		{"/accounts/profile", "", "field.first_name"},
		{"/accounts/phones", "", "phones.add"},
		{"/accounts/documents", "documents", "documents.have"},
		{"/accounts/security", "security", "passkeys.text"},
		{"/accounts/sessions", "sessions", "sessions.current"},
		{"/accounts/keys", "", "keys.make"},
		{"/accounts/activity", "", "activity.result"},
		{"/accounts/activity?topic=password", "", "activity.none"},
		{"/accounts/delete", "", "delete.text"},
		{"/accounts/signout", "", "signout.everywhere"},
		{"/console/", "", "c.account"},
		{"/console/users", "", "missing.text"},
	},
	staff: []place{
		{"/console/", "", "c.users.text"},
		{"/console/users", "users", adminEmail},
		{"/console/users?email=nobody", "", "c.users.none"},
		{"/console/documents", "", "c.documents.verify"},
		{"/console/permissions?role=member", "permissions", "api/v2/peatio/account"},
		{"/console/permissions?tab=who&role=member&verb=GET&path=api/v2/barong/admin/users", "", "c.who.none"},
		{"/console/permissions?tab=who&role=superadmin&verb=GET&path=api/v2/barong/admin/users", "", "c.who.decides"},
		{"/console/permissions?tab=draft", "", "c.draft.none"},
		{"/console/permissions?tab=history", "", "c.history.program"},
		{"/console/restrictions", "", "164.116.47.0/24"},
		{"/console/activities", "", "action.login"},
		{"/console/activities?of=staff", "", "c.target_uid"},
		{"/console/levels", "", "c.levels.people"},
		{"/console/keys", "", "HS256"},
		{"/console/metrics", "", "c.metrics.failed"},
		{"/console/system", "", "BARONG_SMTP_HOST"},
		{"/console/nothing", "", "missing.text"},
		{"/console/users/ID0000000000", "", "code.admin.user.doesnt_exist"},
	},
}

// settled waits until the page shows what it has to show.
func (c *guest) settled() {
	c.t.Helper()
	c.Await(`document.readyState === "complete" && document.querySelector("main h1") && !document.querySelector("[aria-busy=true]")`)
}

// looks holds that a page pleases everybody at every width: axe-core finds no fault, nothing has to be scrolled sideways, there
// is something to do next, and its policy stops a script that somebody has put into it.
func (c *guest) looks(at place) {
	c.t.Helper()
	for _, width := range []int64{1440, 768, 320} {
		c.Resize(width, 900)
		c.Accessible(fmt.Sprintf("%s at %d", at.path, width))
		for _, wide := range c.Wide() {
			c.t.Errorf("%s at %d: too wide: %s", at.path, width, wide)
		}
		if *pictures != "" {
			name := strings.Trim(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(c.t.Name(), "-"), "-")
			c.Save(filepath.Join(*pictures, fmt.Sprintf("%s-%d.png", name, width)), true)
		}
	}
	c.Resize(1440, 900)
	if !browsertest.Eval[bool](c.Page, `[...document.querySelectorAll("main :is(a[href], button, input, select, summary)")].some(e => e.checkVisibility() && !e.disabled)`) {
		c.t.Errorf("%s: there is nothing to do next", at.path)
	}
	c.Inject("window.hacked = 1")
	c.untouched(at.path)
	if at.picture != "" && *update {
		c.picture(at.picture)
	}
}

// picture writes a picture of the page for the documentation.
func (c *guest) picture(name string) {
	c.t.Helper()
	switch as := browsertest.Eval[string](c.Page, `document.documentElement.lang + (matchMedia("(prefers-color-scheme: dark)").matches ? " dark" : "")`); {
	case as == "en":
	case as == "ru dark" && name == "signin":
		name += "-dark"
	default:
		return
	}
	c.Resize(1024, 720)
	c.Save(filepath.Join(testkit.Root(c.t), "docs", "images", name+".png"), false)
	c.Resize(1440, 900)
}

// aPicture writes a PNG like the photograph of a document into a folder, and returns its path.
func aPicture(t *testing.T) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 480, 300))
	for y := range 300 {
		for x := range 480 {
			c := color.RGBA{R: 228, G: 232, B: 240, A: 255}
			switch {
			case x > 30 && x < 150 && y > 60 && y < 220:
				c = color.RGBA{R: 150, G: 160, B: 180, A: 255}
			case x > 180 && x < 440 && y > 60 && y%36 < 10 && y < 220:
				c = color.RGBA{R: 90, G: 100, B: 120, A: 255}
			case y > 250 && y%18 < 6:
				c = color.RGBA{R: 40, G: 44, B: 52, A: 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "passport.png")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every page is for everybody: at any width, read by programs, in light and in dark, in both languages, over a slow network,
// and without a mouse. What strangers have typed is shown as they typed it, and nothing else comes of it.
func TestPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, newVault(), "envoy")
	traefik := s.another(t, "traefik")
	uid := s.mallory(t)
	staff := append(slices.Clone(places.staff), place{"/console/users/" + uid, "", "c.profile.edit"})
	for _, as := range []struct {
		language string
		dark     bool
	}{{"en", false}, {"ru", true}} {
		s := *s
		s.speaks(t, as.language)
		o := browsertest.Options{Dark: as.dark, Width: 1440, Height: 900}
		each := func(t *testing.T, c *guest, places []place) {
			for _, at := range places {
				t.Run(at.path, func(t *testing.T) {
					c.at(t)
					c.opens(at.path)
					c.settled()
					c.AwaitText(s.text(at.shows))
					c.looks(at)
				})
			}
		}
		t.Run(as.language+", nobody", func(t *testing.T) {
			t.Parallel()
			c := s.visit(t, o)
			each(t, c, places.open)
			c.opens("/accounts/signin")
			c.Fill("email", "nobody@example.com")
			c.Fill("password", "Wrong-one-9")
			c.sends("password")
			c.AwaitFault("identity.session.invalid_params")
			c.looks(place{path: "/accounts/signin after a refusal"})
		})
		t.Run(as.language+", member", func(t *testing.T) {
			t.Parallel()
			each(t, s.knows(t, o, s.grace(t), bare), places.member)
		})
		t.Run(as.language+", staff", func(t *testing.T) {
			t.Parallel()
			each(t, s.knows(t, o, &holder{email: adminEmail, password: adminPassword}, bare), staff)
		})
	}
	t.Run("first paint", func(t *testing.T) { t.Parallel(); firstPaint(t, s) })
	t.Run("no scripts", func(t *testing.T) { t.Parallel(); withoutScripts(t, s) })
	t.Run("keyboard", func(t *testing.T) { t.Parallel(); byKeyboard(t, s) })
	t.Run("typed", func(t *testing.T) { t.Parallel(); typed(t, s, uid) })
	t.Run("headers", func(t *testing.T) { t.Parallel(); secured(t, s, staff, s.origin, traefik) })
}

// text is what a place shows.
func (s *site) text(shows string) string {
	if browserKeys.MatchString(shows) {
		return s.say(shows)
	}
	return shows
}

// browserKeys are keys of the catalogues.
var browserKeys = regexp.MustCompile(`^[a-z]+\.[a-z_.]+$`)
