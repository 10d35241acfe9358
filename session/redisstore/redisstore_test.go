package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barong/authz"
	"barong/internal/test/testkit"
	"barong/session"
	"barong/session/redisstore"
	"barong/session/sessiontest"

	"github.com/redis/go-redis/v9"
)

// patient are options for suites on busy machines: what they test is not how soon a client gives up.
const patient = "?read_timeout=20s&write_timeout=20s&dial_timeout=20s&pool_timeout=20s"

func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	client, err := redisstore.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestStore(t *testing.T) {
	t.Parallel()
	sessiontest.Run(t, func(t *testing.T) session.Store {
		return redisstore.New(connect(t, testkit.Valkey(t)+patient))
	})
}

// ports finds n free ports, each of which is free 10,000 higher too, where a cluster node has its bus.
func ports(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for len(out) < n {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		port := a.Addr().(*net.TCPAddr).Port
		if port > 55000 {
			continue
		}
		b, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+10000))
		if err != nil {
			continue
		}
		defer b.Close()
		out = append(out, port)
	}
	return out
}

func valkey(t *testing.T, port int, args ...string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strconv.Itoa(port)})
	t.Cleanup(func() { client.Close() })
	args = append(args, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	testkit.Start(t, "valkey-server", args, nil, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return client.Ping(ctx).Err()
	})
	return client
}

// await asks until ok, for as long as a start may take.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// startCluster starts three masters that share the slots.
func startCluster(t *testing.T, args ...string) (url string, nodes []*redis.Client) {
	t.Helper()
	ctx := t.Context()
	slots := [][2]int{{0, 5460}, {5461, 10922}, {10923, 16383}}
	var hosts []string
	for i, port := range ports(t, 3) {
		node := valkey(t, port, append([]string{"--cluster-enabled", "yes"}, args...)...)
		if err := node.ClusterAddSlotsRange(ctx, slots[i][0], slots[i][1]).Err(); err != nil {
			t.Fatal(err)
		}
		if err := node.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			first, p, _ := net.SplitHostPort(hosts[0])
			if err := node.ClusterMeet(ctx, first, p).Err(); err != nil {
				t.Fatal(err)
			}
		}
		hosts, nodes = append(hosts, fmt.Sprintf("127.0.0.1:%d", port)), append(nodes, node)
	}
	await(t, "cluster", func() bool {
		for _, node := range nodes {
			info, err := node.ClusterInfo(ctx).Result()
			if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") {
				return false
			}
		}
		return true
	})
	return "redis+cluster://" + strings.Join(hosts, ","), nodes
}

// When a primary is killed and its replica takes over, the client finds it as soon as it is asked for what lies there,
// though the cluster's map is not read again without need.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url, nodes := startCluster(t, "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0")
	port := ports(t, 1)[0]
	replica := valkey(t, port, "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0")
	host, first, _ := net.SplitHostPort(nodes[1].Options().Addr)
	if err := replica.ClusterMeet(ctx, host, first).Err(); err != nil {
		t.Fatal(err)
	}
	primary, err := nodes[0].ClusterMyID(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	await(t, "replica", func() bool { return replica.ClusterReplicate(ctx, primary).Err() == nil })
	await(t, "replication", func() bool {
		info, _ := replica.Info(ctx, "replication").Result()
		return strings.Contains(info, "master_link_status:up")
	})
	client := connect(t, url)
	store := redisstore.New(client)
	now := time.Now().UTC().Truncate(time.Millisecond)
	var kept *session.Session
	await(t, "a session on the first node", func() bool {
		s := &session.Session{
			Key: session.NewID().Key(), UID: "ID0000000001", CSRF: "0123456789abcdef0123",
			CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(time.Hour),
		}
		slot, err := nodes[1].ClusterKeySlot(ctx, "barong:session:"+s.Key.String()).Result()
		if err != nil || slot > 5460 || store.Create(ctx, s) != nil {
			return false
		}
		kept = s
		return true
	})
	await(t, "the copy", func() bool {
		n, err := nodes[0].Wait(ctx, 1, time.Second).Result()
		return err == nil && n == 1
	})
	nodes[0].ShutdownNoSave(ctx)
	whole := time.Time{}
	await(t, "the session after the failover", func() bool {
		if info, err := nodes[1].ClusterInfo(ctx).Result(); whole.IsZero() && err == nil && strings.Contains(info, "cluster_state:ok") {
			if role, err := replica.Do(ctx, "ROLE").Slice(); err == nil && role[0] == "master" {
				whole = time.Now()
			}
		}
		_, err := store.Get(ctx, kept.Key, now)
		return err == nil
	})
	if whole.IsZero() {
		whole = time.Now()
	}
	t.Logf("%s after the cluster was whole", time.Since(whole).Round(time.Millisecond))
	if took := time.Since(whole); took > 20*time.Second {
		t.Errorf("the store was away for %s after the cluster was whole", took)
	}
}

