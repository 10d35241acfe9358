package importer

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// pageSize is how many rows are asked for at once: a query that is read slowly would be cut off by the server. A page is found
// by its first id, so that small ones cost a round trip each and nothing else.
const pageSize = 1000

// A server is a running MySQL, read in one snapshot. It needs no right but SELECT.
type server struct {
	pool *sql.DB
	tx   *sql.Tx
	s    schema

	names map[string]string // of the tables that are read, as the server writes them
}

// openMySQL connects to mysql://user:password@host:port/database. The parameter tls is preferred (the default: encrypted
// if the server can, unverified), true, skip-verify or false.
func openMySQL(ctx context.Context, raw, password string) (*server, error) {
	config, err := mysqlConfig(raw, password)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errors.New("the address of MySQL cannot be used: " + withoutSecret(err.Error(), config.Passwd))
	}
	d := &server{pool: sql.OpenDB(connector)}
	d.pool.SetMaxOpenConns(1)
	if err := d.begin(ctx, config.DBName); err != nil {
		return nil, errors.Join(errors.New(withoutSecret(err.Error(), config.Passwd)+advice(err)), d.close())
	}
	return d, nil
}

// advice is what to do about an error of MySQL, behind a colon; empty for others.
func advice(err error) string {
	var refused *mysql.MySQLError
	var network net.Error
	switch {
	case errors.As(err, &refused):
		switch refused.Number {
		case 1045: // ER_ACCESS_DENIED_ERROR
			return ": give the user in the address, and the password there or in BARONG_MYSQL_PASSWORD"
		case 1044, 1142, 1143: // ER_DBACCESS_DENIED_ERROR, ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR
			return ": the user needs the right SELECT on the whole database"
		case 1049: // ER_BAD_DB_ERROR
			return ": the address ends with the name of the original's database"
		}
	case errors.Is(err, mysql.ErrNoTLS), errors.Is(err, mysql.ErrOldPassword), errors.Is(err, mysql.ErrCleartextPassword):
		return ": try ?tls=false, or make a dump on the server"
	case errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, driver.ErrBadConn), errors.Is(err, io.ErrUnexpectedEOF):
		return ": the connection was cut: import again when the server is there, or from a dump"
	case strings.Contains(err.Error(), "tls: "):
		return ": the server speaks another TLS, or has a certificate that nobody vouches for: try ?tls=skip-verify, or ?tls=false, or make a dump on the server"
	case errors.As(err, &network):
		return ": see that the server runs, and that this machine may reach it"
	}
	return ""
}

func withoutSecret(text, secret string) string {
	if secret == "" {
		return text
	}
	return strings.ReplaceAll(text, secret, "***")
}

func mysqlConfig(raw, password string) (*mysql.Config, error) {
	u, err := url.Parse(raw)
	if err != nil { // its text holds the URL, and so the password
		return nil, errors.New("the address of MySQL is no URL such as mysql://user:password@host:3306/database; special characters are percent-encoded")
	}
	c := mysql.NewConfig()
	c.Net, c.DBName = "tcp", strings.Trim(u.Path, "/")
	if u.Hostname() == "" || c.DBName == "" || strings.Contains(c.DBName, "/") {
		return nil, errors.New("the address of MySQL lacks the host or the database: mysql://user:password@host:3306/database")
	}
	port := u.Port()
	if port == "" {
		port = "3306"
	}
	c.Addr = net.JoinHostPort(u.Hostname(), port)
	c.User = u.User.Username()
	if c.Passwd, _ = u.User.Password(); c.Passwd == "" {
		c.Passwd = password
	}
	c.Logger = &mysql.NopLogger{} // it would write beside the error that is told
	c.ParseTime, c.Timeout, c.ReadTimeout, c.WriteTimeout = false, 10*time.Second, 10*time.Minute, time.Minute
	c.Params = map[string]string{"time_zone": "'+00:00'"}
	if err := c.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, err
	}
	// Servers of those days speak TLS 1.0, exchange keys by RSA alone (MySQL 5.7 up to 5.7.27, which is built with yaSSL), and have
	// certificates that they made themselves.
	old := &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS10, InsecureSkipVerify: true} //nolint:gosec // see above
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		old.CipherSuites = append(old.CipherSuites, suite.ID)
	}
	for name := range u.Query() {
		if name != "tls" {
			return nil, fmt.Errorf("the address of MySQL takes the parameter tls alone, not %q", clip(name, 40))
		}
	}
	switch mode := u.Query().Get("tls"); mode {
	case "", "preferred":
		c.TLS, c.AllowFallbackToPlaintext = old, true
	case "skip-verify":
		c.TLS = old
	case "true":
		c.TLS = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	case "false":
	default:
		return nil, fmt.Errorf("tls=%s: allowed are preferred, true, skip-verify and false", clip(mode, 40))
	}
	return c, nil
}

