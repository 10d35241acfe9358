package redisstore

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// DefaultWait is how long an answer of Redis is waited for, unless the caller or the URL says otherwise. One attempt and its
// one repetition fit into the half second that a check has for its stores, whose own deadline counts as well; and a Redis
// that is 100 ms away answers in time.
const DefaultWait = 250 * time.Millisecond

const (
	dialWaits  = 2 // waits for a new connection, which takes more than one round trip with TLS
	maxRetries = 1
)

// allowed names the forms of URL in errors.
const allowed = "allowed are redis://[user:password@]host:port/db, rediss://… (TLS), " +
	"redis+cluster://[user:password@]host:port,host:port and redis+sentinel://[user:password@]host:port,host:port/master[/db]"

// Connect makes the client of a Redis URL, which the session store, the bus, the limits and the nonces share. It does
// not dial: the first command does. A rediss+cluster or rediss+sentinel URL uses TLS. The options that go-redis knows
// may follow as a query (read_timeout=50ms, pool_size=200); for Sentinel also sentinel_username and sentinel_password,
// the credentials of the sentinels themselves. No error holds any of the URL's credentials.
func Connect(rawURL string) (redis.UniversalClient, error) { return ConnectWithin(rawURL, DefaultWait) }

// ConnectWithin is Connect with another time to wait for an answer, which the options of the URL may still replace.
func ConnectWithin(rawURL string, wait time.Duration) (redis.UniversalClient, error) {
	client, _, err := ConnectAs(rawURL, wait)
	return client, err
}

// A Login is whom new connections of a client log in as. It is safe for concurrent use.
type Login struct {
	now atomic.Pointer[[2]string] // user and password
}

// Replace has connections that are made from now on log in as another URL says. Those that are there stay.
func (l *Login) Replace(rawURL string) error {
	o, err := parse(rawURL, DefaultWait)
	if err != nil {
		return fmt.Errorf("redis URL: %w; %s", err, allowed)
	}
	l.now.Store(&[2]string{o.Username, o.Password})
	return nil
}

// ConnectAs is ConnectWithin with a login that may be replaced. That of sentinels stays what it was.
func ConnectAs(rawURL string, wait time.Duration) (redis.UniversalClient, *Login, error) {
	o, err := parse(rawURL, wait)
	if err != nil {
		return nil, nil, fmt.Errorf("redis URL: %w; %s", err, allowed)
	}
	login := new(Login)
	login.now.Store(&[2]string{o.Username, o.Password})
	o.CredentialsProvider = func() (user, password string) {
		now := login.now.Load()
		return now[0], now[1]
	}
	client := redis.NewUniversalClient(o)
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.AddHook(mapReader{cluster})
	}
	return client, login, nil
}

// ValidateURL says what is wrong with a Redis URL. It connects to nothing, and the error has nothing of the URL.
func ValidateURL(rawURL string) error {
	if _, err := parse(rawURL, DefaultWait); err != nil {
		return fmt.Errorf("%w; %s", err, allowed)
	}
	return nil
}

