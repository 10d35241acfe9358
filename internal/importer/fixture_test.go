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

	"github.com/klauspost/compress/zstd"
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
			{6, 4, "UA", "380670000003", nil, "0000-00-00 00:00:00", day1, day1},
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
			{4, "IDD", "dave@example.com", "x", "member", nil, 5, 0, "banned", 1<<63 - 1, day1, day1},
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
	binary, hex, introduced                bool // texts as _binary '…', as 0x…, as _utf8mb4'…'
	bits, micro                            bool // otp as a BIT; times with a fraction of the second
	ansi, unquoted, double                 bool // names in double quotes; without quotes; texts in double quotes
	databases                              bool
	charset                                string // of SET NAMES; utf8mb4
}

// tick stands for a backtick in a text, while those of names are changed.
const tick = "\x02"

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
	out := b.String()
	switch {
	case s.ansi:
		out = strings.ReplaceAll(strings.ReplaceAll(out, "`", `"`), "SQL_MODE='NO_AUTO_VALUE_ON_ZERO'", "SQL_MODE='NO_AUTO_VALUE_ON_ZERO,ANSI'")
	case s.unquoted: // but for keywords
		out = strings.ReplaceAll(strings.ReplaceAll(out, "`", ""), "\n  key varchar", "\n  `key` varchar")
	}
	return strings.ReplaceAll(out, tick, "`")
}

