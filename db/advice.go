package db

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// noTLS is what the driver says of a server without TLS. With sslmode=prefer, its default, it then tries without, and what
// comes of that is the reason.
const noTLS = "server refused TLS connection"

// advised says what to do about a database that cannot be opened, where that can be told.
func advised(err error) error {
	if before, after, two := strings.Cut(err.Error(), noTLS+"\n"); two {
		start := strings.LastIndexByte(before, '\n') + 1
		err = &reworded{err, before[:start] + after}
	}
	if what := advice(err); what != "" {
		return fmt.Errorf("%w; %s", err, what)
	}
	return err
}

type reworded struct {
	error
	text string
}

func (r *reworded) Error() string { return r.text }
func (r *reworded) Unwrap() error { return r.error }

func advice(err error) string {
	if code := sqlState(err); code != "" {
		switch code {
		case "3D000":
			return "make the database (createdb), or name another"
		case "28P01":
			return "is it this user's password there? What is not a letter or digit in it is percent-encoded in a URL"
		case "28000":
			return "pg_hba.conf of the server says who may connect, from where, and whether with TLS alone"
		case "53300":
			return "the server's max_connections are used up"
		}
		return ""
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "name the file of the authority that signed it, or of the certificate itself, by sslrootcert=FILE"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the host in the URL is to be one that the certificate is for"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "is the host spelt right, and known on this machine?"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "is the server up, and does it listen at this address?"
	}
	if strings.Contains(err.Error(), "unable to open database file") { // SQLite does not say why
		return fmt.Sprintf("may user %d read and write it, and its folder?", os.Geteuid())
	}
	if strings.Contains(err.Error(), noTLS) {
		return "the server speaks no TLS: switch it on there, or take sslmode=disable on a network that is private"
	}
	return ""
}
