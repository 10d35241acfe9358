package db

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestAdvice(t *testing.T) {
	tried := errors.New("failed to connect to `user=u database=d`:\n\t127.0.0.1:5432 (h): tls error: server refused TLS connection\n\t127.0.0.1:5432 (h): server error: FATAL: x")
	for _, c := range []struct {
		err       error
		want, not string
	}{
		{&pgconn.PgError{Code: "3D000", Message: "no such database"}, "createdb", ""},
		{fmt.Errorf("connect: %w", &pgconn.PgError{Code: "28P01"}), "percent-encoded", ""},
		{&pgconn.PgError{Code: "28000"}, "pg_hba.conf", ""},
		{&pgconn.PgError{Code: "53300"}, "max_connections", ""},
		{&pgconn.PgError{Code: "XX000"}, "XX000", ";"},
		{fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}), "sslrootcert=", ""},
		{fmt.Errorf("tls: %w", x509.HostnameError{Certificate: new(x509.Certificate), Host: "h"}), "the certificate is for", ""},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "db"}}, "known on this machine", ""},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "is the server up", ""},
		{errors.New("127.0.0.1:5432 (h): tls error: server refused TLS connection"), "sslmode=disable", ""},
		{errors.New("unable to open database file (14)"), "read and write it", ""},
		{tried, "FATAL: x", "TLS"},
		{errors.New("something else"), "something else", ";"},
	} {
		got := advised(c.err)
		if !strings.Contains(got.Error(), c.want) || c.not != "" && strings.Contains(got.Error(), c.not) || !errors.Is(got, c.err) {
			t.Errorf("%v: %v, want %q and not %q", c.err, got, c.want, c.not)
		}
	}
}
