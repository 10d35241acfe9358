package importer_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/charmap"
)

// A table of an invented database of the original. A nil is NULL, a string a text.
type table struct {
	name    string
	columns string // names
	rows    [][]any
}

const (
	day1 = "2019-01-02 03:04:05"
	day2 = "2020-02-03 04:05:06"
)

// odd holds everything that a dump escapes.
const odd = "quote ' double \" backslash \\ newline\n tab\t cr\r ctrl-z \x1a nul \x00 percent % semi ; dash -- hash # /* c */ ünï €"

const digest = "$2a$04$xdwqVRKrKzulHCYuDoEqBuBWy13RJByEnqNYun0nAtj5MWmP75Cfq" // of "Secret-Word-1"

// invented is a small database of 2.4.17 with what years of use leave behind.
func invented() []table {
	return []table{
		{"activities", "id user_id target_uid category user_ip user_agent topic action result data created_at", [][]any{
			{1, 1, "", nil, "10.0.0.1", "agent", "session", "login", "succeed", nil, nil},
			{2, 1, "IDB", "admin", "10.0.0.1", odd, "users", "update", "succeed", `{"uid": "IDB", "password": "LEAK-1", "user": {"otp_code": "LEAK-2"}, "state": "banned"}`, day1},
			{3, 77, nil, "user", "::1", "agent", "password", "reset", "failed", `broken {"password": "LEAK-3`, day2},
			{4, 2, nil, "user", "::1", "agent", "session", "login", "strange", "{\"nul\":\"a\x00b\"}", nil},
		}},
		{"apikeys", "id user_id kid algorithm scope state created_at updated_at", [][]any{
			{1, 1, "kid1", "HS256", nil, "active", day1, day1},
			{2, 1, "kid2", "HS256", "---\n- trade\n- 'odd: scope'\n- !ruby/symbol withdraw\n- :read\n", "active", day1, day1},
			{3, 2, "kid3", "HS256", "--- []\n", "active", day1, day1},
			{4, 2, "kid2", "HS256", nil, "active", day1, day2},
			{5, 99, "kid5", "HS256", nil, "active", day1, day1},
		}},
		{"ar_internal_metadata", "key value created_at updated_at", [][]any{{"environment", "production", day1, day1}}},
		{"data_storages", "id user_id title data created_at updated_at", [][]any{{1, 2, "Personal", odd, day1, day1}}},
		{"documents", "id user_id upload doc_type doc_number doc_expire metadata created_at updated_at", [][]any{
			{1, 2, "паспорт+1.JPEG", "Military ID", "SECRET-DOC", "2031-12-01", `{"a":1}`, day1, day1},
			{2, 2, nil, "Passport", nil, nil, "", day1, day1},
			{3, 2, "../x", nil, "N", "0000-00-00", nil, day1, day1},
		}},
		{"labels", "id user_id key value scope description created_at updated_at", [][]any{
			{1, 1, "EMAIL", "Verified", "private", odd, day1, day1},
			{2, 2, "email", "verified", "private", nil, day1, day2},
			{3, 2, "email", "rejected", "private", nil, day1, day1},
			{4, 3, "email", "verified", "private", nil, day1, day1},
			{5, 3, "band-member", "x", "public", nil, day1, day1},
			{6, 4, "email", "verified", "private", nil, day1, day1},
			{7, 4, "ban", "by-support", "private", nil, day1, day1},
			{8, 1, "phone", "verified", "private", nil, day1, day1},
			{9, 2, "note", "x", "secret", nil, day1, day1},
			{10, 99, "email", "verified", "private", nil, day1, day1},
		}},
		{"levels", "id key value description created_at updated_at", [][]any{
			{1, "email", "verified", "one", day1, day1}, {2, "phone", "verified", nil, day1, day1}, {3, "free", nil, nil, day1, day1},
		}},
		{"permissions", "id action role verb path topic created_at updated_at", [][]any{
			{1, "accept", "superadmin", "all", "api/v2", nil, day1, day1},
			{5, "ACCEPT", "member", "GET", "api/v2/x", nil, day1, day1},
			{6, "ACCEPT", "member", "GET", "api/v2/x", "t", day1, day1},
		}},
		{"phones", "id user_id country number code validated_at created_at updated_at", [][]any{
			{1, 1, "UA", "+380 67 000-00-01", "12345", day1, day1, day1},
			{2, 2, "UA", "380670000001", "54321", day2, day1, day2},
			{3, 2, "UA", "380670000002", nil, nil, day1, day1},
			{4, 2, "UA", "380670000002", nil, day2, day2, day2},
			{5, 3, "XX", "none", nil, nil, day1, day1},
		}},
		{"profiles", "id user_id first_name last_name dob address postcode city country state metadata created_at updated_at", [][]any{
			{1, 1, "Zoë", "O'Secret-Name", "1990-02-28", odd, "01001", "Kyiv", "UA", 3, "{broken", day1, day1},
			{2, 2, nil, nil, nil, nil, nil, nil, nil, nil, nil, day1, day1},
			{3, 2, "Secret-Name", nil, nil, nil, nil, nil, nil, 1, "", day2, day2},
			{4, 3, "x", nil, nil, nil, nil, nil, nil, 2, nil, day1, day1},
			{5, nil, "x", nil, nil, nil, nil, nil, nil, 0, nil, day1, day1},
		}},
		{"restrictions", "id category scope value code state created_at updated_at", [][]any{
			{1, "blacklist", "ip", "203.0.113.66", nil, "disabled", day1, day2},
			{2, "blacklist", "ip", "203.0.113.66", 433, "enabled", day1, day1},
			{3, "blacklist", "ip_subnet", "300.1.2.0/24", 403, "enabled", day1, day1},
			{4, "whitelist", "country", "UA", nil, "enabled", day1, day1},
		}},
		{"schema_migrations", "version", [][]any{{"20190108115333"}, {"20200429082843"}, {"20200318152130"}}},
		{"users", "id uid email password_digest role data level otp state referral_id created_at updated_at", [][]any{
			{1, "IDA", "  Root@Example.com ", digest, "superadmin", odd, 2, 1, "active", nil, day1, day2},
			{2, "idb-of-an-older-prefix", "bob@localhost", digest, "member", "null", 1, 1, "active", 4, day1, day1},
			{3, "IDC", "carol@example.com", digest, "vip", "", 1, nil, "banned", 3, day1, day1},
			{4, "IDD", "dave@example.com", "x", "member", nil, 5, 0, "banned", 999, day1, day1},
		}},
	}
}

