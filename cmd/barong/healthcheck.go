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
	if c.OpsAddr == "" {
		return errors.New("the operations listener is off: BARONG_OPS_ADDR is empty")
	}
	network, addr := listenAddress(c.OpsAddr)
	client := http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}},
	}
	req, err := http.NewRequestWithContext(p.ctx, http.MethodGet, "http://localhost/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no server at BARONG_OPS_ADDR=%s: %w", c.OpsAddr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready, status %d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	_, err = fmt.Fprintln(p.stdout, "ready")
	return err
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
