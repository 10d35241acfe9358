package keys

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Info describes one key on disk.
type Info struct {
	ID        string    // RFC 7638 thumbprint
	Algorithm string    // "RS256", "ES256" or "EdDSA"
	State     State     //
	Start     time.Time // when a coming key begins to sign; zero otherwise
	Retire    time.Time // end of a retiring key; zero otherwise
	File      string
}

// A State is what a key on disk is used for.
type State string

// What a key is used for.
const (
	StateActive  State = "active"  // signs and verifies
	StateComing  State = "coming"  // published, signs from Info.Start on
	StateVerify  State = "verify"  // verifies, without an end
	StateRetired State = "retired" // verifies until Info.Retire
	StateExpired State = "expired" // no longer used; the next rotation removes it
)

// String returns the state for people, for example "retired until 2026-01-02T15:04:05Z".
func (i Info) String() string {
	switch i.State {
	case StateComing:
		return "coming, signs from " + i.Start.UTC().Format(time.RFC3339)
	case StateRetired:
		return "retired until " + i.Retire.UTC().Format(time.RFC3339)
	}
	return string(i.State)
}

// List describes the keys below path in the order in which they are read, as they stand at now.
func List(path string, now time.Time) ([]Info, error) {
	files, err := readFiles(path)
	if err != nil {
		return nil, err
	}
	_, all, err := parseFiles(files)
	if err != nil {
		return nil, err
	}
	signer := signerOf(all, now)
	var infos []Info
	for _, k := range all {
		i := Info{ID: k.id, Algorithm: k.algorithm, State: StateVerify, Retire: k.retire, File: k.file}
		switch {
		case k == signer:
			i.State = StateActive
		case !k.live(now):
			i.State = StateExpired
		case k.coming(now):
			i.State, i.Start = StateComing, k.start
		case !k.retire.IsZero():
			i.State = StateRetired
		}
		infos = append(infos, i)
	}
	return infos, nil
}

// Generate makes a first key for algorithm at path, readable by the owner alone, and returns its id. A path that is a
// folder, or ends in a slash, gets one file in that folder. It never replaces a key: if there is one, the error is
// [fs.ErrExist].
func Generate(path, algorithm string) (id string, err error) {
	if !known(algorithm) {
		return "", unknownAlgorithm(algorithm)
	}
	folder, err := isFolder(path)
	if err != nil {
		return "", err
	}
	parent := filepath.Dir(path)
	if folder {
		parent = path
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", fmt.Errorf("generate signing key: %w", err)
	}
	unlock, err := lock(path, folder)
	if err != nil {
		return "", err
	}
	defer unlock()
	if folder {
		names, err := filepath.Glob(filepath.Join(globEscape(path), "*.pem"))
		if err != nil {
			return "", fmt.Errorf("generate signing key: %w", err)
		}
		if len(names) > 0 {
			return "", fmt.Errorf("generate signing key: %s: %w", names[0], fs.ErrExist)
		}
	} else if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("generate signing key: %s: %w", path, fs.ErrExist)
	}
	k, text, err := freshKey(algorithm, time.Time{}, time.Time{})
	if err != nil {
		return "", err
	}
	name := path
	if folder {
		name = filepath.Join(path, fileName(k, time.Now()))
	}
	if err := writeFile(name, text); err != nil {
		return "", err
	}
	return k.id, nil
}

// Rotate makes a new key for algorithm that signs from now on, and keeps of every key that signed so far the public half
// until keepUntil: the time at which the last token signed with it has expired. What had retired before now is removed, and
// so is a key that was coming. It works on one file and on a folder, replaces files in one step each, and lets rotations of
// other processes on the same path wait. It returns the id of the new key.
func Rotate(path, algorithm string, keepUntil, now time.Time) (id string, err error) {
	return rotate(path, algorithm, time.Time{}, keepUntil, now)
}

// Schedule makes a new key that is published from now on and signs from start on; the keys that sign until then retire at
// keepUntil. Their private halves stay on the disk until the rotation after that. Otherwise it does as [Rotate] does. It
// refuses another algorithm than that of the key which signs now, and a second coming key with [ErrComing].
func Schedule(path, algorithm string, start, keepUntil, now time.Time) (id string, err error) {
	return rotate(path, algorithm, start, keepUntil, now)
}

// ErrComing says that there is a key already that is to sign later.
var ErrComing = errors.New("a new key is coming already")

