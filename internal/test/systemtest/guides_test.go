package systemtest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"barong/internal/test/browsertest"
	"barong/internal/test/testkit"
)

// A reader follows a page of the documentation, in a folder of their own: saves the files that it names, and types its
// commands, one after the other in one shell.
type reader struct {
	t    *testing.T
	dir  string
	env  []string
	edit func(text string) string // what cannot be typed here as it stands, such as ports; may be nil

	// What is done beside the shell when it has typed the block that holds a text, while what was started there runs.
	aside string
	do    func()
}

// follow does what the blocks say. One with a name is a file, one of sh is typed, and a text below shows what that prints,
// with … for what may differ; a command without one must succeed.
func (r *reader) follow(blocks []testkit.Block) {
	r.t.Helper()
	edit := r.edit
	if edit == nil {
		edit = func(text string) string { return text }
	}
	const mark = "\x1e" // parts what the blocks print
	waits := filepath.Join(r.t.TempDir(), "waits")
	var script strings.Builder
	type typed struct{ code, want string }
	var steps []typed
	for i, b := range blocks {
		switch {
		case b.Name != "":
			path := filepath.Join(r.dir, b.Name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(edit(b.Code)), 0o600)); err != nil {
				r.t.Fatal(err)
			}
		case b.Language == "sh":
			steps = append(steps, typed{code: b.Code})
			fmt.Fprintf(&script, "%sprintf '%s%%s%s' $?\n", edit(b.Code), mark, mark)
			if r.do != nil && strings.Contains(b.Code, r.aside) {
				fmt.Fprintf(&script, ": > '%s'; while [ -e '%s' ]; do sleep 0.05; done\n", waits, waits)
			}
		case b.Language == "text" && i > 0 && blocks[i-1].Language == "sh":
			steps[len(steps)-1].want = edit(b.Code)
		default:
			r.t.Fatalf("a block that nothing is done with:\n%s", b.Code)
		}
	}
	file := filepath.Join(r.t.TempDir(), "typed")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		r.t.Fatal(err)
	}
	shell := testkit.Start(r.t, "/bin/sh", []string{"-c", `cd "$0" && exec /bin/sh "$1" 2>&1`, r.dir, file}, r.env, nil)
	ended := make(chan struct{})
	go func() {
		shell.Wait()
		close(ended)
	}()
	if r.do != nil {
		testkit.Eventually(r.t, 2*patience, func() bool {
			_, err := os.Stat(waits)
			return err == nil || !shell.Running()
		})
		r.do()
		if err := os.Remove(waits); err != nil {
			r.t.Errorf("the page never said %q: %v", r.aside, err)
		}
	}
	select {
	case <-ended:
	case <-time.After(2 * patience):
		r.t.Errorf("the page does not come to its end")
		shell.Kill()
	}
	printed := strings.Split(shell.Output(), mark)
	for i, step := range steps {
		if len(printed) < 2*i+2 {
			r.t.Fatalf("the page ends at\n%s\nwith\n%s", step.code, printed[len(printed)-1])
		}
		output, status := printed[2*i], printed[2*i+1]
		if step.want == "" && status != "0" {
			r.t.Errorf("status %s of\n%s\n%s", status, step.code, output)
		}
		if step.want != "" && !shows(step.want, output) {
			r.t.Errorf("of\n%s\nthe page shows\n%s\nand it printed\n%s", step.code, step.want, output)
		}
	}
}

// shows reports whether a text is what a page shows, where … stands for anything.
func shows(want, text string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(trimmed(want)), "…", `[^\n]*`)
	return regexp.MustCompile(`\A` + pattern + `\z`).MatchString(trimmed(text))
}

// trimmed is a text without white space at the ends of its lines, and without empty lines around it.
func trimmed(text string) string {
	return strings.Trim(regexp.MustCompile(`(?m)[ \t\r]+$`).ReplaceAllString(text, ""), "\n")
}

// moved replaces the ports that a page or a configuration names by others.
func moved(ports map[string]string) func(text string) string {
	return func(text string) string {
		return regexp.MustCompile(`\b(80(00|80|81|90))\b`).ReplaceAllStringFunc(text, func(port string) string { return ports[port] })
	}
}

