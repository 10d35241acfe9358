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
	Rotate   keysRotate   `cmd:"" help:"Sign with a new key, from now on or (--in) later, and keep the old public key until its last token has expired."`
}

type (
	keysGenerate struct {
		IfMissing bool `help:"Succeed when there is a key already, and leave it alone."`
	}
	keysList   struct{}
	keysRotate struct {
		In time.Duration `placeholder:"10m" help:"Publish the new key now, and sign with it when this time has passed, so that services know it by then. Not for a key that has leaked."`
	}
)

const (
	// cachedKeys is how long a cache keeps the published keys (jwksCache in api/identity), and a replica needs to read them.
	cachedKeys = time.Minute + 2*time.Second
	// clockSkew is how much longer than it must a key is kept that others replace at an hour of their own clocks.
	clockSkew = 2 * time.Minute
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
func (k keysRotate) Run(p *program) error {
	if k.In < 0 {
		return config.Bad("--in", k.In.String(), "a time from now on, such as 10m")
	}
	c, err := p.config()
	if err != nil {
		return err
	}
	now := time.Now()
	if k.In > 0 {
		return k.schedule(p, c, now)
	}
	keep := now.Add(c.LongestToken()).Truncate(time.Second).Add(time.Second) // files hold whole seconds
	id, err := keys.Rotate(c.JWTPrivateKeyPath, c.JWTAlgorithm, keep, now)
	if err != nil {
		return missingKeys(c, err)
	}
	p.tellOfKeys(c)
	fmt.Fprintf(p.stdout, "rotated: %s signs from now on, the key before it verifies until %s\n", id, keep.UTC().Format(time.RFC3339))
	return p.listKeys(c)
}

// schedule publishes a key that signs later. The time stands with the key, so that whoever has its file changes by itself.
func (k keysRotate) schedule(p *program, c *config.Config, now time.Time) error {
	start := now.Add(k.In).Truncate(time.Second).Add(time.Second)
	keep := start.Add(c.LongestToken() + clockSkew)
	id, err := keys.Schedule(c.JWTPrivateKeyPath, c.JWTAlgorithm, start, keep, now)
	if misfit, ok := errors.AsType[*keys.AlgorithmError](err); ok {
		return fmt.Errorf("the key that signs is for %s, and servers take no other beside it: without --in the new one is for %s, "+
			"with %s=%s it can wait", misfit.Have, misfit.Want, keys.AlgorithmVariable, misfit.Have)
	}
	if errors.Is(err, keys.ErrComing) {
		return fmt.Errorf("%w; without --in a newer one signs at once, and that one is removed", err)
	}
	if err != nil {
		return missingKeys(c, err)
	}
	p.tellOfKeys(c)
	from := start.UTC().Format(time.RFC3339)
	fmt.Fprintf(p.stdout, "published: %s signs from %s on, the key before it then verifies until %s\n", id, from, keep.UTC().Format(time.RFC3339))
	if k.In < cachedKeys {
		fmt.Fprintf(p.stderr, "warning: caches keep the published keys for a minute, many libraries for five: who has not asked again by %s refuses what the new key signs\n", from)
	}
	return p.listKeys(c)
}

// missingKeys tells what to do when there is no key yet.
func missingKeys(c *config.Config, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; \"barong keys generate\" makes the first key in %s", err, c.JWTPrivateKeyPath)
	}
	return err
}