func rotate(path, algorithm string, start, keepUntil, now time.Time) (id string, err error) {
	if !known(algorithm) {
		return "", unknownAlgorithm(algorithm)
	}
	// The file behind a link is replaced, not the link.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", fmt.Errorf("rotate signing keys: %w", err)
	}
	folder, err := isFolder(path)
	if err != nil {
		return "", err
	}
	unlock, err := lock(path, folder)
	if err != nil {
		return "", err
	}
	defer unlock()
	files, err := readFiles(path)
	if err != nil {
		return "", err
	}
	byFile, all, err := parseFiles(files)
	if err != nil {
		return "", err
	}
	signer := signerOf(all, now)
	if !start.IsZero() {
		if signer == nil {
			return "", fmt.Errorf("signing keys %s: no private key", path)
		}
		if signer.algorithm != algorithm {
			return "", &AlgorithmError{Want: algorithm, Have: signer.algorithm, File: signer.file}
		}
		if i := slices.IndexFunc(all, func(k *key) bool { return k.coming(now) }); i >= 0 {
			return "", fmt.Errorf("%w: %s in %s signs from %s on", ErrComing, all[i].id, all[i].file, all[i].start.UTC().Format(time.RFC3339))
		}
	}
	// what a key is on the disk after the rotation; nil: it goes
	after := func(k *key) ([]byte, error) {
		end := k.retire
		switch {
		case !end.IsZero() && !now.Before(end), start.IsZero() && k.coming(now):
			return nil, nil
		case k.private == nil, !start.IsZero() && end.IsZero():
			return pem.EncodeToMemory(k.block), nil
		case end.IsZero():
			end = keepUntil
		}
		return encodePublic(k.public, end)
	}
	texts := make([][]byte, len(files))
	for i, keys := range byFile {
		changed := false
		for _, k := range keys {
			text, err := after(k)
			if err != nil {
				return "", err
			}
			changed = changed || !bytes.Equal(text, pem.EncodeToMemory(k.block))
			texts[i] = append(texts[i], text...)
		}
		if !changed {
			texts[i] = files[i].text // with the comments and the order that somebody gave it
		}
	}
	k, text, err := freshKey(algorithm, start, keepUntil)
	if err != nil {
		return "", err
	}
	if !folder {
		if old := texts[0]; len(old) > 0 && old[len(old)-1] != '\n' {
			texts[0] = append(old, '\n')
		}
		// Releases that know no coming keys sign with the first.
		if start.IsZero() {
			return k.id, writeFile(path, append(text, texts[0]...))
		}
		return k.id, writeFile(path, append(texts[0], text...))
	}
	// The new key first: at no moment is there none that can sign, and whichever of the two is taken as signer by someone
	// who reads in between, the other one verifies as well.
	if err := writeFile(filepath.Join(path, fileName(k, now)), text); err != nil {
		return "", err
	}
	for i, f := range files {
		switch {
		case len(texts[i]) == 0:
			if err := os.Remove(f.name); err != nil {
				return "", fmt.Errorf("remove expired key: %w", err)
			}
		case !bytes.Equal(texts[i], f.text):
			if err := writeFile(f.name, texts[i]); err != nil {
				return "", err
			}
		}
	}
	return k.id, nil
}

func freshKey(algorithm string, start, others time.Time) (*key, []byte, error) {
	private, err := generate(algorithm)
	if err != nil {
		return nil, nil, err
	}
	k, err := newKey(private, private.Public())
	if err != nil {
		return nil, nil, err
	}
	text, err := encodePrivate(private, start, others)
	return k, text, err
}

// fileName names a key in a folder: by time, so that a listing reads as a history.
func fileName(k *key, now time.Time) string {
	return now.UTC().Format("20060102T150405Z") + "-" + strings.ToLower(k.algorithm) + "-" + k.id[:8] + ".pem"
}

func isFolder(path string) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil:
		return info.IsDir(), nil
	case errors.Is(err, fs.ErrNotExist):
		return strings.HasSuffix(path, "/"), nil
	}
	return false, fmt.Errorf("signing keys: %w", err)
}

// lock waits until no other process changes the keys at path. The lock file stays: removing it would let a waiter and a
// newcomer hold locks on two different files.
func lock(path string, folder bool) (unlock func(), err error) {
	name := path + ".lock"
	if folder {
		name = filepath.Join(path, ".lock")
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock signing keys: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock signing keys %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

// writeFile puts text at name in one step: whoever reads sees the old file or the new one. The file is readable by its
// owner alone, who stays the same if there was a file.
func writeFile(name string, text []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write signing key %s: %w", name, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(name), ".new-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, once renamed
	_, err = f.Write(text)
	if err == nil {
		err = keepOwner(f, name)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func globEscape(path string) string {
	var b strings.Builder
	for _, r := range path {
		if slices.Contains([]rune(`*?[\`), r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
