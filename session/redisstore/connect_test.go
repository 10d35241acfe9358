package redisstore

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url        string
		addrs      []string
		user, pass string
		db         int
		master     string
		cluster    bool
		secure     bool
	}{
		{url: "redis://localhost", addrs: []string{"localhost:6379"}},
		{url: "redis://localhost:6380/1", addrs: []string{"localhost:6380"}, db: 1},
		{url: "redis://localhost/1/", addrs: []string{"localhost:6379"}, db: 1},
		{url: "redis://[::1]:6380/15", addrs: []string{"[::1]:6380"}, db: 15},
		{url: "redis://[::1]", addrs: []string{"[::1]:6379"}},
		{url: "redis://:secret@h:1/2", addrs: []string{"h:1"}, pass: "secret", db: 2},
		{url: "redis://u:p%40%2Fs%3A@h:1", addrs: []string{"h:1"}, user: "u", pass: "p@/s:"},
		{url: "redis://u:p/w@x@h:1/3", addrs: []string{"h:1"}, user: "u", pass: "p/w@x", db: 3},
		{url: "redis://u:a+b@h:1", addrs: []string{"h:1"}, user: "u", pass: "a+b"},
		{url: "rediss://h:1", addrs: []string{"h:1"}, secure: true},
		{url: "redis+cluster://h1:1,h2:2", addrs: []string{"h1:1", "h2:2"}, cluster: true},
		{url: "redis+cluster://h1", addrs: []string{"h1:6379"}, cluster: true},
		{url: "redis+cluster://u:p@h1:1,[::1]:2/", addrs: []string{"h1:1", "[::1]:2"}, user: "u", pass: "p", cluster: true},
		{url: "rediss+cluster://h1:1", addrs: []string{"h1:1"}, cluster: true, secure: true},
		{url: "redis+sentinel://h1:1,h2/main", addrs: []string{"h1:1", "h2:26379"}, master: "main"},
		{url: "redis+sentinel://u:p@h1:1/main/4", addrs: []string{"h1:1"}, user: "u", pass: "p", master: "main", db: 4},
		{url: "rediss+sentinel://h1:1/main", addrs: []string{"h1:1"}, master: "main", secure: true},
	} {
		o, err := parse(c.url, DefaultWait)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if !slices.Equal(o.Addrs, c.addrs) || o.Username != c.user || o.Password != c.pass || o.DB != c.db ||
			o.MasterName != c.master || o.IsClusterMode != c.cluster {
			t.Errorf("%s: %q user %q password %q db %d master %q cluster %v", c.url, o.Addrs, o.Username, o.Password, o.DB,
				o.MasterName, o.IsClusterMode)
		}
		if (o.TLSConfig != nil) != c.secure || c.secure && o.TLSConfig.MinVersion != tls.VersionTLS12 {
			t.Errorf("%s: TLS %v, want %v", c.url, o.TLSConfig, c.secure)
		}
		if total := time.Duration(1+o.MaxRetries) * o.ReadTimeout; total <= 0 || total > 500*time.Millisecond || o.ReadTimeout < 200*time.Millisecond {
			t.Errorf("%s: gives up after %s, a check after 500ms", c.url, total)
		}
		if !o.ContextTimeoutEnabled {
			t.Errorf("%s: deadlines do not count", c.url)
		}
	}
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	o, err := parse("redis+sentinel://h/main?read_timeout=20ms&pool_size=7&sentinel_username=su&sentinel_password=sp", DefaultWait)
	if err != nil {
		t.Fatal(err)
	}
	if o.ReadTimeout != 20*time.Millisecond || o.PoolSize != 7 || o.SentinelUsername != "su" || o.SentinelPassword != "sp" {
		t.Errorf("options: %v %d %q %q", o.ReadTimeout, o.PoolSize, o.SentinelUsername, o.SentinelPassword)
	}
}

func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "localhost:6379", "://", "redis:/x", "redis://", "redis://hunter2@", "http://u:hunter2@h", "unix:///hunter2",
		"redis+unix://u:hunter2@h", "REDIS://u:hunter2@h", "redis://u:hunter2@h:port", "redis://u:hunter2@h:0",
		"redis://u:hunter2@h:65536", "redis://u:hunter2@h:1/zero", "redis://u:hunter2@h:1/-1", "redis://u:hunter2@h:1/1/2",
		"redis://u:hunter2@h1:1,h2:2", "redis://u:hunter2%zz@h", "redis://h?password=hunter2", "redis://h?pool_size=hunter2",
		"redis://h?read_timeout=hunter2", "redis://h?%zzhunter2", "redis://::1", "redis+cluster://u:hunter2@h1:1,,h2:2",
		"redis+cluster://u:hunter2@h:1/3", "redis+sentinel://u:hunter2@h:1", "redis+sentinel://u:hunter2@h:1/",
		"redis+sentinel://u:hunter2@h:1/main/x", "redis+sentinel://u:hunter2@h:1/main/1/2", "redis+sentinel://u:hunter2@h:1/%zz",
		"redis://h?sentinel_password=hunter2", "redis://u:secret?hunter2@h:1/0", "hunter2://h", "rediss+redis://hunter2",
	} {
		client, err := Connect(url)
		if err == nil {
			client.Close()
			t.Errorf("%q is accepted", url)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
		for _, form := range []string{"redis://", "rediss://", "redis+cluster://", "redis+sentinel://"} {
			if !strings.Contains(err.Error(), form) {
				t.Errorf("%q: the error does not name %s: %v", url, form, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"redis://localhost:6379/1", "redis+sentinel://u:p@h1:1,h2:2/main/3?pool_size=3", "redis+cluster://[::1]:1,h", "rediss://@:@/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		o, err := parse(url, DefaultWait)
		if err != nil {
			return
		}
		if len(o.Addrs) == 0 || o.DB < 0 || o.IsClusterMode && o.DB != 0 {
			t.Errorf("%q: addresses %q, database %d", url, o.Addrs, o.DB)
		}
	})
}