// dumpForms are the forms in which programs and releases write a dump of the same tables.
func dumpForms(tables []table) map[string]string {
	plain := sql(tables, style{})
	mapped := func(f func(t *table)) []table {
		out := slices.Clone(tables)
		for i := range out {
			f(&out[i])
		}
		return out
	}
	reversed := func(t *table) {
		columns := strings.Fields(t.columns)
		slices.Reverse(columns)
		rows := make([][]any, len(t.rows))
		for i, r := range t.rows {
			rows[i] = slices.Clone(r)
			slices.Reverse(rows[i])
		}
		t.columns, t.rows = strings.Join(columns, " "), rows
	}
	more := func(t *table) {
		rows := make([][]any, len(t.rows))
		for i, r := range t.rows {
			rows[i] = slices.Concat([]any{"added"}, r, []any{i, nil})
		}
		if t.name != "schema_migrations" {
			t.columns, t.rows = "note "+t.columns+" position more", rows
		}
	}
	shuffled := slices.Clone(tables)
	slices.Reverse(shuffled)
	at := func(text, where, what string) string {
		before, after, ok := strings.Cut(text, where)
		if !ok {
			panic("no " + where)
		}
		return before + what + where + after
	}
	var parts strings.Builder // files of mydumper, one after the other
	for _, t := range tables {
		const head = "/*!40101 SET NAMES binary*/;\n/*!40014 SET FOREIGN_KEY_CHECKS=0*/;\n\n/*!40103 SET TIME_ZONE='+00:00' */;\n"
		create, rows, _ := strings.Cut(sql([]table{t}, style{compact: true, double: true}), "INSERT")
		parts.WriteString(head + create + head + "INSERT" + rows)
	}
	const names, end, first = "/*!40103 SET @OLD_TIME_ZONE", "/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;", "DROP TABLE IF EXISTS"
	return map[string]string{
		"rows on lines of their own":        sql(tables, style{lines: true}),
		"a row a statement, columns named":  sql(tables, style{single: true, complete: true}),
		"without CREATE TABLE":              sql(tables, style{bare: true}),
		"without comments":                  sql(tables, style{compact: true, lines: true}),
		"bare and without comments":         sql(tables, style{compact: true, bare: true}),
		"several databases":                 sql(tables, style{databases: true}),
		"several databases, bare, complete": sql(tables, style{databases: true, bare: true, complete: true}),
		"_binary texts":                     sql(tables, style{binary: true}),
		"texts in hexadecimal":              sql(tables, style{hex: true}),
		"in hexadecimal, complete, single":  sql(tables, style{hex: true, complete: true, single: true}),
		"introduced by their charset":       sql(tables, style{introduced: true}),
		"utf8":                              sql(tables, style{charset: "utf8"}),
		"utf8mb3":                           sql(tables, style{charset: "utf8mb3", lines: true}),
		"binary":                            sql(tables, style{charset: "binary"}),
		"bits":                              sql(tables, style{bits: true}),
		"bits in hexadecimal":               sql(tables, style{bits: true, hex: true}),
		"fractions of a second":             sql(tables, style{micro: true}),
		"ANSI":                              sql(tables, style{ansi: true, complete: true}),
		"names without any quotes":          sql(tables, style{unquoted: true, complete: true}),
		"gzip":                              compressed(plain),
		"gzip, a row a statement":           compressed(sql(tables, style{single: true})),
		"gzip in parts":                     compressed(plain[:len(plain)/2]) + compressed(plain[len(plain)/2:]),
		"zstd":                              zstandard(plain),
		"tables the other way round":        compressed(sql(shuffled, style{})),
		"columns the other way round":       sql(mapped(reversed), style{}),
		"columns the other way round, bare": sql(mapped(reversed), style{bare: true, complete: true}),
		"more columns":                      sql(mapped(more), style{}),
		"names in capitals":                 sql(mapped(func(t *table) { t.name, t.columns = strings.ToUpper(t.name), strings.ToUpper(t.columns) }), style{complete: true}),
		"names of tables as on Windows":     sql(mapped(func(t *table) { t.name = strings.ToUpper(t.name[:1]) + t.name[1:] }), style{}),
		"statements in small letters": strings.NewReplacer("INSERT INTO", "insert into", "VALUES", "values", "CREATE TABLE", "create table",
			"LOCK TABLES", "lock tables", "SET NAMES", "set names").Replace(plain),
		"Windows line ends": strings.ReplaceAll(plain, "\n", "\r\n"),
		"a terminal's line ends and warning": strings.ReplaceAll("mysqldump: [Warning] Using a password on the command line interface can be insecure.\n"+
			"mysqldump: Error: 'Access denied; you need the PROCESS privilege' when trying to dump tablespaces\n"+plain, "\n", "\r\n"),
		"MariaDB's warning":     "mysqldump: Deprecated program name. It will be removed in a future release, use '/usr/bin/mariadb-dump' instead\n" + plain,
		"a byte order mark":     "\xef\xbb\xbf" + plain,
		"REPLACE":               strings.ReplaceAll(plain, "INSERT INTO", "REPLACE INTO"),
		"INSERT IGNORE":         strings.ReplaceAll(plain, "INSERT INTO", "INSERT  IGNORE INTO"),
		"names without quotes":  strings.ReplaceAll(plain, "INSERT INTO `users`", "INSERT INTO users"),
		"CREATE IF NOT EXISTS":  strings.ReplaceAll(plain, "CREATE TABLE `", "CREATE TABLE IF NOT EXISTS `"),
		"CREATE OR REPLACE":     strings.ReplaceAll(plain, "CREATE TABLE `", "CREATE OR REPLACE TABLE `"),
		"names with a database": strings.NewReplacer("INSERT INTO `", "INSERT INTO `b p`.`", "CREATE TABLE `", "CREATE TABLE `b p`.`", "LOCK TABLES `", "LOCK TABLES `b p`.`").Replace(plain),
		"of MySQL 8": at(strings.ReplaceAll(plain, "-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB", "-- MySQL dump 10.13  Distrib 8.0.36"), names,
			"SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN;\nSET @@SESSION.SQL_LOG_BIN= 0;\n\n--\n-- GTID state at the beginning of the backup\n--\n\n"+
				"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '7b1b9b3e-0000-11ee-8c99-0242ac120002:1-2048,\n8b1b9b3e-0000-11ee-8c99-0242ac120002:1-77';\n"+
				"-- CHANGE MASTER TO MASTER_LOG_FILE='a.1', MASTER_LOG_POS=4;\nCHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000009', SOURCE_LOG_POS=157;\n"),
		"of Percona": at(plain, names,
			"/*!50717 SELECT COUNT(*) INTO @rocksdb_has_p_s_session_variables FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'performance_schema' AND TABLE_NAME = 'session_variables' */;\n"+
				"/*!50717 SET @rocksdb_get_is_supported = IF (@rocksdb_has_p_s_session_variables, 'SELECT COUNT(*) INTO @rocksdb_is_supported FROM performance_schema.session_variables WHERE VARIABLE_NAME=\\'rocksdb_bulk_load\\'', 'SELECT 0') */;\n"+
				"/*!50717 PREPARE s FROM @rocksdb_get_is_supported */;\n/*!50717 EXECUTE s */;\n/*!50717 DEALLOCATE PREPARE s */;\n"),
		"of MariaDB 11": at(strings.ReplaceAll(plain, "10.11.19-MariaDB", "11.4.2-MariaDB"), names,
			"/*M!100616 SET @OLD_NOTE_VERBOSITY=@@NOTE_VERBOSITY, NOTE_VERBOSITY=0 */;\nCREATE SEQUENCE `s` start with 1 minvalue 1;\nDO SETVAL(`s`, 5, 0);\n"),
		"with views of MySQL 5.6": at(plain, first, "/*!50001 DROP VIEW IF EXISTS `v`*/;\nSET @saved_cs_client     = @@character_set_client;\nSET character_set_client = utf8;\n"+
			"/*!50001 CREATE TABLE `v` (\n  `id` tinyint NOT NULL,\n  `uid` tinyint NOT NULL\n) ENGINE=MyISAM */;\nSET character_set_client = @saved_cs_client;\n"),
		"with views of MySQL 8": at(plain, end, "/*!50001 DROP VIEW IF EXISTS `v`*/;\n/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */\n"+
			"/*!50001 VIEW `v` AS select `users`.`id` AS `id`,'--;' AS `x` from `users` */;\n"),
		"with events and routines": at(plain, end, "--\n-- Dumping events for database 'x'\n--\n/*!50106 SET @save_time_zone= @@TIME_ZONE */ ;\n/*!50106 DROP EVENT IF EXISTS `e` */;\nDELIMITER ;;\n"+
			"/*!50003 SET @saved_cs_client      = @@character_set_client */ ;;\n/*!50003 SET character_set_client  = utf8mb4 */ ;;\n/*!50003 SET @saved_sql_mode       = @@sql_mode */ ;;\n"+
			"/*!50003 SET sql_mode              = 'STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES,ANSI_QUOTES' */ ;;\n/*!50003 SET @saved_time_zone      = @@time_zone */ ;;\n"+
			"/*!50003 SET time_zone             = 'SYSTEM' */ ;;\n/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`%`*/ /*!50106 EVENT `e` ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 00:00:00' DO "+
			"DELETE FROM \"activities\" WHERE topic = 'a\\' OR 1--1 */ ;;\n/*!50003 SET time_zone             = @saved_time_zone */ ;;\n/*!50003 SET sql_mode              = @saved_sql_mode */ ;;\n"+
			"DELIMITER ;\n/*!50106 SET TIME_ZONE= @save_time_zone */ ;\n--\n-- Dumping routines for database 'x'\n--\n/*!50003 DROP FUNCTION IF EXISTS `f` */;\nDELIMITER ;;\n"+
			"CREATE DEFINER=`a`@`%` FUNCTION `f`(a INT) RETURNS int\nBEGIN\n  -- it's; one\n  # and ' another\n  INSERT INTO users VALUES (1); RETURN 1;\nEND ;;\nDELIMITER ;\nDELIMITER $$\nCREATE PROCEDURE p() BEGIN SELECT 1; END$$\nDELIMITER ;\n"),
		"with triggers beside their tables": at(plain, "LOCK TABLES `users`", "/*!50003 SET @saved_sql_mode       = @@sql_mode */ ;\n/*!50003 SET sql_mode              = 'NO_BACKSLASH_ESCAPES' */ ;\n"+
			"DELIMITER ;;\n/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER `t` BEFORE UPDATE ON `users` FOR EACH ROW BEGIN SET NEW.data = 'C:\\'; END */;;\nDELIMITER ;\n"+
			"/*!50003 SET sql_mode              = @saved_sql_mode */ ;\n"),
		"partitions, generated columns, checks": strings.ReplaceAll(sql(tables, style{complete: true}), ") ENGINE=InnoDB AUTO_INCREMENT=9",
			",\n  `g` int(11) GENERATED ALWAYS AS (length(concat('a,)',`id`))) VIRTUAL /*!80023 INVISIBLE */,\n  CONSTRAINT `c` CHECK (`id` > 0),\n"+
				"  CONSTRAINT `f` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE,\n  FULLTEXT KEY `t` (`data`) /*!50100 WITH PARSER `ngram` */\n"+
				")\n/*!50100 PARTITION BY RANGE (`id`)\n(PARTITION p0 VALUES LESS THAN (10) ENGINE = InnoDB,\n PARTITION p1 VALUES LESS THAN MAXVALUE ENGINE = InnoDB) */ ENGINE=InnoDB AUTO_INCREMENT=9"),
		"of phpMyAdmin": "-- phpMyAdmin SQL Dump\n-- version 5.2.1\n\nSET SQL_MODE = \"NO_AUTO_VALUE_ON_ZERO\";\nSTART TRANSACTION;\nSET time_zone = \"+00:00\";\n\n" +
			"/*!40101 SET NAMES utf8mb4 */;\n\n" + sql(tables, style{compact: true, complete: true, lines: true}) + "ALTER TABLE `users`\n  ADD PRIMARY KEY (`id`);\nCOMMIT;\n",
		"of mydumper": parts.String(),
		"of mysqlpump": "-- Dump created by MySQL pump utility, version: 5.7.24, linux-glibc2.12 (x86_64)\n-- Dump start time: Thu Dec 17 14:21:02 2026\nSET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS;\n" +
			"SET UNIQUE_CHECKS=0;\nSET @@SESSION.SQL_LOG_BIN= 0;\nSET @OLD_TIME_ZONE=@@TIME_ZONE;\nSET TIME_ZONE='+00:00';\nSET NAMES utf8mb4;\nCREATE DATABASE /*!32312 IF NOT EXISTS*/ `b` /*!40100 DEFAULT CHARACTER SET utf8 */;\n" +
			strings.NewReplacer("INSERT INTO `", "INSERT INTO `b`.`", "CREATE TABLE `", "CREATE TABLE `b`.`", "DROP TABLE IF EXISTS `", "DROP TABLE IF EXISTS `b`.`").Replace(sql(tables, style{compact: true})) +
			"SET TIME_ZONE=@OLD_TIME_ZONE;\nUSE `b`;\nALTER TABLE `b`.`users` ADD KEY `k` (`id`);\n-- Dump end time: Thu Dec 17 14:21:03 2026\n",
	}
}

var escapes = strings.NewReplacer("\\", "\\\\", "'", "\\'", "\"", "\\\"", "\n", "\\n", "\r", "\\r", "\x1a", "\\Z", "\x00", "\\0")

func cell(v any, s style, column string) string {
	text, ok := v.(string)
	switch {
	case v == nil:
		return "NULL"
	case s.bits && column == "otp":
		bit := "\\0"
		if fmt.Sprint(v) == "1" {
			bit = "\x01"
		}
		if s.hex {
			return "0x0" + fmt.Sprint(v)
		}
		return "_binary '" + bit + "'"
	case !ok:
		return fmt.Sprint(v)
	}
	if _, typed := types[column]; s.hex && text != "" && !typed {
		return fmt.Sprintf("0x%X", text)
	}
	if s.ansi || s.unquoted {
		text = strings.ReplaceAll(text, "`", tick)
	}
	if s.micro && strings.HasSuffix(column, "_at") {
		text += ".000000"
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
	switch {
	case s.binary:
		return "_binary " + out
	case s.double:
		return `"` + out[1:len(out)-1] + `"`
	case s.introduced:
		return "_utf8mb4" + out
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

func zstandard(text string) string {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return string(z.EncodeAll([]byte(text), nil))
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
