package main

import (
	"errors"
	"fmt"
	"io/fs"
	"text/tabwriter"
	"time"

	"barong/internal/config"
	"barong/internal/crypto/keys"
)

// A keysCommand holds the commands about the signing keys.
type keysCommand struct {
	Generate keysGenerate `cmd:"" help:"Make the first signing key at BARONG_JWT_PRIVATE_KEY_PATH; never replaces one."`
	List     keysList     `cmd:"" help:"List the keys: id, algorithm, state, file."`
	Rotate   keysRotate   `cmd:"" help:"Sign with a new key from now on, and keep the old public key until its last token has expired."`
}

type (
	keysGenerate struct {
		IfMissing bool `help:"Succeed when there is a key already, and leave it alone."`
	}
	keysList   struct{}
	keysRotate struct{}
)

// Run makes the first key.
func (k keysGenerate) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	id, err := keys.Generate(c.JWTPrivateKeyPath, c.JWTAlgorithm)
	if errors.Is(err, fs.ErrExist) && k.IfMissing {
		return p.listKeys(c)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w; \"barong keys rotate\" makes a new one", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "generated %s %s in %s\n", id, c.JWTAlgorithm, c.JWTPrivateKeyPath)
	return nil
}

// Run lists the keys.
func (keysList) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	return p.listKeys(c)
}

func (p *program) listKeys(c *config.Config) error {
	all, err := keys.List(c.JWTPrivateKeyPath, time.Now())
	if err != nil {
		return missingKeys(c, err)
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KID\tALGORITHM\tSTATE\tFILE")
	for _, k := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.ID, k.Algorithm, k, k.File)
	}
	return w.Flush()
}

// Run rotates, and lets running servers know. They watch the files, too, and read them at once when they see a token of a
// key that they do not know.
func (keysRotate) Run(p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	now := time.Now()
	keep := now.Add(c.LongestToken()).Truncate(time.Second).Add(time.Second) // files hold whole seconds
	id, err := keys.Rotate(c.JWTPrivateKeyPath, c.JWTAlgorithm, keep, now)
	if err != nil {
		return missingKeys(c, err)
	}
	p.tellOfKeys(c)
	fmt.Fprintf(p.stdout, "rotated: %s signs from now on, the key before it verifies until %s\n", id, keep.UTC().Format(time.RFC3339))
	return p.listKeys(c)
}

// missingKeys tells what to do when there is no key yet.
func missingKeys(c *config.Config, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; \"barong keys generate\" makes the first key in %s", err, c.JWTPrivateKeyPath)
	}
	return err
}