// On a cluster the suite's stores would share their keys, so that its tests take turns and each begins empty.
func TestCluster(t *testing.T) {
	t.Parallel()
	url, _ := startCluster(t, "--cluster-node-timeout", "15000")
	client := connect(t, url+patient)
	if _, ok := client.(*redis.ClusterClient); !ok {
		t.Fatalf("the client is a %T", client)
	}
	triesEveryNode(t, client.(*redis.ClusterClient))
	var turn sync.Mutex
	sessiontest.Run(t, func(t *testing.T) session.Store {
		turn.Lock()
		t.Cleanup(turn.Unlock)
		err := client.(*redis.ClusterClient).ForEachMaster(context.Background(), func(ctx context.Context, c *redis.Client) error {
			return c.FlushAll(ctx).Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		return redisstore.New(client)
	})
}

// triesEveryNode fills each node of a cluster in turn: the store notices whichever it is.
func triesEveryNode(t *testing.T, client *redis.ClusterClient) {
	t.Helper()
	store := redisstore.New(client)
	var nodes []*redis.Client
	var mu sync.Mutex
	err := client.ForEachMaster(t.Context(), func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, redis.NewClient(c.Options()))
		return nil
	})
	if err != nil || len(nodes) < 2 {
		t.Fatalf("%d nodes, %v", len(nodes), err)
	}
	for _, node := range nodes {
		defer node.Close()
		for _, c := range []struct {
			bytes  string
			writes bool
		}{{"1", false}, {"0", true}} {
			if err := node.ConfigSet(t.Context(), "maxmemory", c.bytes).Err(); err != nil {
				t.Fatal(err)
			}
			if err := store.TryWrite(t.Context()); (err == nil) != c.writes {
				t.Errorf("with maxmemory %s at one node: %v", c.bytes, err)
			}
		}
	}
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	p := ports(t, 3)
	master := valkey(t, p[0], "--requirepass", "")
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 60000\n", p[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strconv.Itoa(p[1])})
	t.Cleanup(func() { sentinel.Close() })
	testkit.Start(t, "valkey-server", []string{config, "--sentinel", "--port", strconv.Itoa(p[1]), "--bind", "127.0.0.1"}, nil,
		func() error { return sentinel.Ping(context.Background()).Err() })
	// The second sentinel does not answer: the list is there for that.
	url := fmt.Sprintf("redis+sentinel://127.0.0.1:%d,127.0.0.1:%d/main/3", p[2], p[1])
	store := redisstore.New(connect(t, url+patient))
	now := time.Now().UTC().Truncate(time.Millisecond)
	v := &session.Session{
		Key: session.NewID().Key(), UID: "ID0000000001", AuthTime: now, CreatedAt: now, SeenAt: now,
		ExpiresAt: now.Add(time.Hour), EndsAt: now.Add(time.Hour),
	}
	if err := store.Create(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	got, err := store.Get(t.Context(), v.Key, now)
	if err != nil || *got != *v {
		t.Fatalf("Get = %+v, %v, want %+v", got, err, v)
	}
	if n := master.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("database 0 holds %d keys; the URL names database 3", n)
	}
}

func newSession(uid string, now time.Time) *session.Session {
	return &session.Session{
		Key: session.NewID().Key(), UID: uid, AuthTime: now, CreatedAt: now, SeenAt: now,
		ExpiresAt: now.Add(30 * time.Minute), EndsAt: now.Add(24 * time.Hour),
	}
}