// TestQuickstart follows docs/quickstart.md as somebody new, from a clone and from a release.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	root, tools := testkit.Root(t), testkit.Tools(t)
	for _, way := range []string{"clone", "release"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			ports := map[string]string{}
			for _, port := range []string{"8000", "8080", "8081", "8090"} {
				ports[port] = fmt.Sprint(testkit.FreePort(t))
			}
			dir := t.TempDir()
			r := &reader{t: t, dir: dir, env: []string{
				"BARONG_HTTP_ADDR=" + net.JoinHostPort("127.0.0.1", ports["8080"]), "BARONG_OPS_ADDR=" + addr(t), "BARONG_GRPC_ADDR=" + addr(t),
				"BARONG_DRAIN_TIME=0s", "PATH=" + filepath.Join(dir, "machine") + ":" + os.Getenv("PATH"),
			}}
			r.edit = func(text string) string {
				// Envoys side by side, as tests run, need memory of their own.
				return strings.ReplaceAll(moved(ports)(text), "envoy -c", "envoy --use-dynamic-base-id --concurrency 1 -c")
			}
			folder := dir
			link := func(target string, name ...string) {
				t.Helper()
				path := filepath.Join(append([]string{folder}, name...)...)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
					t.Fatal(err)
				}
			}
			script := func(text string, name ...string) {
				t.Helper()
				path := filepath.Join(append([]string{dir, "machine"}, name...)...)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("#!/bin/sh\nset -eu\n"+text), 0o755)); err != nil {
					t.Fatal(err)
				}
			}
			gateway, err := os.ReadFile(filepath.Join(root, "envoy", "envoy.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			config := []byte(r.edit(string(gateway)))
			switch way {
			case "clone":
				// make has been here: its targets are looked at, and what they make is there.
				script(`exec "$(command -v -p make)" -C "`+root+`" -n "$@" > /dev/null`+"\n", "make")
				link(testkit.Barong(t), "bin", "barong")
				link(tools, ".tools")
				r.aside, r.do = "barong seed --file app.yml", func() { browseQuickstart(t, "http://127.0.0.1:"+ports["8000"], dir) }
				if err := errors.Join(os.Mkdir(filepath.Join(dir, "envoy"), 0o755), os.WriteFile(filepath.Join(dir, "envoy", "envoy.yaml"), config, 0o600)); err != nil {
					t.Fatal(err)
				}
			case "release":
				// The index of wheels has been here: pip makes sure that those of the tests are the ones that it is asked for.
				const name = "barong_1.0.0_linux_amd64"
				folder = filepath.Join(dir, name)
				if err := os.Mkdir(folder, 0o755); err != nil {
					t.Fatal(err)
				}
				script(`[ "$*" = "-m venv venv" ]; mkdir -p venv/bin; ln -s "$0.pip" venv/bin/pip`+"\n", "python3")
				script(`[ "$1" = install ]; shift; for wheel; do "`+tools+`/bin/pip" freeze --all | tr A-Z a-z | grep -qxF "$(echo "$wheel" | sed 's/\[.*\]//')"; done
for program in envoy python3; do printf '#!/bin/sh\nexec "`+tools+`/bin/%s" "$@"\n' $program > venv/bin/$program; chmod +x venv/bin/$program; done
`, "python3.pip")
				pack(t, dir, name, testkit.Barong(t), config)
			}
			var blocks []testkit.Block
			for _, b := range testkit.Blocks(t, "docs/quickstart.md") {
				switch b.Name {
				case "clone", "release":
					if b.Name != way {
						continue
					}
					b.Name = ""
				case "":
				default:
					b.Name = filepath.Join(strings.TrimPrefix(strings.TrimPrefix(folder, dir), "/"), b.Name)
				}
				blocks = append(blocks, b)
			}
			r.follow(blocks)
			if _, err := http.Get("http://127.0.0.1:" + ports["8000"]); err == nil {
				t.Error("the gateway has not ended")
			}
		})
	}
}

// browseQuickstart does in browsers what the page says of them: signs up on the way to the page, and looks at the rules.
func browseQuickstart(t *testing.T, gateway, dir string) {
	t.Helper()
	p := browsertest.Open(t, browsertest.Options{})
	p.Allow(gateway)
	p.Expect("favicon.ico") // which the page does not have
	p.Go(gateway + "/app")
	p.AwaitPath("/accounts/signin")
	p.Press("Create an account")
	p.AwaitText("Create the account")
	p.Fill("email", "browser@example.com")
	p.Fill("password", "Ten-Minutes+7pages")
	p.Press("Create the account")
	p.AwaitText("Look into your mail")
	p.Go(gateway + "/app")
	p.AwaitText("Hello browser@example.com")

	passwords, err := filepath.Glob(filepath.Join(dir, "data", "passwords-*.txt"))
	if err != nil || len(passwords) != 1 {
		t.Fatalf("files of passwords: %q, %v", passwords, err)
	}
	text, err := os.ReadFile(passwords[0])
	if err != nil {
		t.Fatal(err)
	}
	email, password, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if email != "admin@barong.io" {
		t.Errorf("the file of passwords is about %q", email)
	}
	staff := browsertest.Open(t, browsertest.Options{})
	staff.Allow(gateway)
	staff.Go(gateway + "/console/permissions")
	staff.AwaitPath("/accounts/signin")
	staff.Fill("email", email)
	staff.Fill("password", password)
	staff.Press("Sign in")
	staff.AwaitPath("/console/permissions")
	staff.Await(`[...document.querySelectorAll("tr")].some(r => /member/.test(r.innerText) && /\bapp\b/.test(r.innerText))`)
}

// pack writes an archive of a release.
func pack(t *testing.T, dir, name, program string, config []byte) {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, name+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewWriterLevel(f, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewWriter(z)
	for file, content := range map[string][]byte{"barong": text, "envoy/envoy.yaml": config} {
		if err := archive.WriteHeader(&tar.Header{Name: name + "/" + file, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
