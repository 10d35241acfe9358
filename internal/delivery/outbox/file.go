package outbox

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"time"
)

// WriteFile delivers into a folder, for development: it makes a file there that only its owner reads and that is whole as
// soon as it is there, and returns its path. Names sort by time.
func WriteFile(dir, extension, content string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	r := make([]byte, 4)
	rand.Read(r)
	path := filepath.Join(dir, time.Now().UTC().Format("20060102T150405.000000000")+"-"+hex.EncodeToString(r)+extension)
	if err := os.WriteFile(path+".tmp", []byte(content), 0o600); err != nil {
		return "", err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		os.Remove(path + ".tmp")
		return "", err
	}
	return path, nil
}