// Everything the store writes but the generation expires by itself.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store, nonces := redisstore.New(client), redisstore.NewNonces(client)
	now := time.Now()
	v := newSession("ID0000000001", now)
	if err := store.Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	if _, err := nonces.FirstUse(ctx, "kid", "1", now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	limits := map[string]time.Duration{
		"barong:session:":       31 * time.Minute,
		"barong:sessions:user:": 24*time.Hour + time.Minute,
		"barong:nonce:":         61 * time.Second,
	}
	check := func() {
		t.Helper()
		keys, err := client.Keys(ctx, "*").Result()
		if err != nil || len(keys) != len(limits)+1 {
			t.Fatalf("keys = %q, %v, want %d", keys, err, len(limits)+1)
		}
		for _, key := range keys {
			if key == "barong:sessions:generation" {
				continue
			}
			ttl := client.PTTL(ctx, key).Val()
			for prefix, most := range limits {
				if strings.HasPrefix(key, prefix) && (ttl <= 0 || ttl > most) {
					t.Errorf("%s lives %s, want at most %s", key, ttl, most)
				}
			}
			if strings.Contains(key, v.UID) && !strings.HasPrefix(key, "barong:sessions:user:") {
				t.Errorf("key %s", key)
			}
		}
	}
	check()
	limits["barong:session:"] = 41 * time.Minute
	if err := store.Touch(ctx, v.Key, now, now.Add(40*time.Minute)); err != nil {
		t.Fatal(err)
	}
	check()
	limits["barong:session:"] = 24*time.Hour + time.Minute
	if err := store.Touch(ctx, v.Key, now, now.Add(1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	check()
}

// A user who signs in again and again has an index no longer than their sessions.
func TestIndexIsTrimmed(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store := redisstore.New(client)
	now := time.Now()
	size := func() int64 { return client.ZCard(ctx, "barong:sessions:user:ID0000000001").Val() }
	for i := range 5 {
		v := newSession("ID0000000001", now.Add(-time.Duration(5-i)*time.Hour))
		if err := store.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		// As when Redis has expired it: the session goes, its entry stays.
		if err := client.Del(ctx, "barong:session:"+v.Key.String()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	fresh := newSession("ID0000000001", now)
	if err := store.Create(ctx, fresh); err != nil {
		t.Fatal(err)
	}
	// The entry of a session that is just being opened stays.
	if err := client.Del(ctx, "barong:session:"+fresh.Key.String()).Err(); err != nil {
		t.Fatal(err)
	}
	if n := size(); n != 6 {
		t.Fatalf("the index has %d entries, want 6", n)
	}
	if list, err := store.List(ctx, "ID0000000001", now); err != nil || len(list) != 0 {
		t.Fatalf("List = %d sessions, %v", len(list), err)
	}
	if n := size(); n != 1 {
		t.Errorf("after List the index has %d entries, want 1", n)
	}
	if err := store.Create(ctx, newSession("ID0000000001", now.Add(25*time.Hour))); err != nil {
		t.Fatal(err)
	}
	if n := size(); n != 1 {
		t.Errorf("after the absolute end of the others the index has %d entries, want 1", n)
	}
}

// DeleteUser between the two writes of a Create leaves the entry, so that the session can still be found and ended.
func TestDeleteUserDuringCreate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store := redisstore.New(client)
	now := time.Now()
	v := newSession("ID0000000001", now)
	if err := store.Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	name := "barong:session:" + v.Key.String()
	if err := client.Rename(ctx, name, "aside").Err(); err != nil { // as if its second write were yet to come
		t.Fatal(err)
	}
	if keys, err := store.DeleteUser(ctx, v.UID, nil); err != nil || len(keys) != 0 {
		t.Fatalf("DeleteUser = %v, %v, want none", keys, err)
	}
	if err := client.Rename(ctx, "aside", name).Err(); err != nil {
		t.Fatal(err)
	}
	if list, err := store.List(ctx, v.UID, now); err != nil || len(list) != 1 {
		t.Errorf("List = %d sessions, %v, want 1", len(list), err)
	}
	if keys, err := store.DeleteUser(ctx, v.UID, nil); err != nil || len(keys) != 1 {
		t.Errorf("DeleteUser = %v, %v, want the one", keys, err)
	}
}

// A lost generation ends sessions; it never brings back those that DeleteAll ended.
func TestLostGeneration(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store := redisstore.New(client)
	now := time.Now()
	before := newSession("ID0000000001", now)
	if err := store.Create(ctx, before); err != nil {
		t.Fatal(err)
	}
	if err := client.Del(ctx, "barong:sessions:generation").Err(); err != nil {
		t.Fatal(err)
	}
	after := newSession("ID0000000001", now)
	if err := store.Create(ctx, after); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(ctx, before.Key, now); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get of the old session: %v, want ErrNotFound", err)
	}
	if _, err := store.Get(ctx, after.Key, now); err != nil {
		t.Errorf("Get of the new session: %v", err)
	}
}

// A record that cannot be read is an error, not an absent session, and no call changes it.
func TestBrokenRecord(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store := redisstore.New(client)
	now := time.Now()
	for what, change := range map[string]func(record string) string{
		"an unknown form": func(record string) string { return "3" + record[1:] },
		"a foreign text":  func(string) string { return "hello" },
		"half a record":   func(record string) string { return record[:len(record)/2] },
		"a broken field":  func(record string) string { return record[:1] + "\xff" + record[2:] },
		"a byte too many": func(record string) string { return record + "x" },
	} {
		v := newSession("ID0000000001", now)
		if err := store.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		name := "barong:session:" + v.Key.String()
		record, err := client.Get(ctx, name).Result()
		if err != nil {
			t.Fatal(err)
		}
		broken := change(record)
		if err := client.Set(ctx, name, broken, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Get(ctx, v.Key, now); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: error %v, want one that is not ErrNotFound", what, err)
		}
		if _, err := store.List(ctx, v.UID, now); err == nil {
			t.Errorf("%s: the list is not refused", what)
		}
		if err := store.Create(ctx, v); err == nil {
			t.Errorf("%s: its key is not taken", what)
		}
		for call, err := range map[string]error{
			"Touch": store.Touch(ctx, v.Key, now, now.Add(time.Hour)), "Rebase": store.Rebase(ctx, v.Key, 1), "Delete": store.Delete(ctx, v.Key),
		} {
			if err == nil || errors.Is(err, session.ErrNotFound) {
				t.Errorf("%s: %s answers %v, want an error that is not ErrNotFound", what, call, err)
			}
		}
		if got := client.Get(ctx, name).Val(); got != broken {
			t.Errorf("%s: %q became %q", what, broken, got)
		}
		if err := client.Del(ctx, name).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// What is no text at all is no session, and an error where one is to be changed.
func TestForeignKey(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store := redisstore.New(client)
	now := time.Now()
	v := newSession("ID0000000001", now)
	name := "barong:session:" + v.Key.String()
	if err := client.HSet(ctx, name, "g", "", "u", v.UID).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(ctx, v.Key, now); err == nil {
		t.Errorf("Get = %+v", got)
	}
	for what, call := range map[string]func() error{
		"Create": func() error { return store.Create(ctx, v) },
		"Touch":  func() error { return store.Touch(ctx, v.Key, now, now.Add(time.Hour)) },
		"Rebase": func() error { return store.Rebase(ctx, v.Key, 1) },
		"Delete": func() error { return store.Delete(ctx, v.Key) },
	} {
		if err := call(); err == nil {
			t.Errorf("%s succeeds", what)
		}
	}
	if kind := client.Type(ctx, name).Val(); kind != "hash" {
		t.Errorf("the key holds a %s, want the hash", kind)
	}
	// A generation that is no text, or of another program, is nobody's.
	if err := client.Set(ctx, "barong:sessions:generation", "7", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(ctx, newSession("ID0000000001", now)); err == nil {
		t.Error("Create in a foreign generation succeeds")
	}
}

// Every change keeps what it is not about, to the limits of what a session can have.
func TestChangesKeepTheRest(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := redisstore.New(connect(t, testkit.Valkey(t)+patient))
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, epoch := range []int64{0, -1, 42, math.MaxInt64, math.MinInt64} {
		v := newSession("ID0000000001", now)
		v.Epoch, v.CSRF, v.Country = epoch, "0123456789abcdef0123", "NL"
		v.IP, v.UserAgent = netip.MustParseAddr("fe80::1%eth0"), strings.Repeat("\xff", session.MaxUserAgent)
		if err := store.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		check := func(what string) {
			t.Helper()
			if got, err := store.Get(ctx, v.Key, now); err != nil || *got != *v {
				t.Errorf("after %s: %+v, %v, want %+v", what, got, err, v)
			}
		}
		check("Create")
		v.SeenAt, v.ExpiresAt = now.Add(time.Millisecond), now.Add(time.Hour)
		if err := store.Touch(ctx, v.Key, v.SeenAt, v.ExpiresAt); err != nil {
			t.Error(err)
		}
		check("Touch")
		v.SeenAt, v.ExpiresAt = now.Add(2*time.Millisecond), v.EndsAt
		if err := store.Touch(ctx, v.Key, v.SeenAt, time.Date(40_000, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
			t.Error(err)
		}
		check("Touch beyond the end")
		v.Epoch = math.MaxInt64 - epoch&1
		if err := store.Rebase(ctx, v.Key, v.Epoch); err != nil {
			t.Error(err)
		}
		check("Rebase")
		if list, err := store.List(ctx, v.UID, now); err != nil || len(list) != 1 || *list[0] != *v {
			t.Errorf("List = %+v, %v, want %+v", list, err, v)
		}
		if err := store.Delete(ctx, v.Key); err != nil {
			t.Error(err)
		}
		if list, err := store.List(ctx, v.UID, now); err != nil || len(list) != 0 {
			t.Errorf("List after Delete = %+v, %v, want none", list, err)
		}
	}
}

// A session that the version before stored is read, changed, listed and ended like any other. How it began is not known.
func TestSessionOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	client := connect(t, testkit.Valkey(t)+patient)
	store := redisstore.New(client)
	now := time.Now().UTC().Truncate(time.Millisecond)
	if err := store.Create(ctx, newSession("ID0000000009", now)); err != nil { // makes the generation
		t.Fatal(err)
	}
	store1 := func() *session.Session {
		v := newSession("ID0000000001", now)
		v.Epoch, v.CSRF, v.UserAgent, v.IP = 3, "0123456789abcdef0123", "curl/8", netip.MustParseAddr("203.0.113.7")
		record := fmt.Sprintf("1%sABCDEFGHIJKLMNOPQRSTUVWXYZ%015d%015d%015d%015d%020d",
			client.Get(ctx, "barong:sessions:generation").Val(), v.SeenAt.UnixMilli(), v.ExpiresAt.UnixMilli(), v.EndsAt.UnixMilli(),
			v.CreatedAt.UnixMilli(), v.Epoch) + "\x00\x0cID0000000001\x00\x140123456789abcdef0123\x00\x00\x00\x04\xcb\x00\x71\x07\x00\x06curl/8"
		member := fmt.Sprintf("%s:%d", v.Key, v.CreatedAt.UnixMilli())
		if err := errors.Join(client.Set(ctx, "barong:session:"+v.Key.String(), record, time.Hour).Err(),
			client.ZAdd(ctx, "barong:sessions:user:"+v.UID, redis.Z{Score: float64(v.EndsAt.UnixMilli()), Member: member}).Err()); err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := store1()
	check := func(what string) {
		t.Helper()
		if got, err := store.Get(ctx, v.Key, now); err != nil || *got != *v {
			t.Errorf("after %s: %+v, %v, want %+v", what, got, err, v)
		}
		if list, err := store.List(ctx, v.UID, now); err != nil || len(list) != 1 || *list[0] != *v {
			t.Errorf("after %s: List = %+v, %v", what, list, err)
		}
	}
	check("an upgrade")
	v.SeenAt, v.ExpiresAt = now.Add(time.Millisecond), now.Add(time.Hour)
	if err := store.Touch(ctx, v.Key, v.SeenAt, v.ExpiresAt); err != nil {
		t.Error(err)
	}
	check("Touch")
	v.Epoch = -4
	if err := store.Rebase(ctx, v.Key, v.Epoch); err != nil {
		t.Error(err)
	}
	check("Rebase")
	if err := store.Delete(ctx, v.Key); err != nil {
		t.Error(err)
	}
	if _, err := store.Get(ctx, v.Key, now); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get after Delete: %v", err)
	}
	v = store1()
	if keys, err := store.DeleteUser(ctx, v.UID, nil); err != nil || len(keys) != 1 || keys[0] != v.Key {
		t.Errorf("DeleteUser = %v, %v", keys, err)
	}
	v = store1()
	if n, err := store.DeleteAll(ctx); err != nil || n != 2 {
		t.Errorf("DeleteAll = %d, %v, want 2", n, err)
	}
}

// A server that hangs is given up on before a gateway gives up on us, and never reads as "no such session".
func TestServerHangs(t *testing.T) {
	t.Parallel()
	server := testkit.ValkeyServer(t)
	client := connect(t, server.URL)
	store, nonces := redisstore.New(client), redisstore.NewNonces(client)
	now := time.Now()
	v := newSession("ID0000000001", now)
	await(t, "create", func() bool { return store.Create(t.Context(), v) == nil })
	fails := func() {
		t.Helper()
		start := time.Now()
		_, err := store.Get(t.Context(), v.Key, now)
		if err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("Get: error %v, want one that is not ErrNotFound", err)
		}
		// 200 ms by design; the rest is for a busy machine.
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Get took %s", took)
		}
		if first, err := nonces.FirstUse(t.Context(), "kid", "1", now.Add(time.Second)); err == nil || first {
			t.Errorf("FirstUse = %v, %v, want an error", first, err)
		}
		if err := store.Ping(t.Context()); err == nil {
			t.Error("Ping succeeds")
		}
	}
	server.Pause()
	fails()
	server.Resume()
	await(t, "get after the pause", func() bool { _, err := store.Get(t.Context(), v.Key, now); return err == nil })
	server.Kill()
	fails()
	server.Start(t)
	await(t, "ping after the restart", func() bool { return store.Ping(t.Context()) == nil })
	if _, err := store.Get(t.Context(), v.Key, now); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Get from an empty server: %v, want ErrNotFound", err)
	}
}

// An answer never belongs to another call, also when calls are given up half-way.
func TestCancelledCallsMixNothingUp(t *testing.T) {
	t.Parallel()
	client := connect(t, testkit.Valkey(t)+patient+"&pool_size=2&pipeline_pool_size=2")
	store := redisstore.New(client)
	now := time.Now().UTC().Truncate(time.Millisecond)
	var keys []session.Key
	for i := range 4 {
		v := newSession("ID000000000"+strconv.Itoa(i), now)
		if err := store.Create(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, v.Key)
	}
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%5)*100*time.Microsecond)
				v, err := store.Get(ctx, keys[i], now)
				cancel()
				if errors.Is(err, session.ErrNotFound) {
					t.Errorf("Get: %v", err)
				}
				if err == nil && v.UID != "ID000000000"+strconv.Itoa(i) {
					t.Errorf("Get answers %s's session", v.UID)
				}
			}
		})
	}
	group.Wait()
}

