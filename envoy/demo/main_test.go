package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"barong/internal/test/testkit"
)

// launch starts the demo and returns its process and the commands that it prints, once it says how to end it.
func launch(t *testing.T, program, dir string, env ...string) (*testkit.Process, []string) {
	t.Helper()
	// "exec" keeps the process the demo itself, so that signals reach it; it looks for the repository from its folder.
	p := testkit.Start(t, "/bin/sh", []string{
		"-c", `cd "$0" && exec "$@"`, testkit.Root(t), program, "-dir", dir,
		"-barong", testkit.Barong(t),
	}, env, nil)
	testkit.Eventually(t, 2*startTime, func() bool {
		return strings.Contains(p.Output(), "Ctrl-C ends it.") || !p.Running()
	})
	if !p.Running() {
		t.Fatalf("the demo ended:\n%s", p.Output())
	}
	var commands []string
	for _, line := range strings.Split(p.Output(), "\n") {
		if command := strings.TrimPrefix(line, "   "); strings.HasPrefix(command, "curl ") || strings.HasPrefix(command, "CSRF=") {
			commands = append(commands, command)
		}
	}
	return p, commands
}

// What the demo prints works when it is pasted, on the first start and on the next.
func TestPrintedCommands(t *testing.T) {
	program := filepath.Join(t.TempDir(), "demo")
	build := exec.Command("go", "build", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	dir := t.TempDir()
	var env []string
	for _, port := range []string{"BARONG_HTTP_ADDR", "BARONG_CHECK_ADDR", "BARONG_GRPC_ADDR", "BARONG_OPS_ADDR"} {
		env = append(env, fmt.Sprintf("%s=127.0.0.1:%d", port, testkit.FreePort(t)))
	}
	testkit.Tools(t)

	p, commands := launch(t, program, dir, env...)
	printed := regexp.MustCompile(`password {4}(\S+)`).FindStringSubmatch(p.Output())
	if len(printed) != 2 {
		t.Fatalf("no password is printed:\n%s", p.Output())
	}
	paste(t, commands, "")
	browse(t, p.Output())
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if status := p.Wait(); status != 0 {
		t.Errorf("the demo ended with status %d:\n%s", status, p.Output())
	}

	p, commands = launch(t, program, dir, env...)
	if strings.Contains(p.Output(), printed[1]) || !strings.Contains(p.Output(), "printed by the first start") {
		t.Errorf("the second start printed:\n%s", p.Output())
	}
	paste(t, commands, "ADMIN_PASSWORD='"+printed[1]+"'\n")
	if status := p.Stop(); status != 0 {
		t.Errorf("the demo ended with status %d:\n%s", status, p.Output())
	}
}

// paste runs the commands in one shell, as somebody would, and checks what each does.
func paste(t *testing.T, commands []string, before string) {
	t.Helper()
	want := []struct{ holds, lacks []string }{
		{holds: []string{"HTTP/1.1 401", `{"errors":["authz.invalid_session"]}`}},
		{},
		{holds: []string{"HTTP/1.1 200", "Authorization: Bearer ey", `"role":"superadmin"`, "/api/v2/peatio/account/balances"}},
		{holds: []string{"HTTP/1.1 401", `{"errors":["authz.missing_csrf_token"]}`}},
		{holds: []string{"HTTP/1.1 200", "POST /api/v2/peatio/market/orders", "Authorization: Bearer ey"}},
		{holds: []string{"HTTP/1.1 200", "No token came with it."}, lacks: []string{"forged"}},
		{holds: []string{"HTTP/1.1 204"}},
		{holds: []string{"HTTP/1.1 401", `{"errors":["authz.invalid_session"]}`}},
		{holds: []string{"HTTP/1.1 200", `"keys":`, `"kid":`}},
	}
	if len(commands) != len(want) {
		t.Fatalf("%d commands are printed, want %d: %q", len(commands), len(want), commands)
	}
	const mark = "\n=== next ===\n"
	script := before + strings.Join(commands, "\nprintf '"+strings.ReplaceAll(mark, "\n", `\n`)+"'\n")
	cmd := exec.Command("sh")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "no_proxy=*")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("the shell: %v", err)
	}
	answers := strings.Split(string(out), mark)
	if len(answers) != len(want) {
		t.Fatalf("%d answers:\n%s", len(answers), out)
	}
	if token := strings.TrimSpace(answers[1]); len(token) < 20 || strings.ContainsAny(token, "\" {") {
		t.Errorf("%s\nprinted %q, want a CSRF token", commands[1], token)
	}
	for i, answer := range answers {
		for _, text := range want[i].holds {
			if !strings.Contains(answer, text) {
				t.Errorf("%s\nprinted\n%s\nwithout %q", commands[i], answer, text)
			}
		}
		for _, text := range want[i].lacks {
			if strings.Contains(answer, text) {
				t.Errorf("%s\nprinted\n%s\nwith %q", commands[i], answer, text)
			}
		}
	}
}

// browse opens the address at the end of what is printed, as a browser does.
func browse(t *testing.T, output string) {
	t.Helper()
	last := regexp.MustCompile(`open (http://\S+/)\n$`).FindStringSubmatch(output)
	if last == nil {
		t.Fatalf("it ends with no address to open:\n%s", output)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, last[1], http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if u := res.Request.URL; res.StatusCode != 200 || u.Path != "/accounts/signin" || u.Query().Get("rd") != last[1]+"admin/" {
		t.Errorf("%s led to %d at %s", last[1], res.StatusCode, u)
	}
}
