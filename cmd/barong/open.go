package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"barong/api/management"
	"barong/db"
	"barong/internal/blob"
	"barong/internal/config"
	"barong/internal/crypto/keys"
	"barong/internal/crypto/password"
	"barong/internal/crypto/secret"
	"barong/internal/delivery/events"
	"barong/internal/delivery/mail"
	"barong/internal/delivery/mailer"
	"barong/internal/delivery/webhooks"
	"barong/internal/openid"
	"barong/session/redisstore"
)

// judges are those who know what a value must be.
var judges = []config.Judge{
	{Name: "BARONG_DATABASE_URL", Judge: db.ValidateURL},
	{Name: "BARONG_REDIS_URL", Judge: redisstore.ValidateURL},
	{Name: "BARONG_EVENT_API_RABBITMQ_URL", Judge: events.ValidateURL},
	{Name: "BARONG_EVENT_API_NATS_URL", Judge: events.ValidateNATS},
	{Name: "BARONG_STORAGE_ENDPOINT", Judge: blob.ValidateEndpoint},
	{Name: "BARONG_DOMAIN", Judge: mail.ValidateDomain},
	{Name: "BARONG_PASSWORD_REGEXP", Judge: func(pattern string) error {
		_, err := password.New(password.Options{Regexp: pattern})
		return err
	}},
}

// startable loads what a server needs that is no store. The error tells of everything at once that a start is refused for.
func (p *program) startable() (*config.Config, management.Config, error) {
	c, err := p.load()
	services, serr := openServices(c)
	_, _, _, perr := openProviders(c)
	err = config.Join(err, c.Validate(), serr, perr, validateRuleFiles(c), validateKeyFiles(c), validateTemplates(c), validateMailer(c), validateWebhooks(c))
	return c, services, err
}

// validateKeyFiles refuses signing keys that cannot be used and, in production, files of keys that others may read.
func validateKeyFiles(c *config.Config) error {
	var errs []error
	if !c.GeneratedKeys() && !c.Refused("BARONG_JWT_PRIVATE_KEY_PATH") && !c.Refused("BARONG_JWT_ALGORITHM") {
		_, _, err := openKeys(c)
		errs = append(errs, err)
	}
	if !c.Production() {
		return config.Join(errs...)
	}
	exposed := func(name, file string) {
		errs = append(errs, &config.Error{Problems: []string{fmt.Sprintf(
			"BARONG_ENV=production: %s: others may read %s; chmod o= takes that away", name, file)}})
	}
	if !c.GeneratedKeys() {
		files, _ := keys.Exposed(keyPath(c)) // openKeys tells of what cannot be read
		for _, file := range files {
			exposed("BARONG_JWT_PRIVATE_KEY_PATH", file)
		}
	}
	if file := c.SecretFile("BARONG_SECRET_KEY"); file != "" {
		if open, err := keys.OthersMayRead(file); err == nil && open {
			exposed("BARONG_SECRET_KEY_FILE", file)
		}
	}
	return config.Join(errs...)
}

// validateTemplates refuses templates of mails that make no sense.
func validateTemplates(c *config.Config) error {
	if c.MailTemplates == "" || c.Refused("BARONG_DOMAIN") {
		return nil
	}
	_, err := newLetters(c)
	return err
}

// validateMailer refuses a mailer.yml that cannot be followed.
func validateMailer(c *config.Config) error {
	if c.Refused("BARONG_DOMAIN") || c.Refused("BARONG_MAIL_TEMPLATES") {
		return nil
	}
	letters, err := newLetters(c)
	if err != nil {
		return nil // validateTemplates tells of it
	}
	_, err = openMailerFile(c, letters)
	return err
}

// openMailerFile reads which events of other services are worth a mail: none, where there is no file, no broker to hear them
// from, or another mailer.
func openMailerFile(c *config.Config, letters *mail.Renderer) (*mailer.Config, error) {
	if c.MailerFile == "" || c.Mailer == "off" || c.BrokerURL() == "" {
		return &mailer.Config{}, nil
	}
	text, err := os.ReadFile(c.MailerFile)
	if err != nil {
		return nil, config.Bad("BARONG_MAILER_FILE", c.MailerFile, "a file that can be read: "+oneLine(err))
	}
	// Where the images of the original and its kits have the templates.
	folder := filepath.Dir(c.MailerFile)
	folders := []string{folder, filepath.Join(folder, "templates"), filepath.Join(folder, "mailer", "templates"), filepath.Join(folder, "..", "app", "views", "postmaster")}
	if c.MailTemplates != "" {
		folders = append(folders, c.MailTemplates)
	}
	file, err := mailer.ParseConfig(text, letters, folders, c.Lookup)
	if err != nil {
		return nil, config.Bad("BARONG_MAILER_FILE", c.MailerFile, "keychain, exchanges and events: "+oneLine(err))
	}
	return file, nil
}

// newLetters makes the letters.
func newLetters(c *config.Config) (*mail.Renderer, error) {
	letters, err := mail.NewRenderer(mail.RendererOptions{
		Brand: c.AppName, Domain: c.Domain, DefaultLanguage: c.DefaultLanguage, Folder: c.MailTemplates,
	})
	if err != nil {
		return nil, config.Bad("BARONG_MAIL_TEMPLATES", c.MailTemplates, err.Error())
	}
	return letters, nil
}

