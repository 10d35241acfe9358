package testkit

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// chromiumFlags are what makes a page look and behave the same on every machine, and keeps the browser to the test's own
// servers.
var chromiumFlags = []string{
	"--headless",
	// Its sandbox needs user namespaces, which containers refuse. The pages are the tests' own.
	"--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
	// Every name that ends in .test is this machine, and no other name is looked up. localhost and its subdomains are this
	// machine anyway, and the only ones that a browser trusts without TLS.
	"--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1",
	"--no-proxy-server",
	"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-domain-reliability", "--no-pings",
	"--disable-client-side-phishing-detection", "--disable-default-apps", "--disable-extensions", "--no-first-run",
	"--no-default-browser-check", "--metrics-recording-only", "--disable-breakpad", "--password-store=basic", "--use-mock-keychain",
	// Windows of several people lie behind one another, and all of them go on.
	"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
	"--disable-ipc-flooding-protection", "--disable-hang-monitor",
	"--force-color-profile=srgb", "--font-render-hinting=none", "--disable-lcd-text", "--hide-scrollbars", "--mute-audio", "--lang=en",
}

func newChromium() (*Server, error) {
	program, err := bin("chromium")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := temporary("chromium", nil)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := &Server{Addr: addr, URL: "http://" + addr, name: "chromium", folder: dir}
	s.command = command{
		path: program, dir: dir, folder: dir, stop: syscall.SIGTERM, log: filepath.Join(dir, "log"),
		env: append(os.Environ(), "HOME="+dir, "TMPDIR="+dir),
		args: append(chromiumFlags[:len(chromiumFlags):len(chromiumFlags)],
			"--remote-debugging-port="+strconv.Itoa(port), "--user-data-dir="+filepath.Join(dir, "profile"), "about:blank"),
	}
	s.ready = Answers(s.URL + "/json/version")
	if err := s.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

var sharedChromium = sync.OnceValues(newChromium)

// Chromium returns the address of the DevTools of a headless Chromium that the test binary shares, http://host:port. Tests
// take package browsertest, which gives each of them a profile of its own.
func Chromium(t testing.TB) string {
	t.Helper()
	s, err := sharedChromium()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return s.URL
}
