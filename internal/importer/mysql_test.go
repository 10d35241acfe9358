package importer_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"barong/internal/importer"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	gms "github.com/dolthub/go-mysql-server/sql"
	"github.com/sirupsen/logrus"
)

// mysqlServer starts a server that speaks MySQL's protocol, with these tables in the database barong_production.
// It speaks TLS where it is given how.
func mysqlServer(t testing.TB, tables []table, secure ...*tls.Config) string {
	t.Helper()
	logrus.SetOutput(io.Discard) // the server's own log
	database := memory.NewDatabase("barong_production")
	database.BaseDatabase.EnablePrimaryKeyIndexes()
	provider := memory.NewDBProvider(database)
	engine := sqle.NewDefault(provider)
	session := memory.NewSession(gms.NewBaseSession(), provider)
	ctx := gms.NewContext(t.Context(), gms.WithSession(session))
	ctx.SetCurrentDatabase("barong_production")
	run := func(statement string) {
		t.Helper()
		_, rows, _, err := engine.Query(ctx, statement)
		if err == nil {
			_, err = gms.RowIterToRows(ctx, rows)
		}
		if err != nil {
			t.Fatalf("%.200s: %v", statement, err)
		}
	}
	for _, tb := range tables {
		columns := strings.Fields(tb.columns)
		var definitions []string
		for _, c := range columns {
			kind := types[c]
			switch {
			case c == "id":
				kind = "bigint NOT NULL PRIMARY KEY"
			case c == "created_at" && tb.name == "activities":
				kind = "timestamp NULL DEFAULT NULL"
			case kind == "":
				kind = "varchar(2000)"
			}
			definitions = append(definitions, "`"+c+"` "+kind)
		}
		run("CREATE TABLE `" + tb.name + "` (" + strings.Join(definitions, ", ") + ")")
		for rows := range slices.Chunk(tb.rows, 500) {
			var values []string
			for _, r := range rows {
				var cells []string
				for j, v := range r {
					if strings.HasPrefix(fmt.Sprint(v), "0000-00-00") { // this server has no such date
						v = nil
					}
					cells = append(cells, cell(v, style{}, columns[j]))
				}
				values = append(values, "("+strings.Join(cells, ",")+")")
			}
			run("INSERT INTO `" + tb.name + "` VALUES " + strings.Join(values, ","))
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := server.Config{Protocol: "tcp", Address: listener.Addr().String(), Listener: listener}
	mode := "false"
	for _, c := range secure {
		config.TLSConfig, config.RequireSecureTransport, mode = c, true, "preferred"
	}
	s, err := server.NewServer(config, engine, gms.NewContext, memory.NewSessionBuilder(provider), nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := s.Start(); err != nil {
			slog.Debug("mysql server", "error", err)
		}
	}()
	t.Cleanup(func() { _ = s.Close() })
	return fmt.Sprintf("mysql://root:hunter2@%s/barong_production?tls=%s", listener.Addr(), mode)
}

// A running server gives what its dump gives.
func TestMySQL(t *testing.T) {
	many := with(invented(), "activities", func(t *table) {
		for i := 1000; i < 3100; i++ { // several pages
			t.rows = append(t.rows, []any{i, 2, nil, "user", "::1", fmt.Sprint("agent ", i), "session", "login", "succeed", nil, day1})
		}
	})
	dumped, live := empty(t, "sqlite"), empty(t, "sqlite")
	bring(t, dumped, options(t, file(t, sql(many, style{}))))
	capitals := slices.Clone(many) // as servers on Windows and macOS may name tables
	for i := range capitals {
		capitals[i].name = strings.ToUpper(capitals[i].name[:1]) + capitals[i].name[1:]
	}
	source := mysqlServer(t, capitals)
	report := bring(t, live, options(t, source))
	if report.Rows["activities"].InDump != 2104 || report.SchemaVersion != "20200429082843" || report.Environment != "production" {
		t.Errorf("report: %+v", report.Rows["activities"])
	}
	want, got := content(t, dumped), content(t, live)
	if !maps.EqualFunc(got, want, slices.Equal) {
		for name := range want {
			if !slices.Equal(got[name], want[name]) {
				check(t, name, got[name], want[name])
			}
		}
	}
	for name, c := range map[string]struct{ source, want string }{
		"nobody listens":    {"mysql://root:hunter2@127.0.0.1:1/barong_production", "refused"},
		"no database":       {"mysql://root:hunter2@127.0.0.1/", "lacks the host or the database"},
		"no URL":            {"mysql://root:hunter2@%zz/x", "is no URL"},
		"another database":  {strings.Replace(source, "barong_production", "mysql", 1), ""},
		"unknown parameter": {source + "&x=1", "the parameter tls alone"},
		"unknown tls":       {strings.Replace(source, "tls=false", "tls=no", 1), "tls=no"},
	} {
		_, err := importer.Open(t.Context(), options(t, c.source))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q without a password", name, err, c.want)
		}
	}
}

// The servers of the original's days offer TLS 1.0 and 1.1 with keys that are exchanged by RSA, and certificates of their own.
func TestMySQLOfOldTLS(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, self, self, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	source := mysqlServer(t, invented(), &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS10, MaxVersion: tls.VersionTLS11, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_256_CBC_SHA},
	})
	report := bring(t, empty(t, "sqlite"), options(t, source))
	if n := report.Rows["users"].Written; n != 4 {
		t.Errorf("%d users came", n)
	}
	if _, err := importer.Open(t.Context(), options(t, strings.Replace(source, "preferred", "true", 1))); err == nil || !strings.Contains(err.Error(), "?tls=skip-verify") {
		t.Errorf("with tls=true: %v", err)
	}
}