func (d *server) begin(ctx context.Context, database string) error {
	var err error
	if d.tx, err = d.pool.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}); err != nil {
		return err
	}
	d.s = schema{zoned: true, columns: map[string][]string{}, counts: map[string]int64{}}
	d.names = map[string]string{}
	all := map[string][]string{}
	err = d.query(ctx, "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = "+quoteText(database)+
		" ORDER BY table_name, ordinal_position", func(r []sql.RawBytes) error {
		all[string(r[0])] = append(all[string(r[0])], strings.ToLower(string(r[1])))
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lower := strings.ToLower(name)
		if _, known := read[lower]; !known && lower != schemaMigrations && lower != metadata {
			continue
		}
		if lower != name { // see fold
			if all[lower] != nil {
				continue
			}
			all[lower] = all[name]
			delete(all, name)
		}
		d.names[lower] = name
	}
	for _, table := range []string{users, schemaMigrations, apiKeys} {
		if all[table] == nil {
			return fmt.Errorf("the database has no table %s that this user may read: this is no database of the original", table)
		}
	}
	var migrations []string
	err = d.query(ctx, "SELECT version FROM "+quoteName(d.names[schemaMigrations]), func(r []sql.RawBytes) error {
		migrations = append(migrations, string(r[0]))
		return nil
	})
	if err != nil {
		return err
	}
	v, err := findVersion(migrations)
	if err != nil {
		return err
	}
	d.s.version, d.s.counts[schemaMigrations] = v.number, int64(len(migrations))
	if all[metadata] != nil {
		err = d.query(ctx, "SELECT `key`, `value` FROM "+quoteName(d.names[metadata]), func(r []sql.RawBytes) error {
			d.s.counts[metadata]++
			if string(r[0]) == "environment" {
				d.s.environment = string(r[1])
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for table, columns := range all {
		switch _, known := read[table]; {
		case known:
			d.s.columns[table] = columns
			err := d.query(ctx, "SELECT count(*) FROM "+quoteName(d.names[table]), func(r []sql.RawBytes) error {
				n, err := strconv.ParseInt(string(r[0]), 10, 64)
				d.s.counts[table] = n
				return err
			})
			if err != nil {
				return err
			}
		case table != schemaMigrations && table != metadata:
			d.s.unknown = append(d.s.unknown, table)
		}
	}
	slices.Sort(d.s.unknown)
	return d.s.check()
}

func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteText quotes a text, which is the name of a database, for a statement without parameters: those would make the
// server answer in a binary form.
func quoteText(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

// query calls f with each row, whose bytes are valid until f returns.
func (d *server) query(ctx context.Context, statement string, f func([]sql.RawBytes) error) error {
	rows, err := d.tx.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	cells, into := make([]sql.RawBytes, len(columns)), make([]any, len(columns))
	for i := range cells {
		into[i] = &cells[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := f(cells); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (d *server) schema() *schema { return &d.s }

func (d *server) rows(ctx context.Context, table string, f func(*row) error) error {
	columns := d.s.columns[table]
	if columns == nil {
		return nil
	}
	wanted := slices.DeleteFunc(slices.Clone(columns), func(c string) bool { return !slices.Contains(strings.Fields(read[table]), c) })
	var names []string
	for _, c := range wanted {
		names = append(names, quoteName(c))
	}
	out := newRow(wanted)
	for last := int64(-1 << 62); ; {
		n := 0
		statement := fmt.Sprintf("SELECT %s FROM %s WHERE id > %d ORDER BY id LIMIT %d", strings.Join(names, ", "), quoteName(d.names[table]), last, pageSize)
		// A page is read to its end before its rows are used: what is done with them takes time.
		page, err := d.page(ctx, statement, len(wanted))
		if err != nil {
			return fmt.Errorf("table %s: %w%s", table, err, advice(err))
		}
		for _, cells := range page {
			n++
			copy(out.values, cells)
			id, ok := out.number("id")
			if !ok || id <= last {
				return fmt.Errorf("table %s: a row has the id %q, which no table of the original gives", table, clip(out.text("id"), 40))
			}
			last = id
			if err := f(out); err != nil {
				return err
			}
		}
		if n < pageSize {
			return nil
		}
	}
}

func (d *server) page(ctx context.Context, statement string, width int) ([][]value, error) {
	var page [][]value
	size := 0
	err := d.query(ctx, statement, func(r []sql.RawBytes) error {
		cells := make([]value, width)
		for i, c := range r {
			if c != nil {
				cells[i] = append(make([]byte, 0, len(c)), c...)
				size += len(c)
			}
		}
		if size > 16*maxValue {
			return fmt.Errorf("%d rows hold more than %d MiB", pageSize, 16*maxValue>>20)
		}
		page = append(page, cells)
		return nil
	})
	return page, err
}

func (d *server) close() error {
	if d.tx != nil {
		_ = d.tx.Rollback() // nothing was written
	}
	return d.pool.Close()
}