// Readings that share commands are each answered as if they were alone.
func TestReadingsShareCommands(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := testkit.ValkeyServer(t)
	client := connect(t, server.URL+patient)
	store := redisstore.New(client)
	now := time.Now().UTC().Truncate(time.Millisecond)
	sessions := make([]*session.Session, 200)
	for i := range sessions {
		sessions[i] = newSession(fmt.Sprintf("ID%010d", i), now)
		if i%5 == 0 {
			continue // not there
		}
		if err := store.Create(ctx, sessions[i]); err != nil {
			t.Fatal(err)
		}
	}
	calls := func() int64 {
		stats, err := client.Info(ctx, "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(stats, "cmdstat_mget:calls=")
		n, _, _ := strings.Cut(rest, ",")
		total, _ := strconv.ParseInt(n, 10, 64)
		return total
	}
	server.Pause() // so that all of them wait
	var group sync.WaitGroup
	for i, want := range sessions {
		group.Go(func() {
			got, err := store.Get(ctx, want.Key, now)
			switch {
			case i%5 == 0 && !errors.Is(err, session.ErrNotFound):
				t.Errorf("%s: %+v, %v, want ErrNotFound", want.UID, got, err)
			case i%5 != 0 && (err != nil || *got != *want):
				t.Errorf("%s: %+v, %v", want.UID, got, err)
			}
		})
		if i%2 == 0 { // who gives up gets an error, and takes nobody along
			group.Go(func() {
				hurried, cancel := context.WithTimeout(ctx, time.Duration(i%7)*time.Millisecond)
				defer cancel()
				if got, err := store.Get(hurried, want.Key, now); err == nil && *got != *want {
					t.Errorf("%s: %+v", want.UID, got)
				}
			})
		}
	}
	time.Sleep(20 * time.Millisecond) // for most of them to wait; right without it too
	server.Resume()
	group.Wait()
	if n := calls(); n < 1 || n > 300 {
		t.Errorf("%d commands for 300 readings", n)
	}
	// What has just been written is read: no answer is older than its question.
	for i := range 20 {
		var racing sync.WaitGroup
		for _, v := range sessions[:40] {
			racing.Go(func() { _, _ = store.Get(ctx, v.Key, now) })
		}
		v := sessions[41+i]
		if err := store.Rebase(ctx, v.Key, int64(100+i)); err != nil && i%5 != 4 {
			t.Fatal(err)
		}
		if got, err := store.Get(ctx, v.Key, now); err == nil && got.Epoch != int64(100+i) {
			t.Errorf("epoch %d, want %d", got.Epoch, 100+i)
		}
		racing.Wait()
	}
	if _, err := store.DeleteAll(ctx); err != nil {
		t.Fatal(err)
	}
	for _, v := range sessions {
		group.Go(func() {
			if got, err := store.Get(ctx, v.Key, now); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("after DeleteAll: %+v, %v", got, err)
			}
		})
	}
	group.Wait()
}