// types are the columns' types in MySQL, where they are no texts.
var types = map[string]string{
	"id": "bigint(20) NOT NULL AUTO_INCREMENT", "user_id": "bigint(20) unsigned DEFAULT NULL", "level": "int(11) NOT NULL DEFAULT 0",
	"otp": "tinyint(1) DEFAULT 0", "referral_id": "bigint(20) DEFAULT NULL", "created_at": "datetime DEFAULT NULL", "updated_at": "datetime DEFAULT NULL",
	"validated_at": "datetime DEFAULT NULL", "code": "int(11) DEFAULT NULL", "dob": "date DEFAULT NULL", "doc_expire": "date DEFAULT NULL",
	"key_holder_account_id": "bigint(20) unsigned DEFAULT NULL",
	"data":                  "mediumtext DEFAULT NULL", "metadata": "mediumtext DEFAULT NULL",
}

// A style is how mysqldump is asked to write.
type style struct {
	lines, single, complete, bare, compact bool // rows on lines of their own; a row a statement, naming columns; without CREATE TABLE; without comments
	binary, hex                            bool // texts as _binary '…', as 0x…
	databases                              bool
	charset                                string // of SET NAMES; utf8mb4
}

// sql writes a dump.
func sql(tables []table, s style) string {
	var b strings.Builder
	charset := s.charset
	if charset == "" {
		charset = "utf8mb4"
	}
	if !s.compact {
		b.WriteString("/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB\n--\n-- Host: x\n\n")
		fmt.Fprintf(&b, "/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;\n/*!40101 SET NAMES %s */;\n/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;\n"+
			"/*!40103 SET TIME_ZONE='+00:00' */;\n/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;\n\n", charset)
	}
	if s.databases {
		b.WriteString("CREATE DATABASE /*!32312 IF NOT EXISTS*/ `other` /*!40100 DEFAULT CHARACTER SET utf8 */;\n\nUSE `other`;\n")
		b.WriteString("CREATE TABLE `users` (`id` int, `name` varchar(9));\nINSERT INTO `users` VALUES (1,'nobody');\nCREATE TABLE `schema_migrations` (`version` varchar(255));\nINSERT INTO `schema_migrations` VALUES ('20300101000000');\n")
		b.WriteString("CREATE DATABASE `barong.production`;\nUSE `barong.production`;\n")
	}
	for _, t := range tables {
		columns := strings.Fields(t.columns)
		if !s.bare {
			fmt.Fprintf(&b, "DROP TABLE IF EXISTS `%s`;\n/*!50503 SET character_set_client = utf8mb4 */;\nCREATE TABLE `%s` (\n", t.name, t.name)
			for _, c := range columns {
				kind := types[c]
				if kind == "" {
					kind = "varchar(255) DEFAULT NULL COMMENT 'a, `b`) ;'"
				}
				fmt.Fprintf(&b, "  `%s` %s,\n", c, kind)
			}
			fmt.Fprintf(&b, "  PRIMARY KEY (`%s`),\n  KEY `index_x` (`%s`,`%s`(10))\n) ENGINE=InnoDB AUTO_INCREMENT=9 DEFAULT CHARSET=utf8;\n", columns[0], columns[0], columns[len(columns)-1])
		}
		if len(t.rows) == 0 {
			continue
		}
		if !s.compact {
			fmt.Fprintf(&b, "LOCK TABLES `%s` WRITE;\n/*!40000 ALTER TABLE `%s` DISABLE KEYS */;\n", t.name, t.name)
		}
		into := "INSERT INTO `" + t.name + "`"
		if s.complete {
			into += " (`" + strings.Join(columns, "`, `") + "`)"
		}
		for i, r := range t.rows {
			var cells []string
			for j, v := range r {
				cells = append(cells, cell(v, s, columns[j]))
			}
			row := "(" + strings.Join(cells, ",") + ")"
			switch {
			case i == 0 && s.lines && !s.single:
				b.WriteString(into + " VALUES\n" + row)
			case i == 0 || s.single:
				b.WriteString(into + " VALUES " + row)
			case s.lines:
				b.WriteString(",\n" + row)
			default:
				b.WriteString("," + row)
			}
			if s.single || i == len(t.rows)-1 {
				b.WriteString(";\n")
			}
		}
		if !s.compact {
			fmt.Fprintf(&b, "/*!40000 ALTER TABLE `%s` ENABLE KEYS */;\nUNLOCK TABLES;\n\n", t.name)
		}
	}
	if !s.compact {
		b.WriteString("/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`%`*/ /*!50003 VIEW `v` AS SELECT ';' */;\nDELIMITER ;;\n" +
			"/*!50003 CREATE*/ /*!50003 TRIGGER `t` BEFORE INSERT ON `users` FOR EACH ROW BEGIN SET @a = ';;'; SET @b = 1; END */;;\nDELIMITER ;\n")
		b.WriteString("/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-11-30  8:07:07\n")
	}
	return b.String()
}

