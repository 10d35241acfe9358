package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// ValkeyWith starts a Valkey that the test has for itself, with arguments of its own, such as "--appendonly", "yes".
func ValkeyWith(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := newValkeyWith(args...)
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return s.forTest(t)
}

// Client connects to one Valkey, past whatever stands before it. The connection ends with the test.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, DialTimeout: dialTimeout, MaxRetries: -1})
	t.Cleanup(func() { c.Close() })
	return c
}

// answered asks until ok, for as long as a start may take.
func answered(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("testkit: %s: not within %s", what, startTimeout)
		}
	}
}

// ValkeyCluster starts a Valkey Cluster of so many primaries, which share the slots evenly, each with so many replicas,
// and returns its URL and its nodes: the primaries first, then the replicas of the first primary, of the second and so on.
func ValkeyCluster(t testing.TB, primaries, replicas int, args ...string) (url string, nodes []*Server) {
	t.Helper()
	ctx := context.Background()
	var clients []*redis.Client
	var hosts, buses []string
	for range primaries * (1 + replicas) {
		bus, err := freePort()
		if err != nil {
			t.Fatalf("testkit: %v", err)
		}
		s := ValkeyWith(t, append([]string{"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--databases", "1"}, args...)...)
		nodes, clients = append(nodes, s), append(clients, s.Client(t))
		hosts, buses = append(hosts, s.Addr), append(buses, strconv.Itoa(bus))
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("testkit: cluster: %v", err)
		}
	}
	const slots = 16384
	for i, c := range clients {
		if i < primaries {
			must(c.ClusterAddSlotsRange(ctx, i*slots/primaries, (i+1)*slots/primaries-1).Err())
		}
		must(c.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		if i > 0 {
			host, port, _ := net.SplitHostPort(hosts[0])
			must(c.Do(ctx, "CLUSTER", "MEET", host, port, buses[0]).Err())
		}
	}
	known := "cluster_known_nodes:" + strconv.Itoa(len(clients))
	answered(t, "cluster", func() bool {
		return !slices.ContainsFunc(clients, func(c *redis.Client) bool {
			info, err := c.ClusterInfo(ctx).Result()
			return err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, known)
		})
	})
	for i := range primaries * replicas {
		id, err := clients[i/replicas].ClusterMyID(ctx).Result()
		must(err)
		c := clients[primaries+i]
		answered(t, "replica of a cluster", func() bool { return c.ClusterReplicate(ctx, id).Err() == nil })
		answered(t, "copy of a primary", func() bool { return Follows(c) })
	}
	return "redis+cluster://" + strings.Join(hosts, ","), nodes
}

// Follows reports whether a Valkey is a replica that has its primary's data.
func Follows(c *redis.Client) bool {
	info, err := c.Info(context.Background(), "replication").Result()
	return err == nil && strings.Contains(info, "role:slave") && strings.Contains(info, "master_link_status:up")
}

// ValkeySentinels starts a primary with replicas, and so many sentinels that watch over them and hold a primary for gone
// after a second. It returns their URL, and the nodes, of which the first is the primary.
func ValkeySentinels(t testing.TB, replicas, sentinels int, args ...string) (url string, nodes, watchers []*Server) {
	t.Helper()
	ctx := context.Background()
	nodes = append(nodes, ValkeyWith(t, args...))
	host, port, _ := net.SplitHostPort(nodes[0].Addr)
	for range replicas {
		s := ValkeyWith(t, append([]string{"--replicaof", host + " " + port}, args...)...)
		c := s.Client(t)
		answered(t, "replica", func() bool { return Follows(c) })
		nodes = append(nodes, s)
	}
	var hosts []string
	for range sentinels {
		s, err := newSentinel(host, port, sentinels/2+1)
		if err != nil {
			t.Fatalf("testkit: %v", err)
		}
		watchers, hosts = append(watchers, s.forTest(t)), append(hosts, s.Addr)
	}
	for _, w := range watchers {
		c := redis.NewSentinelClient(&redis.Options{Addr: w.Addr})
		t.Cleanup(func() { c.Close() })
		answered(t, "sentinel", func() bool {
			main, err := c.Master(ctx, "main").Result()
			return err == nil && main["num-slaves"] == strconv.Itoa(replicas) && main["num-other-sentinels"] == strconv.Itoa(sentinels-1)
		})
	}
	return "redis+sentinel://" + strings.Join(hosts, ",") + "/main", nodes, watchers
}

func newSentinel(host, port string, quorum int) (*Server, error) {
	program, err := bin("valkey-server")
	if err != nil {
		return nil, err
	}
	own, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := temporary("valkey", nil)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("port %d\nbind 127.0.0.1\nsentinel monitor main %s %s %d\nsentinel down-after-milliseconds main 1000\n"+
		"sentinel failover-timeout main 4000\nsentinel parallel-syncs main 2\n", own, host, port, quorum)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(own))
	s := &Server{Addr: addr, name: "sentinel", folder: dir}
	s.command = command{
		path: program, dir: dir, folder: dir, env: os.Environ(), stop: syscall.SIGTERM, log: filepath.Join(dir, "log"),
		args: []string{config, "--sentinel"},
	}
	s.ready = func() error { return pong(addr) }
	if err := s.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}
