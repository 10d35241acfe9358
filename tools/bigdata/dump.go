package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// dumpDigest is the password of everybody in a dump: bcrypt of "Secret-Word-1", at a cost that is quick to check.
const dumpDigest = "$2a$04$xdwqVRKrKzulHCYuDoEqBuBWy13RJByEnqNYun0nAtj5MWmP75Cfq"

// rowsAStatement is how many rows of a table mysqldump writes into one statement, about.
const rowsAStatement = 5_000

// A dumper writes a dump as MariaDB's mysqldump does.
type dumper struct {
	*bufio.Writer
	rows int // of the table so far
}

// table begins a table. columns are "name type" of each, divided by commas.
func (d *dumper) table(name, columns string) {
	var definitions []string
	for column := range strings.SplitSeq(columns, ", ") {
		column, kind, _ := strings.Cut(column, " ")
		definitions = append(definitions, "  `"+column+"` "+kind)
	}
	first, _, _ := strings.Cut(columns, " ")
	fmt.Fprintf(d, "DROP TABLE IF EXISTS `%s`;\nCREATE TABLE `%s` (\n%s,\n  PRIMARY KEY (`%s`)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8;\n\n"+
		"LOCK TABLES `%s` WRITE;\n/*!40000 ALTER TABLE `%s` DISABLE KEYS */;\n", name, name, strings.Join(definitions, ",\n"), first, name, name)
	d.rows = 0
}

// row writes a row, whose values stand as in a statement.
func (d *dumper) row(table, format string, values ...any) {
	between := ",\n("
	if d.rows%rowsAStatement == 0 {
		if d.rows > 0 {
			d.WriteString(";\n")
		}
		between = "INSERT INTO `" + table + "` VALUES\n("
	}
	d.rows++
	d.WriteString(between)
	fmt.Fprintf(d, format, values...)
	d.WriteByte(')')
}

func (d *dumper) end(table string) {
	if d.rows > 0 {
		d.WriteString(";\n")
	}
	fmt.Fprintf(d, "/*!40000 ALTER TABLE `%s` ENABLE KEYS */;\nUNLOCK TABLES;\n\n", table)
}