// parse is done by hand: net/url knows no list of hosts, and its errors repeat the whole URL.
func parse(rawURL string, wait time.Duration) (*redis.UniversalOptions, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, errors.New("no scheme")
	}
	var secure bool
	kind := scheme
	if k, found := strings.CutPrefix(scheme, "rediss"); found {
		secure, kind = true, "redis"+k
	}
	if kind != "redis" && kind != "redis+cluster" && kind != "redis+sentinel" {
		return nil, errors.New("unknown scheme") // not named: it may be a mistyped password
	}
	rest, query, _ := strings.Cut(rest, "?")
	// The password may hold a slash: credentials end at the last @, and hosts and paths hold none.
	credentials := ""
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		credentials, rest = rest[:i], rest[i+1:]
	}
	hosts, path, _ := strings.Cut(rest, "/")

	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("malformed options")
	}
	take := func(name string) string {
		v := values.Get(name)
		if kind == "redis+sentinel" {
			values.Del(name)
		}
		return v
	}
	sentinelUser, sentinelPassword := take("sentinel_username"), take("sentinel_password")
	known, err := redis.ParseURL("redis://localhost?" + values.Encode())
	if err != nil {
		// Not named: an unescaped question mark in a password makes the rest of it an option.
		return nil, errors.New("unknown or malformed option")
	}

	o := &redis.UniversalOptions{
		DB: known.DB, Protocol: known.Protocol, ClientName: cmp.Or(known.ClientName, "barong"),
		MaxRetries: cmp.Or(known.MaxRetries, maxRetries), MinRetryBackoff: cmp.Or(known.MinRetryBackoff, time.Millisecond),
		MaxRetryBackoff: cmp.Or(known.MaxRetryBackoff, 10*time.Millisecond),
		DialTimeout:     cmp.Or(known.DialTimeout, dialWaits*wait), DialerRetries: 1,
		ReadTimeout: cmp.Or(known.ReadTimeout, wait), WriteTimeout: cmp.Or(known.WriteTimeout, wait),
		ContextTimeoutEnabled: true,
		// A cold check holds a connection for one round trip. Enough of them that a burst does not queue, few enough
		// that a fleet of replicas stays below a server's 10,000 clients.
		PoolSize:    cmp.Or(known.PoolSize, 64+16*runtime.GOMAXPROCS(0)),
		PoolTimeout: cmp.Or(known.PoolTimeout, wait), PoolFIFO: known.PoolFIFO,
		MinIdleConns: cmp.Or(known.MinIdleConns, 4), MaxIdleConns: known.MaxIdleConns, MaxActiveConns: known.MaxActiveConns,
		MaxConcurrentDials: known.MaxConcurrentDials,
		ReadBufferSize:     8 << 10, WriteBufferSize: 8 << 10,
		PipelineReadBufferSize:  cmp.Or(known.PipelineReadBufferSize, 8<<10),
		PipelineWriteBufferSize: cmp.Or(known.PipelineWriteBufferSize, 8<<10),
		PipelinePoolSize:        cmp.Or(known.PipelinePoolSize, 64+16*runtime.GOMAXPROCS(0)),
		ConnMaxIdleTime:         cmp.Or(known.ConnMaxIdleTime, 5*time.Minute), ConnMaxLifetime: known.ConnMaxLifetime,
		ConnMaxLifetimeJitter: known.ConnMaxLifetimeJitter,
		DisableIdentity:       true, // a round trip less at connect
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled, // of one hosted product; another round trip
		},
		SentinelUsername: sentinelUser, SentinelPassword: sentinelPassword,
	}
	if secure {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12} // the server's name comes from the address dialled
	}
	user, password, _ := strings.Cut(credentials, ":")
	var err1, err2 error
	o.Username, err1 = url.PathUnescape(user)
	o.Password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return nil, errors.New("malformed user or password")
	}
	port := "6379"
	if kind == "redis+sentinel" {
		port = "26379"
	}
	for _, host := range strings.Split(hosts, ",") {
		addr, err := address(host, port)
		if err != nil {
			return nil, err
		}
		o.Addrs = append(o.Addrs, addr)
	}

	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if kind == "redis+sentinel" {
		if len(parts) == 0 {
			return nil, errors.New("no name of the master")
		}
		if o.MasterName, err = url.PathUnescape(parts[0]); err != nil {
			return nil, errors.New("malformed name of the master")
		}
		parts = parts[1:]
	}
	if len(parts) > 1 {
		return nil, errors.New("too long a path")
	}
	if len(parts) == 1 {
		if o.DB, err = strconv.Atoi(parts[0]); err != nil || o.DB < 0 {
			return nil, errors.New("the database is not a number")
		}
	}
	switch {
	case kind == "redis" && len(o.Addrs) > 1:
		return nil, errors.New("more than one host")
	case kind == "redis+cluster" && o.DB != 0:
		return nil, errors.New("a cluster has database 0 alone")
	case kind == "redis+cluster":
		o.IsClusterMode = true
	}
	return o, nil
}

// address completes host, host:port or [IPv6]:port.
func address(host, port string) (string, error) {
	if host == "" {
		return "", errors.New("no host")
	}
	h, p, err := net.SplitHostPort(host)
	if err != nil {
		h, p = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port
		if strings.Contains(h, ":") && !strings.HasPrefix(host, "[") {
			return "", errors.New("malformed host")
		}
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 || h == "" {
		return "", errors.New("malformed host or port")
	}
	return net.JoinHostPort(h, p), nil
}
