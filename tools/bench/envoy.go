package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A dialect of Envoy's checks, with the reference configuration that speaks it.
type dialect struct {
	config string // in the folder envoy
	port   string // of the checks there
}

var (
	envoyHTTP = dialect{config: "envoy.yaml", port: "8081"}
	envoyGRPC = dialect{config: "envoy-grpc.yaml", port: "9191"}
)

// startEnvoy starts an Envoy with a reference configuration, on the processor of the load, that has checks answered at addr
// and answers by itself what they let pass.
func (b *bench) startEnvoy(d dialect, addr string) (*server, error) {
	program, err := filepath.EvalSymlinks(filepath.Join(b.root, ".tools", "servers", "envoy"))
	if err != nil {
		return nil, fmt.Errorf("%w (make tools brings it)", err)
	}
	text, err := os.ReadFile(filepath.Join(b.root, "envoy", d.config))
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	_, checks, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s := &server{name: "envoy", addr: ports[0]}
	_, public, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, err
	}
	config := string(text)
	for _, change := range [][2]string{
		{"port_value: 8000 ", "port_value: " + public + " "},
		{"port_value: " + d.port + " ", "port_value: " + checks + " "},
		{"route: { cluster: upstream, timeout: 0s }", "direct_response: { status: 200 }"},
	} {
		if strings.Count(config, change[0]) != 1 {
			return nil, fmt.Errorf("%s: %q is not there once", d.config, change[0])
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	file, err := os.CreateTemp(b.tmp, "*.yaml")
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteString(config); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(program, "-c", file.Name(), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error")
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if b.loadCore >= 0 {
		err = startOn(b.loadCore, s.cmd)
	} else {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	for range 1_000 {
		if conn, err := net.Dial("tcp", s.addr); err == nil {
			conn.Close()
			return s, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("envoy does not listen: %s", s.log.String())
}

// throughEnvoy measures what a gateway's users have: their rate through a real Envoy, beside one whose checks a bare server
// answers. Envoy and the load share a processor, so the rate is theirs; the processor time is that of who answers checks.
func (b *bench) throughEnvoy(gateway *server, checks [][]byte) error {
	a, err := ask(gateway.addr, checks[0])
	if err != nil {
		return err
	}
	token := ""
	for _, h := range a.Headers {
		if h[0] == "Authorization" {
			token = h[1]
		}
	}
	for _, c := range []struct {
		row
		dialect
		ours, kind string
		spec       childSpec
	}{
		{row{Name: "through Envoy, HTTP", Base: "bare fasthttp"}, envoyHTTP, gateway.addr, childBare, childSpec{Answer: *a}},
		{row{Name: "through Envoy, gRPC", Base: "gRPC server"}, envoyGRPC, gateway.grpc, childGRPC, childSpec{Token: token}},
	} {
		if !b.wanted(c.Name) {
			continue
		}
		c.Target = "rate >= 0.97, time >= 0.83 (1.2 times)"
		base, err := b.startChild(c.kind, &c.spec)
		if err != nil {
			return err
		}
		t := contest{row: c.row, base: base, server: gateway}
		for _, side := range []struct {
			addr    string
			callers *[]caller
		}{{base.addr, &t.baseCallers}, {c.ours, &t.our}} {
			envoy, err := b.startEnvoy(c.dialect, side.addr)
			if err != nil {
				return err
			}
			if *side.callers, err = b.callers(envoy.addr, 200, requests(len(checks), throughGateway)); err != nil {
				return err
			}
		}
		if err := b.compete(&t); err != nil {
			return err
		}
	}
	return nil
}

// trustedHere is BARONG_TRUSTED_PROXIES with the addresses of this machine: Envoy tells one of those for a client on loopback.
func trustedHere() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	list := []string{"loopback"}
	for _, a := range addresses {
		list = append(list, strings.SplitN(a.String(), "/", 2)[0])
	}
	return "BARONG_TRUSTED_PROXIES=" + strings.Join(list, ","), nil
}

// throughGateway is what the browser of person i asks a gateway for.
func throughGateway(i int) []byte { return wire("GET", allowedPath, browserOf(i)...) }