// openBox makes the box that seals and opens. In development a key is generated when none is configured; created says
// that this call made it.
func openBox(c *config.Config) (box *secret.Box, created bool, err error) {
	list := c.SecretKey
	if list == "" {
		if c.Production() {
			return nil, false, config.Bad("BARONG_SECRET_KEY", "", "needed with BARONG_ENV=production; openssl rand -base64 32 makes one")
		}
		if list, created, err = secret.LoadOrCreate(config.SecretKeyFile); err != nil {
			return nil, false, inData(err)
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

// openCurrent is openDB for a database that is there, and whose schema is this program's.
func (p *program) openCurrent(c *config.Config) (*db.DB, *secret.Box, error) {
	if err := madeBefore(c); err != nil {
		return nil, nil, err
	}
	d, box, err := p.openDB(c)
	if err != nil {
		return nil, nil, err
	}
	if err := p.current(d); err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return d, box, nil
}

// openRows opens a database that is there for work that touches no sealed column, and so needs no key.
func (p *program) openRows(c *config.Config) (*db.DB, error) {
	if err := madeBefore(c); err != nil {
		return nil, err
	}
	return openDatabase(p.ctx, c, nil)
}

// madeBefore refuses an embedded database that nobody has made: opening would make one, and a command that was run in another
// folder than the server's would work on that, and find nothing wrong.
func madeBefore(c *config.Config) error {
	file := sqliteFile(c)
	if file == "" {
		return nil
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return nil // what else is wrong with it, opening tells
	}
	return fmt.Errorf("BARONG_DATABASE_URL=%s: there is no database at %s: run this in the folder of the server, or see that the setting "+
		"names its database; \"barong migrate up\" makes a new one", c.DatabaseURL, file)
}

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
			return nil, false, inData(err)
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

// inData says what to do where the system does not let this user write what the program makes for itself.
func inData(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w; what is made at a first start is in data/, below the folder of the start: let it be one that user %d may write", err, os.Geteuid())
}

// sqliteFile is the path of the embedded database, or empty for another.
func sqliteFile(c *config.Config) string {
	path, err := db.SQLitePath(c.DatabaseURL.Reveal())
	if err != nil {
		return ""
	}
	return path
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
	services, err := management.ParseConfig(text, c.Original(), c.Lookup)
	if err != nil {
		return management.Config{}, config.Bad("BARONG_MANAGEMENT_API_FILE", c.ManagementFile, "keychain, jwt and scopes: "+oneLine(err))
	}
	return services, nil
}

// openProviders reads whom people may sign in with, nobody where there is no file, and the files of secrets that it names.
func openProviders(c *config.Config) (list []openid.Config, files, warnings []string, err error) {
	if c.ProvidersFile == "" {
		return nil, nil, nil, nil
	}
	text, err := os.ReadFile(c.ProvidersFile)
	if err != nil {
		return nil, nil, nil, config.Bad("BARONG_PROVIDERS_FILE", c.ProvidersFile, "a file that can be read: "+oneLine(err))
	}
	list, warnings, err = openid.ParseConfig(text, c.Lookup, func(name string) ([]byte, error) {
		files = append(files, name)
		return os.ReadFile(name)
	})
	if err != nil {
		return nil, nil, nil, config.Bad("BARONG_PROVIDERS_FILE", c.ProvidersFile, "a list of providers: "+oneLine(err))
	}
	return list, files, warnings, nil
}

// openWebhooks reads who is told of events by webhooks: nobody, where there is no file.
func openWebhooks(c *config.Config) (*webhooks.Config, error) {
	if c.WebhooksFile == "" {
		return &webhooks.Config{}, nil
	}
	text, err := os.ReadFile(c.WebhooksFile)
	if err != nil {
		return nil, config.Bad("BARONG_WEBHOOKS_FILE", c.WebhooksFile, "a file that can be read: "+oneLine(err))
	}
	hooks, err := webhooks.ParseConfig(text, c.Lookup)
	if err != nil {
		return nil, config.Bad("BARONG_WEBHOOKS_FILE", c.WebhooksFile, "webhooks and networks: "+oneLine(err))
	}
	return hooks, nil
}

// validateWebhooks refuses a file of receivers that makes no sense.
func validateWebhooks(c *config.Config) error {
	_, err := openWebhooks(c)
	return err
}

// openStore opens the store of files.
func openStore(c *config.Config, box *secret.Box, log *slog.Logger) (*blob.Store, error) {
	signing := box.Derive("files")
	files, err := blob.Open(blob.Options{
		Provider: c.StorageProvider, Bucket: c.StorageBucketName, AccessKey: c.StorageAccessKey,
		SecretKey: c.StorageSecretKey.Reveal(), Endpoint: c.StorageEndpoint, Region: c.StorageRegion,
		PathStyle: c.StoragePathStyle, Folder: filepath.Join(config.DataFolder, "files"), Path: "/" + c.APIPrefix + "/files/", Log: log,
		Extensions: c.UploadExtensions, MinSize: int64(c.UploadSizeMin), MaxSize: int64(c.UploadSizeMax) << 20,
		URLLife: c.UploadURLExpiration, Key: signing[0], Also: signing[1:],
	})
	if err != nil {
		return nil, fmt.Errorf("BARONG_STORAGE_PROVIDER=%s: %w", c.StorageProvider, err)
	}
	return files, nil
}