var _ authz.Nonces = (*redisstore.Nonces)(nil)

func TestNonces(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url := testkit.Valkey(t)
	a, b := redisstore.NewNonces(connect(t, url+patient)), redisstore.NewNonces(connect(t, url+patient))
	until := time.Now().Add(10 * time.Second)
	var firsts atomic.Int32
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			first, err := []*redisstore.Nonces{a, b}[i%2].FirstUse(ctx, "61d025b8573501c2", "1584524005143", until)
			if err != nil {
				t.Errorf("FirstUse: %v", err)
			}
			if first {
				firsts.Add(1)
			}
		})
	}
	group.Wait()
	if n := firsts.Load(); n != 1 {
		t.Errorf("%d of 16 parallel uses were the first, want 1", n)
	}
	for _, c := range []struct {
		kid   string
		nonce int
		want  bool
	}{
		{"61d025b8573501c2", 1584524005143, false},
		{"61d025b8573501c2", 1584524005144, true},
		{"61d025b8573501c3", 1584524005143, true},
		{"61d025b8573501c2:1", 584524005143, true},
		{"k", 0, true},
	} {
		if first, err := a.FirstUse(ctx, c.kid, strconv.Itoa(c.nonce), until); err != nil || first != c.want {
			t.Errorf("FirstUse(%s, %d) = %v, %v, want %v", c.kid, c.nonce, first, err, c.want)
		}
	}
	// A time that is over already still marks: the clocks of two replicas differ.
	for i, want := range []bool{true, false} {
		if first, err := a.FirstUse(ctx, "past", "1", time.Now().Add(-time.Hour)); err != nil || first != want {
			t.Errorf("use %d = %v, %v, want %v", i, first, err, want)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if first, err := a.FirstUse(cancelled, "k", "2", until); err == nil || first {
		t.Errorf("FirstUse with a cancelled context = %v, %v, want an error", first, err)
	}
}
