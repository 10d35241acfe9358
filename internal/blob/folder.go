package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A folder is a bucket on the local disk. A key is the path of its file below the folder.
type folder string

// openFolder makes the folder if it is absent.
func openFolder(o Options) (folder, error) {
	if len(o.Key) < sha256.Size {
		return "", errors.New("no key to sign addresses with")
	}
	if !strings.HasPrefix(o.Path, "/") || !strings.HasSuffix(o.Path, "/") {
		return "", fmt.Errorf("%q is no path for addresses", o.Path)
	}
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return "", err
	}
	return folder(o.Folder), nil
}

func (f folder) path(key string) string { return filepath.Join(string(f), filepath.FromSlash(key)) }

// put writes to another name first: under its own a file is whole, also after a crash.
func (f folder) put(ctx context.Context, key, _ string, content Content) (err error) {
	path := f.path(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".upload-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()           // the error that brought us here is the one to tell
			_ = os.Remove(file.Name()) // likewise
		}
	}()
	if _, err := io.Copy(file, io.NewSectionReader(content, 0, content.Size())); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func (f folder) get(_ context.Context, key string) (int64, io.ReadCloser, error) {
	file, err := os.Open(f.path(key))
	if err != nil {
		return 0, nil, absent(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		_ = file.Close() // it was only read
		return 0, nil, err
	}
	return info.Size(), file, nil
}

func (f folder) stat(_ context.Context, key string) error {
	info, err := os.Stat(f.path(key))
	if err == nil && !info.Mode().IsRegular() {
		return ErrNotFound
	}
	return absent(err)
}

func (f folder) remove(_ context.Context, key string) error { return absent(os.Remove(f.path(key))) }

func (folder) close() {}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return err
}
