package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"barong/internal/config"
)

// A healthcheckCommand asks the server beside it whether it is ready.
type healthcheckCommand struct{}

// Help is shown below the command's usage.
func (healthcheckCommand) Help() string {
	return "Asks /readyz at BARONG_OPS_ADDR and exits with 0 when the answer is 200, else with 1 and the reasons."
}

// Run asks.
func (healthcheckCommand) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	status, body, err := askServer(p.ctx, c, "/readyz")
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("not ready, status %d: %s", status, strings.TrimSpace(string(body)))
	}
	_, err = fmt.Fprintln(p.stdout, "ready")
	return err
}

// askServer asks the operations listener of the server beside this program, for at most a megabyte.
func askServer(ctx context.Context, c *config.Config, path string) (status int, body []byte, err error) {
	if c.OpsAddr == "" {
		return 0, nil, errors.New("the operations listener is off: BARONG_OPS_ADDR is empty")
	}
	network, addr := listenAddress(c.OpsAddr)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	defer transport.CloseIdleConnections()
	client := http.Client{Timeout: 5 * time.Second, Transport: transport}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("no server at BARONG_OPS_ADDR=%s: %w", c.OpsAddr, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}

// listenAddress turns a listener's setting into what a client dials: the unspecified address listens on every interface,
// loopback among them.
func listenAddress(setting string) (network, addr string) {
	if path, ok := strings.CutPrefix(setting, "unix:"); ok {
		return "unix", path
	}
	host, port, err := net.SplitHostPort(setting)
	if err == nil && (host == "" || host == "0.0.0.0") {
		return "tcp", net.JoinHostPort("127.0.0.1", port)
	}
	if err == nil && host == "::" {
		return "tcp", net.JoinHostPort("::1", port)
	}
	return "tcp", setting
}
