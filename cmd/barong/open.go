package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"barong/api/management"
	"barong/db"
	"barong/internal/config"
	"barong/internal/keys"
	"barong/internal/secret"
)

// openBox makes the box that seals and opens. In development a key is generated when none is configured; created says
// that this call made it.
func openBox(c *config.Config) (box *secret.Box, created bool, err error) {
	list := c.SecretKey
	if list == "" {
		if c.Production() {
			return nil, false, config.Bad("BARONG_SECRET_KEY", "", "needed with BARONG_ENV=production; openssl rand -base64 32 makes one")
		}
		if list, created, err = secret.LoadOrCreate(config.SecretKeyFile); err != nil {
			return nil, false, err
		}
	}
	box, err = secret.New(list)
	return box, created, err
}

// openDB opens the database with the box that its sealed columns need.
func (p *program) openDB(c *config.Config) (*db.DB, *secret.Box, error) {
	box, _, err := openBox(c)
	if err != nil {
		return nil, nil, err
	}
	d, err := openDatabase(p.ctx, c, box)
	return d, box, err
}

// openRows opens the database for work that touches no sealed column, and so needs no key.
func (p *program) openRows(c *config.Config) (*db.DB, error) { return openDatabase(p.ctx, c, nil) }

func openDatabase(ctx context.Context, c *config.Config, sealer db.Sealer) (*db.DB, error) {
	d, err := db.Open(ctx, db.Options{URL: c.DatabaseURL.Reveal(), Sealer: sealer})
	if err != nil {
		return nil, fmt.Errorf("BARONG_DATABASE_URL=%s: %w", c.DatabaseURL, err)
	}
	return d, nil
}

// keyPath is where the signing keys are. A path that ends in a slash is a folder, also before it exists.
func keyPath(c *config.Config) string { return c.JWTPrivateKeyPath }

// openKeys reads the signing keys. In development, and only at the default place, the first key is made when there is
// none; created says that this call made it.
func openKeys(c *config.Config) (ring *keys.Ring, created bool, err error) {
	if c.GeneratedKeys() {
		if c.Production() {
			return nil, false, config.Bad("BARONG_JWT_PRIVATE_KEY_PATH", "", "needed with BARONG_ENV=production")
		}
		_, err := keys.Generate(keyPath(c), c.JWTAlgorithm)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, false, err
		}
		created = err == nil
	}
	ring, err = keys.Open(keyPath(c), c.JWTAlgorithm, time.Now)
	if misfit, ok := errors.AsType[*keys.AlgorithmError](err); ok {
		err = &config.Error{Problems: []string{misfit.Error()}}
	} else if err != nil {
		err = config.Bad("BARONG_JWT_PRIVATE_KEY_PATH", keyPath(c), "a PEM file with a private key, or a folder of them: "+oneLine(err))
	}
	return ring, created, err
}

// sqliteFile is the path of the embedded database, or empty for another.
func sqliteFile(c *config.Config) string {
	path, ok := strings.CutPrefix(c.DatabaseURL.Reveal(), "sqlite://")
	if !ok {
		return ""
	}
	return filepath.Clean(path)
}

// openServices reads who may call the management API: nobody, where there is no file.
func openServices(c *config.Config) (management.Config, error) {
	if c.ManagementFile == "" {
		return management.Config{}, nil
	}
	text, err := os.ReadFile(c.ManagementFile)
	if err != nil {
		return management.Config{}, config.Bad("BARONG_MANAGEMENT_API_FILE", c.ManagementFile, "a file that can be read: "+oneLine(err))
	}
	services, err := management.ParseConfig(text, c.Original())
	if err != nil {
		return management.Config{}, config.Bad("BARONG_MANAGEMENT_API_FILE", c.ManagementFile, "keychain, jwt and scopes: "+oneLine(err))
	}
	return services, nil
}