var escapes = strings.NewReplacer("\\", "\\\\", "'", "\\'", "\"", "\\\"", "\n", "\\n", "\r", "\\r", "\x1a", "\\Z", "\x00", "\\0")

func cell(v any, s style, column string) string {
	text, ok := v.(string)
	switch {
	case v == nil:
		return "NULL"
	case !ok:
		return fmt.Sprint(v)
	}
	if _, typed := types[column]; s.hex && text != "" && !typed {
		return fmt.Sprintf("0x%X", text)
	}
	out := text
	if s.charset == "latin1" {
		latin, err := charmap.Windows1252.NewEncoder().String(text)
		if err != nil { // what Latin has no letter for is a question mark there
			latin, _ = charmap.Windows1252.NewEncoder().String(strings.Map(func(r rune) rune {
				if r > 0xff {
					return '?'
				}
				return r
			}, text))
		}
		out = latin
	}
	out = "'" + escapes.Replace(out) + "'"
	if s.lines { // the other way to write a quote
		out = strings.ReplaceAll(out, `\'`, "''")
	}
	if s.binary {
		return "_binary " + out
	}
	return out
}

// file writes a dump to a file.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dump.sql")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func compressed(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text)) // into memory
	_ = z.Close()
	return b.String()
}

// with returns the tables with one of them changed.
func with(tables []table, name string, change func(t *table)) []table {
	out := slices.Clone(tables)
	for i := range out {
		if out[i].name == name {
			out[i].rows = slices.Clone(out[i].rows)
			for j := range out[i].rows {
				out[i].rows[j] = slices.Clone(out[i].rows[j])
			}
			change(&out[i])
		}
	}
	return out
}

// set changes a column of the row with that id.
func (t *table) set(id int, column string, v any) {
	i := slices.Index(strings.Fields(t.columns), column)
	for _, r := range t.rows {
		if r[0] == id {
			r[i] = v
		}
	}
}

// remove takes the row with that id out.
func (t *table) remove(id int) {
	t.rows = slices.DeleteFunc(t.rows, func(r []any) bool { return r[0] == id })
}
