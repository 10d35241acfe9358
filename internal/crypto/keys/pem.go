package keys

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The PEM headers of a block, whose values are RFC 3339 times.
const (
	retireHeader = "Retire-After"        // when the key leaves the set
	startHeader  = "Sign-After"          // when a private key begins to sign
	othersHeader = "Retire-Others-After" // when the private keys leave the set in whose place it signs
)

const (
	maxFileSize = 1 << 20
	maxFiles    = 256
)

// A file is the text of one PEM file.
type file struct {
	name string
	text []byte
}

// readFiles reads the PEM file at path, or the *.pem files of the folder at path in the order of their names.
func readFiles(path string) ([]file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	if !info.IsDir() {
		f, err := readFile(path)
		if err != nil {
			return nil, err
		}
		return []file{f}, nil
	}
	// A rotation writes the new key before it takes the private half out of the old file. Whoever lists the folder before
	// and reads the old file after would find no key that signs; then the list has changed, and the new one is right.
	names, err := pemFiles(path)
	for range 16 {
		if err != nil {
			return nil, err
		}
		var files []file
		if files, err = readAll(names); err != nil {
			return nil, err
		}
		var after []string
		if after, err = pemFiles(path); err == nil && slices.Equal(names, after) {
			return files, nil
		}
		names = after
	}
	if err == nil {
		err = fmt.Errorf("signing keys %s: the folder does not stop changing", path)
	}
	return nil, err
}

// Exposed lists the files of the keys at path, a file or a folder, that others may read.
func Exposed(path string) ([]string, error) {
	names := []string{path}
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	} else if info.IsDir() {
		if names, err = pemFiles(path); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, name := range names {
		open, err := OthersMayRead(name)
		if err != nil {
			return nil, fmt.Errorf("signing keys: %w", err)
		}
		if open {
			out = append(out, name)
		}
	}
	return out, nil
}

// pemFiles lists the *.pem files of a folder, in order.
func pemFiles(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".pem") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("signing keys %s: no *.pem file in the folder", path)
	case len(names) > maxFiles:
		return nil, fmt.Errorf("signing keys %s: more than %d files", path, maxFiles)
	}
	return names, nil
}

func readAll(names []string) ([]file, error) {
	var files []file
	for _, name := range names {
		f, err := readFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by a rotation since the folder was listed
		}
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func readFile(path string) (file, error) {
	f, err := os.Open(path)
	if err != nil {
		return file{}, fmt.Errorf("signing keys: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return file{}, fmt.Errorf("signing keys: %w", err)
	}
	if len(text) > maxFileSize {
		return file{}, fmt.Errorf("signing keys %s: larger than %d bytes", path, maxFileSize)
	}
	return file{name: path, text: text}, nil
}

// parseFiles parses the keys of all files, in order: those of each, and all together.
func parseFiles(files []file) (byFile [][]*key, all []*key, err error) {
	for _, f := range files {
		keys, err := f.keys()
		if err != nil {
			return nil, nil, err
		}
		byFile, all = append(byFile, keys), append(all, keys...)
	}
	return byFile, all, nil
}

// keys parses every key of the file, in order.
func (f file) keys() ([]*key, error) {
	var keys []*key
	rest := f.text
	for n := 1; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "EC PARAMETERS" { // openssl writes it before the key, which repeats it
			continue
		}
		k, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("signing keys %s, block %d (%s): %w", f.name, n, block.Type, err)
		}
		k.file = f.name
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("signing keys %s: no PEM block", f.name)
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("signing keys %s: a damaged PEM block after the first %d keys", f.name, len(keys))
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (*key, error) {
	var (
		parsed any
		err    error
	)
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("encrypted keys are not supported: decrypt it first")
		}
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("encrypted keys are not supported: decrypt it first")
		}
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		parsed, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("encrypted keys are not supported: decrypt it first")
	default:
		return nil, errors.New("not a private or public key")
	}
	if err != nil {
		return nil, err
	}
	private, _ := parsed.(crypto.Signer)
	public := parsed
	if private != nil {
		public = private.Public()
	}
	k, err := newKey(private, public)
	if err != nil {
		return nil, err
	}
	k.block = block
	for name, at := range map[string]*time.Time{retireHeader: &k.retire, startHeader: &k.start, othersHeader: &k.others} {
		text, ok := block.Headers[name]
		if !ok {
			continue
		}
		if *at, err = time.Parse(time.RFC3339, strings.TrimSpace(text)); err != nil {
			return nil, fmt.Errorf("header %s: %q is not an RFC 3339 time", name, text)
		}
	}
	if private == nil && !(k.start.IsZero() && k.others.IsZero()) {
		return nil, fmt.Errorf("a public key has no header %s or %s: it does not sign", startHeader, othersHeader)
	}
	return k, nil
}

// encodePrivate returns the PEM text of a private key (PKCS #8) that signs from start on, unless that is zero, while those
// before it retire at others.
func encodePrivate(private crypto.Signer, start, others time.Time) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if !start.IsZero() {
		block.Headers = map[string]string{
			startHeader: start.UTC().Format(time.RFC3339), othersHeader: others.UTC().Format(time.RFC3339),
		}
	}
	return pem.EncodeToMemory(block), nil
}

// encodePublic returns the PEM text of a public key, with the time at which it retires unless that is zero.
func encodePublic(public crypto.PublicKey, retire time.Time) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	block := &pem.Block{Type: "PUBLIC KEY", Bytes: der}
	if !retire.IsZero() {
		block.Headers = map[string]string{retireHeader: retire.UTC().Format(time.RFC3339)}
	}
	return pem.EncodeToMemory(block), nil
}