// dump writes a database of release 2.4.17 of the original, as mysqldump writes it: for each user some 3.8 rows beside the
// activities. The same size gives the same bytes. The writer's error comes at the end.
func dump(out io.Writer, s size) error {
	d := &dumper{Writer: bufio.NewWriterSize(out, 1<<20)}
	const text, times = "varchar(255)", ", created_at datetime, updated_at datetime"
	d.WriteString("-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n--\n-- Host: 127.0.0.1    Database: barong_production\n\n" +
		"/*!40101 SET NAMES utf8mb4 */;\n/*!40103 SET TIME_ZONE='+00:00' */;\n/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;\n\n")
	r := rand.New(rand.NewPCG(3, 4))
	span := int64(365 * 24 * time.Hour / time.Second)
	begin := s.end.Unix() - span
	// at is the time of a row: rows are made evenly over a year.
	at := func(i, n int64) string { return time.Unix(begin+i*span/max(n, 1), 0).UTC().Format(time.DateTime) }
	level := func(user int64) int64 { return user * 7 % 4 }

	d.table("activities", "id bigint(20), user_id bigint(20), target_uid "+text+", category "+text+", user_ip "+text+", user_agent "+text+
		", topic "+text+", action "+text+", result "+text+", data text, created_at timestamp")
	for i := range s.activities {
		data := "NULL"
		switch r.IntN(50) {
		case 0:
			data = `'{\"reason\":\"Invalid Email or Password\"}'`
		case 1:
			data = `'{\"email\": \"somebody@example.com\", \"password\": \"stored in clear\"}'`
		}
		d.row("activities", "%d,%d,NULL,'user','10.%d.%d.%d','Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.%d Safari/537.36',"+
			"'session','login','succeed',%s,'%s'", i+1, 1+r.Int64N(max(s.users, 1)), i>>16&255, i>>8&255, i&255, i%200, data, at(i, s.activities))
	}
	d.end("activities")

	d.table("apikeys", "id bigint(20), user_id bigint(20), kid "+text+", algorithm "+text+", scope "+text+", state "+text+times)
	for i := int64(0); i < s.users; i += 20 {
		d.row("apikeys", "%d,%d,'%016x','HS256','--- []\\n','active','%s','%s'", i/20+1, i+1, i, at(i, s.users), at(i, s.users))
	}
	d.end("apikeys")

	d.table("ar_internal_metadata", "key "+text+", value "+text+times)
	d.row("ar_internal_metadata", "'environment','production','%s','%s'", at(0, 1), at(0, 1))
	d.end("ar_internal_metadata")

	d.table("documents", "id bigint(20), user_id bigint(20), upload "+text+", doc_type "+text+", doc_number "+text+", doc_expire date, metadata text"+times)
	for i := range s.users {
		if level(i) == 3 {
			d.row("documents", "%d,%d,'passport.jpg','Passport','AA%08d','2031-12-01',NULL,'%s','%s'", i+1, i+1, i, at(i, s.users), at(i, s.users))
		}
	}
	d.end("documents")

	d.table("labels", "id bigint(20), user_id bigint(20), key "+text+", value "+text+", scope "+text+", description "+text+times)
	for i := range s.users {
		for n, key := range []string{"email", "phone", "document"} {
			if int64(n) <= level(i) {
				d.row("labels", "%d,%d,'%s','verified','private',NULL,'%s','%s'", 3*i+int64(n)+1, i+1, key, at(i, s.users), at(i, s.users))
			}
		}
	}
	d.end("labels")

	d.table("levels", "id bigint(20), key "+text+", value "+text+", description "+text+times)
	for n, key := range []string{"email", "phone", "document"} {
		d.row("levels", "%d,'%s','verified',NULL,'%s','%s'", n+1, key, at(0, 1), at(0, 1))
	}
	d.end("levels")

	d.table("permissions", "id bigint(20), action "+text+", role "+text+", verb "+text+", path "+text+", topic "+text+times)
	d.row("permissions", "1,'ACCEPT','member','ALL','api/v2',NULL,'%s','%s'", at(0, 1), at(0, 1))
	d.end("permissions")

	d.table("phones", "id bigint(20), user_id bigint(20), country "+text+", number "+text+", code varchar(5), validated_at datetime"+times)
	for i := range s.users {
		if level(i) >= 1 {
			d.row("phones", "%d,%d,'UA','380%09d','12345','%s','%s','%s'", i+1, i+1, i, at(i, s.users), at(i, s.users), at(i, s.users))
		}
	}
	d.end("phones")

	d.table("profiles", "id bigint(20), user_id bigint(20), first_name "+text+", last_name "+text+", dob date, address "+text+", postcode "+text+", city "+
		text+", country "+text+", state tinyint, metadata text"+times)
	for i := range s.users {
		if level(i) >= 2 {
			d.row("profiles", "%d,%d,'%s','%s','1990-01-02','%d Long Street','01001','Kyiv','%s',3,NULL,'%s','%s'", i+1, i+1,
				firstName(skewed(r, firstNames)), lastName(skewed(r, lastNames)), i%500, country(r), at(i, s.users), at(i, s.users))
		}
	}
	d.end("profiles")

	d.table("schema_migrations", "version "+text)
	d.row("schema_migrations", "'20200429082843'")
	d.end("schema_migrations")

	d.table("users", "id bigint(20), uid "+text+", email "+text+", password_digest "+text+", role "+text+", data text, level int(11), otp tinyint(1), state "+
		text+", referral_id bigint(20)"+times)
	for i := range s.users {
		referrer := "NULL"
		if i%10 == 9 {
			referrer = fmt.Sprint(1 + r.Int64N(s.users))
		}
		d.row("users", "%d,'ID%010X','user%d@example.com','%s','member',NULL,%d,0,'active',%s,'%s','%s'", i+1, i+1, i+1, dumpDigest,
			min(level(i), 2)+1, referrer, at(i, s.users), at(i, s.users))
	}
	d.end("users")
	d.WriteString("/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n-- Dump completed on 2026-11-30  8:07:07\n")
	return d.Flush()
}
